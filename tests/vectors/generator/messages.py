"""Section 1 of crates/mosaik-proto/FORMAT.md: frames and messages."""

from . import events, tries
from .events import MS, Author, absent, present, stamp
from .keys import FINGERPRINT, MEMBERSHIP
from .primitives import (
    Reader,
    Refused,
    derive,
    deterministic,
    keyed,
    option,
    refusal,
    seq,
    sized,
    text,
    varint,
)
from .zstd import checksum, compress, decompress

FRAME_MAX = 1 << 20
FRAME_MIN = 300 * 1024
RUN_MAX = 288 * 1024
PIECE_MAX = 17 * 1024
SLICE_MAX = 1024
APP = "mosaik-node/sync"
# `long_run` as libzstd 1.5.7 compresses it at level 3, without and with a checksum.
OF_LIBZSTD = [
    (
        "28b52ffd60ab0425050054090188151a46f385e66aa56cf1bdcf48f2d93ed6d909336775a02c269b9e78548998010001"
        "1074656c656d657472792e73616d706c650c80e0868ab1d00100697468652073616d6520627974657320616761696e20"
        "04129e7c1662ff6e57aa44c6d5c20d486039b01de8cced512f5d89e9fc56fb55c933705ea5cac9a516b3869f1a56203b"
        "6d2a090f133478c554a2ae7d946394d8050300a0bce117113827b8063c01"
    ),
    (
        "28b52ffd64ab0425050054090188151a46f385e66aa56cf1bdcf48f2d93ed6d909336775a02c269b9e78548998010001"
        "1074656c656d657472792e73616d706c650c80e0868ab1d00100697468652073616d6520627974657320616761696e20"
        "04129e7c1662ff6e57aa44c6d5c20d486039b01de8cced512f5d89e9fc56fb55c933705ea5cac9a516b3869f1a56203b"
        "6d2a090f133478c554a2ae7d946394d8050300a0bce117113827b8063c018ca73d35"
    ),
]


def frame(kind, body):
    return (len(body) + 1).to_bytes(4, "big") + bytes([kind]) + body


def tip(pair):
    return varint(pair[0]) + pair[1]


def option_tip(pair):
    return option(None if pair is None else tip(pair))


class Message:
    """A type, its fields as shown in the vectors, and the body made of them."""

    def __init__(self, kind, called, body, **fields):
        self.kind, self.called, self.body, self.fields = kind, called, body, fields

    def frame(self):
        return frame(self.kind, self.body)

    def show(self):
        return {"type": self.kind, "message": self.called} | self.fields | {"frame": self.frame().hex()}


def show_tip(pair):
    return None if pair is None else {"seq": pair[0], "id": pair[1].hex()}


def greet(proof, app=APP, lowest=1, highest=1):
    body = text(app) + varint(lowest) + varint(highest) + proof
    fields = {"app": app, "lowest": lowest, "highest": highest, "proof": proof.hex()}
    return Message(1, "Greet", body, **fields)


def hello(software, capabilities, largest, credit, clock, name, boot, top, authors, count, declines, tags=()):
    body = text(software) + varint(capabilities) + varint(largest) + varint(credit) + varint(clock)
    body += text(name) + varint(boot) + top + varint(authors) + varint(count) + declines
    body += seq([varint(tag) + sized(data) for tag, data in tags])
    fields = {"software": software, "capabilities": capabilities, "frame_max": largest}
    fields |= {"credit": credit, "clock_ms": clock, "name": name, "boot": boot}
    fields |= {"top": top.hex(), "authors": authors, "events": count, "declines": declines.hex()}
    return Message(2, "Hello", body, **fields)


def root(top):
    return Message(3, "Root", top, top=top.hex())


def tree(digits, children):
    shown = [child.hex() for child in children]
    return Message(4, "Tree", tries.prefix(digits) + b"".join(children), prefix=digits, children=shown)


def leaf(digits, shorts):
    shown = [short.hex() for short in shorts]
    return Message(5, "Leaf", tries.prefix(digits) + seq(shorts), prefix=digits, shorts=shown)


def items(digits, shown, lacked=(), more=False):
    body = tries.prefix(digits) + seq([tries.item(*one) for one in shown]) + seq(list(lacked)) + bytes([more])
    fields = {"prefix": digits, "lacked": [short.hex() for short in lacked], "more": more}
    fields["items"] = [
        {"author": author.hex(), "tips": [show_tip(pair) for pair in tips]} for author, tips in shown
    ]
    return Message(6, "Items", body, **fields)


