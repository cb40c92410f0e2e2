"""The portal's tables in `docs/performance.md`, from a results file."""

from __future__ import annotations

from pathlib import Path

from bench.gateway.tables import number, table
from bench.portal.measures import MEDIAN_MS, P99_MS, Page, Raw

BEGIN, END = "<!-- bench.portal: begin -->", "<!-- bench.portal: end -->"
KINDS = {"page": "Pages", "part": "Fragments that htmx asks for", "api": "Management API"}
SLOWEST = 3  # addresses in the table of the slowest, besides those that miss a limit


def judgement(raw: Raw) -> str:
    rows = []
    for kind, title in KINDS.items():
        some = [page for page in raw.pages if page.kind == kind]
        good = sum(page.holds for page in some)
        rows.append(
            (
                title, f"{good} of {len(some)}", number(max(page.median_ms for page in some)),
                number(max(page.p99_ms for page in some)), number(max(page.queries for page in some)),
                number(sum(bool(page.scans) for page in some)),
            )
        )  # fmt: skip
    heads = ("", f"within {MEDIAN_MS:g} ms and {P99_MS:g} ms", "slowest median ms", "slowest p99 ms", "most queries",
             "with big scans")  # fmt: skip
    return table(heads, rows)


def slowest(raw: Raw) -> str:
    """The addresses with the highest medians, and every one that misses a limit. The results file holds them all."""
    ordered = sorted(raw.pages, key=lambda page: -page.median_ms)
    shown = [page for number, page in enumerate(ordered) if number < SLOWEST or not page.holds]

    def line(page: Page) -> tuple[str, ...]:
        mark = "" if page.holds else "**"
        return (
            page.who, f"`{page.path}`", f"{mark}{number(page.median_ms)}{mark}", f"{mark}{number(page.p99_ms)}{mark}",
            number(page.queries), number(page.rows_read),
        )  # fmt: skip

    return table(("who", "address", "median ms", "p99 ms", "queries", "rows read"), [line(page) for page in shown])


def others(raw: Raw) -> str:
    """Writes, exports and rollups, a line each."""
    acts = (f"{one.what} {number(one.median_ms)} ({number(one.slowest_ms)})" for one in raw.writes)
    files = (
        f"`{one.path}` {number(one.rows)} rows in {number(one.seconds, 1)} s, the worker grows by {number(one.grown_mb, 1)} MB"
        for one in raw.exports
    )
    sums = (f"{number(one.events)} new events in {number(one.full_s, 1)} s" for one in raw.derived)
    lines = (
        ("Writes, median (slowest) ms", ", ".join(acts)), ("Exports", "; ".join(files)), ("Rollups", "; ".join(sums)),
    )  # fmt: skip
    return "\n".join(f"- **{title}**: {figures}." for title, figures in lines if figures)


def place(raw: Raw, source: str) -> str:
    sizes, machine = raw.sizes, raw.machine
    seeded = "" if raw.seeded_s is None else f" Seeding took {number(raw.seeded_s)} s."
    return (
        f"Measured {raw.made} on {machine['cores']} cores of {machine['processor']} with {machine['memory_gb']:g} GB, Linux"
        f" {machine['kernel']}; {raw.repeats} visits of each address, interleaved. Results and versions:"
        f" `bench/results/{source}`.\n\n"
        f"Seeded: {number(sizes.keys)} keys, {number(sizes.people)} people, {number(sizes.teams)} teams,"
        f" {number(sizes.models)} models, {number(sizes.rows)} ledger rows over {sizes.days} days.{seeded} Time until Portico"
        f" takes traffic, with everything published: {number(raw.started_s, 1)} s."
    )


def text(raw: Raw, source: str) -> str:
    """Everything that stands between the markers."""
    parts = [place(raw, source), judgement(raw), slowest(raw), others(raw)]
    return "\n\n".join(parts)


def write(page: Path, tables: str) -> None:
    """Replace what stands between the page's markers. Raises `ValueError` when it has none."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected {BEGIN} and {END}")
    page.write_text(f"{before}{begin}\n\n{tables}\n\n{end}{after}")
