"""Section 7 of crates/mosaik-core/FORMAT.md: values, as pairs of a type and what it holds."""

import struct

from .primitives import Reader, Refused, option, refusal, seq, sized, text, varint, zigzag

TYPES = ["null", "bool", "int", "float", "text", "bytes", "list", "map", "time", "geo"]
NAN = bytes.fromhex("000000000000f87f")
DEPTH_MAX = 16


def real(number):
    return NAN if number != number else struct.pack("<d", number + 0.0)


def encode(value):
    name, held = value
    tag = varint(TYPES.index(name))
    match name:
        case "null":
            return tag
        case "bool":
            return tag + bytes([held])
        case "int" | "time":
            return tag + varint(zigzag(held))
        case "float":
            return tag + real(held)
        case "text":
            return tag + text(held)
        case "bytes":
            return tag + sized(held)
        case "list":
            return tag + seq([encode(item) for item in held])
        case "map":
            entries = sorted((key.encode(), item) for key, item in held.items())
            return tag + seq([sized(key) + encode(item) for key, item in entries])
        case "geo":
            lat, lon, altitude, accuracy = held
            optional = [option(None if part is None else real(part)) for part in (altitude, accuracy)]
            return tag + real(lat) + real(lon) + b"".join(optional)


def _real(reader):
    data = reader.raw(8)
    (number,) = struct.unpack("<d", data)
    if number != number and data != NAN:
        raise Refused("another NaN than the one allowed")
    if data == struct.pack("<d", -0.0):
        raise Refused("-0.0")
    return number


def read(reader, outer=0):
    tag = reader.varint()
    if tag >= len(TYPES):
        raise Refused(f"a value of unknown tag {tag}")
    name = TYPES[tag]
    if name in ("list", "map") and outer == DEPTH_MAX:
        raise Refused("more than 16 lists and maps lie in one another")
    match name:
        case "null":
            held = None
        case "bool":
            held = reader.bool()
        case "int" | "time":
            held = reader.zigzag()
        case "float":
            held = _real(reader)
        case "text":
            held = reader.text()
        case "bytes":
            held = reader.sized()
        case "list":
            held = [read(reader, outer + 1) for _ in range(reader.count(reader.left()))]
        case "map":
            held, last = {}, None
            for _ in range(reader.count(reader.left())):
                key = reader.text()
                if last is not None and last >= key.encode():
                    raise Refused("the names of a map are not ascending")
                last = key.encode()
                held[key] = read(reader, outer + 1)
        case "geo":
            held = [_real(reader), _real(reader)]
            held += [_real(reader) if reader.bool() else None for _ in range(2)]
    return name, held


def decode(data):
    reader = Reader(data)
    value = read(reader)
    reader.end()
    assert encode(value) == data
    return value


def show(value):
    """As JSON in which nothing gets lost: floats as the hex of their bits."""
    name, held = value
    match name:
        case "float":
            return {name: real(held)[::-1].hex()}
        case "bytes":
            return {name: held.hex()}
        case "list":
            return {name: [show(item) for item in held]}
        case "map":
            return {name: {key: show(item) for key, item in held.items()}}
        case "geo":
            return {name: [None if part is None else real(part)[::-1].hex() for part in held]}
    return {name: held}


NULL = ("null", None)
DEEPEST = NULL
for level in range(DEPTH_MAX):
    DEEPEST = ("map", {"k": DEEPEST}) if level % 2 else ("list", [DEEPEST])


def vectors():
    values = [NULL, ("bool", False), ("bool", True)]
    numbers = (0, 1, -1, 63, -64, 64, 300, -(2**31), 2**63 - 1, -(2**63))
    values += [("int", number) for number in numbers]
    values += [("time", number) for number in (0, 1_790_000_000_000, -1)]
    floats = [0.0, 1.0, -1.5, 0.1, 5e-324, 1.7976931348623157e308]
    floats += [float("inf"), float("-inf"), float("nan")]
    values += [("float", number) for number in floats]
    values += [("text", "") , ("text", "Grüße \0 🌍"), ("text", "x" * 200)]
    values += [("bytes", b""), ("bytes", bytes(range(130)))]
    values += [("list", []), ("list", [("int", 1), NULL, ("list", [("text", "a")])])]
    values += [("map", {}), ("map", {"": NULL, "B": ("int", 1), "a": ("bool", True), "ab": ("map", {}), "é": ("list", [])})]
    values += [("map", {"\uffff": ("int", 1), "\U00010000": ("int", 2)})]
    values += [DEEPEST, ("list", [DEEPEST[1]["k"], ("list", [])])]
    values += [
        ("geo", [52.52, 13.405, None, None]),
        ("geo", [-90.0, 180.0, 35.5, None]),
        ("geo", [float("nan"), float("inf"), None, 0.0]),
        ("geo", [1e300, 0.0, -430.0, 3.0]),
    ]
    shown = []
    for value in values:
        data = encode(value)
        decode(data)
        shown.append({"value": show(value), "bytes": data.hex()})
    return {
        "values": shown,
        "different": [
            [encode(one).hex(), encode(other).hex()]
            for one, other in [
                (("int", 1), ("float", 1.0)),
                (("int", 1), ("time", 1)),
                (("text", ""), ("bytes", b"")),
                (("list", []), ("map", {})),
            ]
        ],
        "refused": [{"why": refusal(decode, data), "bytes": data.hex()} for data in _bad()],
    }


def _bad():
    yield b""
    yield b"\x0a"
    yield b"\x80\0"
    yield b"\0\0"
    yield b"\1"
    yield b"\1\2"
    yield b"\2"
    yield b"\2\x80"
    yield b"\2\x81\0"
    yield b"\2" + b"\xff" * 9 + b"\2"
    yield b"\2" + b"\x80" * 10 + b"\1"
    yield b"\3" + bytes(7)
    yield b"\3" + struct.pack("<d", -0.0)
    for nan in ("000000000000f8ff", "010000000000f87f", "010000000000f07f", "ffffffffffffff7f"):
        yield b"\3" + bytes.fromhex(nan)
    yield b"\4\2a"
    yield b"\4\1\xff"
    yield b"\4\3\xed\xa0\x80"
    yield b"\4\2\xc0\x80"
    yield b"\4\x81\0a"
    yield b"\5\xff\xff\xff\xff\xff\xff\xff\xff\xff\1"
    yield b"\6\1"
    yield b"\6\xff\xff\xff\xff\x0f\0"
    yield b"\7\1\1a"
    yield b"\7\2\1b\0\1a\0"
    yield b"\7\2\1a\0\1a\0"
    yield b"\7\2\2ab\0\1a\0"
    yield b"\7\1\1\xff\0"
    yield b"\x09" + bytes(16) + b"\0"
    yield b"\x09" + bytes(16) + b"\0\2"
    yield b"\x09" + bytes(7) + b"\x80" + bytes(8) + b"\0\0"
    yield b"\x09" + bytes(16) + b"\0\1" + bytes.fromhex("010000000000f87f")
    yield encode(("list", [DEEPEST]))
    yield encode(("map", {"": DEEPEST}))
    yield b"\6\1" * 16 + b"\6\0"
    yield b"\6\1" * 300
