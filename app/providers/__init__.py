"""Upstreams, one kind a file: the kind is the name of a module that has an `ADAPTER`.

Modules load when a kind is first asked for, so that a heavy SDK is only there where it is configured.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from itertools import chain
from pathlib import Path

from app.providers.base import Adapter


class UnknownKind(LookupError):
    """No adapter of that name; the message lists those there are."""


@cache
def kinds() -> tuple[str, ...]:
    """The kinds of provider there are, by name."""
    modules = (Path(folder).glob("*.py") for folder in __path__)
    return tuple(sorted(path.stem for path in chain(*modules) if "\nADAPTER = " in path.read_text()))


@cache
def adapter(kind: str) -> type[Adapter]:
    """The adapter of a kind; raises `UnknownKind`."""
    if kind not in kinds():
        raise UnknownKind(f"unknown provider {kind!r}; known are {', '.join(kinds())}")
    found: type[Adapter] = import_module(f"{__name__}.{kind}").ADAPTER
    return found
