"""Section 5 of crates/mosaik-core/FORMAT.md: frontier items and the trie over them."""

from .keys import FINGERPRINT
from .primitives import Reader, Refused, derive, deterministic, refusal, seq, varint


def item(author, tips):
    return author + seq([varint(number) + event for number, event in tips])


def read_item(reader):
    author, count = reader.raw(32), reader.count(64)
    tips = [(reader.varint(), reader.raw(32)) for _ in range(count)]
    if not tips:
        raise Refused("no tip")
    if any(number == 0 for number, _ in tips):
        raise Refused("a tip of seq 0")
    if any(one >= other for one, other in zip(tips, tips[1:])):
        raise Refused("tips are not ascending")
    return author, tips


def decode_item(data):
    reader = Reader(data)
    found = read_item(reader)
    reader.end()
    assert item(*found) == data
    return found


def nibbles(key):
    return key.hex()


def prefix(digits):
    """A prefix of hex digits as it is sent."""
    return bytes([len(digits)]) + bytes.fromhex(digits + "0" * (len(digits) % 2))


def read_prefix(reader, limit=64):
    count = reader.u8()
    if count > limit:
        raise Refused(f"a prefix of {count} nibbles, the limit is {limit}")
    digits = reader.raw((count + 1) // 2).hex()
    if count % 2 and digits[-1] != "0":
        raise Refused("the padding of a prefix is not 0")
    return digits[:count]


def decode_prefix(data, limit=64):
    reader = Reader(data)
    digits = read_prefix(reader, limit)
    reader.end()
    return digits


def trie_hash(items, digits="", context="trie", size=16, version=1):
    """The hash of a prefix; `items` are bytes by key."""
    under = {key: items[key] for key in items if nibbles(key).startswith(digits)}
    if not under:
        return bytes(size)
    if len(under) <= 32:
        whole = b"".join(under[key] for key in sorted(under))
        return derive(f"{context} leaf", FINGERPRINT + whole, version)[:size]
    children = (trie_hash(under, digits + digit, context, size, version) for digit in "0123456789abcdef")
    return derive(f"{context} node", FINGERPRINT + b"".join(children), version)[:size]


def _tips(label, count):
    tips = [(1 + i * 1000 // 3, deterministic(f"tip {label} {i}")) for i in range(count)]
    return sorted(tips)


def item_vectors():
    author = deterministic("an author")
    same_seq = sorted((7, deterministic(f"branch {i}")) for i in range(3))
    items = [
        (author, [(1, deterministic("a tip"))]),
        (author, [(2**64 - 1, deterministic("a tip"))]),
        (bytes(32), [(300, bytes(32))]),
        (author, same_seq),
        (author, _tips("many", 64)),
    ]
    one = varint(7) + deterministic("a tip")
    more = varint(8) + deterministic("a tip")
    bad = [
        b"",
        author,
        author + b"\0",
        author + b"\1",
        author + b"\1" + one[:-1],
        author + b"\1" + one + b"\0",
        author + b"\1" + b"\0" + bytes(32),
        author + b"\1" + b"\x87\0" + one[1:],
        author + b"\2" + one + one,
        author + b"\2" + more + one,
        author + b"\x02" + varint(7) + b"\2" * 32 + varint(7) + b"\1" * 32,
        author + seq([varint(i + 1) + bytes(32) for i in range(65)]),
        author + b"\x81\0" + one,
    ]
    shown = []
    for key, tips in items:
        data = item(key, tips)
        assert decode_item(data) == (key, tips)
        shown.append(
            {
                "author": key.hex(),
                "tips": [{"seq": number, "id": event.hex()} for number, event in tips],
                "item": data.hex(),
            }
        )
    return {
        "items": shown,
        "refused": [{"why": refusal(decode_item, data), "item": data.hex()} for data in bad],
    }


def authors(count):
    """Keys of which many begin alike, so that the trie grows deep."""
    keys = []
    for i in range(count):
        key = deterministic(f"trie author {i}").hex()
        if i % 4 == 0:
            key = "a" + key[1:]
        elif i % 4 == 1:
            key = "5c7" + key[3:]
        keys.append(bytes.fromhex(key))
    return keys


def trie_vectors():
    tries = []
    for count in (0, 1, 32, 33, 200):
        items = {
            key: item(key, _tips(f"{i}", 1 + (i % 9 == 8) * 3)) for i, key in enumerate(authors(count))
        }
        skip = sorted(authors(count))[::3] if count in (33, 200) else []
        left = {key: items[key] for key in items if key not in skip}
        some = sorted(items)[count // 2].hex() if count else "00" * 32
        prefixes = ["", "a", "5", "5c", "5c7", "5c70", "0", some[:1], some[:2], some[:5], some]
        prefixes = list(dict.fromkeys(prefixes))
        tries.append(
            {
                "items": [items[key].hex() for key in sorted(items)],
                "top": trie_hash(items).hex(),
                "prefixes": [
                    {
                        "prefix": digits,
                        "bytes": prefix(digits).hex(),
                        "authors": sum(nibbles(key).startswith(digits) for key in items),
                        "hash": trie_hash(items, digits).hex(),
                    }
                    for digits in prefixes
                ],
                "left_out": [key.hex() for key in skip],
                "top_without": trie_hash(left).hex(),
            }
        )
    bad = [b"", b"\1", b"\3\xab", b"\3\xab\xc1", b"\1\x0f", b"\x41" + bytes(33)]
    return {
        "fingerprint": FINGERPRINT.hex(),
        "tries": tries,
        "refused_prefixes": [
            {"why": refusal(decode_prefix, data), "bytes": data.hex()} for data in bad
        ],
    }
