"""The benchmark's own arithmetic: what it reads, what it makes of repeats, what it judges, what it writes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import msgspec
import pytest

from bench.gateway import builds, options, tables
from bench.gateway.__main__ import PAGE, main
from bench.gateway.builds import BENCH
from bench.gateway.measures import Load, Measure, Raw, Spread, read_load, read_raw, spread, write_raw
from bench.gateway.processes import (
    CannotMeasure,
    Children,
    cores,
    cpu_s,
    find_below,
    halted,
    unused_ports,
    wait_until,
)
from bench.gateway.targets import filled, nginx_program

LINE = (
    '{"ok": 400, "errors": 1, "secs": 2.000, "rps": 200.0, "peak": 32, "connects": 33, "deltas": 0, "mbytes": 0.1,'
    ' "lat_ms": {"min": 0.100, "p50": 1.500, "p90": 2.000, "p99": 4.000, "max": 9.000}}'
)


def load(**values: object) -> Load:
    given = {"ok": 1000, "errors": 0, "secs": 4.0, "rps": 250.0, "peak": 32, "deltas": 0}
    return msgspec.convert(given | values, Load)


def each(values: list[float], **given: object) -> list[Measure]:
    """Repeats whose CPU a request was so many microseconds."""
    return [Measure(load=load(**given), cpu_s=value * 1000 / 1e6) for value in values]


def took(p50: float, p99: float) -> Spread:
    return Spread(p50=p50, p99=p99)


def streamed(us: float) -> Measure:
    spreads = dict.fromkeys(("ttft_ms", "transit_ms", "jitter_ms"), took(1, 2))
    return Measure(load=load(deltas=2000, **spreads), cpu_s=us * 2000 / 1e6)


def held(count: int, ttft_p99: float, kb: float, *, ok: int | None = None) -> Measure:
    measure = Measure(load=load(ok=count if ok is None else ok, peak=count, deltas=count * 10), kb_a_stream=kb)
    measure.load = msgspec.structs.replace(measure.load, ttft_ms=took(1, ttft_p99), transit_ms=took(1, 2))
    return measure


@pytest.fixture
def raw() -> Raw:
    """A run in which everything that is asked for holds, just so."""
    return Raw(
        made="2026-01-02T03:04:05Z",
        machine={"processor": "abacus", "cores": 2, "memory_gb": 4.0, "kernel": "6.1", "load_average": [0.1, 0.2, 0.3]},
        versions={"portico": "abc1234", "python": "3.11.2 optimised build"},
        args=asdict(options.Options(name="just-so")),
        chain=["key", "subscription", "member", "team", "organisation"],
        notes=["the moon was full"],
        runs={
            "capacity": {
                "direct": each([0], rps=50_000),
                "nginx": each([20, 19, 30], rps=40_000),
                "litellm": each([12_000, 13_000, 11_000], rps=80),
                "portico": each([600, 500, 900], rps=1440),
            },
            "latency": {
                "direct": [Measure(load=load(lat_ms=took(1.0, 2.0)))],
                "litellm": [Measure(load=load(lat_ms=took(9.0, 14.0)))],
                "portico": [Measure(load=load(lat_ms=took(3.0, 6.0)))],
            },
            "stream": {"nginx": [streamed(20)], "litellm": [streamed(1400)], "portico": [streamed(90)]},
            "held-fast": {"portico": [held(1000, 499, 10)]},
            "held-slow": {"portico": [held(9000, 2000, 40)]},
            "body-1k": {"portico": each([500])},
            "body-100k": {"portico": each([800])},
            "body-2m": {"portico": each([4000])},
            "tls": {"portico": each([660])},
            "keys-few": {"portico": each([500])},
            "keys-many": {"portico": each([650])},
            "models-few": {"portico": each([500])},
            "models-many": {"portico": each([500])},
        },
    )


def verdicts(raw: Raw) -> dict[str, bool | None]:
    return {check.what: check.holds for check in tables.checks(raw)}


def test_what_load_prints_is_read():
    told = read_load(LINE)
    assert (told.ok, told.errors, told.rps) == (400, 1, 200.0)
    assert told.lat_ms is not None
    assert told.lat_ms.p99 == 4.0
    assert told.ttft_ms is None


@pytest.mark.parametrize("text", ["", '{"ok": 1}', LINE.replace("400", '"many"')])
def test_anything_else_than_what_load_prints_is_an_error(text):
    with pytest.raises(msgspec.MsgspecError):
        read_load(text)


def test_cpu_is_told_a_request_and_a_chunk_and_not_at_all_without_any():
    measure = Measure(load=load(ok=400, deltas=2000), cpu_s=0.2, side_s={"valkey": 0.1})
    assert measure.cpu_us == pytest.approx(500)
    assert measure.chunk_us == pytest.approx(100)
    assert measure.side_us("valkey") == pytest.approx(250)
    nothing = Measure(load=load(ok=0), cpu_s=0.2)
    assert (nothing.cpu_us, nothing.chunk_us, nothing.side_us("valkey")) == (None, None, None)


def test_a_figure_of_repeats_is_their_median_and_leaves_out_those_without_it(raw):
    assert raw.median("capacity", "nginx", tables.cpu) == pytest.approx(20)
    assert tables.cell(raw, "capacity", "nginx", tables.cpu) == "20 (19–30)"
    raw.runs["capacity"]["nginx"].append(Measure(load=load(ok=0), cpu_s=1))
    assert raw.median("capacity", "nginx", tables.cpu) == pytest.approx(20)
    assert raw.median("capacity", "nobody", tables.cpu) is None
    assert raw.median("capacity", "nginx", spread("lat", "p50")) is None


def test_everything_holds_at_the_very_limit(raw):
    assert verdicts(raw) == dict.fromkeys(verdicts(raw), True)
    assert len(verdicts(raw)) == 11


@pytest.mark.parametrize(
    ("run", "worse", "line"),
    [
        ("capacity", each([601], rps=1440), "CPU a request"),
        ("capacity", each([600], rps=1439), "requests/s per core"),
        ("stream", [streamed(91)], "CPU a streamed chunk"),
        ("latency", [Measure(load=load(lat_ms=took(3.1, 6.0)))], "added latency at 50 requests/s"),
        ("latency", [Measure(load=load(lat_ms=took(3.0, 6.1)))], "added latency at 50 requests/s"),
        ("held-fast", [held(1000, 501, 10)], "1,000 streams at 20 chunks/s, one worker"),
        ("held-fast", [held(1000, 10, 10), held(1000, 10, 10, ok=999)], "1,000 streams at 20 chunks/s, one worker"),
        ("held-slow", [held(9000, 10, 41)], "9,000 streams at 1 chunk/s, one worker"),
        ("body-100k", each([801]), "CPU of a 100 KB body"),
        ("body-2m", each([4001]), "CPU of a 2 MB body"),
        ("keys-many", each([651]), "CPU a request, 10 → 10,000 keys in play"),
        ("models-many", each([651]), "CPU a request, 1 → 10,000 models"),
        ("tls", each([660], errors=1), "CPU a request, HTTPS upstream"),
    ],
)
def test_a_little_worse_is_told_as_not_holding(raw, run, worse, line):
    raw.runs[run]["portico"] = worse
    assert [what for what, holds in verdicts(raw).items() if holds is False] == [line]
    assert "**no**" in tables.judgement(raw)


def test_what_needs_a_peer_that_is_missing_is_not_measured_unless_it_fails_anyway(raw):
    for run in ("capacity", "latency", "stream"):
        del raw.runs[run]["litellm"]
    unknown = {"CPU a request", "CPU a streamed chunk", "requests/s per core", "added latency at 50 requests/s"}
    assert {what for what, holds in verdicts(raw).items() if holds is None} == unknown
    raw.runs["capacity"]["portico"] = each([601], rps=1440)
    assert verdicts(raw)["CPU a request"] is False


def test_parts_that_were_left_out_are_not_measured(raw):
    raw.runs = {what: runs for what, runs in raw.runs.items() if what in ("capacity", "latency", "stream")}
    assert sum(holds is None for holds in verdicts(raw).values()) == 7
    assert tables.text(raw, "x.json")


def test_the_tables_tell_the_machine_the_notes_and_the_ratios(raw):
    text = tables.text(raw, "2026-01-02-just-so.json")
    assert "2 cores of abacus" in text
    assert "the moon was full" in text
    assert "bench/results/2026-01-02-just-so.json" in text
    assert "key, subscription, member, team, organisation" in text
    assert "600 µs: 30.0 × nginx's, 1/20.0 of LiteLLM's" in text
    widths = {line.count("|") for line in tables.comparison(raw).splitlines()}
    assert len(widths) == 1


def test_a_raw_file_gives_the_same_tables_each_time(raw, tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{tables.BEGIN}\nwas here before\n{tables.END}\nafter\n")
    monkeypatch.setattr("bench.gateway.__main__.PAGE", page)
    kept = tmp_path / "2026-01-02-just-so.json"
    write_raw(raw, kept)
    assert main(["--table", str(kept)]) == 0
    first = page.read_text()
    assert main(["--table", str(kept)]) == 0
    assert page.read_text() == first
    assert first.startswith(f"before\n{tables.BEGIN}\n\nMeasured 2026-01-02")
    assert first.endswith(f"{tables.END}\nafter\n")
    assert "was here before" not in first
    assert read_raw(kept) == raw


def test_a_page_without_markers_is_left_alone():
    with pytest.raises(ValueError, match="expected"):
        tables.written("nothing to see", "tables")


def test_the_tables_of_the_page_are_those_of_the_raw_file_that_it_names():
    page = PAGE.read_text()
    between = page.partition(tables.BEGIN)[2].partition(tables.END)[0]
    assert between
    for name in re.findall(r"bench/results/([\w.-]+\.json)", between):
        assert tables.written(page, tables.text(read_raw(BENCH / "results" / name), name)) == page


def test_quick_is_small_and_repeats_are_bounded():
    assert options.read(["--quick"]).repeats == 1
    assert options.read(["--repeats", "1000"]).repeats == 20
    assert options.read(["--without", "litellm", "--without", "held"]).without == ["litellm", "held"]
    assert not options.read([]).own_environment


def test_every_blank_of_the_peers_is_filled_in(tmp_path):
    words = ("DIR", "PLAIN", "SLOW", "TLS", "CA", "CERTIFICATE", "KEY", "FILES", "PORT_PLAIN", "PORT_SLOW", "PORT_TLS")
    for name in ("nginx.conf", "tls.conf", "litellm.yaml"):
        text = filled(name, tmp_path, dict.fromkeys(words, 1)).read_text()
        assert not re.findall(r"@[A-Z_]+@", text.replace("@NAMES@", ""))


def test_a_child_is_pinned_counted_found_and_stopped(tmp_path):
    place = cores()
    children = Children(tmp_path)
    script = "sum(range(10_000_000)); print('done', flush=True); import time; time.sleep(60)"
    pid = children.start("busy", [sys.executable, "-c", script], place.load, cwd=Path.cwd())
    deadline = time.monotonic() + 30
    while "done" not in children.log("busy").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert os.sched_getaffinity(pid) == {place.load}
    assert cpu_s([pid]) > 0.05
    assert find_below(os.getpid(), "sum(range(10_000_000))") == [pid]
    children.stop()
    assert not children.runs(pid)
    assert not Path(f"/proc/{pid}").exists()


def test_what_is_halted_stands_still_until_it_is_over(tmp_path):
    children = Children(tmp_path)
    pids = [children.start(f"idle-{number}", ["sleep", "60"], cores().load) for number in range(2)]

    def states() -> set[str]:
        return {Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in pids}

    try:
        with halted(pids):
            assert wait_until(lambda: states() == {"T"}, 5)
        assert wait_until(lambda: states() == {"S"}, 5)
    finally:
        children.stop()


def test_a_missing_compiler_and_a_missing_nginx_are_said_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(builds, "BUILD", tmp_path)
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    with pytest.raises(CannotMeasure, match="no C compiler"):
        builds.program("load")
    with pytest.raises(CannotMeasure, match="no nginx"):
        nginx_program()


@pytest.mark.slow
def test_both_programs_compile_and_load_measures_the_upstream(tmp_path, monkeypatch):
    monkeypatch.setattr(builds, "BUILD", tmp_path)
    upstream, generator = builds.program("upstream"), builds.program("load")
    children, port = Children(tmp_path), unused_ports(1)[0]
    children.start("upstream", [upstream, "-p", port, "-d", 1], cores().load)

    def told(*arguments: str) -> Load:
        command = [generator, *arguments, "-T", "10", f"http://127.0.0.1:{port}/v1"]
        return read_load(subprocess.run(command, capture_output=True, text=True, timeout=30).stdout)

    try:
        assert wait_until(lambda: told("-n", "1").ok == 1, 10)
        assert (told("-n", "50", "-c", "5").ok, told("-n", "50", "-c", "5").errors) == (50, 0)
        streams = told("-S", "-n", "4", "-c", "4", "-x", "7")
        assert (streams.ok, streams.deltas) == (4, 28)
        assert streams.ttft_ms is not None
    finally:
        children.stop()


def test_unused_ports_are_all_different():
    assert len(set(unused_ports(5))) == 5


def test_a_results_file_is_one_line_of_json_that_others_can_read(raw, tmp_path):
    write_raw(raw, tmp_path / "deep" / "raw.json")
    text = (tmp_path / "deep" / "raw.json").read_text()
    assert text.count("\n") == 1
    assert json.loads(text)["runs"]["capacity"]["nginx"][0]["load"]["rps"] == 40_000


def test_a_new_run_takes_the_place_of_the_last_one(raw, tmp_path):
    write_raw(raw, tmp_path / "raw.json")
    raw.notes = ["the moon was new"]
    write_raw(raw, tmp_path / "raw.json")
    assert read_raw(tmp_path / "raw.json") == raw