def done(digits):
    return Message(7, "Done", tries.prefix(digits), prefix=digits)


def want(author, wanted, locator, credit):
    body = author + option_tip(wanted) + seq([tip(pair) for pair in locator]) + varint(credit)
    fields = {"author": author.hex(), "tip": show_tip(wanted), "credit": credit}
    return Message(8, "Want", body, locator=[show_tip(pair) for pair in locator], **fields)


def run(data):
    return Message(9, "Run", b"\0" + sized(data), run=data.hex())


def have(author, head):
    return Message(10, "Have", author + tip(head), author=author.hex(), tip=show_tip(head))


def payloads(ask=(), give=(), lack=()):
    body = seq([author + tip(pair) for author, pair in ask])
    body += seq([event + sized(data) for event, data in give]) + seq(list(lack))
    fields = {
        "ask": [{"author": author.hex(), "tip": show_tip(pair)} for author, pair in ask],
        "give": [{"id": event.hex(), "payload": data.hex()} for event, data in give],
        "lack": [event.hex() for event in lack],
    }
    return Message(11, "Payloads", body, **fields)


def decline(author, reason):
    return Message(12, "Decline", author + bytes([reason]), author=author.hex(), reason=reason)


def lack(author, wanted, reason):
    body = author + option_tip(wanted) + bytes([reason])
    return Message(13, "Lack", body, author=author.hex(), tip=show_tip(wanted), reason=reason)


def bye(code, string):
    return Message(14, "Bye", bytes([code]) + text(string), code=code, text=string)


def again(token):
    return Message(128, "Again", varint(token), token=token)


def twin(boot):
    return Message(129, "Twin", varint(boot), boot=boot)


def ping(token):
    return Message(130, "Ping", varint(token), token=token)


def pong(token):
    return Message(131, "Pong", varint(token), token=token)


def probe(name, origin, sent, hops):
    body = name + origin + varint(sent) + bytes([hops])
    return Message(132, "Probe", body, id=name.hex(), origin=origin.hex(), sent_ms=sent, hops=hops)


def probed(name, node, called, received, hops, last, way):
    body = name + node + text(called) + varint(received) + bytes([hops]) + last + bytes([way])
    fields = {"id": name.hex(), "node": node.hex(), "name": called, "received_ms": received}
    return Message(133, "Probed", body, **fields, hops=hops, **{"from": last.hex()}, way=way)


def file_want(token, blob, group, begin):
    body = varint(token) + blob + varint(group) + varint(begin)
    fields = {"token": token, "blob": blob.hex(), "group": group, "from": begin}
    return Message(134, "FileWant", body, **fields)


def file_part(token, total, data):
    body = varint(token) + varint(total) + sized(data)
    return Message(135, "FilePart", body, token=token, total=total, bytes=data.hex())


def read_file_part(reader):
    token, total, data = reader.varint(), reader.varint(32), reader.sized(SLICE_MAX)
    if total > PIECE_MAX:
        raise Refused(f"a piece of {total} bytes")
    if len(data) > total or (total > 0 and not data):
        raise Refused("a slice that is longer than its piece, or empty")
    return file_part(token, total, data)


def read_tip(reader, least=1):
    pair = reader.varint(), reader.raw(32)
    if pair[0] < least:
        raise Refused("a tip of seq 0")
    return pair


def read_option_tip(reader):
    return read_tip(reader) if reader.bool() else None


def read_shorts(reader):
    return [reader.raw(8) for _ in range(reader.count(32))]


def read_items(reader):
    digits = tries.read_prefix(reader)
    found = [tries.read_item(reader) for _ in range(reader.count(1024))]
    if any(not author.hex().startswith(digits) for author, _ in found):
        raise Refused("an item outside the prefix")
    if any(one[0] >= other[0] for one, other in zip(found, found[1:])):
        raise Refused("items are not ascending")
    return items(digits, found, read_shorts(reader), reader.bool())


def read_want(reader):
    author, wanted = reader.raw(32), read_option_tip(reader)
    locator = [read_tip(reader, 0) for _ in range(reader.count(64))]
    if any(one[0] < other[0] for one, other in zip(locator, locator[1:])):
        raise Refused("a locator that rises")
    if any(number == 0 and event != bytes(32) for number, event in locator):
        raise Refused("seq 0 with an id")
    return want(author, wanted, locator, reader.varint())


