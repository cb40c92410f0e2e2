from __future__ import annotations

import shutil
import signal
import sys
import time
from pathlib import Path

import psycopg

from app import clock
from bench.gateway import machine
from bench.gateway.builds import BENCH, BUILD, ROOT, say
from bench.gateway.processes import CannotMeasure, Children, cores
from bench.portal import measures, options, postgres, rounds, seed, tables, visits

PAGE = ROOT / "docs" / "performance.md"


def run(asked: options.Options, url: str, folder: Path) -> measures.Raw | None:
    """Seed where that is due, start, measure, stop, whatever happens."""
    made = clock.now()
    place = machine.machine(cores())
    seeded = None if asked.reuse and seed.is_seeded(url) else seed.seed(url, folder / "data", asked.sizes)
    if asked.seed_only:
        return None
    shutil.rmtree(folder / "run", ignore_errors=True)
    (folder / "run").mkdir(parents=True)
    children = Children(folder / "run")
    portico = rounds.Seeded(url, children, cores(), Path(sys.executable), folder / "run" / "portico")
    known = visits.things(seed.conninfo(url))
    try:
        begun = time.monotonic()
        portico.start()
        started = time.monotonic() - begun
        say(f"Portico takes traffic after {started:.1f} s")
        took = rounds.pages(portico, visits.visits(known), asked.repeats)
        say("queries and their plans")
        found = rounds.looked_at(url, folder / "run" / "portico", took)
        say("writes and exports")
        acts = rounds.writes(portico, url, min(asked.repeats, 10))
        files = rounds.exports(portico)
    finally:
        children.stop()
    say("rollups")
    derived = rounds.derived(url, folder / "data", known)
    with psycopg.connect(seed.conninfo(url)) as connection:
        server = connection.info.server_version
    return measures.Raw(
        made=made.isoformat(timespec="seconds").replace("+00:00", "Z"),
        machine=place,
        versions=machine.versions(Path(sys.executable), None, False)
        | {"postgresql": f"{server // 10000}.{server % 100}"},
        sizes=asked.sizes,
        repeats=asked.repeats,
        seeded_s=seeded,
        started_s=round(started, 1),
        pages=found,
        writes=acts,
        exports=files,
        derived=derived,
    )


def main(arguments: list[str]) -> int:
    asked = options.read(arguments)
    if asked.table is not None:
        tables.write(PAGE, tables.text(measures.read_raw(asked.table), asked.table.name))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is stopped
    folder = BUILD / ("portal-quick" if asked.quick else "portal")
    server = None
    try:
        if asked.database is None:
            server = postgres.Server(folder / "postgres")
            if not asked.reuse:
                server.forget()
            server.start()
        raw = run(asked, server.url if server is not None else str(asked.database), folder)
    except CannotMeasure as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        if server is not None:
            server.stop()
    if raw is None:
        return 0
    path = (folder if asked.quick else BENCH / "results") / f"{raw.made[:10]}-{asked.name}.json"
    measures.write_raw(raw, path)
    text = tables.text(raw, path.name)
    print(text)
    if not asked.quick:
        tables.write(PAGE, text)
    say(f"kept {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
