"""The law of the house, kept by reading every import: hot never imports cold, and a door imports no other door."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from app import create_app
from config import load

ROOT = Path(__file__).resolve().parent.parent
APP = ROOT / "app"

# The arrows: which rooms a room may import. Everybody may import the ground. An arrow that is not here fails, and so does
# one that is here and that nobody draws any more.
FLOORS: dict[str, tuple[str, ...]] = {
    "ground": (),
    # hot
    "metering": (),
    "providers": (),
    "gateway": ("metering", "providers"),
    # cold
    "sql": (),
    "oidc": (),
    "litellm": ("providers",),
    "ledger": ("metering", "sql"),
    "domain": ("gateway", "ledger", "litellm", "metering", "providers", "sql"),
    "reports": ("domain", "ledger", "metering", "sql"),
    "workflows": ("domain", "gateway", "ledger", "litellm", "metering", "oidc", "providers", "reports", "sql"),
    "web": ("domain", "metering", "sql"),
    "pages": ("domain", "ledger", "metering", "reports", "sql", "web", "workflows"),
    "jobs": ("domain", "ledger", "metering", "sql", "workflows"),
    # doors, which import no other door
    "v1": ("gateway", "metering"),
    "portal": ("domain", "gateway", "ledger", "metering", "pages", "reports", "sql", "web", "workflows"),
    "admin": ("domain", "ledger", "metering", "oidc", "pages", "providers", "reports", "sql", "web", "workflows"),
    "api": ("domain", "ledger", "litellm", "metering", "oidc", "pages", "reports", "sql", "web", "workflows"),
    "public": ("domain", "oidc", "pages", "sql", "web", "workflows"),
    # what puts the rooms together
    "commands": ("domain", "sql", "workflows"),
    "assembly": ("domain", "jobs", "reports", "sql", "web", "workflows"),
}
LOOSE = {  # modules on the first floor, and the room that each counts as
    "ground": ("clock", "current", "directory", "store"),
    "sql": ("extensions", "queue"),
    "assembly": ("__main__", "portal_app", "setup"),
}
TESTED = (  # each module has its test beside it
    "domain", "web", "pages", "workflows", "reports", "ledger", "jobs", "gateway", "gateway.dialects", "providers",
    "blueprints.v1", "oidc", "litellm",
)  # fmt: skip
UNTESTED = {  # what a module without a test file of its own is
    "app.domain.errors": "declarations: refusals with their names and statuses, which every door's tests see",
    "app.oidc.errors": "declarations: why a sign-in gave nothing, which tests/blueprints/public/test_oidc.py sees",
    "app.ledger.entries": "declarations: the tables that posting writes and reports read",
    "app.gateway.errors": "declarations: the error table, which tests/blueprints/v1/test_errors.py sees as clients do",
    "app.gateway.dialects.base": "declarations: what a dialect is, which every dialect's tests see",
    "app.gateway.dialects.openai_translations": "a row: test_openai_transcriptions.py judges both",
} | {
    f"app.providers.triton_{part}": "part of triton, tested in test_triton*"
    for part in ("errors", "exchanges", "grpc", "http", "speech", "transport")
}
HOT = ("metering", "providers", "gateway", "v1")
NEVER_IMPORTED = {  # what stands in requirements.in although no module imports it by name, and why
    "psycopg": "SQLAlchemy loads it by the database's URL",
    "packaging": "gunicorn's gevent worker imports it without declaring it",
    "tzdata": "zone names where the system has none",
}
COLD_PACKAGES = {
    "sqlalchemy", "flask_sqlalchemy", "flask_migrate", "flask_login", "flask_wtf", "flask_htmx", "wtforms", "authlib",
    "rq", "alembic", "bcrypt",
}  # fmt: skip


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(APP.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(name: str, path: Path) -> set[str]:
    """Every module that a file imports, early or late; `from a import b` may name a module `a.b` too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


EVERY = list(modules())


