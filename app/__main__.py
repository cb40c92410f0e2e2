"""Commands for operators: `python -m app COMMAND`, with the settings and the data folder of the running Portico.

The exit status is 0 if all is well, 1 if something wrong was found, and 2 if the command could not work; the last line says so
in a sentence.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml
from redis import RedisError
from sqlalchemy.exc import SQLAlchemyError

from app import create_app
from app.domain import audit_chain, encryption_keys
from app.domain.errors import DomainError
from app.extensions import transaction
from app.runtime import logs
from app.workflows import config_changes, key_rotation
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


def apply_config(given: argparse.Namespace) -> int:
    """Brings providers, models, endpoints and routing to what a file says, which is JSON or YAML."""
    try:
        document = yaml.safe_load(Path(given.file).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{given.file} cannot be read: {error}") from None
    outcome = config_changes.import_document(document, by=None, dry_run=given.dry_run, prune=given.prune)
    for change in outcome.changes:
        print(f"{change.act} {change.kind} {change.name}")
        for field in change.fields if change.act == "update" else ():
            print(f"  {field.path}: {_json(field.before)} -> {_json(field.after)}")
    for missing in outcome.missing_secrets:
        print(f"{missing.provider} is disabled until somebody enters its {missing.member}")
    counts = outcome.counts
    told = f"{counts.create} created, {counts.update} updated, {counts.delete} deleted"
    if not outcome.changes:
        told = "nothing to change"
    print(f"{'It would be' if given.dry_run and outcome.changes else 'Done'}: {told}.")
    return GOOD


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def rotate_encryption(_: argparse.Namespace) -> int:
    """Moves every secret to another encryption key, and waits for it."""

    def tell(done: int, total: int) -> None:
        print(f"{done:,} of {total:,} secrets", flush=True)

    transaction(key_rotation.start, by=None)
    rotation = key_rotation.run(tell)
    if rotation is None:  # the worker was quicker
        rotation = encryption_keys.latest()
    assert rotation is not None
    if rotation.state == "failed":
        print(f"The rotation failed: {rotation.error}")
        return WRONG
    print(f"Every secret is sealed with the key {rotation.to_key} now: {rotation.total:,} secrets.")
    return GOOD


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app", description="Commands for operators of Portico.")
    nouns = parser.add_subparsers(required=True, metavar="COMMAND")
    audit = nouns.add_parser("audit", help="the audit log").add_subparsers(required=True, metavar="ACTION")
    audit.add_parser("verify", help="check its chain").set_defaults(run=verify_audit)
    config = nouns.add_parser("config", help="saved configurations").add_subparsers(required=True, metavar="ACTION")
    apply = config.add_parser("apply", help="bring the state to what a file says")
    apply.add_argument("--file", required=True, help="a configuration as it is exported, in JSON or YAML")
    apply.add_argument("--prune", action="store_true", help="delete what the file does not name")
    apply.add_argument("--dry-run", action="store_true", help="only say what would change")
    apply.set_defaults(run=apply_config)
    encryption = nouns.add_parser("encryption", help="the encryption key").add_subparsers(
        required=True, metavar="ACTION"
    )
    encryption.add_parser("rotate", help="move every secret to another key").set_defaults(run=rotate_encryption)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    run: Command = given.run
    try:
        config = load()
        logs.configure(config, "command")
        with create_app(config, ()).app_context():
            return run(given)
    except DomainError as error:
        reason = f"{error.field}: {error.message}" if error.field else error.message
    except (ConfigError, SQLAlchemyError, RedisError) as error:
        reason = str(error).splitlines()[0]
    print(f"This could not be done: {logs.masked(reason)}", file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    raise SystemExit(main())
