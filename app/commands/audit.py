"""`python -m app audit verify`: whether the audit log is as it was written."""

from __future__ import annotations

import argparse

from app.commands.portal import portal
from app.domain import audit_chain


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m app audit", description=__doc__)
    parser.add_argument("act", choices=["verify"], help="check the chain of all entries")
    parser.parse_args(arguments)
    with portal():
        found = audit_chain.verify()
    broken = found.first_broken
    if broken is None:
        print(f"The audit log is intact: {found.checked:,} entries.")
        return 0
    entry = f"entry {broken.id}" if broken.id else f"entry number {broken.position}"
    print(f"The audit log is broken after {found.checked:,} entries: {entry} was {broken.reason.replace('_', ' ')}.")
    return 1
