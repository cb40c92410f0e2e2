"""The portal's benchmark: what it judges and writes, and that its seed is what posting would have left."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.gateway.builds import BENCH
from bench.portal import measures, seed, tables
from bench.portal.__main__ import PAGE
from bench.portal.measures import Derived, Export, Page, Raw, Write
from bench.portal.options import read
from bench.portal.sizes import Sizes
from bench.portal.visits import things, visits, without_ids

TINY = Sizes(
    people=60, teams=5, models=20, keys=200, rows=2_000, days=20, providers=3, audit=50, notices=50, waiting=10,
    budget_requests=10, invitations=10, deliveries=10, dead_letters=20,
)  # fmt: skip


def page(ms: list[float], kind: str = "page") -> Page:
    return Page(
        who="admin", path="/admin/keys", kind=kind, median_ms=measures.median(ms), p99_ms=measures.p99(ms), queries=7,
        rows_read=1234, scans=[],
    )  # fmt: skip


def raw() -> Raw:
    return Raw(
        made="2026-11-21T18:00:00Z",
        machine={"cores": 2, "processor": "some", "memory_gb": 8.0, "kernel": "6.1", "load_average": [0.1, 0.2, 0.3]},
        versions={"portico": "abc"}, sizes=Sizes(), repeats=3, seeded_s=200.0, started_s=30.0,
        pages=[page([10, 20, 30]), page([10, 20, 501], "part"), page([201, 202, 203], "api")],
        writes=[Write(what="make a key", times=3, median_ms=6, slowest_ms=7)],
        exports=[Export(path="/admin/keys?format=csv", rows=100_000, seconds=9.0, mbytes=20.0, grown_mb=3.0)],
        derived=[Derived(events=1000, full_s=0.5, empty_s=0.4)],
    )  # fmt: skip


def test_a_page_holds_by_its_median_and_by_its_slowest_hundredth() -> None:
    assert [one.holds for one in raw().pages] == [True, False, False]
    assert page([float(number) for number in range(1, 201)]).p99_ms == 198


def test_tables_tell_everything_and_stand_between_their_markers(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    file.write_text(f"Before.\n{tables.BEGIN}\nold\n{tables.END}\nAfter.\n")
    measures.write_raw(raw(), tmp_path / "raw.json")
    tables.write(file, tables.text(measures.read_raw(tmp_path / "raw.json"), "raw.json"))
    text = file.read_text()
    assert text.startswith("Before.") and text.endswith("After.\n") and "old" not in text
    assert "| admin | `/admin/keys` | 20 | 30 | 7 | 1,234 |" in text
    assert "| **202** | **203** |" in text
    assert "100,000" in text and "make a key" in text


def test_the_slowest_addresses_are_shown_and_all_that_miss_a_limit() -> None:
    fast = [page([number]) for number in range(20)]
    late = [page([1, 1, 501]), page([2, 2, 502])]
    run = raw()
    run.pages = [*late, *fast]
    shown = tables.slowest(run).splitlines()[2:]
    assert len(shown) == tables.SLOWEST + len(late)
    assert sum("**" in line for line in shown) == len(late)
    assert "| 19 | 19 |" in shown[0]


def test_the_tables_of_the_page_are_those_of_the_results_file_that_it_names() -> None:
    between = PAGE.read_text().partition(tables.BEGIN)[2].partition(tables.END)[0]
    [name] = re.findall(r"bench/results/([\w.-]+\.json)", between)
    assert between.strip() == tables.text(measures.read_raw(BENCH / "results" / name), name)


def test_ids_are_told_as_ids_and_sizes_are_options() -> None:
    assert without_ids("/keys/019a3b2c-1111-7222-8333-444455556666?x=1") == "/keys/<id>?x=1"
    assert read(["--rows", "7"]).sizes.rows == 7
    assert read([]).sizes == Sizes()


@pytest.mark.services
@pytest.mark.slow
def test_a_small_organisation_is_seeded_and_its_books_are_sound(postgres_url: str, tmp_path: Path) -> None:
    assert not seed.is_seeded(postgres_url)
    seed.seed(postgres_url, tmp_path, TINY)  # raises when the books are not
    assert seed.is_seeded(postgres_url)
    assert len({visit.name + visit.kind for visit in visits(things(seed.conninfo(postgres_url)))}) > 100
