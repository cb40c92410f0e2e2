"""Bodies that are far longer than what is sent."""

import zlib

PIECE = b" " * (1 << 20)


def gzip_blanks(size: int) -> bytes:
    """So many blanks, 2**20 or more, in gzip's format. One piece is packed and repeated: packing all of them takes seconds."""
    packer = zlib.compressobj(9, wbits=31)
    pieces, rest = size // len(PIECE), b" " * (size % len(PIECE))
    first, again = (packer.compress(PIECE) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    last = packer.compress(rest) + packer.flush()
    checksum = 0
    for _ in range(pieces):
        checksum = zlib.crc32(PIECE, checksum)
    numbers = (zlib.crc32(rest, checksum), size)
    return first + again * (pieces - 1) + last[:-8] + b"".join(number.to_bytes(4, "little") for number in numbers)
