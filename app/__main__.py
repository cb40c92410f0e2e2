"""Commands for operators: `python -m app COMMAND`, with the settings and the data folder of the running Portico.

The exit status is 0 if all is well, 1 if something wrong was found, and 2 if the command could not work; the last line says so
in a sentence.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from redis import RedisError
from sqlalchemy.exc import SQLAlchemyError

from app import create_app
from app.domain import audit_chain
from app.runtime import logs
from config import ConfigError, load

GOOD, WRONG, FAILED = 0, 1, 2

Command = Callable[[argparse.Namespace], int]


def verify_audit(_: argparse.Namespace) -> int:
    """Says whether the audit log is as it was written."""
    found = audit_chain.verify()
    broken = found.first_broken
    if broken is None:
        print(f"The audit log is intact: {found.checked:,} entries.")
        return GOOD
    entry = f"entry {broken.id}" if broken.id else f"entry number {broken.position}"
    print(f"The audit log is broken after {found.checked:,} entries: {entry} was {broken.reason.replace('_', ' ')}.")
    return WRONG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app", description="Commands for operators of Portico.")
    nouns = parser.add_subparsers(required=True, metavar="COMMAND")
    audit = nouns.add_parser("audit", help="the audit log").add_subparsers(required=True, metavar="ACTION")
    audit.add_parser("verify", help="check its chain").set_defaults(run=verify_audit)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    run: Command = given.run
    try:
        config = load()
        logs.configure(config, "command")
        with create_app(config, ()).app_context():
            return run(given)
    except (ConfigError, SQLAlchemyError, RedisError) as error:
        reason = str(error).splitlines()[0]
        print(f"This could not be done: {logs.masked(reason)}", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    raise SystemExit(main())
