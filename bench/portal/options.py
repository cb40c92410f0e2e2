"""What may be asked of a run, on the command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from bench.portal.sizes import Sizes


@dataclass(frozen=True)
class Options:
    """`database` is a PostgreSQL URL; without one a server of the run's own is started below bench/build/portal."""

    name: str
    database: str | None
    reuse: bool
    seed_only: bool
    repeats: int
    sizes: Sizes
    quick: bool
    table: Path | None


QUICK = Sizes(
    people=300, teams=20, models=50, keys=2_000, rows=50_000, days=60, audit=2_000, notices=2_000, waiting=50,
    budget_requests=100, invitations=50, deliveries=500, dead_letters=50,
)  # fmt: skip


def read(arguments: list[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m bench.portal", description="The portal at scale.")
    parser.add_argument("--name", default="portal", help="name of the results file: bench/results/<name>.json")
    parser.add_argument("--database", metavar="URL", help="an empty PostgreSQL database, or with --reuse a seeded one")
    parser.add_argument(
        "--reuse", action="store_true", help="measure what is seeded already; seed only an empty database"
    )
    parser.add_argument("--seed-only", action="store_true", help="seed and stop")
    parser.add_argument("--repeats", type=int, default=30, help="visits of each address (30)")
    parser.add_argument("--quick", action="store_true", help="a small organisation, for trying out; writes no table")
    parser.add_argument("--table", type=Path, metavar="RAW.json", help="only write the tables of a results file again")
    for field in Sizes.__struct_fields__:
        parser.add_argument(f"--{field.replace('_', '-')}", type=int, help=f"({getattr(Sizes(), field):,})")
    given = parser.parse_args(arguments)
    usual = QUICK if given.quick else Sizes()
    chosen = {field: value for field in Sizes.__struct_fields__ if (value := getattr(given, field)) is not None}
    return Options(
        name=given.name, database=given.database, reuse=given.reuse, seed_only=given.seed_only,
        repeats=max(1, min(given.repeats, 1000)), quick=given.quick, table=given.table,
        sizes=Sizes(**{field: getattr(usual, field) for field in Sizes.__struct_fields__} | chosen),
    )  # fmt: skip
