"""Upstreams. A kind is the name of a module that has an `ADAPTER`, a row of `openai_kinds`, or an entry point
`portico.providers` of an installed package, which names an adapter.

Modules load when a kind is first asked for, so that a heavy SDK is only there where it is configured.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from itertools import chain
from pathlib import Path

from app.providers.base import Adapter
from app.providers.openai_kinds import ROWS


class UnknownKind(LookupError):
    """No adapter of that name; the message lists those there are."""


@cache
def kinds() -> tuple[str, ...]:
    """The kinds of provider there are, by name."""
    return tuple(sorted({*_modules(), *ROWS, *_installed()}))


@cache
def _modules() -> tuple[str, ...]:
    files = chain(*(Path(folder).glob("*.py") for folder in __path__))
    return tuple(path.stem for path in files if "\nADAPTER = " in path.read_text())


@cache
def _installed() -> dict[str, EntryPoint]:
    """The adapters of other packages, by kind."""
    return {point.name: point for point in entry_points(group="portico.providers")}


@cache
def adapter(kind: str) -> type[Adapter]:
    """The adapter of a kind; raises `UnknownKind`."""
    if kind not in kinds():
        raise UnknownKind(f"unknown provider {kind!r}; known are {', '.join(kinds())}")
    if kind in ROWS:
        made: type[Adapter] = import_module(f"{__name__}.openai").of_kind(ROWS[kind])
        return made
    if kind in _modules():  # a kind of ours cannot be replaced
        found: type[Adapter] = import_module(f"{__name__}.{kind}").ADAPTER
    else:
        found = _installed()[kind].load()
    return found
