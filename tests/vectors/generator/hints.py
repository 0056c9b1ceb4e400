"""Section 4 of crates/mosaik-proto/FORMAT.md: hints over gossip."""

import re
from ipaddress import IPv4Address, IPv6Address

from . import ed25519, events
from .events import MS, Author, present, stamp
from .keys import FINGERPRINT
from .messages import read_tip, show_tip, tip
from .primitives import Reader, Refused, deterministic, refusal, seq, sized, text, varint

CONTEXT = b"mosaik-node presence v1"


def hint(nonce, tag, body, version=1):
    return bytes([version]) + varint(nonce) + bytes([tag]) + body


def show_ip6(packed, scope=0):
    if packed[:12] == bytes(10) + b"\xff\xff":
        shown = "::ffff:" + str(IPv4Address(packed[12:]))
    else:
        shown = str(IPv6Address(packed))
    return shown + (f"%{scope}" if scope else "")


def check_address(string):
    match = re.fullmatch(r"(?:(\d+\.\d+\.\d+\.\d+)|\[([^\]%]+)(?:%(\d+))?\]):(\d+)", string, re.ASCII)
    if not match:
        raise Refused("not an address")
    four, six, scope, port = match.groups()
    try:
        shown = str(IPv4Address(four)) if four else show_ip6(IPv6Address(six).packed, int(scope or 0))
    except ValueError as error:
        raise Refused("not an address") from error
    shown = f"{shown}:{int(port)}" if four else f"[{shown}]:{int(port)}"
    if int(port) > 65535 or int(scope or 0) >= 1 << 32 or shown != string:
        raise Refused("an address in another form than its own")


def statement(node, boot, said, leaving, name, addresses, relays):
    body = node + varint(boot) + varint(said) + bytes([leaving]) + text(name)
    return body + seq([text(one) for one in addresses]) + seq([text(one) for one in relays])


def presence(seed, *fields, fingerprint=FINGERPRINT, context=CONTEXT):
    said = statement(ed25519.public(seed), *fields)
    return said + ed25519.sign(seed, context + fingerprint + said)


def decode(data):
    if len(data) > 4000:
        raise Refused("over 4000 bytes")
    reader = Reader(data)
    if reader.u8() != 1:
        raise Refused("another version")
    reader.varint()
    tag = reader.u8()
    if tag == 1:
        return "head", reader.raw(32), read_tip(reader)
    if tag == 2:
        return "run", events.decode(reader.sized(2048))
    if tag != 3:
        raise Refused("an unknown tag")
    node, boot, said, leaving = reader.raw(32), reader.varint(), reader.varint(), reader.bool()
    name = reader.text(64)
    addresses = [reader.text(64) for _ in range(reader.count(8))]
    for address in addresses:
        check_address(address)
    relays = [reader.text(200) for _ in range(reader.count(2))]
    signature = reader.raw(64)
    signed = CONTEXT + FINGERPRINT + statement(node, boot, said, leaving, name, addresses, relays)
    why = ed25519.check(node, signed, signature)
    if why:
        raise Refused(f"signature: {why}")
    return "presence", boot, said, leaving, name, addresses, relays


