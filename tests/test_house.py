"""The law of the house, kept by reading every import: hot never imports cold, and a door imports no other door."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
APP = ROOT / "app"

HOT = ("app.gateway", "app.providers", "app.metering", "app.blueprints.v1")
GROUND = (
    "config",
    "app.clock",
    "app.ids",
    "app.directory",
    "app.store",
    "app.sealing",
    "app.logs",
    "app.current",
    "app.health",
    "app.failpoints",
    "app.sockets",
    "app.bodies",
)
LETTERBOX = ("app.jobs.letterbox",)  # ground floor: it carries letters by name and knows no job
COLD_PACKAGES = {
    "sqlalchemy", "flask_sqlalchemy", "flask_migrate", "flask_login", "flask_wtf", "flask_htmx", "wtforms", "authlib",
    "rq", "alembic", "bcrypt",
}  # fmt: skip
# Flask is the door's business: the journey of a call knows none, so that another server may call it.
WITHOUT_FLASK = ("app.gateway", "app.providers", "app.metering", "app.domain", "app.ledger")
DOORS = ("v1", "portal", "admin", "api", "public")


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


@pytest.mark.parametrize(("name", "path"), EVERY, ids=[name for name, _ in EVERY])
def test_a_module_keeps_to_its_floor(name, path):
    imported = imports(name, path)
    ours = {module for module in imported if module == "config" or within(module, ("app",))}
    packages = {module.partition(".")[0] for module in imported}
    if within(name, HOT):
        assert not packages & COLD_PACKAGES
        strangers = {module for module in ours if not within(module, (*HOT, *GROUND)) and module != "app"}
        assert not strangers, f"hot {name} imports {sorted(strangers)}"
    if within(name, GROUND):
        assert not packages & COLD_PACKAGES
        assert not {module for module in ours if within(module, ("app.domain", "app.ledger", "app.web"))}
    if within(name, WITHOUT_FLASK) and within(name, HOT):
        assert "flask" not in packages
    if within(name, ("app.metering", "app.providers")):
        assert not {m for m in ours if within(m, ("app.blueprints",))}
    for door in DOORS:
        if within(name, (f"app.blueprints.{door}",)):
            others = tuple(f"app.blueprints.{other}" for other in DOORS if other != door)
            assert not {module for module in ours if within(module, others)}
    if within(name, ("app.domain", "app.ledger")):
        above = {module for module in ours if within(module, ("app.blueprints", "app.web", "app.jobs"))}
        assert not {module for module in above if not within(module, LETTERBOX)}


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
    assert not [module for module in loaded if within(module, ("app.domain", "app.ledger", "app.web", "app.jobs"))]
