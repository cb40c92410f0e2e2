from __future__ import annotations

import shutil
import signal
import sys
from dataclasses import asdict

from app import clock
from bench.gateway import machine, options, tables
from bench.gateway.builds import BENCH, BUILD, ROOT, say
from bench.gateway.measures import Raw, read_raw, write_raw
from bench.gateway.processes import CannotMeasure, Children
from bench.gateway.rounds import Bench

PAGE = ROOT / "docs" / "performance.md"
KEPT = ("name", "without", "quick", "repeats", "seconds", "latency_s", "warm_s", "connections", "rate", "streams",
        "held_fast", "held_slow", "body_connections", "few_keys", "many_keys", "many_models")  # fmt: skip


def run(asked: options.Options) -> Raw:
    """Start, measure, stop, whatever happens."""
    made = clock.now()
    folder = BUILD / "run"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    children = Children(folder)
    bench = Bench(asked, children, folder)
    place = machine.machine(bench.cores)
    try:
        bench.start()
        bench.measure()
    finally:
        children.stop()
    return Raw(
        made=made.isoformat(timespec="seconds").replace("+00:00", "Z"),
        machine=place,
        versions=machine.versions(bench.portico_python, bench.litellm_python, "nginx" in bench.targets),
        args={name: value for name, value in asdict(asked).items() if name in KEPT},
        chain=bench.chain,
        notes=bench.notes,
        runs=bench.runs,
    )


def main(arguments: list[str]) -> int:
    asked = options.read(arguments)
    if asked.table is not None:
        tables.write(PAGE, tables.text(read_raw(asked.table), asked.table.name))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is stopped
    try:
        raw = run(asked)
    except CannotMeasure as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    folder = BUILD if asked.quick else BENCH / "results"
    path = folder / f"{raw.made[:10]}-{asked.name}.json"
    write_raw(raw, path)
    text = tables.text(raw, path.name)
    print(text)
    if asked.quick:
        say(f"kept {path.relative_to(ROOT)}; a quick run is for trying out and leaves the tables as they are")
    else:
        tables.write(PAGE, text)
        say(f"kept {path.relative_to(ROOT)} and wrote its tables into {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
