"""What may be asked of a run, on the command line."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path

PEERS = ("nginx", "litellm")
PARTS = ("held", "bodies", "tls", "keys", "models")


@dataclass
class Options:
    """A run's measure: seconds, connections, counts. `quick` makes all of it small."""

    name: str = "gateway"
    python: str = sys.executable
    own_environment: bool = False  # Portico gets an environment of `python` rather than the one that we run in
    without: list[str] = field(default_factory=list)
    quick: bool = False
    repeats: int = 3
    seconds: float = 4.0
    latency_s: float = 10.0
    warm_s: float = 10.0  # before a target is measured for the first time; LiteLLM needs it
    connections: int = 32
    rate: float = 50.0
    streams: int = 20
    held_fast: int = 1000  # streams of 20 chunks a second
    held_slow: int = 9000  # streams of one chunk a second
    body_connections: int = 8
    few_keys: int = 10
    many_keys: int = 10_000
    many_models: int = 10_000
    table: Path | None = None

    def made_quick(self) -> Options:
        self.repeats, self.seconds, self.latency_s, self.warm_s = 1, 2.0, 2.0, 2.0
        self.held_fast, self.held_slow, self.many_keys, self.many_models = 100, 300, 400, 400
        return self


def read(arguments: list[str]) -> Options:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description="The gateway's benchmark.")
    parser.add_argument("--name", default="gateway", help="name of the results file: bench/results/<name>.json")
    parser.add_argument("--python", help="interpreter for Portico and LiteLLM, in environments made below bench/build")
    parser.add_argument("--without", action="append", default=[], choices=[*PEERS, *PARTS], help="may be repeated")
    parser.add_argument("--repeats", type=int, help="interleaved repeats (3)")
    parser.add_argument("--quick", action="store_true", help="one short repeat of everything, for trying out")
    parser.add_argument("--table", type=Path, metavar="RAW.json", help="only write the tables of a results file again")
    given = parser.parse_args(arguments)
    options = Options(name=given.name, without=given.without, quick=given.quick, table=given.table)
    if given.python:
        options.python, options.own_environment = given.python, True
    if given.quick:
        options.made_quick()
    if given.repeats:
        options.repeats = max(1, min(given.repeats, 20))
    return options