def read_run(reader):
    compression, data = reader.u8(), reader.sized()
    if compression > 1:
        raise Refused("an unknown compression")
    if compression == 1:
        data = decompress(data, RUN_MAX)
    if len(data) > RUN_MAX:
        raise Refused("a run over 288 KiB")
    events.decode(data)
    return run(data)


def read_hello(reader):
    fields = [reader.text(64), reader.varint(), reader.varint(32), reader.varint(), reader.varint()]
    fields += [reader.text(64), reader.varint(), reader.raw(16), reader.varint(), reader.varint()]
    fields.append(reader.raw(16))
    tags = [(reader.varint(), reader.sized()) for _ in range(reader.count())]
    if fields[2] < FRAME_MIN:
        raise Refused("a largest frame that the longest run does not fit")
    return hello(*fields, tags)


def read_payloads(reader):
    ask = [(reader.raw(32), read_tip(reader)) for _ in range(reader.count())]
    give = [(reader.raw(32), reader.sized(65536)) for _ in range(reader.count())]
    return payloads(ask, give, [reader.raw(32) for _ in range(reader.count())])


def read_greet(reader):
    app, lowest, highest = reader.text(64), reader.varint(), reader.varint()
    return greet(reader.raw(32), app, lowest, highest)


READ = {
    1: read_greet,
    2: read_hello,
    3: lambda r: root(r.raw(16)),
    4: lambda r: tree(tries.read_prefix(r, 63), [r.raw(8) for _ in range(16)]),
    5: lambda r: leaf(tries.read_prefix(r), read_shorts(r)),
    6: read_items,
    7: lambda r: done(tries.read_prefix(r)),
    8: read_want,
    9: read_run,
    10: lambda r: have(r.raw(32), read_tip(r)),
    11: read_payloads,
    12: lambda r: decline(r.raw(32), r.u8()),
    13: lambda r: lack(r.raw(32), read_option_tip(r), r.u8()),
    14: lambda r: bye(r.u8(), r.text(256)),
    128: lambda r: again(r.varint()),
    129: lambda r: twin(r.varint()),
    130: lambda r: ping(r.varint()),
    131: lambda r: pong(r.varint()),
    132: lambda r: probe(r.raw(16), r.raw(32), r.varint(), r.u8()),
    133: lambda r: probed(r.raw(16), r.raw(32), r.text(64), r.varint(), r.u8(), r.raw(32), r.u8()),
    134: lambda r: file_want(r.varint(), r.raw(32), r.varint(32), r.varint(32)),
    135: read_file_part,
}


def decode(data):
    """The message of a whole frame; nothing if it is to be skipped."""
    if len(data) < 4:
        raise Refused("the bytes end inside the length")
    length = int.from_bytes(data[:4], "big")
    if not 1 <= length <= FRAME_MAX:
        raise Refused(f"a length of {length}")
    if len(data) != 4 + length:
        raise Refused("the bytes end inside the frame")
    if data[4] not in READ:
        if data[4] < 128:
            raise Refused(f"an unknown type {data[4]}")
        return None
    return READ[data[4]](Reader(data[5:]))


