"""`python -m app encryption rotate`: every secret is sealed with another key; the command waits for it."""

from __future__ import annotations

import argparse

from app.commands.portal import portal
from app.domain import encryption_keys
from app.extensions import transaction
from app.workflows import key_rotation


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m app encryption", description=__doc__)
    parser.add_argument("act", choices=["rotate"], help="move every secret to another key")
    parser.parse_args(arguments)

    def tell(done: int, total: int) -> None:
        print(f"{done:,} of {total:,} secrets", flush=True)

    with portal():
        transaction(key_rotation.start, by=None)
        rotation = key_rotation.run(tell)
        if rotation is None:  # the worker was quicker
            rotation = encryption_keys.latest()
        assert rotation is not None
        if rotation.state == "failed":
            print(f"The rotation failed: {rotation.error}")
            return 1
        print(f"Every secret is sealed with the key {rotation.to_key} now: {rotation.total:,} secrets.")
    return 0
