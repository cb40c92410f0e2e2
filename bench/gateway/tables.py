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


def completed(measure: Measure) -> float | None:
    return measure.load.ok


def at_once(measure: Measure) -> float | None:
    return measure.load.peak


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


def errors(raw: Raw, run: str, target: str) -> str:
    return number(sum(measure.load.errors for measure in raw.of(run, target)))


def measured(raw: Raw, run: str) -> list[str]:
    return [target for target in TARGETS if raw.of(run, target)]


def judgement(raw: Raw) -> str:
    words = {True: "yes", False: "**no**", None: "not measured"}
    return table(
        ("", "target", "measured", "met"),
        [(check.what, check.at_least, check.measured, words[check.holds]) for check in checks(raw)],
    )


def requests(raw: Raw) -> str:
    def side(name: str) -> Figure:
        return lambda measure: measure.side_us(name)

    rows = []
    for target in measured(raw, "capacity"):
        own = raw.median("capacity", target, cpu)
        is_gateway = target != "direct"
        rows.append(
            (
                TITLES[target],
                cell(raw, "capacity", target, rps),
                cell(raw, "capacity", target, cpu) if is_gateway else "",
                times(ratio(own, raw.median("capacity", "nginx", cpu))) if is_gateway else "",
                part_of(ratio(own, raw.median("capacity", "litellm", cpu))) if target in ("nginx", OURS) else "",
                f"{number(100 * (raw.median('capacity', target, lambda m: m.busy) or 0))} %" if is_gateway else "",
                cell(raw, "capacity", target, side("valkey")) if target == OURS else "",
                cell(raw, "capacity", target, side("drainer")) if target == OURS else "",
                number(added(raw, target, "p50"), 2) if is_gateway else "",
                number(added(raw, target, "p99"), 2) if is_gateway else "",
                errors(raw, "capacity", target),
            )
        )
    rate = f"{raw.args['rate']:g}"
    heads = ("", "requests/s", "CPU-µs a request", "of nginx's", "of LiteLLM's", "its core busy", "Valkey's µs", "drainer's µs",
             f"added p50 ms at {rate}/s", "added p99 ms", "errors")  # fmt: skip
    return table(heads, rows)


def streams(raw: Raw) -> str:
    rows = []
    for target in measured(raw, "stream"):
        own = raw.median("stream", target, chunk)
        is_gateway = target != "direct"
        rows.append(
            (
                TITLES[target],
                cell(raw, "stream", target, chunk) if is_gateway else "",
                times(ratio(own, raw.median("stream", "nginx", chunk))) if is_gateway else "",
                part_of(ratio(own, raw.median("stream", "litellm", chunk))) if target in ("nginx", OURS) else "",
                cell(raw, "stream", target, spread("ttft", "p50"), 2),
                cell(raw, "stream", target, spread("ttft", "p99"), 2),
                cell(raw, "stream", target, spread("transit", "p50"), 2),
                cell(raw, "stream", target, spread("transit", "p99"), 2),
                cell(raw, "stream", target, spread("jitter", "p99"), 2),
                errors(raw, "stream", target),
            )
        )
    heads = ("", "CPU-µs a chunk", "of nginx's", "of LiteLLM's", "TTFT p50 ms", "TTFT p99 ms", "transit p50 ms", "transit p99 ms",
             "jitter p99 ms", "errors")  # fmt: skip
    return table(heads, rows)


def held(raw: Raw) -> str:
    rows = []
    for run, pace in (("held-fast", "20 chunks/s"), ("held-slow", "1 chunk/s")):
        for target in measured(raw, run):
            rows.append(
                (
                    TITLES[target],
                    f"{number(raw.args[run.replace('-', '_')])} at {pace}",
                    number(min(raw.values(run, target, completed))),
                    number(max(raw.values(run, target, at_once))),
                    errors(raw, run, target),
                    cell(raw, run, target, spread("ttft", "p50"), 1),
                    cell(raw, run, target, spread("ttft", "p99"), 1),
                    cell(raw, run, target, spread("transit", "p50"), 2),
                    cell(raw, run, target, spread("transit", "p99"), 1),
                    cell(raw, run, target, chunk),
                    cell(raw, run, target, held_kb),
                )
            )
    heads = ("", "streams", "complete, at least", "at once, at most", "errors", "TTFT p50 ms", "TTFT p99 ms", "transit p50 ms",
             "transit p99 ms", "CPU-µs a chunk", "KB a stream")  # fmt: skip
    return table(heads, rows)


def place(raw: Raw, source: str) -> str:
    """Where the run took place, and with which versions."""
    machine, versions, args = raw.machine, raw.versions, raw.args
    folder = "bench/build" if args["quick"] else "bench/results"
    made = (
        f"Measured {raw.made} on {machine['cores']} cores of {machine['processor']} with {machine['memory_gb']:g} GB, Linux"
        f" {machine['kernel']}; load average at the start: {', '.join(f'{load:g}' for load in machine['load_average'])}."
        f" Repeats: {args['repeats']}, interleaved; cells are median (minimum–maximum)."
        f" Results: `{folder}/{source}`."
    )
    lines = [
        made,
        "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        f"Each call through Portico is charged to these scopes, all with limits: {', '.join(raw.chain)}.",
    ]
    if args["quick"]:
        lines.insert(0, "**A quick run: its figures judge nothing.**")
    lines += [f"Note: {note}." for note in raw.notes]
    return "\n\n".join(lines)


def text(raw: Raw, source: str) -> str:
    """Everything between the markers."""
    parts = [
        place(raw, source),
        "### Targets",
        judgement(raw),
        f"### Requests: {raw.args['connections']} connections at full speed; {raw.args['rate']:g} a second",
        requests(raw),
        f"### Streams: {raw.args['streams']} at once, 20 chunks of 50 ms each",
        streams(raw),
        "### Held streams",
        held(raw),
    ]
    return "\n\n".join(parts)


def written(page: str, tables: str) -> str:
    """The page with new text between its markers. Raises `ValueError` when it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected {BEGIN} and {END}")
    return f"{before}{begin}\n\n{tables}\n\n{end}{after}"


def write(page: Path, tables: str) -> None:
    page.write_text(written(page.read_text(), tables))
