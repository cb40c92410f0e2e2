"""The real parts every test may ask for: Valkey, PostgreSQL, an upstream, a browser, a whole Portico.

Each is started once a test process at most, and only when a test asks; servers end with the process, whatever happens.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from hypothesis import HealthCheck, settings
from jinja2 import FileSystemBytecodeCache

from app import clock
from tests.costs import Costs, allowed_cases, without_case
from tests.groups import ByGroup
from tests.services.chromium import Chromium, NoChromium, find_chromium
from tests.services.memory import IN_MEMORY, PLACE
from tests.services.portico import Portico
from tests.services.postgres import Postgres, running_postgres
from tests.services.triton import NoTriton, Triton, running_triton
from tests.services.upstream import Upstream
from tests.services.valkey import ValkeyServer, running_valkey

if IN_MEMORY:
    os.environ["TMPDIR"] = tempfile.tempdir = PLACE  # for `tmp_path`, and for what tests start

# How many examples a property is shown: `make check` and `make test-all` say `--hypothesis-profile check` and `all`.
# How long one takes, to make or to try, says how busy the machine is. Those of `make test` are the same each time, as a
# judge's must be; the other two look for new ones.
for profile, many in {"check": 20, "test": 100, "all": 250}.items():
    settings.register_profile(
        profile,
        max_examples=many,
        deadline=None,
        derandomize=profile == "test",
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile("test")


@pytest.fixture(scope="session", autouse=True)
def compiled_templates() -> None:
    """Each test makes an application of its own; what Jinja compiled for one of them serves the others."""
    place = Path(__file__).resolve().parents[1] / ".cache" / "templates"
    place.mkdir(parents=True, exist_ok=True)
    Flask.jinja_options = {"bytecode_cache": FileSystemBytecodeCache(str(place))}


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    """The Valkey of this test process, for tests that stop or kill it; they start it again."""
    with running_valkey() as server:
        yield server


@pytest.fixture(scope="session")
def valkey(valkey_server: ValkeyServer) -> str:
    """The URL of a real Valkey; `redis_url` is the one that is empty."""
    return valkey_server.url


@pytest.fixture
def redis_url(valkey_server: ValkeyServer) -> str:
    """The URL of a real Valkey with nothing in it."""
    valkey_server.flush()
    return valkey_server.url


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL: `postgres.fresh()` is the URL of a new database. Mark the test `services`."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """The URL of a new, empty PostgreSQL database."""
    url = postgres.fresh()
    yield url
    postgres.drop(url)


@pytest.fixture
def lasting_postgres_url(postgres: Postgres) -> str:
    """The URL of the PostgreSQL database that all tests of this process share: `tests.house.app` puts it back."""
    return postgres.lasting("house")


@pytest.fixture
def books_postgres_url(postgres: Postgres) -> str:
    """The URL of the PostgreSQL database in which `tests.ledger.books` opens books, which are emptied each time."""
    return postgres.lasting("books")


@pytest.fixture(scope="session")
def books_sqlite_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same in SQLite."""
    return f"sqlite:///{tmp_path_factory.mktemp('books') / 'books.db'}"


@pytest.fixture(scope="session")
def triton() -> Iterator[Triton]:
    """A real Triton with the models of `tests/services/triton_models`. Mark the test `services`."""
    try:
        with running_triton() as server:
            yield server
    except NoTriton as reason:
        pytest.skip(f"no Triton: {reason}")


@pytest.fixture
def make_upstream() -> Iterator[Callable[[], Upstream]]:
    """As many scripted upstreams as a test needs."""
    made: list[Upstream] = []

    def make() -> Upstream:
        made.append(Upstream())
        return made[-1]

    yield make
    for upstream in made:
        upstream.stop()


@pytest.fixture
def upstream(make_upstream: Callable[[], Upstream]) -> Upstream:
    """A scripted upstream that answers sensibly until it is told otherwise."""
    return make_upstream()


@pytest.fixture(scope="session")
def shared_upstream() -> Iterator[Upstream]:
    """An upstream that stays at one address for the shared `portico`; `reset()` it at the start of a test."""
    server = Upstream()
    yield server
    server.stop()


class PorticoStarter:
    """`start_portico(CONFIG_SERVER_WORKERS="2")` is a Portico of one's own, ready; `close()` it or leave it."""

    def __init__(self) -> None:
        self.started: list[Portico] = []

    def __call__(self, **environ: str) -> Portico:
        self.started.append(Portico(environ))
        return self.started[-1].start()


@pytest.fixture
def start_portico() -> Iterator[PorticoStarter]:
    """Starts Porticos of one's own, which end with the test."""
    starter = PorticoStarter()
    yield starter
    for portico in starter.started:
        portico.close()


@pytest.fixture(scope="session")
def portico() -> Iterator[Portico]:
    """The Portico that the tests of this process share; leave it as you found it."""
    shared = Portico({})
    try:
        yield shared.start()
    finally:
        shared.close()


