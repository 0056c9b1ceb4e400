"""Sections 3 and 4 of crates/mosaik-core/FORMAT.md: events, signed heads, runs."""

import re

from . import ed25519
from .keys import FINGERPRINT
from .primitives import (
    Reader,
    Refused,
    derive,
    deterministic,
    hash32,
    refusal,
    seq,
    text,
    varint,
    zigzag,
)

NONE = bytes(32)
KIND = re.compile("[a-z0-9._-]{1,64}")
HEAD = b"mosaik-node head v1"


class Payload:
    """Bytes, or what is known of them."""

    def __init__(self, data=None, length=None, digest=None):
        self.data = data
        self.length = len(data) if digest is None else length
        self.digest = hash32(data) if digest is None else digest

    def show(self):
        if self.data is not None:
            return {"payload": self.data.hex()}
        return {"absent": {"len": self.length, "hash": self.digest.hex()}}


def present(data):
    return Payload(data)


def absent(length, digest=None):
    return Payload(None, length, digest or deterministic(f"payload of {length}"))


def stamp(ms, counter=0):
    return ms << 16 | counter


class Event:
    def __init__(self, author, number, prev, hlc, kind, payload, fingerprint=FINGERPRINT):
        self.author, self.seq, self.prev = author, number, prev
        self.hlc, self.kind, self.payload = hlc, kind, payload
        self.header = author + varint(number) + prev + varint(hlc) + text(kind)
        self.header += varint(payload.length) + payload.digest
        self.id = derive("event", fingerprint + self.header)

    def order(self):
        return self.hlc, self.author, self.seq, self.id

    def show(self):
        return {
            "id": self.id.hex(),
            "author": self.author.hex(),
            "seq": self.seq,
            "prev": self.prev.hex(),
            "ms": self.hlc >> 16,
            "counter": self.hlc & 0xFFFF,
            "kind": self.kind,
        } | self.payload.show()


class Author:
    """A key with a feed that grows."""

    def __init__(self, label):
        self.seed = deterministic(f"author {label}")
        self.key = ed25519.public(self.seed)

    def sign(self, event_id):
        return ed25519.sign(self.seed, HEAD + event_id)

    def chain(self, entries, after=None):
        """Events of (hlc, kind, payload), after an event or (seq, id)."""
        number, prev = (0, NONE) if after is None else after
        events = []
        for hlc, kind, payload in entries:
            number += 1
            events.append(Event(self.key, number, prev, hlc, kind, payload))
            prev = events[-1].id
        return events


def encode(author, start, base, entries, signature, kinds=None):
    """The bytes of a run; `entries` are (hlc, kind, payload)."""
    if kinds is None:
        kinds = list(dict.fromkeys(kind for _, kind, _ in entries))
    out = b"\1" + author + varint(start) + base + seq([text(kind) for kind in kinds])
    out += varint(len(entries))
    last = 0
    for hlc, kind, payload in entries:
        counter = hlc & 0xFFFF
        out += varint(zigzag((hlc >> 16) - last) << 1 | (counter > 0))
        out += varint(counter) if counter else b""
        last = hlc >> 16
        out += varint(kinds.index(kind) << 1 | (payload.data is None))
        out += varint(payload.length)
        out += payload.digest if payload.data is None else payload.data
    return out + signature


def run(author, entries, after=None, **options):
    """Bytes and events of a signed run."""
    start, base = (1, NONE) if after is None else (after[0] + 1, after[1])
    signature = author.sign(author.chain(entries, after)[-1].id if entries else NONE)
    return encode(author.key, start, base, entries, signature, **options)


