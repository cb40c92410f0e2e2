"""Names of tools as every upstream takes them, from which a dialect finds its client's again."""

from __future__ import annotations

import re
from hashlib import blake2b

LONGEST_NAME = 64  # characters that every upstream takes
_NO_NAME = re.compile(r"[^a-zA-Z0-9_-]")


def short_name(name: str, *, is_taken: bool = False) -> str:
    """The name, or one that is like it where it is too long or has other characters, or where another tool has it
    (`is_taken`)."""
    if len(name) <= LONGEST_NAME and not is_taken and not _NO_NAME.search(name):
        return name
    digest = blake2b(name.encode("utf-8", "replace") + b"\n" * is_taken, digest_size=4).hexdigest()
    return f"{_NO_NAME.sub('_', name)[: LONGEST_NAME - 9]}_{digest}"