@pytest.fixture(scope="session")
def chromium() -> Chromium:
    try:
        return find_chromium()
    except NoChromium as reason:
        pytest.skip(f"no browser: {reason}")


@pytest.fixture(scope="session")
def chromium_path(chromium: Chromium) -> Path:
    return chromium.path


@pytest.fixture(scope="session")
def browser_type_launch_args(chromium: Chromium) -> dict[str, Any]:
    """What pytest-playwright's `browser`, `context` and `page` are started with."""
    return chromium.launch_options()


class SetClock:
    """`set_clock(moment)` sets the application's clock, which then stands still but for a microsecond at each look, so that
    what happens later also is later; `set_clock.move(seconds)` moves it. Redis goes on by its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._ns = 0

    def __call__(self, moment: datetime) -> None:
        self._ns = int(moment.timestamp()) * 10**9
        self._monkeypatch.setattr("app.clock.now_ns", self._look)

    def move(self, seconds: float) -> None:
        self._ns += int(seconds * 10**9)

    def _look(self) -> int:
        self._ns += 1000
        return self._ns


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    return SetClock(monkeypatch)


# Ten seconds before a month ends, a leap day ends, an hour is left out, and an hour comes twice.
TURNS = ("2026-11-30T23:59:50Z", "2028-02-29T23:59:50Z", "2027-03-14T06:59:50Z", "2026-10-25T00:59:50Z")


@pytest.fixture(params=TURNS)
def turn(request: pytest.FixtureRequest, set_clock: SetClock) -> datetime:
    """An instant at which calendars are awkward; the application's clock is set to it."""
    moment = datetime.fromisoformat(request.param)
    set_clock(moment)
    return moment


QUIET_S = 20


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-combination", action="store_true", help="every test on each database and through each lane"
    )
    parser.addoption(
        "--most-cases",
        type=int,
        default=0,
        help="of a test of more cases so many, evenly chosen; 0 for all. Of those that tests/costs.txt names, as many as it says",
    )
    parser.addoption(
        "--measure-costs", action="store_true", help="write tests/costs.txt again, from all that could be run"
    )


costs = Costs()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    costs.add(report.nodeid, getattr(report, "cpu_s", 0))  # none is told of a process that died


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.getoption("measure_costs") and not hasattr(session.config, "workerinput"):
        costs.write()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave a test out on its second database and through its second lane, unless it is marked as one that can differ
    there. The slow ones begin, so that none of them is alone at the end."""
    seconds = {"both_databases": "postgresql", "both_lanes": "flask"}

    def is_left_out(item: pytest.Item) -> bool:
        values = (
            item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
        )
        module = item.path.stem
        return any(
            (second in values or (second == "postgresql" and module.endswith("_on_postgres")))
            and item.get_closest_marker(mark) is None
            for mark, second in seconds.items()
        )

    left_out = [] if config.getoption("every_combination") else [item for item in items if is_left_out(item)]
    config.hook.pytest_deselected(items=left_out)
    gone = set(left_out)
    items[:] = sorted(
        (item for item in items if item not in gone), key=lambda item: not item.get_closest_marker("slow")
    )
    if most := config.getoption("most_cases"):
        _choose(config, items, most)


def _choose(config: pytest.Config, items: list[pytest.Item], most: int) -> None:
    """Leave so many cases of each test, spread evenly over them all."""
    allowed = {} if config.getoption("measure_costs") else allowed_cases()
    cases: dict[object, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(getattr(item, "function", item), []).append(item)
    left_out = set()
    for of in cases.values():
        shown = min(most, allowed.get(without_case(of[0].nodeid), most))
        if len(of) > shown:
            left_out.update(of)
            left_out.difference_update(of[at * len(of) // shown] for at in range(shown))
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep together what `tests.groups` names, in whichever order processes come for more."""
    return ByGroup(config, log) if config.getoption("dist") == "loadgroup" else None


def pytest_make_parametrize_id(val: object) -> str | None:
    """Long or packed bytes name no test: gzip tells the second, and workers that began in different ones disagree."""
    if isinstance(val, bytes) and not (val.isascii() and len(val) <= 60):
        return f"{len(val)} bytes"
    return None


def pytest_collection_finish() -> None:
    """What was imported stays: the garbage collector need not walk it again and again."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """pytest has looked for what was not closed, and does so once more: nothing was made since."""
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Begin no test shortly before a full hour: an hour, a day or a month may end there in the midst of it, and what is
    "today" to the test would be yesterday to the product."""
    left = 3600 - clock.now_s() % 3600
    if left < QUIET_S:
        time.sleep(left)
    costs.since_last_s()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Show the log of each Portico beside the failure of a test that used it, and tell what it cost."""
    report = yield
    report.cpu_s = costs.since_last_s()  # type: ignore[attr-defined]
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            for one in value.started if isinstance(value, PorticoStarter) else [value]:
                if isinstance(one, Portico):
                    report.sections.append((f"log of {name}", one.log(10_000)))
    return report