def decode(data, fingerprint=FINGERPRINT):
    """The verified events of a run."""
    reader = Reader(data)
    if reader.u8() != 1:
        raise Refused("another version")
    author, start, base = reader.raw(32), reader.varint(), reader.raw(32)
    kinds = []
    for _ in range(reader.count(1024)):
        kind = reader.text(64)
        if not KIND.fullmatch(kind):
            raise Refused("a kind has other bytes or lengths than allowed")
        if kind in kinds:
            raise Refused("a kind is listed twice")
        kinds.append(kind)
    count = reader.count(1024)
    if count == 0:
        raise Refused("no event")
    entries, last, used = [], 0, 0
    for _ in range(count):
        number = reader.varint()
        delta = number >> 1
        last += delta >> 1 if delta & 1 == 0 else -(delta >> 1) - 1
        if not 0 <= last < 1 << 48:
            raise Refused("a stamp is outside 48 bits")
        counter = reader.varint(16) if number & 1 else 0
        if number & 1 and counter == 0:
            raise Refused("a counter of 0 is written as none")
        number = reader.varint()
        index = number >> 1
        if index >= len(kinds):
            raise Refused("a kind index beyond the list")
        if index > used:
            raise Refused("kinds are not in the order of first use")
        used = max(used, index + 1)
        length = reader.count(65536)
        if number & 1 and length == 0:
            raise Refused("an absent payload of length 0")
        payload = absent(length, reader.raw(32)) if number & 1 else present(reader.raw(length))
        entries.append((stamp(last, counter), kinds[index], payload))
    signature = reader.raw(64)
    reader.end()
    if used < len(kinds):
        raise Refused("a kind is not used")
    if start == 0 or (start == 1) != (base == NONE):
        raise Refused("seq 1 and only seq 1 has a base of zeros")
    if start + count - 1 >= 1 << 64:
        raise Refused("the last seq is beyond 64 bits")
    counted = len(data) + sum(p.length - 32 for _, _, p in entries if p.data is None)
    if counted > 262144:
        raise Refused(f"counts as {counted} bytes, the limit is 262144")
    events, prev = [], base
    for number, (hlc, kind, payload) in enumerate(entries, start):
        events.append(Event(author, number, prev, hlc, kind, payload, fingerprint))
        prev = events[-1].id
    why = ed25519.check(author, HEAD + prev, signature)
    if why:
        raise Refused(f"signature: {why}")
    assert encode(author, start, base, entries, signature) == data
    return events, signature


MS = 1_790_000_000_000


def event_vectors():
    one, other = Author("one"), Author("other")
    entries = [
        (stamp(MS), "record.create", present(text("r1") + text("site"))),
        (stamp(MS, 1), "x", present(b"")),
        (stamp(MS + 5), "a-kind_of.64-bytes" + "z" * 46, present(bytes(200))),
        (stamp(MS - 1000, 65535), "note.add", absent(65536)),
    ]
    events = one.chain(entries)
    far = (2**64 - 3, deterministic("some event"))
    events += other.chain([(0, "0", absent(1)), (2**64 - 1, "-", absent(65536))], far)
    return {
        "fingerprint": FINGERPRINT.hex(),
        "events": [
            event.show()
            | {
                "payload_len": event.payload.length,
                "payload_hash": event.payload.digest.hex(),
                "header": event.header.hex(),
            }
            for event in events
        ],
        "elsewhere": {
            "fingerprint": deterministic("another fingerprint").hex(),
            "id": Event(
                one.key, 1, NONE, *entries[0], fingerprint=deterministic("another fingerprint")
            ).id.hex(),
        },
        "refused_kinds": ["", "X", "a b", "a/b", "ä", "a" * 65, "a\n", "a\u0000"],
    }