def room_of(module: str) -> str:
    """The room a module of `app` stands in."""
    _, *places = module.split(".")
    if places[:1] == ["blueprints"]:
        places = places[1:]
    if not places:
        return "assembly"
    loose = next((room for room, modules in LOOSE.items() if places[0] in modules), None)
    return loose or {"runtime": "ground"}.get(places[0], places[0])


def arrows(name: str, path: Path) -> set[str]:
    """The rooms that a module's imports lead to, its own left out."""
    known = {module for module, _ in EVERY}
    found = {room_of(module) for module in imports(name, path) if module in known and module != "app"}
    return found - {room_of(name)}


@pytest.mark.parametrize(("name", "path"), EVERY, ids=[name for name, _ in EVERY])
def test_a_module_imports_from_its_own_floor_and_below(name, path):
    room = room_of(name)
    assert room in FLOORS, f"{name} stands in a room that the table does not know"
    assert arrows(name, path) <= {*FLOORS[room], "ground"}
    packages = {module.partition(".")[0] for module in imports(name, path)}
    if room in HOT:
        assert not packages & COLD_PACKAGES
    if room in ("metering", "providers", "gateway"):  # Flask is the door's: another server may serve the same call
        assert "flask" not in packages


def test_the_table_of_arrows_is_what_is_drawn():
    drawn: dict[str, set[str]] = {room: set() for room in FLOORS}
    for name, path in EVERY:
        drawn[room_of(name)] |= arrows(name, path) - {"ground"}
    assert drawn == {room: set(allowed) for room, allowed in FLOORS.items()}


def test_the_documents_name_only_places_that_are_there():
    """Files and folders in backticks: whole, from `app` or from a door on, or a file's name alone."""
    place = re.compile(r"`((?:[\w.-]+/)*[\w.-]+(?:\.(?:py|lua|md|html)|/))`")
    homes = (ROOT, APP, APP / "blueprints")
    files = {path.name for folder in homes[:2] for path in folder.glob("*" if folder is ROOT else "**/*")}
    for document in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for name in place.findall(document.read_text()):
            is_made = name in ("instance/", "test-results/")
            assert is_made or name in files or any((home / name).exists() for home in homes), f"{document.name}: {name}"


def test_the_architecture_tells_of_every_room_and_of_every_module_of_the_first_floor():
    told = (ROOT / "docs" / "architecture.md").read_text()
    for path in APP.iterdir():
        if path.is_dir() and any(path.iterdir()) and path.name != "__pycache__":
            assert f"`app/{path.name}" in told, path.name
        elif path.suffix == ".py" and path.stem != "__init__":
            assert f"`{path.stem}`" in told, path.name


def test_every_package_of_the_runtime_is_imported_or_says_why_it_is_there():
    lines = [line for line in (ROOT / "requirements.in").read_text().splitlines() if line and line[0] != "#"]
    wanted = {re.split(r"[\[=;<> ]", line)[0].lower() for line in lines}
    homes = (APP, ROOT / "tools", ROOT / "migrations")
    places = [*ROOT.glob("*.py"), *(path for home in homes for path in home.rglob("*.py"))]
    imported = {module for path in places for module in imports(path.stem, path)}
    provided = packages_distributions()
    named = {
        package: [name for name, whose in provided.items() if package in {w.lower() for w in whose}]
        for package in wanted
    }
    unused = {
        package for package, names in named.items() if names and not any(within(m, tuple(names)) for m in imported)
    }
    assert unused == set(NEVER_IMPORTED)


def test_floors_lie_upon_each_other():
    """No room is reached from a room below it."""
    seen: set[str] = set()
    for room, allowed in FLOORS.items():
        assert set(allowed) <= seen, room
        seen.add(room)


@pytest.mark.parametrize("path", [path for _, path in EVERY], ids=[name for name, _ in EVERY])
def test_no_module_bears_the_name_of_a_layer(path):
    assert path.stem not in ("utils", "helpers", "manager", "service", "services", "common", "misc", "base_utils")