def _messages():
    author, other = Author("one").key, deterministic("an author")
    event, before = deterministic("a tip"), deterministic("the event before")
    shorts = [deterministic(f"short {i}", 8) for i in range(32)]
    top = deterministic("a top", 16)
    binding = deterministic("a binding")
    proof = keyed(MEMBERSHIP, binding + deterministic("a node") + deterministic("another node"))
    yield greet(proof)
    yield greet(bytes(32), "x" * 64, 0, 2**64 - 1)
    software = "mosaik-node 0.1.0"
    yield hello(software, 1, FRAME_MAX, 16 << 20, MS, "kitchen", 1, top, 3, 1000, bytes(16))
    ends = [2**64 - 1] * 2
    yield hello("", *ends[:1], FRAME_MIN, 0, 0, "ü" * 32, ends[0], bytes(16), *ends, top)
    yield root(top)
    yield root(bytes(16))
    yield tree("", shorts[:16])
    yield tree("5c7", shorts[16:])
    yield tree(author.hex()[:63], shorts[:16])
    yield leaf("", [])
    yield leaf("5", shorts)
    yield leaf(author.hex(), shorts[:1])
    yield items("", [])
    branches = [(7, before), (9, event)]
    pair = sorted([(author, branches), (other, [(2**64 - 1, event)])])
    yield items("", pair, shorts[:2])
    yield items(other.hex()[:1], [(other, [(300, event)])], (), True)
    yield items(other.hex(), [(other, tries.decode_item(tries.item(other, tries._tips("x", 64)))[1])])
    yield items("5c7", [], shorts)
    yield done("")
    yield done("5c7")
    yield done("5c70")
    yield done(author.hex())
    yield want(author, None, [(0, bytes(32))], 0)
    yield want(author, (300, event), [(41, before)], 256 << 10)
    yield want(author, (300, event), [(41, event), (41, before), (3, before), (0, bytes(32))], 2**64 - 1)
    yield want(author, (1, event), [], 1)
    yield want(author, (1, event), [(100 - i // 2, deterministic(f"{i}")) for i in range(64)], 1)
    entries = [(stamp(MS), "x", present(b"bytes")), (stamp(MS, 1), "y", absent(1000))]
    yield run(events.run(Author("one"), entries)[:])
    yield have(author, (1, event))
    yield have(author, (2**64 - 1, event))
    yield payloads()
    yield payloads([(author, (1, event)), (other, (300, before))], [(event, b"bytes"), (before, b"")], [event])
    for reason in (1, 2, 3, 4, 0, 5, 255):
        yield decline(author, reason)
    yield lack(author, None, 1)
    yield lack(author, (300, event), 2)
    for reason in (0, 3, 255):
        yield lack(author, None, reason)
    for code in range(9):
        yield bye(code, "")
    yield bye(255, "ü" * 128)
    yield again(0)
    yield again(2**64 - 1)
    yield twin(MS)
    yield ping(300)
    yield pong(300)
    name, node, near = deterministic("a probe", 16), deterministic("a node"), deterministic("another node")
    yield probe(name, node, MS, 1)
    yield probe(name, node, 2**64 - 1, 255)
    yield probed(name, node, "kitchen", MS + 40, 2, near, 2)
    for way in (0, 1, 3, 255):
        yield probed(name, near, "", 0, 1, node, way)
    blob = deterministic("a file")
    yield file_want(1, blob, 2, 0)
    yield file_want(2**64 - 1, blob, 2**32 - 1, 2**32 - 1)
    yield file_part(1, 7_432, deterministic("a slice", 32) * 32)
    yield file_part(300, PIECE_MAX, b"x")
    yield file_part(300, 1, b"x")
    yield file_part(2**64 - 1, 0, b"")


def long_run():
    """A run that is worth compressing."""
    entries = [(stamp(MS + i), "telemetry.sample", present(b"the same bytes again " * 5)) for i in range(12)]
    return events.run(Author("one"), entries)


def _same():
    """Frames that say the same as another: fields behind those that are known, compression."""
    for message in {message.kind: message for message in _messages()}.values():
        yield frame(message.kind, message.body + b"\x07later"), message.frame()
    known = hello("s", 0, FRAME_MIN, 1, 2, "n", 3, bytes(16), 4, 5, bytes(16))
    tags = [(0, b""), (2**64 - 1, bytes(200)), (0, b"again")]
    tagged = hello("s", 0, FRAME_MIN, 1, 2, "n", 3, bytes(16), 4, 5, bytes(16), tags)
    yield tagged.frame(), known.frame()
    data = long_run()
    yield frame(9, b"\1" + sized(compress(data))), run(data).frame()
    yield frame(9, b"\1" + sized(compress(data, with_size=False))), run(data).frame()
    yield frame(9, b"\1" + sized(compress(data, check=True))), run(data).frame()
    yield frame(9, b"\1" + sized(compress(data, dictionary=0))), run(data).frame()


def _of_libzstd():
    """What libzstd made of the long run: blocks that are not read here, the second with a checksum."""
    for made in OF_LIBZSTD:
        yield frame(9, b"\1" + sized(bytes.fromhex(made))), run(long_run()).frame()
    assert bytes.fromhex(OF_LIBZSTD[1])[-4:] == checksum(long_run())


def _long():
    """Frames with one byte repeated, at a limit and beyond it."""
    event = deterministic("a tip")
    for length in (65536, 65537):
        message = payloads(give=[(event, b"a" * length)])
        data = message.frame()
        at = data.index(b"aaaa")
        yield data[:at], length, data[at + length :]


def _bad():
    author, event, top = Author("one").key, deterministic("a tip"), deterministic("a top", 16)
    for message in {message.kind: message for message in _messages()}.values():
        yield frame(message.kind, message.body[:-1])
    for kind in [*range(1, 15), 128, 129]:
        yield frame(kind, b"")
    for kind in (0, 15, 127):
        yield frame(kind, b"body")
    proof = bytes(32)
    yield greet(proof, "x" * 65).frame()
    yield frame(1, b"\1\xff" + b"\1\1" + proof)
    yield frame(1, text(APP) + b"\x81\0\1" + proof)
    good = ["s", 0, FRAME_MIN, 1, 2, "n", 3, bytes(16), 4, 5, bytes(16)]
    yield hello(*["s" * 65], *good[1:]).frame()
    yield hello(*good[:5], "n" * 65, *good[6:]).frame()
    yield hello(*good[:2], FRAME_MIN - 1, *good[3:]).frame()
    yield hello(*good[:2], 2**32, *good[3:]).frame()
    yield frame(2, hello(*good).body[:-1] + b"\1")
    yield frame(2, hello(*good).body[:-1] + b"\1\0\5abc")
    shorts = [deterministic(f"short {i}", 8) for i in range(33)]
    yield tree(author.hex(), shorts[:16]).frame()
    yield frame(4, b"\1\x51" + b"".join(shorts[:16]))
    yield leaf("5", shorts).frame()
    yield frame(5, b"\x41" + bytes(33) + b"\0")
    one = (author, [(1, event)])
    low = (bytes(32), [(1, event)])
    yield items("", [one, low]).frame()
    yield items("", [one, one]).frame()
    yield items("0" if author.hex()[0] != "0" else "1", [one]).frame()
    yield items("", [(author, [])]).frame()
    yield items("", [(author, [(0, bytes(32))])]).frame()
    yield items("", [(author, [(2, event), (1, event)])]).frame()
    yield items("", [(author, tries._tips("x", 65))]).frame()
    yield items("", [one], shorts).frame()
    many = [(i.to_bytes(32, "big"), [(1, event)]) for i in range(1025)]
    yield frame(6, tries.prefix("") + varint(1025) + b"".join(tries.item(*i) for i in many[:20]) + b"\0\0")
    yield frame(6, items("", [one]).body[:-1] + b"\2")
    yield frame(7, b"\3\xab\xc1")
    yield frame(7, b"\x41" + bytes(33))
    yield want(author, (0, bytes(32)), [], 1).frame()
    yield want(author, None, [(1, event), (2, event)], 1).frame()
    yield want(author, None, [(0, event)], 1).frame()
    yield want(author, None, [(1, event)] * 65, 1).frame()
    yield frame(8, author + b"\2")
    yield have(author, (0, bytes(32))).frame()
    yield frame(10, author + b"\x81\0" + event)
    yield payloads([(author, (0, bytes(32)))]).frame()
    yield frame(11, b"\0" + b"\1" + event + varint(65537) + b"x" * 100 + b"\0")
    yield lack(author, (0, bytes(32)), 1).frame()
    yield frame(13, author + b"\2" + b"\1")
    yield bye(0, "x" * 257).frame()
    yield frame(14, b"\0\1\xff")
    yield frame(128, b"\x80\0")
    node = deterministic("a node")
    yield probed(bytes(16), node, "n" * 65, MS, 1, node, 0).frame()
    yield frame(133, probed(bytes(16), node, "n", MS, 1, node, 0).body.replace(b"\x01n", b"\x01\xff", 1))
    blob = deterministic("a file")
    yield frame(134, varint(1) + blob + varint(2**32) + varint(0))
    yield frame(134, varint(1) + blob + varint(0))
    yield file_part(1, PIECE_MAX + 1, b"x").frame()
    yield file_part(1, 2_000, bytes(SLICE_MAX + 1)).frame()
    yield file_part(1, 1, b"xy").frame()
    yield file_part(1, 1, b"").frame()
    yield file_part(1, 0, b"x").frame()
    data = long_run()
    small = compress(data)
    yield frame(9, b"\2" + sized(data))
    yield frame(9, b"\0" + sized(data[:-1] + bytes([data[-1] ^ 1])))
    yield frame(9, b"\0" + sized(data + b"\0"))
    yield frame(9, b"\1" + sized(data))
    yield frame(9, b"\0" + sized(small))
    yield frame(9, b"\1" + sized(b""))
    yield frame(9, b"\1" + sized(small[:-1]))
    yield frame(9, b"\1" + sized(small + b"\0"))
    yield frame(9, b"\1" + sized(small + small))
    yield frame(9, b"\1" + sized(small + compress(b"")))
    yield frame(9, b"\1" + sized(compress(data[:-1])))
    yield frame(9, b"\1" + sized(compress(data, dictionary=7)))
    checked = compress(data, check=True)
    yield frame(9, b"\1" + sized(checked[:-1] + bytes([checked[-1] ^ 1])))
    yield frame(9, b"\1" + sized(checked[:-4]))
    yield frame(9, b"\1" + sized(bytes.fromhex("502a4d18") + sized(data)[:1] + bytes(3) + data))
    yield frame(9, b"\1" + sized(compress(bytes(RUN_MAX + 1))))
    yield frame(9, b"\1" + sized(compress(bytes(RUN_MAX + 1), with_size=False)))
    yield frame(3, top[:15])


def vectors():
    messages, same = [], []
    for message in _messages():
        assert decode(message.frame()).show() == message.show()
        messages.append(message.show())
    for grown, known in _same():
        assert decode(grown).called == decode(known).called
        same.append({"frame": grown.hex(), "as": known.hex()})
    same += [{"frame": made.hex(), "as": known.hex()} for made, known in _of_libzstd()]
    long = []
    for start, times, end in _long():
        try:
            taken = decode(start + b"a" * times + end) is not None
        except Refused:
            taken = False
        long.append({"start": start.hex(), "byte": "61", "times": times, "end": end.hex(), "taken": taken})
    assert [one["taken"] for one in long] == [True, False]
    skipped = [frame(140, b""), frame(200, b"anything"), frame(255, b"\xff" * 100)]
    assert all(decode(data) is None for data in skipped)
    lengths = [(0, False), (1, True), (FRAME_MAX, True), (FRAME_MAX + 1, False), (2**32 - 1, False)]
    return {
        "fingerprint": FINGERPRINT.hex(),
        "messages": messages,
        "same": same,
        "long": long,
        "skipped": [{"type": data[4], "frame": data.hex()} for data in skipped],
        "lengths": [
            {"header": length.to_bytes(4, "big").hex(), "length": length, "taken": taken}
            for length, taken in lengths
        ],
        "refused": [{"why": refusal(decode, data), "frame": data.hex()} for data in _bad()],
    }


def version(ours, theirs):
    """Section 2: the version of a session, if there is one in common."""
    found = min(ours[1], theirs[1])
    return found if found >= max(ours[0], theirs[0]) else None


def session_vectors():
    """Sections 1 to 3: versions, proofs, short hashes, digests of declines."""
    most = 2**64 - 1
    ranges = [
        ((1, 1), (1, 1)),
        ((1, 1), (1, 3)),
        ((1, 1), (0, 1)),
        ((1, 1), (0, most)),
        ((1, 1), (2, 3)),
        ((1, 1), (0, 0)),
        ((1, 3), (2, 5)),
        ((2, 3), (1, 2)),
        ((4, 5), (1, 3)),
        ((1, 3), (3, 1)),
    ]
    ranges += [(theirs, ours) for ours, theirs in ranges if ours != theirs]
    binding, dialer, listener = (deterministic(name) for name in ("a binding", "a node", "another node"))
    radio = [deterministic(name, 16) for name in ("a link", "an identity", "another identity")]
    proofs = [(binding, dialer, listener), (binding, listener, dialer), tuple(radio)]
    key = keyed(MEMBERSHIP, binding + dialer + listener)
    items_ = [tries.item(deterministic("an author"), [(7, deterministic("a tip"))])]
    of = [bytes(16), deterministic("a child", 16), *items_]
    authors = sorted(deterministic(f"declined {i}") for i in range(3))
    return {
        "versions": [
            {"ours": list(ours), "theirs": list(theirs), "version": version(ours, theirs)}
            for ours, theirs in ranges
        ],
        "membership": MEMBERSHIP.hex(),
        "proofs": [
            {
                "binding": bound.hex(),
                "sender": sender.hex(),
                "receiver": receiver.hex(),
                "proof": keyed(MEMBERSHIP, bound + sender + receiver).hex(),
            }
            for bound, sender, receiver in proofs
        ],
        "dialers_proof": key.hex(),
        "short_hashes": [{"of": data.hex(), "short": keyed(key, data)[:8].hex()} for data in of],
        "fingerprint": FINGERPRINT.hex(),
        "declines": [
            {"authors": [], "digest": bytes(16).hex()},
            {
                "authors": [author.hex() for author in authors],
                "digest": derive("declines", FINGERPRINT + b"".join(authors))[:16].hex(),
            },
        ],
    }
