"""Providers in the management API."""

import pytest
from flask import Flask

from app import current
from app.domain import providers
from app.domain.catalog import DeploymentSpec
from app.providers.openai_kinds import ROWS
from tests.house import People, offer, sign_in
from tests.services.upstream import Answer, Upstream, failure

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
        assert b"0123456789" in current.sealer().open(str(kept.sealed), f"provider:{kept.id}")
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
    path = f"/api/providers/{made.get_json()['id']}"
    kept = admin.put(path, json=_openai())
    assert (kept.status_code, kept.get_json()["config"]["api_key_env"]) == (200, "SOME_KEY")
    gone = admin.put(path, json=_openai(api_key_env=None))
    assert "api_key_env" not in gone.get_json()["config"]


def test_a_new_origin_needs_the_variable_named_again(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    path = f"/api/providers/{admin.post('/api/providers', json=_openai(api_key_env='SOME_KEY')).get_json()['id']}"
    elsewhere = {"base_url": "http://127.0.0.1:10/v1"}
    refused = admin.put(path, json={"config": elsewhere})
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, "config.api_key_env")
    assert admin.put(path, json={"config": {**elsewhere, "api_key_env": "SOME_KEY"}}).status_code == 200
    by_key = admin.put(path, json={"config": {"base_url": "http://127.0.0.1:11/v1", "api_key": KEY}})
    assert by_key.status_code == 200
    assert "api_key_env" not in by_key.get_json()["config"]


def test_the_default_address_is_an_origin_like_any_other(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    upstream = {"name": "Upstream", "provider": "openai", "config": {"api_key": KEY}}
    path = f"/api/providers/{admin.post('/api/providers', json=upstream).get_json()['id']}"
    spelled_out = admin.put(path, json={"config": {"base_url": "https://API.openai.com:443/v1"}})
    assert spelled_out.status_code == 200
    moved = admin.put(path, json={"config": {"base_url": "https://api.openai.example/v1"}})
    assert (moved.status_code, moved.get_json()["error"]["field"]) == (422, "config.api_key")


def test_another_kind_takes_no_secret_along(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    for number, secret in enumerate(({"api_key": KEY}, {"api_key_env": "SOME_KEY"})):
        body = {"name": f"p{number}", "provider": "openai", "config": secret}
        path = f"/api/providers/{admin.post('/api/providers', json=body).get_json()['id']}"
        changed = admin.put(path, json={"provider": "groq"})
        assert changed.status_code == 200, changed.text
        assert changed.get_json()["config"] == {}


@pytest.mark.parametrize(
    "name",
    ["CONFIG_SECURITY_KEY_PEPPER", "config_x_key", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "PGPASSWORD", "DATABASE_URL",
     "HOME", "PATH", "SECRET_KEY", "FLASK_SECRET_KEY", "X_PASSWORD", "bad name", "A\r\nB_KEY", ""],
)  # fmt: skip
def test_only_variables_that_the_operator_allows_can_be_named(app: Flask, people: People, name: str) -> None:
    admin = sign_in(app, "admin")
    refused = admin.post("/api/providers", json=_openai(api_key_env=name))
    if name:
        assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, "config.api_key_env")
    else:
        assert "api_key_env" not in refused.get_json()["config"]


CONTROLS = ["\r", "\n", "\r\nX-Injected: yes", "\0", "\t", "\x7f", "\x85", "\u2028", "é", "\u200b"]


@pytest.mark.parametrize("sign", CONTROLS)
@pytest.mark.parametrize("place", ["{}key", "ke{}y", "key{}"])
def test_a_key_that_would_be_more_than_a_header_is_422(app: Flask, people: People, sign: str, place: str) -> None:
    admin = sign_in(app, "admin")
    refused = admin.post("/api/providers", json=_openai(api_key=place.format(sign)))
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, "config.api_key")


@pytest.mark.parametrize(
    "address",
    [f"http://127.0.0.1:9{sign}/v1" for sign in [*CONTROLS, " "]]
    + [f"http://127.0.0.1:9/v1{sign}" for sign in [*CONTROLS, " "]]
    + [f"{sign}http://127.0.0.1:9/v1" for sign in [*CONTROLS, " "]]
    + ["http://user:pw@127.0.0.1:9/v1", "http://user@127.0.0.1:9", "http://@127.0.0.1:9", "http://:@127.0.0.1:9",
       "http://127.0.0.1:9/v1?key=x", "http://127.0.0.1:9/v1?", "http://127.0.0.1:9/v1#x", "http://127.0.0.1:9/v1#",
       "http://127.0.0.1\\@evil.example/", "http://127.0.0.1:0/v1", "http://127.0.0.1:65536/v1", "http://127.0.0.1:x/v1",
       "http://a..b/v1", "http://.a/v1", f"http://{'a' * 64}.example/v1", "http://[::1/v1", "http://[::1%25lo]:9/v1",
       "http://[v1.x]/", "http://a%2eb/v1", "http:///v1", "//127.0.0.1:9/v1", "file:///etc/passwd", "gopher://a/1", "x"],
)  # fmt: skip
def test_an_address_that_would_be_more_than_one_is_422(app: Flask, people: People, address: str) -> None:
    admin = sign_in(app, "admin")
    refused = admin.post("/api/providers", json=_openai(base_url=address))
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, "config.base_url")
    assert "pw" not in refused.text


