"""The gateway's tables in `docs/performance.md`, from a results file: the same file always gives the same text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bench.gateway.measures import Figure, Measure, Raw, spread

BEGIN, END = "<!-- bench.gateway: begin -->", "<!-- bench.gateway: end -->"
TARGETS = ("direct", "nginx", "litellm", "portico")
TITLES = {"direct": "the upstream itself", "nginx": "nginx", "litellm": "LiteLLM", "portico": "**Portico**"}
OURS = "portico"


def cpu(measure: Measure) -> float | None:
    return measure.cpu_us


def chunk(measure: Measure) -> float | None:
    return measure.chunk_us


def rps(measure: Measure) -> float | None:
    return measure.load.rps


def held_kb(measure: Measure) -> float | None:
    return measure.kb_a_stream


class Check(NamedTuple):
    """One target; `holds` is None when a peer that it needs was not measured."""

    what: str
    at_least: str
    measured: str
    holds: bool | None


def both(*parts: bool | None) -> bool | None:
    """False when one is, else None when one is not known."""
    if False in parts:
        return False
    return None if None in parts else True


def at_most(value: float | None, most: float) -> bool | None:
    return None if value is None else value <= most


def ratio(one: float | None, other: float | None) -> float | None:
    return None if one is None or not other else one / other


def added(raw: Raw, target: str, part: str) -> float | None:
    """Milliseconds that a target adds at a low rate to what the upstream itself takes."""
    own, direct = (
        raw.median("latency", target, spread("lat", part)),
        raw.median("latency", "direct", spread("lat", part)),
    )
    return None if own is None or direct is None else own - direct


def number(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def times(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:,.{digits}f} ×"


def part_of(value: float | None) -> str:
    """A ratio below one as a fraction: 1/20."""
    return "–" if not value else f"1/{1 / value:,.1f}"


# --- targets ----------------------------------------------------------------------------------------------


def checks(raw: Raw) -> list[Check]:
    """Every target against the medians of the run."""
    return [
        _cost(raw, "CPU a request", "capacity", cpu, 30, 20),
        _cost(raw, "CPU a streamed chunk", "stream", chunk, 4.5, 15),
        _throughput(raw),
        _latency(raw),
        _held(raw, "held-fast", "20 chunks/s"),
        _held(raw, "held-slow", "1 chunk/s"),
        _growth(raw, "CPU of a 100 KB body", "body-1k", "body-100k", "the 1 KB request", 1.6),
        _growth(raw, "CPU of a 2 MB body", "body-1k", "body-2m", "the 1 KB request", 8),
        _growth(raw, _from_to(raw, "few_keys", "many_keys", "keys in play"), "keys-few", "keys-many", "the few", 1.3),
        _growth(raw, _from_to(raw, "", "many_models", "models"), "models-few", "models-many", "the few", 1.3),
        _https(raw),
    ]


def _from_to(raw: Raw, few: str, many: str, of: str) -> str:
    return f"CPU a request, {number(raw.args[few] if few else 1)} → {number(raw.args[many])} {of}"


def _cost(raw: Raw, what: str, run: str, figure: Figure, nginx_most: float, litellm_least: float) -> Check:
    own = raw.median(run, OURS, figure)
    nginx, litellm = (ratio(own, raw.median(run, peer, figure)) for peer in ("nginx", "litellm"))
    return Check(
        what,
        f"≤ {nginx_most:g} × nginx's, ≤ 1/{litellm_least:g} of LiteLLM's",
        f"{number(own)} µs: {times(nginx)} nginx's, {part_of(litellm)} of LiteLLM's",
        both(at_most(nginx, nginx_most), at_most(litellm, 1 / litellm_least)),
    )


def _throughput(raw: Raw) -> Check:
    own = raw.median("capacity", OURS, rps)
    found = ratio(own, raw.median("capacity", "litellm", rps))
    held = None if found is None else found >= 18
    return Check("requests/s per core", "≥ 18 × LiteLLM's", f"{number(own)}: {times(found)} LiteLLM's", held)


def _latency(raw: Raw) -> Check:
    own = {part: added(raw, OURS, part) for part in ("p50", "p99")}
    against = {part: ratio(own[part], added(raw, "litellm", part)) for part in own}
    return Check(
        f"added latency at {raw.args['rate']:g} requests/s",
        "p50 ≤ 1/4, p99 ≤ 1/3 of LiteLLM's",
        f"p50 {number(own['p50'], 2)} ms: {part_of(against['p50'])}; "
        f"p99 {number(own['p99'], 2)} ms: {part_of(against['p99'])}",
        both(at_most(against["p50"], 1 / 4), at_most(against["p99"], 1 / 3)),
    )


def _held(raw: Raw, run: str, pace: str) -> Check:
    """Every repeat must have completed every stream; times and memory are medians."""
    asked = raw.args[run.replace("-", "_")]
    measures = raw.of(run, OURS)
    complete = all(measure.load.ok == asked and not measure.load.errors for measure in measures) if measures else None
    ended = min((measure.load.ok for measure in measures), default=None)
    fast = run == "held-fast"
    first, kb = raw.median(run, OURS, spread("ttft", "p99")), raw.median(run, OURS, held_kb)
    return Check(
        f"{number(asked)} streams at {pace}, one worker",
        "all complete, " + ("TTFT p99 < 500 ms" if fast else "≤ 40 KB a stream"),
        f"{number(ended)} complete, " + (f"TTFT p99 {number(first)} ms" if fast else f"{number(kb)} KB a stream"),
        both(complete, at_most(first, 500) if fast else at_most(kb, 40)),
    )


def _growth(raw: Raw, what: str, few: str, many: str, than: str, most: float) -> Check:
    own = raw.median(many, OURS, cpu)
    found = ratio(own, raw.median(few, OURS, cpu))
    return Check(what, f"≤ {most:g} × that of {than}", f"{number(own)} µs: {times(found, 2)}", at_most(found, most))


def _https(raw: Raw) -> Check:
    own = raw.median("tls", OURS, cpu)
    failed = sum(measure.load.errors for measure in raw.of("tls", OURS))
    found = ratio(own, raw.median("capacity", OURS, cpu))
    return Check(
        "CPU a request, HTTPS upstream",
        "a row in the table",
        f"{number(own)} µs: {times(found, 2)} that over HTTP",
        None if own is None else failed == 0,
    )


# --- tables ---------------------------------------------------------------------------------------------------------


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(raw: Raw, run: str, target: str, figure: Figure, digits: int = 0) -> str:
    """The median, and the least and the most of the repeats."""
    values = raw.values(run, target, figure)
    if not values:
        return "–"
    middle = number(raw.median(run, target, figure), digits)
    return middle if len(values) == 1 else f"{middle} ({number(min(values), digits)}–{number(max(values), digits)})"


def measured(raw: Raw, run: str) -> list[str]:
    return [target for target in TARGETS if raw.of(run, target)]


def judgement(raw: Raw) -> str:
    words = {True: "yes", False: "**no**", None: "not measured"}
    return table(
        ("", "target", "measured", "met"),
        [(check.what, check.at_least, check.measured, words[check.holds]) for check in checks(raw)],
    )


def comparison(raw: Raw) -> str:
    """What each target does and costs: medians, with the least and the most of the repeats where they are judged."""
    rows = []
    for target in measured(raw, "capacity"):
        is_gateway = target != "direct"
        ttft = [number(raw.median("stream", target, spread("ttft", part)), 1) for part in ("p50", "p99")]
        failed = sum(measure.load.errors for run in ("capacity", "stream") for measure in raw.of(run, target))
        rows.append(
            (
                TITLES[target],
                cell(raw, "capacity", target, rps),
                cell(raw, "capacity", target, cpu) if is_gateway else "",
                " / ".join(number(added(raw, target, part), 2) for part in ("p50", "p99")) if is_gateway else "",
                cell(raw, "stream", target, chunk) if is_gateway else "",
                " / ".join(ttft),
                number(failed),
            )
        )
    heads = ("", "requests/s per core", "CPU µs / request", f"added p50 / p99 ms at {raw.args['rate']:g}/s",
             "CPU µs / chunk", f"TTFT p50 / p99 ms, {raw.args['streams']} streams", "errors")  # fmt: skip
    return table(heads, rows)


def beside(raw: Raw) -> str:
    """The CPU that Portico's other processes take for a request."""
    valkey, drainer = (raw.median("capacity", OURS, _side(name)) for name in ("valkey", "drainer"))
    return f"Outside the gateway, each request costs Valkey {number(valkey)} µs and the drainer {number(drainer)} µs of CPU."


