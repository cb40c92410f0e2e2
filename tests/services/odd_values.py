"""Values that no field expects, for bodies that nobody knows."""

from __future__ import annotations

from typing import Any

ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    "",
    "x",
    "é" * 50,
    [],
    {},
    [1, "a"],
    {"a": {"b": [None]}},
    [{"type": "x"}],
)
