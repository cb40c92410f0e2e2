"""Names that people give to things, as they may stand in lists, messages and logs."""

from __future__ import annotations

import re

from app.domain.errors import Invalid

LONGEST = 100
# Control characters, line and paragraph ends, and what turns the direction of the text that follows.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def checked(name: str) -> str:
    """The name without the space around it. Raises `Invalid` naming `name`."""
    name = name.strip()
    if not 1 <= len(name) <= LONGEST:
        raise Invalid(f"Give a name of 1 to {LONGEST} characters.", "name")
    if _UNFIT.search(name):
        raise Invalid("Use no line ends, control characters or marks of direction in a name.", "name")
    return name
