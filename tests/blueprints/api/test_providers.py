"""Providers in the management API."""

from flask import Flask

from app import current
from app.domain import providers
from tests.house import People, sign_in

KEY = "sk-upstream-0123456789abcdef"


def _openai(**config: object) -> dict[str, object]:
    return {"name": "Upstream", "provider": "openai", "config": {"base_url": "http://127.0.0.1:9/v1", **config}}


def test_secrets_come_back_masked_and_are_kept_sealed(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    made = admin.post("/api/providers", json=_openai(api_key=KEY))
    assert made.status_code == 201, made.text
    assert made.get_json()["config"]["api_key"] == "••••cdef"
    id = made.get_json()["id"]
    with app.app_context():
        kept = providers.get(id)
        assert KEY not in str(kept.settings) + str(kept.hints) + str(kept.sealed)
        assert providers.opened(kept).api_key == KEY
        assert b"0123456789" in current.sealer().open(str(kept.sealed))
    log = admin.get("/api/audit?object=provider")
    assert log.get_json()["data"][0]["action"] == "provider.create"
    assert KEY not in log.text


def test_a_masked_or_missing_secret_keeps_the_stored_one(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    made = admin.post("/api/providers", json=_openai(api_key=KEY)).get_json()
    for config in (
        {"base_url": "http://127.0.0.1:9/other", "api_key": "••••cdef"},
        {"base_url": "http://127.0.0.1:9/v1"},
    ):
        changed = admin.put(f"/api/providers/{made['id']}", json={"config": config})
        assert changed.status_code == 200, changed.text
        with app.app_context():
            assert providers.opened(providers.get(made["id"])).api_key == KEY
    renamed = admin.put(f"/api/providers/{made['id']}", json={**made, "name": "Renamed"})
    assert renamed.get_json()["name"] == "Renamed"


def test_a_new_origin_needs_the_secret_again(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    id = admin.post("/api/providers", json=_openai(api_key=KEY)).get_json()["id"]
    for address in ("http://127.0.0.1:10/v1", "https://127.0.0.1:9/v1", "http://127.0.0.2:9/v1"):
        for secret in ({}, {"api_key": "••••cdef"}):
            refused = admin.put(f"/api/providers/{id}", json={"config": {"base_url": address, **secret}})
            assert refused.status_code == 422
            assert refused.get_json()["error"]["field"] == "config.api_key"
    moved = admin.put(f"/api/providers/{id}", json={"config": {"base_url": "http://127.0.0.1:10/v1", "api_key": KEY}})
    assert moved.status_code == 200


def test_a_key_in_the_environment_is_kept_by_its_name(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    made = admin.post("/api/providers", json=_openai(api_key_env="SOME_KEY"))
    assert made.status_code == 201
    assert made.get_json()["config"]["api_key_env"] == "SOME_KEY"
    own = admin.post("/api/providers", json={**_openai(api_key_env="CONFIG_SECURITY_KEY_PEPPER"), "name": "b"})
    assert (own.status_code, own.get_json()["error"]["field"]) == (422, "config.api_key_env")


def test_wrong_settings_are_422_and_name_the_field(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    for config, field in (
        ({"timeout_s": -1}, "config.timeout_s"),
        ({"base_url": 5}, "config.base_url"),
        ({"colour": "red"}, "config.colour"),
        ({"base_url": "http://169.254.169.254/v1"}, "config.base_url"),
        ({"base_url": f"http://localhost:{app.config['PORTICO'].server.port}/v1"}, "config.base_url"),
        ({"base_url": f"http://[::1]:{app.config['PORTICO'].server.port}/v1"}, "config.base_url"),
    ):
        refused = admin.post("/api/providers", json=_openai(**config))
        assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, field)
    unknown = admin.post("/api/providers", json={"name": "x", "provider": "nothing"})
    assert unknown.get_json()["error"]["field"] == "provider"
    assert admin.post("/api/providers", json={**_openai(), "type": "fax"}).get_json()["error"]["field"] == "type"


def test_a_provider_that_deployments_use_is_not_deleted(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    id = admin.post("/api/providers", json={"name": "Echo", "provider": "echo"}).get_json()["id"]
    model = {"name": "m", "deployments": [{"provider_id": id, "upstream_model": "echo"}]}
    assert admin.post("/api/models", json=model).status_code == 201
    assert admin.delete(f"/api/providers/{id}").status_code == 409
    assert admin.put("/api/models/m", json={"deployments": []}).get_json()["deployments"] == []
    assert admin.delete(f"/api/providers/{id}").status_code == 204
    assert admin.get(f"/api/providers/{id}").status_code == 404


def test_a_try_tells_what_is_wrong(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    echo = admin.post("/api/providers", json={"name": "Echo", "provider": "echo"}).get_json()["id"]
    good = admin.post(f"/api/providers/{echo}/test", json={"prompt": "hi"})
    assert good.status_code == 200
    assert good.get_json()["result"] == "ok"
    away = admin.post("/api/providers", json=_openai(api_key=KEY)).get_json()["id"]
    bad = admin.post(f"/api/providers/{away}/test", json={"model": "gpt"})
    assert bad.get_json()["result"] == "connection_error"
    assert KEY not in bad.text


def test_lists_are_paged_and_filtered(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    for number in range(5):
        admin.post("/api/providers", json={"name": f"p{number}", "provider": "echo", "type": "api"})
    page = admin.get("/api/providers?limit=2&page=2").get_json()
    assert [row["name"] for row in page["data"]] == ["p2", "p3"]
    assert {name: page[name] for name in ("page", "limit", "total")} == {"page": 2, "limit": 2, "total": 5}
    assert admin.get("/api/providers?type=web").get_json()["total"] == 0
    assert admin.get("/api/providers?status=on").status_code == 422
    assert admin.get("/api/providers?limit=201").status_code == 422
    twice = admin.post("/api/providers", json={"name": "P1", "provider": "echo"})
    assert (twice.status_code, twice.get_json()["error"]["field"]) == (409, "name")