def _side(name: str) -> Figure:
    return lambda measure: measure.side_us(name)


def place(raw: Raw, source: str) -> str:
    """Where the run took place."""
    machine, args = raw.machine, raw.args
    folder = "bench/build" if args["quick"] else "bench/results"
    made = (
        f"Measured {raw.made} on {machine['cores']} cores of {machine['processor']} with {machine['memory_gb']:g} GB, Linux"
        f" {machine['kernel']}; {args['repeats']} interleaved repeats, median (minimum–maximum)."
        f" Results and versions: `{folder}/{source}`."
    )
    lines = [
        made,
        f"Each call through Portico is charged to these scopes, all with limits: {', '.join(raw.chain)}.",
    ]
    if args["quick"]:
        lines.insert(0, "**A quick run: its figures judge nothing.**")
    lines += [f"Note: {note}." for note in raw.notes]
    return " ".join(lines)


def text(raw: Raw, source: str) -> str:
    """Everything between the markers."""
    return "\n\n".join([place(raw, source), comparison(raw), beside(raw), judgement(raw)])


def written(page: str, tables: str) -> str:
    """The page with new text between its markers. Raises `ValueError` when it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected {BEGIN} and {END}")
    return f"{before}{begin}\n\n{tables}\n\n{end}{after}"


def write(page: Path, tables: str) -> None:
    page.write_text(written(page.read_text(), tables))
