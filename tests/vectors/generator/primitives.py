"""Section 1 of crates/mosaik-core/FORMAT.md: the encoding, hashes, bech32m."""

from blake3 import blake3


class Refused(Exception):
    """The bytes are none of what was to be read; the text says why."""


def hash32(data):
    return blake3(data).digest()


def keyed(key, data):
    return blake3(data, key=key).digest()


def derive(x, data, version=1):
    return blake3(data, derive_key_context=f"mosaik-node 2026-11 {x} v{version}").digest()


def varint(number):
    assert 0 <= number < 1 << 64
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def zigzag(number):
    return 2 * number if number >= 0 else -2 * number - 1


def sized(data):
    return varint(len(data)) + data


def text(string):
    return sized(string.encode())


def seq(items):
    return varint(len(items)) + b"".join(items)


def option(data):
    return b"\0" if data is None else b"\1" + data


class Reader:
    """Takes values off the front of bytes, in the one encoding of each."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def left(self):
        return len(self.data) - self.at

    def raw(self, length):
        if self.left() < length:
            raise Refused("the bytes end inside a field")
        self.at += length
        return self.data[self.at - length : self.at]

    def u8(self):
        return self.raw(1)[0]

    def bool(self):
        byte = self.u8()
        if byte > 1:
            raise Refused("a bool or option is neither 0 nor 1")
        return byte == 1

    def varint(self, bits=64):
        number = 0
        for group in range(10):
            byte = self.u8()
            number |= (byte & 0x7F) << 7 * group
            if byte < 0x80:
                if byte == 0 and group > 0:
                    raise Refused("a varint is not in its shortest form")
                if number >> bits:
                    raise Refused(f"a varint does not fit {bits} bits")
                return number
        raise Refused("a varint has more than 10 bytes")

    def zigzag(self):
        number = self.varint()
        return number >> 1 if number & 1 == 0 else -(number >> 1) - 1

    def count(self, limit=None):
        number = self.varint()
        if limit is not None and number > limit:
            raise Refused(f"a length or count of {number}, the limit is {limit}")
        return number

    def sized(self, limit=None):
        return self.raw(self.count(limit))

    def text(self, limit=None):
        try:
            return self.sized(limit).decode()
        except UnicodeDecodeError as error:
            raise Refused("a text is not utf-8") from error

    def end(self):
        if self.left():
            raise Refused("bytes follow the last field")


ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
BECH32M = 0x2BC830A3


def _polymod(values):
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(
            (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
        ):
            check ^= generator if top >> bit & 1 else 0
    return check


def _expand(prefix):
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def bech32m_of_groups(prefix, groups, constant=BECH32M):
    check = _polymod(_expand(prefix) + groups + [0] * 6) ^ constant
    groups = groups + [check >> 5 * (5 - i) & 31 for i in range(6)]
    return prefix + "1" + "".join(ALPHABET[group] for group in groups)


def groups_of(data):
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 5)
    return [int(bits[i : i + 5], 2) for i in range(0, len(bits), 5)]


def bech32m(prefix, data):
    return bech32m_of_groups(prefix, groups_of(data))


def bech32m_decode(prefix, string):
    if not string.isascii():
        raise Refused("a character outside ascii")
    if string.lower() != string and string.upper() != string:
        raise Refused("mixed case")
    string = string.lower()
    head, one, rest = string.rpartition("1")
    if not one or len(rest) < 6 or any(c not in ALPHABET for c in rest):
        raise Refused("not bech32")
    groups = [ALPHABET.index(c) for c in rest]
    if _polymod(_expand(head) + groups) != BECH32M:
        raise Refused("the checksum does not hold")
    if head != prefix:
        raise Refused("another prefix")
    bits = "".join(f"{group:05b}" for group in groups[:-6])
    padding = len(bits) % 8
    if padding >= 5 or "1" in bits[len(bits) - padding :]:
        raise Refused("the padding is too long or not zero")
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits) - padding, 8))


def z32(data):
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += "0" * (-len(bits) % 5)
    alphabet = "ybndrfg8ejkmcpqxot1uwisza345h769"
    return "".join(alphabet[int(bits[i : i + 5], 2)] for i in range(0, len(bits), 5))


def deterministic(label, length=32):
    """Bytes that look random, for examples."""
    return blake3(f"mosaik-node vectors: {label}".encode()).digest(length=length)


def refusal(function, *arguments):
    """Why `function` refuses these arguments. Fails if it takes them."""
    try:
        function(*arguments)
    except Refused as refused:
        return str(refused)
    raise AssertionError(f"taken: {function.__name__}{arguments!r}")
