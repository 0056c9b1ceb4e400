"""As much of RFC 8878 as the vectors need: frames of raw blocks and blocks of one repeated byte."""

from .primitives import Refused

MAGIC = (0xFD2FB528).to_bytes(4, "little")
BLOCK_MAX = 128 * 1024


def xxh64(data):
    """XXH64 with seed 0, of which a frame's checksum is the low 4 bytes."""
    one, two, three = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
    four, five, mask = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5, (1 << 64) - 1

    def left(number, bits):
        return (number << bits | number >> 64 - bits) & mask

    def mixed(total, lane):
        return left(total + lane * two & mask, 31) * one & mask

    def little(at, length):
        return int.from_bytes(data[at : at + length], "little")

    at, total = 0, five
    if len(data) >= 32:
        lanes = [one + two & mask, two, 0, -one & mask]
        while at + 32 <= len(data):
            lanes = [mixed(lane, little(at + 8 * i, 8)) for i, lane in enumerate(lanes)]
            at += 32
        total = sum(left(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18))) & mask
        for lane in lanes:
            total = (total ^ mixed(0, lane)) * one + four & mask
    total = total + len(data) & mask
    while at + 8 <= len(data):
        total = left(total ^ mixed(0, little(at, 8)), 27) * one + four & mask
        at += 8
    if at + 4 <= len(data):
        total = left(total ^ little(at, 4) * one & mask, 23) * two + three & mask
        at += 4
    for byte in data[at:]:
        total = left(total ^ byte * five & mask, 11) * one & mask
    total = (total ^ total >> 33) * two & mask
    total = (total ^ total >> 29) * three & mask
    return total ^ total >> 32


def checksum(data):
    return (xxh64(data) & 0xFFFFFFFF).to_bytes(4, "little")


def compress(data, with_size=True, dictionary=None, check=False):
    """One frame. It is shorter than `data` only where that is one byte repeated."""
    single, dict_flag = 0x20, 1 if dictionary is not None else 0
    dict_flag |= 4 if check else 0
    head = MAGIC
    if with_size:
        # One segment, 4 bytes of content size.
        head += bytes([0x80 | single | dict_flag])
    else:
        # A window of 1 MiB, no content size.
        head += bytes([dict_flag, 10 << 3])
    head += bytes([dictionary]) if dictionary is not None else b""
    head += len(data).to_bytes(4, "little") if with_size else b""
    blocks = [data[i : i + BLOCK_MAX] for i in range(0, len(data), BLOCK_MAX)] or [b""]
    for at, block in enumerate(blocks):
        repeated = len(block) > 1 and block == block[:1] * len(block)
        last = at == len(blocks) - 1
        header = len(block) << 3 | (2 if repeated else 0) | int(last)
        head += header.to_bytes(3, "little") + (block[:1] if repeated else block)
    return head + (checksum(data) if check else b"")


def decompress(data, limit):
    """The content of exactly one frame without a dictionary, at most `limit` bytes."""
    if data[:4] != MAGIC or len(data) < 6:
        raise Refused("not a zstd frame")
    flags, at = data[4], 5
    if flags & 0x08:
        raise Refused("a reserved bit")
    single = flags & 0x20
    at += 0 if single else 1
    id_bytes = [0, 1, 2, 4][flags & 3]
    if int.from_bytes(data[at : at + id_bytes], "little"):
        raise Refused("a dictionary")
    at += id_bytes
    size_bytes = [1 if single else 0, 2, 4, 8][flags >> 6]
    size = None
    if size_bytes:
        size = int.from_bytes(data[at : at + size_bytes], "little") + (256 if size_bytes == 2 else 0)
        if size > limit:
            raise Refused(f"a run over {limit} bytes")
        at += size_bytes
    out, last = b"", False
    while not last:
        header = int.from_bytes(data[at : at + 3], "little")
        if at + 3 > len(data):
            raise Refused("the bytes end inside a zstd frame")
        last, kind, length = header & 1, header >> 1 & 3, header >> 3
        at += 3
        stored = 1 if kind == 1 else length
        if kind > 1 or at + stored > len(data):
            raise Refused("the bytes end inside a zstd frame, or a block that is not read here")
        if len(out) + length > limit:
            raise Refused(f"a run over {limit} bytes")
        out += data[at : at + 1] * length if kind == 1 else data[at : at + length]
        at += stored
    if flags & 0x04:
        if len(data) < at + 4 or data[at : at + 4] != checksum(out):
            raise Refused("the checksum does not hold")
        at += 4
    if at != len(data):
        raise Refused("bytes behind the zstd frame")
    if size is not None and size != len(out):
        raise Refused("another size than the zstd frame says")
    return out
