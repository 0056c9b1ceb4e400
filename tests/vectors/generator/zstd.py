"""As much of RFC 8878 as the vectors need: frames of raw blocks and blocks of one repeated byte."""

from .primitives import Refused

MAGIC = (0xFD2FB528).to_bytes(4, "little")
BLOCK_MAX = 128 * 1024


def compress(data, with_size=True, dictionary=None):
    """One frame. It is shorter than `data` only where that is one byte repeated."""
    single, dict_flag = 0x20, 1 if dictionary is not None else 0
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
    return head


def decompress(data, limit):
    """The content of exactly one frame without a dictionary, at most `limit` bytes."""
    if data[:4] != MAGIC or len(data) < 6:
        raise Refused("not a zstd frame")
    flags, at = data[4], 5
    if flags & 0x0B:
        raise Refused("a dictionary, or a reserved bit")
    if flags & 0x04:
        raise Refused("not read here: a checksum")
    single = flags & 0x20
    at += 0 if single else 1
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
    if at != len(data):
        raise Refused("bytes behind the zstd frame")
    if size is not None and size != len(out):
        raise Refused("another size than the zstd frame says")
    return out