@pytest.mark.parametrize(
    "reading",
    ["datetime.now(UTC)", "datetime.utcnow()", "datetime.today()", "date.today()", "time.time()", "time.time_ns()"],
)
@pytest.mark.parametrize(("file", "allowed"), [("app/gateway/call.py", False), ("app/clock.py", True)])
def test_no_module_reads_a_clock_beside_the_application_s(reading, file, allowed):
    """By lint; `time.monotonic` and `time.perf_counter` stay for timers."""
    code = f"import time\nfrom datetime import UTC, date, datetime\n\nprint({reading}, time.monotonic(), time.perf_counter())\n"
    lint = [sys.executable, "-m", "ruff", "check", "--select", "TID251", "--no-cache", "--stdin-filename", file, "-"]
    assert (subprocess.run(lint, input=code, text=True, capture_output=True, cwd=ROOT).returncode == 0) is allowed


def test_a_process_with_the_door_v1_alone_loads_nothing_cold(tmp_path, valkey):
    """Asked for real, so that late imports on the way of a call are seen too."""
    script = """
from gevent import monkey; monkey.patch_all()
import json, sys
from werkzeug.test import Client
import config, wsgi
client = Client(wsgi.Doors(config.load()))
statuses = [client.get(path).status_code for path in ("/healthz", "/v1/models", "/v1/nothing")]
statuses.append(client.post("/v1/chat/completions", json={}, headers={"Authorization": "Bearer sk-x"}).status_code)
print(json.dumps([statuses, sorted(sys.modules)]))
"""
    import json

    environ = {
        "CONFIG_SERVER_DOORS": "v1", "CONFIG_STORAGE_DATA_DIR": str(tmp_path), "CONFIG_REDIS_URL": valkey,
        "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    statuses, loaded = json.loads(done.stdout.splitlines()[-1])
    assert statuses == [200, 401, 401, 401]
    assert not {module.partition(".")[0] for module in loaded} & COLD_PACKAGES
    assert not [
        module for module in loaded if room_of(module) not in {*HOT, "ground", "assembly"} and within(module, ("app",))
    ]


def test_the_endpoint_of_every_page_is_named_door_noun_verb(tmp_path):
    """As its module says it: `app/blueprints/portal/keys.py` has `index`, which is `portal.keys.index`."""
    doors = ("portal", "admin", "public")
    app = create_app(load({"CONFIG_STORAGE_DATA_DIR": str(tmp_path)}), doors)
    beside = {name for name in app.view_functions if name.startswith("health.")} | {"static"}
    for name in app.view_functions.keys() - beside:
        door, noun, verb = name.split(".")
        assert door in doors
        view = app.view_functions[name]
        assert (view.__module__, view.__name__) == (f"app.blueprints.{door}.{noun}", verb)


def modules_with_tests() -> Iterator[tuple[str, Path]]:
    """The modules that have a test file of their own name, and where it is: `app/web/lists.py` has
    `tests/web/test_lists.py`, a package's own code that of the package's name, `tests/web/test_web.py`."""
    for name, path in EVERY:
        package, _, stem = name.removeprefix("app.").rpartition(".")
        if path.stem == "__init__":
            package, stem = name.removeprefix("app").removeprefix("."), name.rpartition(".")[2]
        is_loose = path.parent == APP
        if (is_loose or package in TESTED) and (path.stem != "__init__" or path.read_text().strip()):
            yield name, ROOT.joinpath("tests", *package.split("."), f"test_{stem}.py")


@pytest.mark.parametrize(("name", "test"), list(modules_with_tests()), ids=[name for name, _ in modules_with_tests()])
def test_a_module_has_its_test_beside_it(name, test):
    """So that a change shows its test: a file of the module's own name, with tests in it."""
    if name in UNTESTED:
        assert not test.exists(), f"{name} has a test: take it off the list"
    else:
        assert test.exists(), f"{test.relative_to(ROOT)} is missing"
        assert any(
            isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
            for node in ast.parse(test.read_text()).body
        )


def test_only_modules_that_there_are_need_no_test():
    assert UNTESTED.keys() <= {name for name, _ in modules_with_tests()}