def vectors():
    seed, author, event = deterministic("a node's seed"), Author("one"), deterministic("a tip")
    six = ["[2001:db8::7]:4242", "[::]:0", "[::ffff:192.0.2.1]:1", "[fe80::1%3]:65535", "[1:0:0:2::3]:4", "[1::2:0:0:3]:5", "[::1.2.3.4]:6"]
    six[4], six[5], six[6] = "[1:0:0:2::]:4", "[1:0:2:3:4:5:6:7]:5", "[::102:304]:6"
    hints = []
    for nonce, head in [(0, (1, event)), (2**64 - 1, (2**64 - 1, event))]:
        data = hint(nonce, 1, author.key + tip(head))
        hints.append({"kind": "head", "nonce": nonce, "author": author.key.hex(), "tip": show_tip(head), "hint": data.hex()})
    run = events.run(author, [(stamp(MS), "x", present(b"bytes"))])
    room = 2048 - len(events.run(author, [(stamp(MS), "x", present(bytes(1000)))])) + 1000
    longest = events.run(author, [(stamp(MS), "x", present(bytes(room)))])
    assert len(longest) == 2048
    for data in (run, longest):
        hints.append({"kind": "run", "nonce": 300, "run": data.hex(), "hint": hint(300, 2, sized(data)).hex()})
    relays = ["https://relay.example.org./", "r" * 200]
    for fields in [
        (1, MS, False, "kitchen", ["192.0.2.7:4242", six[0]], relays[:1]),
        (2**64 - 1, 0, True, "", [], []),
        (MS, MS, False, "ü" * 32, ["0.0.0.0:0", *six], relays),
    ]:
        boot, said, leaving, name, addresses, urls = fields
        body = presence(seed, *fields)
        shown = {"kind": "presence", "nonce": 7, "seed": seed.hex(), "node": ed25519.public(seed).hex()}
        shown |= {"boot": boot, "said_ms": said, "leaving": leaving, "name": name}
        shown |= {"addresses": addresses, "relays": urls, "signature": body[-64:].hex()}
        hints.append(shown | {"hint": hint(7, 3, body).hex()})
    for shown in hints:
        decode(bytes.fromhex(shown["hint"]))
    grown = [{"hint": shown["hint"] + "00ff", "as": shown["hint"]} for shown in hints[1::2]]
    for shown in grown:
        decode(bytes.fromhex(shown["hint"]))
    return {
        "fingerprint": FINGERPRINT.hex(),
        "hints": hints,
        "same": grown,
        "refused": [
            {"why": refusal(decode, data), "hint": data.hex()} for data in _bad(seed, author, event, run, room)
        ],
    }


def _bad(seed, author, event, run, room):
    head = author.key + tip((1, event))
    yield b""
    yield b"\1"
    yield hint(0, 1, head, version=2)
    yield hint(0, 1, head, version=0)
    yield hint(0, 0, head)
    yield hint(0, 4, head)
    yield b"\1\x80\0\1" + head
    yield hint(0, 1, head[:-1])
    yield hint(0, 1, author.key + tip((0, bytes(32))))
    yield hint(0, 1, head) + bytes(4000 - 36)
    yield hint(0, 2, sized(run[:-1]))
    yield hint(0, 2, sized(run[:-1] + bytes([run[-1] ^ 1])))
    yield hint(0, 2, sized(run + b"\0"))
    yield hint(0, 2, sized(events.run(author, [(stamp(MS), "x", present(bytes(room + 1)))])))
    good = [1, MS, False, "kitchen", ["192.0.2.7:4242"], []]
    body = presence(seed, *good)
    yield hint(0, 3, body[:-1])
    yield hint(0, 3, body[:32] + b"\2" + body[33:])
    yield hint(0, 3, body[:-64] + bytes(64))
    yield hint(0, 3, presence(seed, *good, fingerprint=deterministic("another fingerprint")))
    yield hint(0, 3, presence(seed, *good, context=b"mosaik-node head v1"))
    yield hint(0, 3, presence(seed, *good[:2], 2, *good[3:]))
    yield hint(0, 3, presence(seed, *good[:3], "n" * 65, *good[4:]))
    yield hint(0, 3, presence(seed, *good[:4], [f"192.0.2.7:{i}" for i in range(9)], []))
    yield hint(0, 3, presence(seed, *good[:4], [], ["a", "b", "c"]))
    yield hint(0, 3, presence(seed, *good[:4], [], ["r" * 201]))
    for address in [
        "",
        "192.0.2.7",
        "192.0.2.7:65536",
        "192.0.2.7:080",
        "192.0.2.07:80",
        "[192.0.2.7]:80",
        "relay.example.org:80",
        "2001:db8::7:80",
        "[2001:DB8::7]:80",
        "[2001:0db8::7]:80",
        "[2001:db8:0::7]:80",
        "[1::2:3:4:5:6:7]:80",
        "[::ffff:c000:201]:80",
        "[::1.2.3.4]:80",
        "[fe80::1%0]:80",
        "[fe80::1%eth0]:80",
        " 192.0.2.7:80",
    ]:
        yield hint(0, 3, presence(seed, *good[:4], [address], []))