def test_wrong_settings_are_422_and_name_the_field(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    for config, field in (
        ({"timeout_s": -1}, "config.timeout_s"),
        ({"base_url": 5}, "config.base_url"),
        ({"colour": "red"}, "config.colour"),
        ({"base_url": "http://169.254.169.254/v1"}, "config.base_url"),
        ({"base_url": f"http://localhost:{app.config['PORTICO'].server.port}/v1"}, "config.base_url"),
        ({"base_url": f"http://[::1]:{app.config['PORTICO'].server.port}/v1"}, "config.base_url"),
        ({"base_url": "http://[64:ff9b::a9fe:a9fe]/v1"}, "config.base_url"),
        ({"base_url": "http://0xa9fea9fe/v1"}, "config.base_url"),
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


def _at(upstream: Upstream, **values: object) -> dict[str, object]:
    return {"name": "Upstream", "provider": "vllm", "config": {"base_url": upstream.url, "timeout_s": 2}, **values}


def test_the_models_that_a_provider_lists_are_asked_for_once(
    app: Flask, people: People, shared_upstream: Upstream
) -> None:
    shared_upstream.reset()
    admin = sign_in(app, "admin")
    id = admin.post("/api/providers", json=_at(shared_upstream)).get_json()["id"]
    offer(app, "mine", deployments=[DeploymentSpec(provider_id=id, upstream_model="small")])
    first = admin.get(f"/api/providers/{id}/models").get_json()
    assert [(one["id"], one["models"]) for one in first["data"]] == [("large", []), ("small", ["mine"])]
    assert (first["total"], first["has_list"], first["reason"]) == (2, True, None)
    second = admin.get(f"/api/providers/{id}/models?page=2&limit=1").get_json()
    assert [one["id"] for one in second["data"]] == ["small"] and second["asked_at"] == first["asked_at"]
    assert [one.path for one in shared_upstream.requests] == ["/v1/models"]
    admin.get(f"/api/providers/{id}/models?refresh=true")
    assert len(shared_upstream.requests) == 2
    assert sign_in(app, "owner").get(f"/api/providers/{id}/models").status_code == 403
    assert admin.get("/api/providers/nowhere/models").status_code == 404


def test_a_list_that_cannot_be_read_is_a_reason(app: Flask, people: People, shared_upstream: Upstream) -> None:
    shared_upstream.reset()
    shared_upstream.always("/v1/models", Answer("<html>Sign in</html>", content_type="text/html"))
    admin = sign_in(app, "admin")
    id = admin.post("/api/providers", json=_at(shared_upstream)).get_json()["id"]
    told = admin.get(f"/api/providers/{id}/models").get_json()
    assert (told["data"], told["listed_at"]) == ([], None)
    assert told["reason"] == "The provider's list of models can't be read; is the base URL right?"


def test_health_is_told_of_providers_and_models(app: Flask, people: People, shared_upstream: Upstream) -> None:
    shared_upstream.reset()
    admin = sign_in(app, "admin")
    made = admin.post("/api/providers", json=_at(shared_upstream)).get_json()
    assert made["health"]["state"] == "unknown"
    offer(app, "mine", deployments=[DeploymentSpec(provider_id=made["id"], upstream_model="small")])
    shared_upstream.always("/v1/models", failure(401, "Wrong key."))
    for _ in range(3):
        admin.get(f"/api/providers/{made['id']}/models?refresh=true")
    health = admin.get(f"/api/providers/{made['id']}").get_json()["health"]
    assert (health["state"], health["reason"]) == ("failing", "Wrong key.") and health["since"]
    rows = admin.get("/api/providers").get_json()["data"]
    assert [one["health"] for one in rows if one["id"] == made["id"]] == [health]
    assert admin.get("/api/models/mine").get_json()["health"] == health
    assert sign_in(app, "owner").get("/api/models/mine").get_json()["health"] == health | {"reason": None}
    status = admin.get("/api/status").get_json()
    (row,) = [one for one in status["provider_health"] if one["id"] == made["id"]]
    assert row == {
        "id": made["id"],
        "name": "Upstream",
        **health,
        "requests": 0,
        "errors": 0,
        "failed_cost": "0",
        "models": ["mine"],
    }
    assert (
        status["level"] in ("warning", "danger")
        and "The provider Upstream is failing: Wrong key." in status["concerns"]
    )
    assert sign_in(app, "owner").get("/api/status").get_json()["provider_health"] == []


def test_each_kind_of_the_contract_can_be_added(app: Flask, people: People) -> None:
    admin = sign_in(app, "admin")
    for kind in ROWS:
        config = {"base_url": "http://127.0.0.1:9/v1", "api_key": KEY}
        made = admin.post("/api/providers", json={"type": "api", "name": kind, "provider": kind, "config": config})
        assert made.status_code == 201, made.text
        assert made.get_json()["config"]["api_key"] == "••••cdef"
    shaped = {"name": "Shaped", "provider": "other", "config": {"base_url": "http://127.0.0.1:9", "auth": "digest"}}
    refused = admin.post("/api/providers", json=shaped)
    assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, "config.auth")
