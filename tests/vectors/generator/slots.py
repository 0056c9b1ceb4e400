"""crates/mosaik-dht/FORMAT.md: slot keys, open and sealed records, leases."""

import base64
import hashlib
import struct

from . import ed25519, keys
from .primitives import hash32, seq, text, varint, z32

ISSUED_S = 1_750_000_000
SEQ = 1_750_000_000_123_456
SLOT = 3
NONCE = b"twenty-four nonce bytes!"
ENDPOINT_SEED = bytes([7]) * 32
ENDPOINT = ed25519.public(ENDPOINT_SEED)
NEIGHBOUR = ed25519.public(bytes([8]) * 32)
RELAYS = ["https://relay.example.org./"]
# Text, tag and bytes of the address, port.
ADDRESSES = [
    ("[2001:db8::7]:4242", 1, bytes.fromhex("20010db8000000000000000000000007"), 4242),
    ("203.0.113.7:4242", 0, bytes([203, 0, 113, 7]), 4242),
]
NEIGHBOURS = [(NEIGHBOUR, "198.51.100.8:4343"), (NEIGHBOUR, "relay.example.net.")]


def base58(data):
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number, out = int.from_bytes(data, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        out = alphabet[rest] + out
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + out


def base64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


# Section 1: the item.


def strings(content):
    """The data of a TXT record: a text, its bytes, or several of them."""
    parts = content if isinstance(content, list) else [content]
    parts = [part.encode() if isinstance(part, str) else part for part in parts]
    return b"".join(bytes([len(part)]) + part for part in parts)


def message(slot_key, records, kind=16, network=1, ttl=600):
    """The DNS message. A name that was written before is a pointer."""
    out = bytearray(struct.pack(">6H", 0, 0x8000, 0, len(records), 0, 0))
    origin, known = z32(slot_key).encode(), {}
    for name, content in records:
        if name in known:
            out += struct.pack(">H", 0xC000 | known[name])
        else:
            if name:
                known[name] = len(out)
                out += bytes([len(name)]) + name.encode()
            if "" in known:
                out += struct.pack(">H", 0xC000 | known[""])
            else:
                known[""] = len(out)
                out += bytes([len(origin)]) + origin + b"\0"
        data = strings(content)
        out += struct.pack(">HHIH", kind, network, ttl, len(data)) + data
    return bytes(out)


def item_signature(slot_seed, value, number=SEQ):
    return ed25519.sign(slot_seed, f"3:seqi{number}e1:v{len(value)}:".encode() + value)


# Section 3: the lease.


def addresses_digest(texts):
    return hash32(b"".join(sorted(text.encode() + b"\n" for text in texts)))


def lease_signature(fingerprint, slot, texts, issued, expires):
    return ed25519.sign(
        ENDPOINT_SEED,
        b"mosaik-node lease v1"
        + fingerprint
        + bytes([slot])
        + ENDPOINT
        + addresses_digest(texts)
        + struct.pack(">QQ", issued, expires),
    )


def lease_text(issued, expires, signature, version=1):
    return base64url(bytes([version]) + struct.pack(">QQ", issued, expires) + signature)


# Section 4: XChaCha20-Poly1305 of draft-irtf-cfrg-xchacha.


def rounds(state):
    def quarter(a, b, c, d):
        for x, y, z, bits in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[x] = state[x] + state[y] & 0xFFFFFFFF
            mixed = state[z] ^ state[x]
            state[z] = (mixed << bits | mixed >> 32 - bits) & 0xFFFFFFFF

    for _ in range(10):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return state


CONSTANTS = struct.unpack("<4I", b"expand 32-byte k")


def stream(key, nonce, counter):
    start = [*CONSTANTS, *struct.unpack("<8I", key), counter, *struct.unpack("<3I", nonce)]
    state = rounds(list(start))
    return struct.pack("<16I", *(a + b & 0xFFFFFFFF for a, b in zip(state, start)))


def poly1305(key, data):
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for at in range(0, len(data), 16):
        total = (total + int.from_bytes(data[at : at + 16] + b"\1", "little")) * r % (2**130 - 5)
    return (total + int.from_bytes(key[16:], "little") & 2**128 - 1).to_bytes(16, "little")


def sealed(key, nonce, plaintext, extra):
    state = rounds([*CONSTANTS, *struct.unpack("<8I", key), *struct.unpack("<4I", nonce[:16])])
    key, nonce = struct.pack("<8I", *state[:4], *state[12:]), bytes(4) + nonce[16:]
    out = bytearray()
    for at in range(0, len(plaintext), 64):
        block = plaintext[at : at + 64]
        out += bytes(a ^ b for a, b in zip(block, stream(key, nonce, 1 + at // 64)))
    padded = b"".join(data + bytes(-len(data) % 16) for data in (extra, bytes(out)))
    lengths = struct.pack("<QQ", len(extra), len(out))
    return bytes(out) + poly1305(stream(key, nonce, 0)[:32], padded + lengths)


def parts(data):
    whole = base64url(data)
    cut = [whole[at : at + 240] for at in range(0, len(whole), 240)]
    return [(f"_e{at}", part) for at, part in enumerate(cut)]


def plaintext_of(relays, addresses, neighbours, issued, expires, signature):
    plain = ENDPOINT + seq([text(relay) for relay in relays])
    plain += seq([varint(tag) + ip + varint(port) for _, tag, ip, port in addresses])
    plain += varint(issued) + varint(expires) + signature
    plain += seq([node + text(hint) for node, hint in neighbours])
    return plain + bytes(-len(plain) % 64)


# Sections 2 and 4: the records.


def open_records(relays, addresses, neighbours, lease):
    records = [("_id", base58(ENDPOINT))]
    records += [("_r", relay) for relay in relays]
    records += [("_ip", address) for address in addresses]
    records += [("_l", lease)] if lease else []
    return records + [("_p", f"{base58(node)} {hint}") for node, hint in neighbours]


def record(network, expires):
    derived = keys.keys(network)
    slot = derived["slots"][SLOT]
    slot_seed, slot_key = bytes.fromhex(slot["seed"]), bytes.fromhex(slot["public_key"])
    tombstone = expires == ISSUED_S
    relays, addresses, neighbours = (
        ([], [], []) if tombstone else (RELAYS, ADDRESSES, NEIGHBOURS)
    )
    ips = [address for address, *_ in addresses]
    fingerprint = bytes.fromhex(derived["fingerprint"])
    signature = lease_signature(fingerprint, SLOT, relays + ips, ISSUED_S, expires)
    lease = lease_text(ISSUED_S, expires, signature)
    out = {
        "slot": SLOT,
        "seq": SEQ,
        "relays": relays,
        "addresses": ips,
        "neighbours": [[node.hex(), hint] for node, hint in neighbours],
        "issued_s": ISSUED_S,
        "expires_s": expires,
        "addresses_digest": addresses_digest(relays + ips).hex(),
        "lease_signature": signature.hex(),
        "lease_text": lease,
    }
    if network == keys.SECRET:
        plain = plaintext_of(relays, addresses, neighbours, ISSUED_S, expires, signature)
        key = bytes.fromhex(derived["slot_record"])
        records = parts(NONCE + sealed(key, NONCE, plain, slot_key))
        out |= {"nonce": NONCE.hex(), "plaintext": plain.hex()}
    else:
        records = open_records(relays, ips, neighbours, lease)
    value = message(slot_key, records)
    assert len(value) <= 1000
    return out | {"value": value.hex(), "signature": item_signature(slot_seed, value).hex()}


def taken(network):
    """Values as no writer of this version makes them, and what a reader finds in them."""
    derived = keys.keys(network)
    slot = derived["slots"][SLOT]
    slot_seed, slot_key = bytes.fromhex(slot["seed"]), bytes.fromhex(slot["public_key"])
    fingerprint = bytes.fromhex(derived["fingerprint"])
    ips = [address for address, *_ in ADDRESSES]
    later = [("_l2", "a later lease"), ("_x", b"\xff\xfe"), ("_ID", "case counts"), ("", "of the slot key itself")]
    out = []

    def add(what, value, addresses=ips, neighbours=NEIGHBOURS, expires=ISSUED_S + 3600):
        assert len(value) <= 1000, what
        fields = {"what": what, "seq": SEQ, "relays": RELAYS, "addresses": addresses}
        fields["neighbours"] = [[node.hex(), hint] for node, hint in neighbours]
        fields |= {"issued_s": ISSUED_S, "expires_s": expires, "value": value.hex()}
        out.append(fields | {"signature": item_signature(slot_seed, value).hex()})

    def lease(texts=RELAYS + ips, expires=ISSUED_S + 3600):
        return ISSUED_S, expires, lease_signature(fingerprint, SLOT, texts, ISSUED_S, expires)

    if network == keys.SECRET:
        key = bytes.fromhex(derived["slot_record"])

        def seal(addresses=ADDRESSES, neighbours=NEIGHBOURS, **kwargs):
            texts = RELAYS + [address for address, *_ in addresses]
            plain = plaintext_of(RELAYS, addresses, neighbours, *lease(texts, **kwargs))
            return parts(NONCE + sealed(key, NONCE, plain, slot_key))

        good = seal()
        add("other names, and parts with leading zeros", message(slot_key, [*good, *later, ("_e00", "x"), ("_e", "x")]))
        add("parts in another order", message(slot_key, good[::-1]))
        add("a part of two strings", message(slot_key, [(name, [part[:9], part[9:]]) for name, part in good]))
        mapped = [("[::ffff:203.0.113.9]:4242", 1, bytes(10) + b"\xff\xff" + bytes([203, 0, 113, 9]), 4242)]
        add("an address of tag 1 that is IPv4-mapped", message(slot_key, seal(mapped)), [mapped[0][0]])
        hints = [(NEIGHBOUR, "no hint at all"), *NEIGHBOURS]
        add("a hint that is none", message(slot_key, seal(neighbours=hints)))
        longest = ISSUED_S + 7200
        add("the longest lease", message(slot_key, seal(expires=longest)), expires=longest)
        return out

    good = open_records(RELAYS, ips, NEIGHBOURS, lease_text(*lease()))
    value = message(slot_key, good)
    add("other names", message(slot_key, [*good, *later]))
    add("in another order", message(slot_key, good[::-1]), ips[::-1], NEIGHBOURS[::-1])
    add("texts of several strings", message(slot_key, [(name, [text[:9], "", text[9:]]) for name, text in good]))
    add("another class and TTL", message(slot_key, good, network=3, ttl=0))
    add("bytes behind the message", value + b"\0behind")
    owner = b"".join(bytes([len(label)]) + label for label in (b"_id", z32(slot_key).encode(), b""))
    elsewhere = owner + struct.pack(">HHIH", 16, 1, 600, 2) + b"\1x"
    add("an id in another section", value[:8] + b"\0\1" + value[10:] + elsewhere)
    odd = ["203.0.113.9:04242", "[2001:DB8::9]:4242", "[2001:db8:0::9]:4242", "[fe80::1%2]:4242", "203.0.113.9", "nowhere"]
    records = open_records(RELAYS, ips + odd, NEIGHBOURS, lease_text(*lease(RELAYS + ips + odd)))
    add("addresses in another form, which the lease covers", message(slot_key, records))
    hints = [(NEIGHBOUR, "198.51.100.8:04343"), (NEIGHBOUR, "relay.example.net.:443"), *NEIGHBOURS, *NEIGHBOURS, NEIGHBOURS[0]]
    records = open_records(RELAYS, ips, hints, lease_text(*lease()))
    add("hints that are none, and a fifth good one", message(slot_key, records), neighbours=NEIGHBOURS * 2)
    longest = ISSUED_S + 7200
    records = open_records(RELAYS, ips, [], lease_text(*lease(expires=longest)))
    add("the longest lease", message(slot_key, records), neighbours=[], expires=longest)
    return out


def refused(network):
    """Values that are nobody's record although the slot's key signed them, and why."""
    derived = keys.keys(network)
    slot = derived["slots"][SLOT]
    slot_seed, slot_key = bytes.fromhex(slot["seed"]), bytes.fromhex(slot["public_key"])
    fingerprint, end = bytes.fromhex(derived["fingerprint"]), ISSUED_S + 3600
    ips = [address for address, *_ in ADDRESSES]

    def lease(fingerprint=fingerprint, slot=SLOT, texts=RELAYS + ips, expires=end):
        signature = lease_signature(fingerprint, slot, texts, ISSUED_S, expires)
        return ISSUED_S, expires, signature

    if network == keys.SECRET:
        key = bytes.fromhex(derived["slot_record"])

        def plain(lease):
            return plaintext_of(RELAYS, ADDRESSES, [], *lease)

        def seal(plaintext, key=key, slot_key=slot_key):
            return parts(NONCE + sealed(key, NONCE, plaintext, slot_key))

        good = seal(plain(lease()))
        cases = {
            "sealed with another key": seal(plain(lease()), key=bytes(32)),
            "sealed for another slot": seal(plain(lease()), slot_key=bytes(32)),
            "a whole block of padding": seal(plain(lease()) + bytes(64)),
            "padding that is not zero": seal(plain(lease())[:-1] + b"\1"),
            "a gap": [("_e0", good[0][1]), *((f"_e{n + 1}", p) for n, (_, p) in enumerate(good[1:], 1))],
            "a lease of another slot": seal(plain(lease(slot=SLOT + 1))),
            "an open record": open_records(RELAYS, ips, [], lease_text(*lease())),
        }
    else:

        def open_with(lease, ips=ips):
            return open_records(RELAYS, ips, [], lease_text(*lease))

        cases = {
            "no lease": open_records(RELAYS, ips, [], None),
            "two leases": [*open_with(lease()), ("_l", lease_text(*lease()))],
            "a lease of version 2": open_records(RELAYS, ips, [], lease_text(*lease(), version=2)),
            "an id of 31 bytes": [("_id", base58(ENDPOINT[:31])), *open_with(lease())[1:]],
            "a relay that is not utf-8": [*open_with(lease()), ("_r", b"\xff")],
            "a lease of another network": open_with(lease(fingerprint=bytes(32))),
            "a lease of another slot": open_with(lease(slot=SLOT + 1)),
            "a lease of other addresses": open_with(lease(texts=RELAYS)),
            "an address twice under a lease of one": open_with(lease(), ips=ips + ips[:1]),
            "a lease that is too long": open_with(lease(expires=ISSUED_S + 7201)),
            "a lease that ends before it begins": open_with(lease(expires=ISSUED_S - 1)),
            "two ids": [("_id", base58(ENDPOINT)), *open_with(lease())],
            "a padded lease": open_records(RELAYS, ips, [], lease_text(*lease()) + "="),
        }
    out = []
    for why, records in cases.items():
        value = message(slot_key, records)
        signature = item_signature(slot_seed, value).hex()
        out.append({"why": why, "seq": SEQ, "value": value.hex(), "signature": signature})
    good = good if network == keys.SECRET else open_with(lease())
    value = message(slot_key, good)
    whole = {
        "a seq below 0": (value, -1),
        "more than 1,000 bytes": (value + bytes(1001 - len(value)), SEQ),
        "more entries than bytes": (value[:4] + b"\xff\xff" + value[6:], SEQ),
    }
    for why, (value, number) in whole.items():
        signature = item_signature(slot_seed, value, number).hex()
        out.append({"why": why, "seq": number, "value": value.hex(), "signature": signature})
    return out


def network(name):
    derived = keys.keys(name)
    slots = []
    for slot in derived["slots"]:
        target = hashlib.sha1(bytes.fromhex(slot["public_key"])).hexdigest()
        slots.append(
            {
                "seed": slot["seed"],
                "public_key": slot["public_key"],
                "z_base_32": slot["z32"],
                "target": target,
            }
        )
    return {
        "network": name,
        "fingerprint": derived["fingerprint"],
        "slot_record": derived["slot_record"],
        "slots": slots,
        "record": record(name, ISSUED_S + 3600),
        "tombstone": record(name, ISSUED_S),
        "preferred": sorted(range(16), key=lambda slot: hash32(ENDPOINT + bytes([slot]))[:8]),
        "taken": taken(name),
        "refused": refused(name),
    }


def vectors():
    return {
        "endpoint": {
            "seed": ENDPOINT_SEED.hex(),
            "id": ENDPOINT.hex(),
            "base58": base58(ENDPOINT),
        },
        "public": network(keys.PUBLIC),
        "secret": network(keys.SECRET),
    }
