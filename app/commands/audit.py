"""`python -m app audit verify`: whether the audit log is as it was written.

It prints the head of the chain, `<position>:<digest>`. Kept elsewhere and given as `--head` later, it shows whether the log still
contains that entry, or was set back to an older state.
"""

from __future__ import annotations

import argparse
import re
from typing import NamedTuple

from app.commands.portal import portal
from app.domain import audit_chain

_HEAD = re.compile(r"([1-9][0-9]{0,17}):([0-9a-f]{64})")


class Head(NamedTuple):
    """The last entry of the chain at some time: its position, from 1, and its digest."""

    position: int
    digest: str


def head_of(text: str) -> Head:
    """The head that was printed as `text`. Raises `ValueError`."""
    found = _HEAD.fullmatch(text.strip())
    if found is None:
        raise ValueError("expected <position>:<digest>, as an earlier run printed it")
    return Head(int(found[1]), found[2])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m app audit", description=__doc__)
    parser.add_argument("act", choices=["verify"], help="check the chain of all entries")
    parser.add_argument("--head", type=head_of, help="a head that an earlier run printed, which the chain must contain")
    kept: Head | None = parser.parse_args(arguments).head
    with portal():
        found = audit_chain.verify()
        last = audit_chain.digest_at(found.checked)
        contained = kept is None or (
            kept.position <= found.checked and audit_chain.digest_at(kept.position) == kept.digest
        )
    broken = found.first_broken
    if broken is not None:
        entry = f"entry {broken.id}" if broken.id else f"entry number {broken.position}"
        print(
            f"The audit log is broken after {found.checked:,} entries: {entry} was {broken.reason.replace('_', ' ')}."
        )
        return 1
    if last is not None:
        print(f"Head: {found.checked}:{last}")
    if kept is not None and not contained:
        print(
            f"The audit log was set back: its {found.checked:,} entries fit each other, but entry number {kept.position:,} of"
            " the given head is not among them."
        )
        return 1
    print(f"The audit log is intact: {found.checked:,} entries{'' if kept is None else ', the given head among them'}.")
    return 0
