"""Signatures are kept while there is room for them."""

from __future__ import annotations

from app.providers.signatures import LONGEST, Signatures


def test_the_newest_are_kept_within_their_bytes() -> None:
    kept = Signatures(most_bytes=10)
    for id, signature in (("a", "1234"), ("b", "1234"), ("a", "12345"), ("c", "123")):
        kept.keep(id, signature)
    assert (kept.of("a"), kept.of("b"), kept.of("c"), kept.of("d")) == ("12345", None, "123", None)


def test_one_that_is_too_long_is_not_kept() -> None:
    kept = Signatures()
    kept.keep("a", "x" * (LONGEST + 1))
    kept.keep("b", "x" * LONGEST)
    assert kept.of("a") is None and kept.of("b")
