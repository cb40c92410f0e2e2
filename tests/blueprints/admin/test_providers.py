"""Providers: a form drawn from the adapter's settings, secrets that never come back, and what a test tells."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import redis

from app import clock, store
from app import providers as adapters
from app.domain import providers
from app.domain.catalog import Deployment, DeploymentSpec, Model
from app.domain.providers import Provider
from app.extensions import db, transaction
from app.gateway.breakers import Trip, deployment_breaker
from app.providers.settings import fields_of
from tests.blueprints.admin.conftest import tell, usable
from tests.blueprints.portal.conftest import Browser, use
from tests.house import People, make_model
from tests.page import read
from tests.providers.more_kinds import more_kinds
from tests.services.upstream import (
    CHAT,
    EMBEDDINGS,
    GARBAGE,
    INVALID_JSON,
    Answer,
    Behaviour,
    Hang,
    Upstream,
    failure,
    unused_port,
)

SignedIn = Callable[[str], Browser]
KEY = "sk-upstream-0123456789abcdef"
MODELS = "/v1/models"
CHOSEN = ("status", "config_on_disconnect", "config_api_key")  # a list shows only what it offers, a secret nothing


def make(url: str = "http://127.0.0.1:9/v1", **config: object) -> str:
    made = transaction(
        providers.create,
        by=None,
        name="Upstream",
        kind="openai",
        config={"base_url": url, "api_key": KEY, **config},
    )
    return made.id


def fresh(id: str) -> Provider:
    db.session.rollback()
    return providers.get(id)


def filled(**changes: str) -> dict[str, str]:
    """What a browser sends of an untouched form, but for `changes`."""
    return {
        "name": "Upstream",
        "status": "active",
        "config_base_url": "http://127.0.0.1:9/v1",
        "config_api_key": "",
        "config_api_key_env": "",
        "config_output_limit_field": "max_completion_tokens",
        "config_timeout_s": "60",
        "config_on_disconnect": "cancel",
        **changes,
    }


@pytest.mark.parametrize("kind", adapters.kinds())
def test_the_form_of_every_kind_shows_all_its_settings(people: People, signed_in: SignedIn, kind: str) -> None:
    admin = signed_in("admin")
    adapter = adapters.adapter(kind)
    path = f"/admin/providers/new?kind={kind}"
    assert path in admin.page("/admin/providers/new").hrefs
    page = admin.page(path)
    title = str(page.heading).removeprefix("Add a provider: ")
    shown = page.section(f"Settings of {title}").fields
    assert {(field.text, field.sent_as) for field in shown if field.sent_as} == {
        (field.title, f"config_{field.name}") for field in fields_of(adapter.Settings)
    }


def test_a_provider_is_added_listed_and_changed(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    assert "No providers yet" in admin.page("/admin/providers").empty
    made = admin.post("/admin/providers", kind="openai", **filled(name=" Own ", config_api_key=KEY))
    assert made.status_code == 303
    id = made.headers["Location"].rpartition("/")[2]
    assert fresh(id).name == "Own"
    assert fresh(id).settings["timeout_s"] == 60
    assert providers.opened(providers.get(id)).api_key == KEY
    listed = admin.page("/admin/providers").row("Own")
    assert (listed.cell("Kind"), listed.cell("Base URL"), listed.cell("Status")) == (
        "OpenAI", "http://127.0.0.1:9/v1", "Active",
    )  # fmt: skip
    changed = admin.post(f"/admin/providers/{id}", **filled(name="Other", status="disabled", config_timeout_s="2.5"))
    assert changed.status_code == 303
    assert (fresh(id).name, fresh(id).status, fresh(id).settings["timeout_s"]) == ("Other", "disabled", 2.5)
    assert providers.opened(providers.get(id)).api_key == KEY
    assert "No provider fits this search." in admin.page("/admin/providers?status=active").empty
    assert admin.page("/admin/providers?q=oth", fragment=True).row("Other").cell("Status") == "Disabled"


def test_a_secret_never_comes_back(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    refused = admin.post("/admin/providers", kind="openai", **filled(name="", config_api_key=KEY))
    assert refused.status_code == 422
    id = make()
    pages = [
        refused,
        admin.get("/admin/providers"),
        admin.get(f"/admin/providers/{id}"),
        admin.post(f"/admin/providers/{id}", **filled(config_api_key=KEY, config_timeout_s="soon")),
        admin.post(f"/admin/providers/{id}", **filled(config_api_key=KEY, config_api_key_env="ALSO")),
        admin.post(f"/admin/providers/{id}/test"),
        admin.get(f"/admin/providers/{id}/deletion"),
        signed_in("auditor").get(f"/admin/providers/{id}"),
    ]
    for page in pages:
        assert KEY not in page.text
    field = read(pages[2]).field("API key")
    assert (field.value, field.placeholder) == ("", "Kept; enter to replace")
    assert "••••cdef" in (field.help or "")


def test_an_adapter_with_odd_names_has_its_form_its_address_and_its_secret_kept(
    people: People, signed_in: SignedIn
) -> None:
    with more_kinds():
        admin, ticket, place = signed_in("admin"), "ticket/of the odd one 0123456789", "grpc://127.0.0.1:9"
        form = {"name": "Odd", "status": "active", "config_timeout_s": "60", "config_on_disconnect": "cancel",
                "config_url": place, "config_token": ticket, "config_variable": ""}  # fmt: skip
        made = admin.post("/admin/providers", kind="line", **form)
        assert made.status_code == 303
        path = made.headers["Location"]
        kept = form | {"config_token": ""}
        moved = admin.post(path, **kept | {"config_url": "grpc://127.0.0.1:10"})
        assert moved.status_code == 422 and "Enter this secret again" in moved.text
        pages = [
            admin.get(path), moved,
            admin.post(path, **form | {"config_timeout_s": "soon"}),
            admin.post(f"{path}/test"),
            admin.get("/admin/providers"),
            admin.get("/admin/providers?format=csv", buffered=True),
            admin.get(f"/admin/providers/new?kind=line&like={path.rpartition('/')[2]}"),
        ]  # fmt: skip
        assert all(ticket not in page.text for page in pages)
        assert "A secret is kept (••••6789)." in pages[0].text and 'type="password"' in pages[0].text
        assert place in pages[4].text and place in pages[5].text
        assert admin.post(path, **kept).status_code == 303
        assert providers.opened(fresh(path.rpartition("/")[2])).token == ticket


def test_another_origin_needs_the_secret_again(people: People, signed_in: SignedIn) -> None:
    admin, id = signed_in("admin"), make()
    moved = filled(config_base_url="http://127.0.0.1:10/v1")
    refused = admin.post(f"/admin/providers/{id}", **moved)
    assert refused.status_code == 422
    page = read(refused)
    assert page.errors == {"API key": "The address has changed. Enter this secret again."}
    assert page.field("Base URL").value == "http://127.0.0.1:10/v1"
    assert fresh(id).settings["base_url"] == "http://127.0.0.1:9/v1"
    other = "sk-another-0123456789"
    assert admin.post(f"/admin/providers/{id}", **{**moved, "config_api_key": other}).status_code == 303
    assert providers.opened(fresh(id)).api_key == other


def test_another_origin_needs_the_name_of_the_variable_again(people: People, signed_in: SignedIn) -> None:
    admin, id = signed_in("admin"), make(api_key=None, api_key_env="SOME_KEY")
    field = admin.page(f"/admin/providers/{id}").field("API key from the environment")
    assert "The name of a variable is kept (SOME_KEY)." in (field.help or "")
    assert field.value == ""
    copy = admin.page(f"/admin/providers/new?kind=openai&like={id}")
    assert copy.field("API key from the environment").value == ""
    assert admin.post(f"/admin/providers/{id}", **filled(config_timeout_s="5")).status_code == 303
    assert fresh(id).settings["api_key_env"] == "SOME_KEY"
    moved = filled(config_base_url="http://127.0.0.1:10/v1")
    refused = admin.post(f"/admin/providers/{id}", **moved)
    assert refused.status_code == 422
    assert read(refused).errors == {"API key from the environment": "The address has changed. Enter this secret again."}
    assert admin.post(f"/admin/providers/{id}", **{**moved, "config_api_key_env": "SOME_KEY"}).status_code == 303
    assert fresh(id).settings["api_key_env"] == "SOME_KEY"


@pytest.mark.parametrize(
    ("changes", "field", "told"),
    [
        ({"name": ""}, "Name", "Enter a name."),
        ({"name": "x" * 101}, "Name", "at most 100 characters"),
        ({"name": "TAKEN"}, "Name", "is taken"),
        ({"status": "asleep"}, "Status", "Not a valid choice."),
        (
            {"config_base_url": "nonsense", "config_api_key": KEY},
            "Base URL",
            "Expected an address such as https://host/v1.",
        ),
        ({"config_timeout_s": "soon"}, "Timeout (seconds)", "Enter a number, such as 60."),
        ({"config_timeout_s": "nan"}, "Timeout (seconds)", "Enter a number, such as 60."),
        ({"config_timeout_s": "0"}, "Timeout (seconds)", "Enter a number of at least 1."),
        ({"config_timeout_s": "3601"}, "Timeout (seconds)", "Enter a number of at most 3600."),
        ({"config_base_url": "http://127.0.0.1:9/" + "x" * 490}, "Base URL", "Use at most 500 characters."),
        ({"config_on_disconnect": "explode"}, "When the client goes away", "Not a valid choice."),
        ({"config_api_key_env": "CONFIG_SECRET"}, "API key from the environment", "that this deployment allows"),
        (
            {"config_api_key_env": "AWS_SECRET_ACCESS_KEY"},
            "API key from the environment",
            "that this deployment allows",
        ),
        ({"config_base_url": "http://user:pw@127.0.0.1:9/v1"}, "Base URL", "without user, query or fragment"),
        ({"config_base_url": "http://a b/v1"}, "Base URL", "in printable ASCII without blanks"),
    ],
)
def test_a_bad_form_comes_back_with_what_was_typed(
    people: People, signed_in: SignedIn, changes: dict[str, str], field: str, told: str
) -> None:
    transaction(providers.create, by=None, name="Taken", kind="echo", config={})
    admin, id = signed_in("admin"), make()
    for path, more in ((f"/admin/providers/{id}", {}), ("/admin/providers", {"kind": "openai", "name": "Fresh"})):
        refused = admin.post(path, **{**filled(), **more, **changes})
        assert refused.status_code == 422, path
        page = read(refused)
        assert page.errors.keys() == {field}
        assert told in page.errors[field]
        assert page.field(field).is_invalid
        assert KEY not in refused.text
        sent = page.form(path).sends
        assert {name: sent[name] for name in changes if name not in CHOSEN} == {
            name: value for name, value in changes.items() if name not in CHOSEN
        }
    db.session.rollback()
    assert db.session.query(Provider).count() == 2


def test_an_unknown_kind_is_not_found(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    assert len(admin.page("/admin/providers/new?kind=fax").table("Kinds of provider").rows) == len(adapters.kinds())
    assert admin.post("/admin/providers", kind="fax", name="x").status_code == 404


def test_a_provider_in_use_is_not_deleted(people: People, small: Model, signed_in: SignedIn) -> None:
    admin, id = signed_in("admin"), small.deployments[0].provider_id
    page = f"/admin/providers/{id}/deletion"
    shown = admin.page(page)
    assert shown.alert.heading == "Echo cannot be deleted while models use it"
    assert shown.forms == []
    refused = admin.post(page)
    assert refused.status_code == 409
    assert read(refused).link("small").href == "/admin/models?q=small"
    assert fresh(id).name == "Echo"
    other = make()
    assert admin.post(f"/admin/providers/{other}/deletion").status_code == 303
    assert admin.page("/admin/providers").toast == "Upstream is deleted."
    assert admin.get(f"/admin/providers/{other}").status_code == 404


@pytest.mark.parametrize(
    ("behaviour", "model", "told"),
    [
        (None, "", "It works"),
        (None, "small", "It works"),
        (failure(401, "no"), "", "The credentials are refused"),
        (failure(403, "no"), "", "The credentials are refused"),
        (None, "tiny", "This model is not there"),
        (INVALID_JSON, "", "The answer is not understood"),
        (GARBAGE, "", "The answer is not understood"),
        (failure(500), "", "The answer is not understood"),
        (Hang(), "", "No answer in time"),
    ],
)
def test_a_test_tells_what_is_wrong(
    people: People, signed_in: SignedIn, upstream: Upstream, behaviour: Behaviour | None, model: str, told: str
) -> None:
    if behaviour is not None:
        upstream.always(MODELS, behaviour)
    if model == "tiny":
        upstream.always(CHAT, failure(404))
        upstream.always(EMBEDDINGS, failure(404))
    id = make(upstream.url, timeout_s=1 if isinstance(behaviour, Hang) else 60)
    answer = signed_in("admin").post(f"/admin/providers/{id}/test", model=model)
    assert answer.status_code == 200
    alert = read(answer).section("Test").alert
    levels = {"It works": "success", "This model is not there": "warning"}
    assert (alert.heading, alert.level) == (told, levels.get(told, "danger"))
    assert "Took " in alert
    assert KEY not in answer.text
    if told in ("It works", "This model is not there"):
        offered = read(answer).section("2 models offered")
        assert "large" in offered


def test_a_test_tells_that_nobody_is_there(people: People, signed_in: SignedIn) -> None:
    id = make(f"http://127.0.0.1:{unused_port()}/v1")
    assert read(signed_in("admin").post(f"/admin/providers/{id}/test")).alert.heading == "Cannot connect"


def test_a_test_may_ask_a_question_and_answers_scripts_with_its_part(
    people: People, signed_in: SignedIn, upstream: Upstream
) -> None:
    admin, id = signed_in("admin"), make(upstream.url)
    admin.post(f"/admin/providers/{id}/test", model="small", prompt="Are you there?")
    asked = [exchange for exchange in upstream.requests if exchange.path == CHAT]
    assert asked[0].json["messages"][0]["content"] == "Are you there?"
    too_long = admin.post(f"/admin/providers/{id}/test", model="x" * 201)
    assert too_long.status_code == 422
    assert "at most 200 characters" in read(too_long).errors["Model at the provider"]


def test_the_list_tells_what_is_served_and_what_failed(people: People, small: Model, signed_in: SignedIn) -> None:
    make()
    now_ms = clock.now_ms()
    use(people.owner, small, now_ms)
    use(people.owner, small, now_ms, outcome="error", status=502)
    use(people.owner, small, now_ms - 26 * 3_600_000, outcome="error", status=502)
    admin = signed_in("admin")
    page = admin.page("/admin/providers?sort=-name")
    assert page.row_names == ["Upstream", "Echo"]
    assert page.table().column("Response")[0] == "no calls"
    assert page.row("Echo").cell("Response").texts[-1] == "50% failed"
    assert page.table().column("Models") == ["None", "small"]
    assert admin.page("/admin/providers?kind=openai", fragment=True).row_names == ["Upstream"]
    [row] = admin.get("/admin/providers?kind=echo&format=json", buffered=True).get_json()["data"]
    assert (row["name"], row["kind"], row["models"]) == ("Echo", "echo", ["small"])
    assert KEY not in admin.get("/admin/providers?format=csv", buffered=True).text


def test_a_failing_provider_tells_since_when_and_why_on_list_and_page(
    people: People, small: Model, wire: redis.Redis, signed_in: SignedIn
) -> None:
    admin, provider, one = signed_in("admin"), small.deployments[0].provider_id, small.deployments[0].id
    tell(wire, one, failures=4)
    shut = Trip(since_ms=clock.now_ms(), at_ms=clock.now_ms(), until_ms=clock.now_ms() + 60_000, reason="No.", times=1)
    wire.hset(store.BREAKERS, deployment_breaker(one), msgspec.json.encode(shut))
    row = admin.page("/admin/providers").row("Echo")
    assert row.cell("Health").texts[0].startswith("Failing since ")
    assert (row.cell("Health").texts[-1], row.cell("Breaker")) == ("No.", "Open")
    assert row.cell("Attempts") == "4 4 failed"
    page = admin.page(f"/admin/providers/{provider}")
    assert "Failing since" in (page.status or "")
    assert {"Attempts, last hour": "4", "Failed attempts": "4", "Circuit breaker": "Open"}.items() <= (
        page.section("Health").facts.items()
    )
    transaction(providers.switch, providers.get(provider), "disabled", by=None)
    page = admin.page(f"/admin/providers/{provider}")
    assert page.alert.heading == "1 model has no other active provider"
    assert admin.page("/admin/providers").row("Echo").cell("Health").texts[0].startswith("Disabled since ")


def test_priority_and_weight_are_changed_where_they_stand(people: People, small: Model, signed_in: SignedIn) -> None:
    admin, provider, one = signed_in("admin"), small.deployments[0].provider_id, small.deployments[0].id
    page, path = f"/admin/providers/{provider}", f"/admin/providers/{provider}/deployments"
    sent = admin.page(page).form(path).sends
    assert (sent[f"{one}-priority"], sent[f"{one}-weight"]) == ("0", "1")
    form = {f"{one}-priority": "3", f"{one}-weight": "70"}
    assert admin.post(path, **form).status_code == 303
    db.session.rollback()
    kept = db.session.get(Deployment, one)
    assert kept is not None
    assert (kept.priority, kept.weight) == (3, 70)
    assert admin.page(page).toast == "1 of 1 deployments changed."
    refused = admin.post(path, **{**form, f"{one}-weight": "1001"})
    [weight] = [field for field in read(refused).fields if field.sent_as == f"{one}-weight"]
    assert (refused.status_code, weight.error, weight.value) == (422, "Enter 0 to 1000.", "1001")
    assert admin.post(path, **{**form, f"{one}-weight": ""}).status_code == 422
    other = make()
    assert admin.post(f"/admin/providers/{other}/deployments", **{f"{one}-priority": "9"}).status_code == 303
    assert signed_in("auditor").post(path, **form).status_code == 403
    db.session.rollback()
    kept = db.session.get(Deployment, one)
    assert kept is not None
    assert (kept.priority, kept.weight) == (3, 70)


def test_switching_off_names_the_models_that_stop(people: People, small: Model, signed_in: SignedIn) -> None:
    provider, other = small.deployments[0].provider_id, make()
    both = [DeploymentSpec(provider_id=id, upstream_model="x") for id in (provider, other)]
    transaction(make_model, None, "served-twice", deployments=both)
    admin, path = signed_in("admin"), f"/admin/providers/{provider}/status"
    page = admin.page(path)
    assert page.alert.heading == "Calls of this model will be refused"
    assert page.alert.items == ["small"]
    assert "served-twice" not in page
    assert admin.post(path, status="disabled").status_code == 303
    assert fresh(provider).status == "disabled"
    assert admin.page(path).heading == "Enable this provider?"
    assert admin.post(path, status="active").status_code == 303
    assert fresh(provider).status == "active"
    assert admin.post(path, status="asleep").status_code == 404
    auditor = signed_in("auditor")
    assert auditor.post(path, status="disabled").status_code == 403
    assert usable(auditor.page(path)) == []


def test_a_copy_begins_with_the_settings_and_without_the_secret(people: People, signed_in: SignedIn) -> None:
    admin, id = signed_in("admin"), make("http://127.0.0.1:9/own/v1", timeout_s=7)
    path = f"/admin/providers/new?kind=openai&like={id}"
    assert admin.page(f"/admin/providers/{id}").link("Duplicate").href == path
    answer = admin.get(path)
    page = read(answer)
    assert [page.field(label).value for label in ("Name", "Base URL", "API key", "Timeout (seconds)")] == [
        "Upstream copy", "http://127.0.0.1:9/own/v1", "", "7",
    ]  # fmt: skip
    assert "cdef" not in answer.text
    assert admin.get("/admin/providers/new?kind=openai&like=nobody").status_code == 404
    db.session.rollback()
    assert db.session.query(Provider).count() == 1


def test_a_server_s_models_are_shown_with_their_queue_time(
    people: People, signed_in: SignedIn, upstream: Upstream
) -> None:
    stats = {"success": {"count": 4, "ns": 9}, "queue": {"count": 4, "ns": 10_000_000}, "compute_infer": {"count": 0}}
    models = [{"name": "llama", "version": "1", "state": "READY"}, {"name": "e5", "state": "UNAVAILABLE"}]
    upstream.always("/v2/repository/index", Answer(models))
    upstream.always("/v2/models/stats", Answer({"model_stats": [{"name": "llama", "inference_stats": stats}]}))
    address = upstream.url.removesuffix("/v1")
    made = transaction(providers.create, by=None, name="T", kind="triton", config={"base_url": address})
    browser = signed_in("admin")
    assert f"/admin/providers/{made.id}/server" in browser.get(f"/admin/providers/{made.id}").text
    page = read(browser.get(f"/admin/providers/{made.id}/server"))
    row = page.row("llama")
    assert [row.cell(name) for name in ("State", "Answered", "Queue time", "Compute time")] == [
        "Ready",
        "4",
        "2.50 ms",
        "–",
    ]
    assert page.row("e5").cell("State") == "Not ready"
    upstream.always("/v2/repository/index", Answer({"error": "the repository is away"}, 503))
    assert "the repository is away" in browser.get(f"/admin/providers/{made.id}/server").text


def test_a_provider_that_tells_nothing_of_its_models_has_no_such_page(people: People, signed_in: SignedIn) -> None:
    id = make()
    assert signed_in("admin").get(f"/admin/providers/{id}/server").status_code == 404


def test_a_model_s_tensors_are_shown_and_other_settings_are_tried(
    people: People, signed_in: SignedIn, upstream: Upstream
) -> None:
    config = {
        "input": [{"name": "query", "data_type": "TYPE_STRING", "dims": [1]},
                  {"name": "style", "data_type": "TYPE_STRING", "dims": [-1]}],
        "output": [{"name": "text", "data_type": "TYPE_STRING", "dims": [1]}],
    }  # fmt: skip
    upstream.always("/v2/models/llama/config", Answer(config))
    address = upstream.url.removesuffix("/v1")
    made = transaction(providers.create, by=None, name="T", kind="triton", config={"base_url": address})
    here = f"/admin/providers/{made.id}/tensors"
    browser = signed_in("admin")
    page = browser.get(here, query_string={"model": "llama"})
    assert "Name it in the deployment" in page.text and read(page).row("query").cell("Recognised as") == "–"
    tried = browser.get(here, query_string={"model": "llama", "settings": '{"inputs": {"prompt": "query"}}'})
    assert read(tried).row("query").cell("Recognised as") == "prompt"
    assert "Can be used for chat, completions" in tried.text
    for bad in ('{"inputs": 1}', "{", "[]"):
        answer = browser.get(here, query_string={"model": "llama", "settings": bad})
        assert answer.status_code == 200 and "settings" in answer.text
    assert browser.get(here).status_code == 404
