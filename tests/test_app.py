"""The factory opens the doors asked for and no others; health answers on every side."""

import subprocess
import sys
from pathlib import Path

import pytest
import redis
from flask import Flask
from werkzeug.test import Client

import wsgi
from app import clock, create_app, store
from app.runtime import heartbeats
from config import Config, load
from tests.house import migrated, quick_hashes, wire  # noqa: F401


def _config(tmp_path: Path, redis_url: str, doors: str, **more: str) -> Config:
    settings = {
        "CONFIG_STORAGE_DATA_DIR": str(tmp_path),
        "CONFIG_REDIS_URL": redis_url,
        "CONFIG_SERVER_DOORS": doors,
        **more,
    }
    return load(settings)


@pytest.fixture
def side(tmp_path: Path, redis_url: str) -> Flask:
    return create_app(_config(tmp_path, redis_url, "api,public"), {"api", "public"})


def test_an_unknown_door_is_refused(tmp_path: Path, redis_url: str) -> None:
    with pytest.raises(ValueError, match="unknown doors: back"):
        create_app(_config(tmp_path, redis_url, "v1"), {"back"})
    with pytest.raises(ValueError, match="of its own"):
        create_app(_config(tmp_path, redis_url, "v1"), {"v1", "api"})


def test_a_process_with_v1_alone_loads_nothing_cold(tmp_path: Path) -> None:
    code = """
import sys
from config import load
import wsgi
from werkzeug.test import Client
client = Client(wsgi.Doors(load()))
assert client.get("/healthz").status_code == 200
assert client.get("/readyz").status_code == 503
cold = ("sqlalchemy", "flask_sqlalchemy", "flask_login", "flask_wtf", "wtforms", "authlib", "rq", "alembic", "bcrypt",
        "app.domain", "app.ledger", "app.portal_app", "app.extensions", "app.web")
print([name for name in sys.modules if name in cold or name.startswith(tuple(f"{one}." for one in cold))])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={"CONFIG_STORAGE_DATA_DIR": str(tmp_path), "CONFIG_SERVER_DOORS": "v1", "PATH": "/usr/bin:/bin"},
        cwd=Path(wsgi.__file__).parent,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_each_side_answers_its_own_paths(tmp_path: Path, redis_url: str) -> None:
    both = Client(wsgi.Doors(_config(tmp_path, redis_url, "v1,api,public")))
    assert both.get("/v1/models").get_json()["error"]["type"] == "invalid_request_error"
    assert both.get("/api/keys").get_json()["error"]["code"] == "unauthenticated"
    assert both.get("/healthz").get_json() == {"status": "ok"}
    hot = Client(wsgi.Doors(_config(tmp_path, redis_url, "v1")))
    assert hot.get("/api/keys").status_code in (401, 404)
    assert hot.get("/sign-in").status_code in (401, 404)
    assert hot.get("/healthz").status_code == 200
    cold = Client(wsgi.Doors(_config(tmp_path, redis_url, "api,public")))
    assert cold.get("/v1/models").status_code == 404
    assert cold.get("/healthz").status_code == 200


def test_v1_sets_no_cookie_and_varies_on_none(tmp_path: Path, redis_url: str) -> None:
    answer = Client(wsgi.Doors(_config(tmp_path, redis_url, "v1"))).get("/v1/models")
    assert "Set-Cookie" not in answer.headers
    assert "Cookie" not in answer.headers.get("Vary", "")


def everything_runs(wire: redis.Redis) -> None:
    for process in heartbeats.PROCESSES:
        heartbeats.beat(wire, process)


def test_readyz_names_background_processes_that_do_not_run_and_stays_in_traffic(side: Flask, wire: redis.Redis) -> None:
    everything_runs(wire)
    wire.delete(store.heartbeat("worker"), store.heartbeat("clock"))
    answer = side.test_client().get("/readyz")
    assert (answer.status_code, answer.get_json()) == (200, {"status": "degraded", "degraded": ["worker", "clock"]})


def test_readyz_names_a_time_that_is_wrong_and_stays_in_traffic(
    side: Flask, wire: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything_runs(wire)
    now_ns = clock.now_ns
    monkeypatch.setattr(clock, "now_ns", lambda: now_ns() + 10**10)
    answer = side.test_client().get("/readyz")
    assert (answer.status_code, answer.get_json()) == (200, {"status": "degraded", "degraded": ["time"]})


def test_readyz_names_what_is_degraded(side: Flask, tmp_path: Path, wire: redis.Redis) -> None:
    everything_runs(wire)
    assert side.test_client().get("/readyz").get_json() == {"status": "ready", "degraded": []}
    away = create_app(_config(tmp_path, "unix:///nonexistent", "api,public"), {"api"}).test_client().get("/readyz")
    assert (away.status_code, away.get_json()["degraded"]) == (503, ["redis"])


def test_a_process_that_serves_v1_stays_in_traffic_without_sql(
    tmp_path: Path, redis_url: str, wire: redis.Redis
) -> None:
    everything_runs(wire)
    broken = {"CONFIG_DATABASE_URL": "postgresql://nobody@/nothing?host=/nonexistent"}
    for doors, status in (("v1,api", 200), ("api", 503)):
        made = create_app(_config(tmp_path, redis_url, doors, **broken), {"api"})
        answer = made.test_client().get("/readyz")
        assert (answer.status_code, answer.get_json()["degraded"]) == (status, ["database"])


def test_metrics_answer_loopback_and_the_networks_allowed(tmp_path: Path, redis_url: str) -> None:
    settings = tmp_path / "config.yml"
    settings.write_text("metrics: {allow: [10.0.0.0/8, '2001:db8::1']}")
    made = create_app(_config(tmp_path, redis_url, "api", CONFIG_FILE=str(settings)), {"api"})
    client = made.test_client()
    for address, status in (
        ("127.0.0.1", 200), ("::1", 200), ("10.1.2.3", 200), ("2001:db8::1", 200), ("192.0.2.1", 403), ("", 403),
    ):  # fmt: skip
        assert client.get("/metrics", environ_base={"REMOTE_ADDR": address}).status_code == status
    # Behind a proxy that is not trusted, loopback is only the proxy's own address.
    assert client.get("/metrics", headers={"X-Forwarded-For": "127.0.0.1"}).status_code == 403


def test_a_trusted_proxy_tells_the_clients_address(tmp_path: Path, redis_url: str) -> None:
    made = create_app(_config(tmp_path, redis_url, "api", CONFIG_SERVER_TRUSTED_PROXIES="1"), {"api"})
    client = made.test_client()
    assert client.get("/metrics", headers={"X-Forwarded-For": "192.0.2.1"}).status_code == 403
    assert client.get("/metrics", headers={"X-Forwarded-For": "192.0.2.1, 127.0.0.1"}).status_code == 200


def test_the_command_line_finds_the_cold_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONFIG_STORAGE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("CONFIG_SERVER_DOORS", "v1,api")
    assert "public" not in wsgi.create_app().blueprints


@pytest.mark.parametrize("doors", ["v1,portal,admin,api,public", "v1"])
def test_a_client_whose_base_url_lacks_v1_is_told_so_in_json(tmp_path: Path, redis_url: str, doors: str) -> None:
    both = Client(wsgi.Doors(_config(tmp_path, redis_url, doors)))
    key = {"Authorization": "Bearer sk-nonsense"}
    for method, path in (("POST", "/chat/completions"), ("POST", "/chat/completions/"), ("GET", "/models"),
                         ("GET", "/models/small"),
                         ("POST", "/messages"), ("POST", "/audio/speech")):  # fmt: skip
        answer = both.open(path, method=method, headers=key)
        assert (answer.status_code, answer.mimetype) == (404, "application/json"), path
        told = answer.json["error"]
        assert told["type"] == "invalid_request_error" and f"{method} {path}." in told["message"]
    for headers in ({}, {**key, "Accept": "text/html"}, {**key, "HX-Request": "true"}, {"Authorization": "Basic dTpw"}):
        page = both.get("/models", headers=headers)
        assert (page.mimetype == "application/json") is (doors == "v1"), headers


def test_whoever_speaks_json_is_answered_in_json_where_nothing_is(tmp_path: Path, redis_url: str) -> None:
    client = Client(wsgi.Doors(_config(tmp_path, redis_url, "v1,portal,admin,api,public")))
    for asked in (
        client.get("/nothing", headers={"Accept": "application/json"}),
        client.post("/nothing", json={}),
        client.put("/sign-in", json={}),
    ):
        assert (asked.status_code, asked.mimetype) == (
            405 if asked.request.path == "/sign-in" else 404,
            "application/json",
        )
        assert set(asked.json["error"]) == {"code", "message", "field"}
    for accept in ("text/html,application/xhtml+xml,*/*;q=0.8", "*/*"):
        assert client.get("/nothing", headers={"Accept": accept}).mimetype == "text/html"
