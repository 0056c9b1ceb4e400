"""Section 2 of crates/mosaik-core/FORMAT.md: network ids and their keys."""

import re

from . import ed25519
from .primitives import (
    Refused,
    bech32m,
    bech32m_decode,
    bech32m_of_groups,
    derive,
    groups_of,
    hash32,
    refusal,
    z32,
)


def parse(network):
    """The network seed and id_0."""
    if network[:5].lower() == "mnet1":
        seed = bech32m_decode("mnet", network)
        if seed[:1] != b"\1":
            raise Refused("another version")
        if len(seed) != 66 or seed[1] != 0:
            raise Refused("other flags or another length")
        return seed, derive("slots", seed)
    data = network.encode()
    if not 1 <= len(data) <= 256:
        raise Refused("a name is empty or has more than 256 bytes")
    id_0 = bytes.fromhex(network) if re.fullmatch("[0-9a-fA-F]{64}", network) else hash32(data)
    return id_0, id_0


def keys(network):
    seed, slot_id = parse(network)
    slots = []
    for _ in range(16):
        public = ed25519.public(slot_id)
        slots.append({"seed": slot_id.hex(), "public_key": public.hex(), "z32": z32(public)})
        slot_id = hash32(slot_id + slot_id)
    return {
        "fingerprint": derive("fingerprint", seed).hex(),
        "membership": derive("membership", seed).hex(),
        "topic": derive("topic", seed).hex(),
        "slot_record": derive("slot record", seed).hex(),
        "mdns": derive("mdns", seed)[:8].hex(),
        "radio": derive("radio", seed)[:4].hex(),
        "slots": slots,
    }


def secret_id(secret, creator, version=1, flags=0):
    return bech32m("mnet", bytes([version, flags]) + secret + creator)


PUBLIC = "mosaik-node-test-vector-1"
SECRET = secret_id(bytes(range(32)), bytes(32))
FINGERPRINT = derive("fingerprint", hash32(PUBLIC.encode()))
MEMBERSHIP = derive("membership", hash32(PUBLIC.encode()))


def vectors():
    hexadecimal = hash32(b"another network").hex()
    mixed = hexadecimal[:32].upper() + hexadecimal[32:]
    created = secret_id(bytes(range(255, 223, -1)), ed25519.public(bytes([7]) * 32))
    networks = []
    for name in (PUBLIC, hexadecimal, "Mosaïk \t", hexadecimal + "0", "x" * 256, SECRET, created):
        entry = {"id": name, "kind": "public"}
        if name.startswith("mnet1"):
            seed, _ = parse(name)
            entry.update(kind="secret", secret=seed[2:34].hex(), creator=seed[34:].hex())
        networks.append(entry | keys(name))
    same = [
        {"id": hexadecimal.upper(), "as": hexadecimal},
        {"id": mixed, "as": hexadecimal},
        {"id": SECRET.upper(), "as": SECRET},
    ]
    seed, _ = parse(SECRET)
    refused = [
        "",
        "y" * 257,
        "é" * 129,
        "mnet1",
        "mnet1 is a nice name",
        "MNET1abc",
        SECRET[:-1],
        SECRET + "q",
        SECRET[:30] + ("q" if SECRET[30] != "q" else "p") + SECRET[31:],
        SECRET[:50] + SECRET[51] + SECRET[50] + SECRET[52:],
        SECRET[:-1] + SECRET[-1].upper(),
        "mNET1" + SECRET[5:],
        SECRET + "\n",
        SECRET[:60] + "b" + SECRET[61:],
        SECRET[:60] + "ä" + SECRET[61:],
        bech32m_of_groups("mnet", groups_of(seed), constant=1),
        bech32m_of_groups("mnet", groups_of(seed)[:-1] + [groups_of(seed)[-1] | 1]),
        bech32m_of_groups("mnet", groups_of(seed) + [0]),
        bech32m("mnet", seed[:-1]),
        bech32m("mnet", seed + b"\0"),
        bech32m("mnet", b""),
        bech32m("mnet", b"\1\0"),
        secret_id(bytes(32), bytes(32), version=2),
        secret_id(bytes(32), bytes(32), version=0),
        secret_id(bytes(32), bytes(32), flags=1),
    ]
    return {
        "networks": networks,
        "same": same,
        "refused": [{"id": name, "why": refusal(parse, name)} for name in refused],
    }