def head_vectors():
    one = Author("one")
    heads, refused = [], []
    for label in ("one", "two", "three"):
        author, event_id = Author(label), deterministic(f"event {label}")
        heads.append(
            {
                "seed": author.seed.hex(),
                "author": author.key.hex(),
                "id": event_id.hex(),
                "message": (HEAD + event_id).hex(),
                "signature": author.sign(event_id).hex(),
            }
        )
    event_id = deterministic("event one")
    good = one.sign(event_id)
    scalar = ed25519.secret(one.seed)[0]
    identity = ed25519.encode(ed25519.IDENTITY)
    # With R the identity, s = k * a holds for one's own key: only its small order betrays it.
    small_r = ed25519.challenge(identity, one.key, HEAD + event_id) * scalar % ed25519.L
    larger = int.from_bytes(good[32:], "little") + ed25519.L
    # A key with a part of order 8: with the cofactor every such signature would hold, without it only
    # those that multiply that part by a multiple of 8.
    mixed = ed25519.encode(ed25519.add(ed25519.decode(one.key), ed25519.TORSION))
    by_residue = {}
    for number in range(1, 100):
        r = ed25519.encode(ed25519.times(number, ed25519.BASE))
        k = ed25519.challenge(r, mixed, HEAD + event_id)
        signature = r + ((number + k * scalar) % ed25519.L).to_bytes(32, "little")
        by_residue.setdefault(k % 8 == 0, signature)
        if len(by_residue) == 2:
            break
    assert ed25519.check(mixed, HEAD + event_id, by_residue[True]) is None
    r = ed25519.encode(ed25519.add(ed25519.times(7, ed25519.BASE), ed25519.TORSION))
    s = (7 + ed25519.challenge(r, one.key, HEAD + event_id) * scalar) % ed25519.L
    beyond = [number.to_bytes(32, "little") for number in range(ed25519.P, 1 << 255)]
    lax = [
        (mixed, event_id, by_residue[False]),
        (one.key, event_id, r + s.to_bytes(32, "little")),
        # The identity with y = p + 1, with x = -0, and a point of large order with y beyond p.
        (beyond[1], event_id, good[:32] + bytes(32)),
        ((1 | 1 << 255).to_bytes(32, "little"), event_id, good),
        (next(key for key in beyond[2:] if ed25519.decode(key)), event_id, good),
    ]
    taken = [{"author": mixed.hex(), "id": event_id.hex(), "signature": by_residue[True].hex()}]
    for author, signed, signature in [
        (one.key, deterministic("event two"), good),
        (Author("two").key, event_id, good),
        (one.key, event_id, ed25519.sign(one.seed, event_id)),
        (one.key, event_id, ed25519.sign(one.seed, b"mosaik-node lease v1" + event_id)),
        (one.key, event_id, good[:32] + larger.to_bytes(32, "little")),
        (one.key, event_id, identity + small_r.to_bytes(32, "little")),
        (identity, event_id, identity + bytes(32)),
        (bytes(32), event_id, bytes(64)),
        (b"\2" + bytes(31), event_id, good),
        (one.key, event_id, bytes(64)),
        *lax,
    ]:
        why = ed25519.check(author, HEAD + signed, signature)
        assert why
        refused.append(
            {
                "author": author.hex(),
                "id": signed.hex(),
                "signature": signature.hex(),
                "why": why,
            }
        )
    return {"heads": heads, "taken": taken, "refused": refused}


