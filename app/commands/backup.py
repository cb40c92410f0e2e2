"""`python -m app backup --to FILE`: the database as one file."""

from __future__ import annotations

import argparse
from pathlib import Path

from app.workflows import backups
from config import load


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m app backup", description=__doc__)
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="where the backup goes")
    parser.add_argument(
        "--with-keys",
        type=Path,
        metavar="PASSPHRASE_FILE",
        help="add the deployment's secrets, encrypted with the first line of this file",
    )
    options = parser.parse_args(arguments)
    try:
        phrase = backups.passphrase_in(options.with_keys) if options.with_keys else None
        manifest = backups.back_up(load(), options.to, passphrase=phrase)
    except backups.BackupError as error:
        print(f"No backup was made. {error}")
        return 2
    secrets = (
        "and the secrets, encrypted" if manifest.has_secrets else "without the secrets: keep secrets.json elsewhere"
    )
    size = options.to.stat().st_size
    print(f"The backup {options.to} has {len(manifest.tables)} tables, {manifest.rows} rows, {size} bytes, {secrets}.")
    return 0
