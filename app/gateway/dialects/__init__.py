"""What clients speak, one dialect a module: the name of a dialect is that of a module with a `DIALECT`.

Modules load when a path of theirs is first asked for.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from app.gateway.dialects.base import Dialect


@cache
def dialect(name: str) -> Dialect:
    """The dialect of that name. Raises `ModuleNotFoundError` if there is none."""
    found: Dialect = import_module(f"{__name__}.{name}").DIALECT
    return found