def run_vectors():
    one = Author("one")
    base = (41, deterministic("the event before"))
    plain = [(stamp(MS), "x", present(b"bytes"))]
    mixed = [
        (stamp(MS), "field.set", present(text("r") + text("f") + b"\2" + varint(zigzag(-7)) + b"\0")),
        (stamp(MS, 1), "app.reading", absent(1000)),
        (stamp(MS, 65535), "field.set", present(b"")),
        (stamp(MS - 30_000), "note.add", present(deterministic("long", 300))),
        (stamp(0, 9), "app.reading", absent(1)),
        (stamp((1 << 48) - 1), "x", present(b"\0")),
        (stamp(0), "x", present(b"last")),
    ]
    hundred = [(stamp(MS + i * 600), "telemetry.sample", present(bytes([i]) * 100)) for i in range(100)]
    many = [(stamp(MS + i // 7, i % 7), "x", present(b"")) for i in range(1024)]
    kinds = [(stamp(MS), f"kind-{i}", present(b"")) for i in range(200)]
    shell = len(run(one, [(stamp(MS), "x", absent(65536))] * 4, base)) - 4 * 32
    full = [(stamp(MS), "x", absent(65536))] * 3
    full.append((stamp(MS), "x", absent(262144 - shell - 3 * 65536)))
    runs = []
    for name, entries, after in [
        ("the first event of a feed", plain, None),
        ("one event later in a feed", plain, base),
        ("many kinds, counters, absent payloads, falling stamps", mixed, None),
        ("a hundred events of a hundred bytes", hundred, base),
        ("as many events as there may be", many, base),
        ("two hundred kinds", kinds, base),
        ("as many bytes as there may be, payloads absent", full, base),
        ("the last seq that there is", plain, (2**64 - 2, base[1])),
    ]:
        data = run(one, entries, after)
        events, signature = decode(data)
        shown = {"name": name, "run": data.hex(), "author": one.key.hex()}
        shown |= {"signature": signature.hex(), "start_seq": events[0].seq}
        shown |= {"base": events[0].prev.hex(), "count": len(events), "head": events[-1].id.hex()}
        if len(events) <= 10:
            shown["events"] = [event.show() for event in events]
        runs.append(shown)
    return {
        "fingerprint": FINGERPRINT.hex(),
        "seed": one.seed.hex(),
        "runs": runs,
        "refused": [{"why": refusal(decode, bad), "run": bad.hex()} for bad in _bad_runs(one, base)],
    }


def _bad_runs(one, base):
    x = (stamp(MS), "x", present(b"bytes"))
    y = (stamp(MS), "y", present(b"bytes"))
    good = run(one, [x], base)
    sign = good[-64:]

    def of(entries, start=42, before=base[1], **options):
        events, prev = [], before
        for number, entry in enumerate(entries, start):
            if number < 1 << 64:
                events.append(Event(one.key, number, prev, *entry))
                prev = events[-1].id
        return encode(one.key, start, before, entries, one.sign(prev), **options)

    def middle(kinds, count, body):
        return b"\1" + one.key + varint(42) + base[1] + kinds + varint(count) + body + sign

    kind_x = seq([text("x")])
    when = varint(zigzag(MS) << 1)
    yield b""
    yield good[:-1]
    yield good + b"\0"
    yield b"\2" + good[1:]
    yield b"\0" + good[1:]
    for at in (1, 33, 34, 66, 70, 78, len(good) - 66, len(good) - 64, len(good) - 1):
        yield good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
    yield good[:33] + b"\xaa\0" + good[34:]
    yield of([x], start=0)
    yield of([x], start=1)
    yield of([x], start=42, before=NONE)
    yield of([x, x], start=2**64 - 1)
    yield b"\1" + one.key + b"\xff" * 9 + b"\2" + good[34:]
    yield of([])
    yield of([(stamp(MS), "x", present(b""))] * 1025)
    yield of([x], kinds=["x", "y"])
    yield of([x], kinds=["y", "x"])
    yield of([x, y], kinds=["y", "x"])
    yield of([x, y], kinds=["x", "y", "x"])
    yield of([(stamp(MS), "X", present(b""))])
    yield of([(stamp(MS), "", present(b""))])
    yield of([(stamp(MS), "x" * 65, present(b""))])
    yield of([(stamp(MS), "ä", present(b""))])
    yield middle(seq([b"\1\xff"]), 1, when + b"\0\0")
    yield middle(kind_x, 1, when + b"\2\0")
    yield middle(kind_x, 1, varint(zigzag(-1) << 1) + b"\0\0")
    yield middle(kind_x, 1, varint(zigzag(1 << 48) << 1) + b"\0\0")
    yield middle(kind_x, 2, when + b"\0\0" + varint(zigzag(-MS - 1) << 1) + b"\0\0")
    yield middle(kind_x, 1, varint(zigzag(MS) << 1 | 1) + b"\0" + b"\0\0")
    yield middle(kind_x, 1, varint(zigzag(MS) << 1 | 1) + varint(65536) + b"\0\0")
    yield middle(kind_x, 1, when + b"\1" + varint(65537) + bytes(32))
    yield middle(kind_x, 1, when + b"\1\0" + bytes(32))
    yield middle(kind_x, 1, when + b"\0\x85\0bytes")
    yield middle(b"\x81\0" + text("x"), 1, when + b"\0\0")
    yield middle(varint(1025) + text("x") * 1025, 1, when + b"\0\0")
    yield middle(kind_x, 2, when + b"\0\0")
    yield middle(kind_x, 1, when + b"\0\xff\xff\xff\xff\x0f")
    shell = len(of([(stamp(MS), "x", absent(65536))] * 4)) - 4 * 32
    over = [(stamp(MS), "x", absent(65536))] * 3
    yield of(over + [(stamp(MS), "x", absent(262145 - shell - 3 * 65536))])
    yield encode(one.key, 42, base[1], [x], Author("two").sign(Event(one.key, 42, base[1], *x).id))
    elsewhere = Event(one.key, 42, base[1], *x, fingerprint=deterministic("another fingerprint"))
    yield encode(one.key, 42, base[1], [x], one.sign(elsewhere.id))


