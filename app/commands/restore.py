"""`python -m app restore --from FILE`: a backup into an empty database."""

from __future__ import annotations

import argparse
from pathlib import Path

from app.workflows import backups
from config import load


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m app restore", description=__doc__)
    parser.add_argument("--from", dest="source", type=Path, required=True, metavar="FILE", help="the backup")
    secrets = parser.add_mutually_exclusive_group()
    secrets.add_argument(
        "--with-keys",
        type=Path,
        metavar="PASSPHRASE_FILE",
        help="take the deployment's secrets from the backup, with the passphrase in the first line of this file",
    )
    secrets.add_argument(
        "--without-secrets",
        action="store_true",
        help="accept that the secrets are lost: issued keys and provider credentials will not work",
    )
    options = parser.parse_args(arguments)
    try:
        phrase = backups.passphrase_in(options.with_keys) if options.with_keys else None
        manifest = backups.restore(load(), options.source, passphrase=phrase, without_secrets=options.without_secrets)
    except backups.BackupError as error:
        print(f"Nothing was restored. {error}")
        return 2
    print(
        f"Restored {manifest.rows} rows as of {manifest.created_at:%Y-%m-%d %H:%M:%S} UTC; start Portico now, which publishes"
        " them and counts the budgets."
    )
    return 0
