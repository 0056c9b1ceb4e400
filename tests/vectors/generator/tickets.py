"""Section 6 of crates/mosaik-core/FORMAT.md: peer tickets."""

from ipaddress import ip_address

from .primitives import Reader, Refused, bech32m, bech32m_decode, deterministic, refusal, seq, text, varint


def address(ip, port):
    ip = ip_address(ip)
    return bytes([ip.version == 6]) + ip.packed + varint(port)


def content(node, relays, addresses, version=1):
    body = bytes([version]) + node + seq([text(relay) for relay in relays])
    return body + seq([address(*one) for one in addresses])


def decode(string):
    reader = Reader(bech32m_decode("mpeer", string))
    if reader.u8() != 1:
        raise Refused("another version")
    node = reader.raw(32)
    relays = [reader.text(200) for _ in range(reader.count(2))]
    addresses = []
    for _ in range(reader.count(8)):
        tag = reader.u8()
        if tag > 1:
            raise Refused("an address of an unknown tag")
        ip = ip_address(reader.raw(16 if tag else 4))
        addresses.append((str(ip), reader.varint(16)))
    # What follows is of a later version.
    return node, relays, addresses


def vectors():
    node = deterministic("a node")
    relay = "https://relay.example.org./"
    four, six = ("203.0.113.7", 4242), ("2001:db8::7", 65535)
    tickets = [
        (node, [], []),
        (node, [relay], [four, six]),
        (node, [relay, "http://[::1]:3340/"], [("127.0.0.1", 0)]),
        (node, ["r" * 200, "é" * 100], [(f"2001:db8::{i}", 60000 + i) for i in range(1, 9)]),
    ]
    shown = []
    for ticket in tickets:
        string = bech32m("mpeer", content(*ticket))
        assert decode(string) == ticket
        shown.append(
            {
                "node": ticket[0].hex(),
                "relays": ticket[1],
                "addresses": [{"ip": ip, "port": port} for ip, port in ticket[2]],
                "ticket": string,
            }
        )
    good = content(node, [relay], [four])
    string, grown = bech32m("mpeer", good), bech32m("mpeer", good + b"\1later")
    assert decode(grown) == decode(string)
    start = b"\1" + node
    bad = [
        "",
        "mpeer1",
        string[:-1],
        string[:-1] + string[-1].upper(),
        string[:9] + ("q" if string[9] != "q" else "p") + string[10:],
        " " + string,
        bech32m("mnet", good),
        bech32m("mpeer", b""),
        bech32m("mpeer", content(node, [], [], version=2)),
        bech32m("mpeer", good[:-1]),
        bech32m("mpeer", start),
        bech32m("mpeer", content(node, ["a", "b", "c"], [])),
        bech32m("mpeer", content(node, ["r" * 201], [])),
        bech32m("mpeer", start + b"\1\1\xff" + b"\0"),
        bech32m("mpeer", content(node, [], [four] * 9)),
        bech32m("mpeer", start + b"\0\1" + b"\2" + bytes(16) + b"\1"),
        bech32m("mpeer", start + b"\0\1" + b"\0" + bytes(4) + b"\x80\x80\x04"),
        bech32m("mpeer", start + b"\0\1" + b"\0" + bytes(4) + b"\x81\0"),
    ]
    return {
        "tickets": shown,
        "same": [{"ticket": same, "as": string} for same in (string.upper(), grown)],
        "refused": [{"why": refusal(decode, string), "ticket": string} for string in bad],
    }
