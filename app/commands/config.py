"""`python -m app config apply --file FILE`: providers, models, endpoints and routing as a file says, JSON or YAML."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import yaml

from app.commands.portal import portal
from app.workflows import config_changes


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m app config", description=__doc__)
    parser.add_argument("act", choices=["apply"], help="bring the state to what the file says")
    parser.add_argument("--file", type=Path, required=True, help="a configuration as it is exported, in JSON or YAML")
    parser.add_argument("--prune", action="store_true", help="delete what the file does not name")
    parser.add_argument("--dry-run", action="store_true", help="only say what would change")
    given = parser.parse_args(arguments)
    try:
        document = yaml.safe_load(given.file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        print(f"Nothing was changed. {given.file} cannot be read: {error}")
        return 2
    with portal():
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
    return 0


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
