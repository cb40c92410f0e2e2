"""Kinds of provider beside the application's, found as those are: a file in a folder of `app.providers.__path__`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app import providers

TESTS = Path(__file__).resolve().parents[1]
FOLDERS = (TESTS / "providers" / "kinds",)


@contextmanager
def more_kinds() -> Iterator[None]:
    """They are there within this."""
    before = list(providers.__path__)
    providers.__path__ = [*before, *map(str, FOLDERS)]
    providers.kinds.cache_clear()
    providers._modules.cache_clear()
    try:
        yield
    finally:
        providers.__path__ = before
        providers.kinds.cache_clear()
        providers._modules.cache_clear()
