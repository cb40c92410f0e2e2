"""What a client packed is unpacked to what it was, or to nothing: never to more than a body may have, never to a part."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from contextlib import suppress

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.errors import ApiError
from app.gateway.unpacking import TooLong, encoding_of, unpack

PACKERS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}
NAMES = st.sampled_from(sorted(PACKERS))
BODIES = st.binary(max_size=300) | st.binary(max_size=5).map(lambda piece: piece * 1000)


@given(NAMES, BODIES, st.integers(0, 10))
def test_a_body_within_the_limit_is_what_it_was(name: str, body: bytes, more: int) -> None:
    assert unpack(name, PACKERS[name](body), len(body) + more) == body


@given(NAMES, st.binary(min_size=1, max_size=5), st.integers(1, 1000), st.data())
def test_a_body_beyond_the_limit_is_too_long(name: str, piece: bytes, times: int, data: st.DataObject) -> None:
    body = piece * times
    with pytest.raises(TooLong):
        unpack(name, PACKERS[name](body), data.draw(st.integers(0, len(body) - 1)))


@given(NAMES, BODIES, st.data())
def test_a_body_that_is_cut_or_followed_by_more_is_refused(name: str, body: bytes, data: st.DataObject) -> None:
    packed = PACKERS[name](body)
    cut = packed[: data.draw(st.integers(0, len(packed) - 1))]
    for wrong in (cut, packed + b"x", packed + packed):
        with pytest.raises(ApiError) as refused:
            unpack(name, wrong, 10_000)
        assert refused.value.status == 400 and name in refused.value.message


@given(NAMES, st.binary(max_size=100))
def test_bytes_that_nobody_packed_never_break_it(name: str, noise: bytes) -> None:
    with suppress(ApiError, TooLong):
        assert isinstance(unpack(name, noise, 1000), bytes)


def test_a_window_larger_than_the_web_allows_is_refused() -> None:
    options = {zstd.CompressionParameter.window_log: 24, zstd.CompressionParameter.content_size_flag: 0}
    wide = zstd.ZstdCompressor(options=options)
    packed = wide.compress(b"x" * (1 << 17)) + wide.flush()
    with pytest.raises(ApiError):
        unpack("zstd", packed, 1 << 20)


@pytest.mark.parametrize(
    ("header", "name"),
    [("", None), (" ", None), ("identity", None), ("GZip ", "gzip"), ("x-gzip", "gzip"), ("ZSTD", "zstd")],
)
def test_an_encoding_is_known_however_it_is_written(header: str, name: str | None) -> None:
    assert encoding_of(header) == name


@given(st.text(max_size=60).filter(lambda text: text.strip().lower() not in ("", "identity", "gzip", "x-gzip", "zstd")))
def test_any_other_is_415_and_repeated_at_no_length(header: str) -> None:
    with pytest.raises(ApiError) as refused:
        encoding_of(header)
    assert refused.value.status == 415 and refused.value.headers == {"Accept-Encoding": "gzip, zstd"}
    assert len(refused.value.message) < 200
