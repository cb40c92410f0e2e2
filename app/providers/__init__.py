"""Upstreams, one kind a file: the kind is the module's name, and a folder listing tells what Portico can speak to.

Modules load when a kind is first asked for, so that a heavy SDK is only there where it is configured.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

from app.providers.base import Adapter

NOT_KINDS = {"base", "settings", "addresses", "http", "http_errors", "model_name", "sse"}


class UnknownKind(LookupError):
    """No adapter of that name; the message lists those there are."""


@cache
def kinds() -> tuple[str, ...]:
    """The kinds of provider there are, by name."""
    return tuple(sorted(item.name for item in pkgutil.iter_modules(__path__) if item.name not in NOT_KINDS))


@cache
def adapter(kind: str) -> type[Adapter]:
    """The adapter of a kind; raises `UnknownKind`."""
    if kind not in kinds():
        raise UnknownKind(f"unknown provider {kind!r}; known are {', '.join(kinds())}")
    found: type[Adapter] = import_module(f"{__name__}.{kind}").ADAPTER
    return found
