"""Bodies that clients send compressed, unpacked to no more than a body may have."""

from __future__ import annotations

import sys
import zlib
from typing import Protocol

from app.gateway.errors import bad_request, unknown_encoding

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    import backports.zstd as zstd

# The largest window that a sender of `Content-Encoding: zstd` may use is 8 MB (RFC 9659).
_ZSTD: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 23}
_ENCODINGS = {"identity": None, "gzip": "gzip", "x-gzip": "gzip", "zstd": "zstd"}


class _Decompressor(Protocol):
    """What zlib's and zstd's have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class TooLong(Exception):
    """More comes out than may."""


def encoding_of(header: str) -> str | None:
    """What a body with this `Content-Encoding` is packed by: gzip, zstd, or None for nothing. Raises `ApiError` 415."""
    name = header.strip().lower()
    if name and name not in _ENCODINGS:
        raise unknown_encoding(name[:40])
    return _ENCODINGS[name] if name else None


def unpack(encoding: str, packed: bytes, limit: int) -> bytes:
    """What is packed: one whole gzip member or zstd frame with nothing after it. Raises `TooLong` when that is more
    than `limit` bytes, having made no more of it than that, and `ApiError` 400 when it can't be unpacked."""
    inner: _Decompressor = zlib.decompressobj(31) if encoding == "gzip" else zstd.ZstdDecompressor(options=_ZSTD)
    try:
        unpacked = inner.decompress(packed, limit + 1)
    except (zlib.error, zstd.ZstdError):
        raise _broken(encoding) from None
    if len(unpacked) > limit:
        raise TooLong
    if not inner.eof or inner.unused_data:
        raise _broken(encoding)
    return unpacked


def _broken(encoding: str) -> Exception:
    return bad_request(f"The request body can't be unpacked: it does not hold to its content encoding, {encoding}.")
