"""Providers: a form drawn from the adapter's settings, secrets that never come back, and what a test tells."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from app import clock
from app import providers as adapters
from app.domain import providers
from app.domain.catalog import Deployment, DeploymentSpec, Model
from app.domain.providers import Provider
from app.extensions import db, transaction
from app.providers.settings import fields_of
from tests.blueprints.portal.conftest import Browser, use
from tests.house import People, make_model
from tests.providers.more_kinds import more_kinds
from tests.services.upstream import (
    CHAT,
    EMBEDDINGS,
    GARBAGE,
    INVALID_JSON,
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
    assert f"kind={kind}" in admin.get("/admin/providers/new").text
    page = admin.get(f"/admin/providers/new?kind={kind}").text
    for field in fields_of(adapter.Settings):
        assert f'name="config_{field.name}"' in page
        assert field.title in page


def test_a_provider_is_added_listed_and_changed(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    assert "No providers yet" in admin.get("/admin/providers").text
    made = admin.post("/admin/providers", kind="openai", **filled(name=" Own ", config_api_key=KEY))
    assert made.status_code == 303
    id = made.headers["Location"].rpartition("/")[2]
    assert fresh(id).name == "Own"
    assert fresh(id).settings["timeout_s"] == 60
    assert providers.opened(providers.get(id)).api_key == KEY
    listed = admin.get("/admin/providers").text
    assert "Own" in listed
    assert "http://127.0.0.1:9/v1" in listed
    changed = admin.post(f"/admin/providers/{id}", **filled(name="Other", status="disabled", config_timeout_s="2.5"))
    assert changed.status_code == 303
    assert (fresh(id).name, fresh(id).status, fresh(id).settings["timeout_s"]) == ("Other", "disabled", 2.5)
    assert providers.opened(providers.get(id)).api_key == KEY
    assert "No provider fits this search." in admin.get("/admin/providers?status=active").text
    assert "1 result<" in admin.get("/admin/providers?q=oth", fragment=True).text


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
    assert "Kept; enter to replace" in pages[2].text
    assert "••••cdef" in pages[2].text


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
        assert moved.status_code == 422 and "give this secret again" in moved.text
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
    assert "give this secret again" in refused.text
    assert 'value="http://127.0.0.1:10/v1"' in refused.text
    assert fresh(id).settings["base_url"] == "http://127.0.0.1:9/v1"
    other = "sk-another-0123456789"
    assert admin.post(f"/admin/providers/{id}", **{**moved, "config_api_key": other}).status_code == 303
    assert providers.opened(fresh(id)).api_key == other


def test_another_origin_needs_the_name_of_the_variable_again(people: People, signed_in: SignedIn) -> None:
    admin, id = signed_in("admin"), make(api_key=None, api_key_env="SOME_KEY")
    page = admin.get(f"/admin/providers/{id}").text
    assert "The name of a variable is kept (SOME_KEY)." in page
    assert 'value="SOME_KEY"' not in page + admin.get(f"/admin/providers/new?kind=openai&like={id}").text
    assert admin.post(f"/admin/providers/{id}", **filled(config_timeout_s="5")).status_code == 303
    assert fresh(id).settings["api_key_env"] == "SOME_KEY"
    moved = filled(config_base_url="http://127.0.0.1:10/v1")
    refused = admin.post(f"/admin/providers/{id}", **moved)
    assert refused.status_code == 422
    assert "give this secret again" in refused.text
    assert admin.post(f"/admin/providers/{id}", **{**moved, "config_api_key_env": "SOME_KEY"}).status_code == 303
    assert fresh(id).settings["api_key_env"] == "SOME_KEY"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": ""}, "Give the provider a name."),
        ({"name": "x" * 101}, "at most 100 characters"),
        ({"name": "TAKEN"}, "is taken"),
        ({"status": "asleep"}, "Not a valid choice."),
        ({"config_base_url": "nonsense", "config_api_key": KEY}, "Expected an address such as https://host/v1."),
        ({"config_timeout_s": "soon"}, "Give a number, such as 60."),
        ({"config_timeout_s": "nan"}, "Give a number, such as 60."),
        ({"config_timeout_s": "0"}, "Give a number of at least 1."),
        ({"config_timeout_s": "3601"}, "Give a number of at most 3600."),
        ({"config_base_url": "http://127.0.0.1:9/" + "x" * 490}, "Use at most 500 characters."),
        ({"config_on_disconnect": "explode"}, "Not a valid choice."),
        ({"config_api_key_env": "CONFIG_SECRET"}, "a variable that this deployment allows"),
        ({"config_api_key_env": "AWS_SECRET_ACCESS_KEY"}, "a variable that this deployment allows"),
        ({"config_base_url": "http://user:pw@127.0.0.1:9/v1"}, "without user, query or fragment"),
        ({"config_base_url": "http://a b/v1"}, "in printable ASCII without blanks"),
    ],
)
def test_a_bad_form_comes_back_with_what_was_typed(
    people: People, signed_in: SignedIn, changes: dict[str, str], told: str
) -> None:
    transaction(providers.create, by=None, name="Taken", kind="echo", config={})
    admin, id = signed_in("admin"), make()
    for path, more in ((f"/admin/providers/{id}", {}), ("/admin/providers", {"kind": "openai", "name": "Fresh"})):
        refused = admin.post(path, **{**filled(), **more, **changes})
        assert refused.status_code == 422, path
        assert told in refused.text
        assert 'aria-invalid="true"' in refused.text
        assert KEY not in refused.text
        for name, value in changes.items():
            if name not in CHOSEN:
                assert value in refused.text
    db.session.rollback()
    assert db.session.query(Provider).count() == 2


def test_an_unknown_kind_is_not_found(people: People, signed_in: SignedIn) -> None:
    admin = signed_in("admin")
    assert "What kind of upstream" in admin.get("/admin/providers/new?kind=fax").text
    assert admin.post("/admin/providers", kind="fax", name="x").status_code == 404


def test_a_provider_in_use_is_not_deleted(people: People, small: Model, signed_in: SignedIn) -> None:
    admin, id = signed_in("admin"), small.deployments[0].provider_id
    page = f"/admin/providers/{id}/deletion"
    assert "cannot be deleted while models use it" in admin.get(page).text
    refused = admin.post(page)
    assert refused.status_code == 409
    assert "small" in refused.text
    assert fresh(id)
    other = make()
    assert admin.post(f"/admin/providers/{other}/deletion").status_code == 303
    assert "Upstream is deleted." in admin.get("/admin/providers").text
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
    assert told in answer.text
    assert "Took " in answer.text
    assert KEY not in answer.text
    if told in ("It works", "This model is not there"):
        assert "2 models offered" in answer.text
        assert "large" in answer.text


def test_a_test_tells_that_nobody_is_there(people: People, signed_in: SignedIn) -> None:
    id = make(f"http://127.0.0.1:{unused_port()}/v1")
    assert "Cannot connect" in signed_in("admin").post(f"/admin/providers/{id}/test").text


def test_a_test_may_ask_a_question_and_answers_scripts_with_its_part(
    people: People, signed_in: SignedIn, upstream: Upstream
) -> None:
    admin, id = signed_in("admin"), make(upstream.url)
    admin.post(f"/admin/providers/{id}/test", model="small", prompt="Are you there?")
    asked = [exchange for exchange in upstream.requests if exchange.path == CHAT]
    assert asked[0].json["messages"][0]["content"] == "Are you there?"
    too_long = admin.post(f"/admin/providers/{id}/test", model="x" * 201)
    assert too_long.status_code == 422
    assert "at most 200 characters" in too_long.text


def test_the_list_tells_what_is_served_and_what_failed(people: People, small: Model, signed_in: SignedIn) -> None:
    make()
    now_ms = clock.now_ms()
    use(people.owner, small, now_ms)
    use(people.owner, small, now_ms, outcome="error", status=502)
    use(people.owner, small, now_ms - 26 * 3_600_000, outcome="error", status=502)
    admin = signed_in("admin")
    page = admin.get("/admin/providers?sort=-name").text
    assert re.findall(r'href="/admin/providers/[^"]+">(Upstream|Echo)<', page) == ["Upstream", "Echo"]
    assert "1 of 2 requests" in page
    assert "50%" in page
    assert "no calls" in page
    assert "1 of 2 requests" not in admin.get("/admin/providers?kind=openai", fragment=True).text
    [row] = admin.get("/admin/providers?kind=echo&format=json", buffered=True).get_json()["data"]
    assert (row["name"], row["kind"], row["models"]) == ("Echo", "echo", ["small"])
    assert KEY not in admin.get("/admin/providers?format=csv", buffered=True).text


def test_priority_and_weight_are_changed_where_they_stand(people: People, small: Model, signed_in: SignedIn) -> None:
    admin, provider, one = signed_in("admin"), small.deployments[0].provider_id, small.deployments[0].id
    page, path = f"/admin/providers/{provider}", f"/admin/providers/{provider}/deployments"
    assert f'name="{one}-weight"' in admin.get(page).text
    form = {f"{one}-priority": "3", f"{one}-weight": "70"}
    assert admin.post(path, **form).status_code == 303
    db.session.rollback()
    kept = db.session.get(Deployment, one)
    assert kept is not None
    assert (kept.priority, kept.weight) == (3, 70)
    assert "1 of 1 deployments changed." in admin.get(page).text
    refused = admin.post(path, **{**form, f"{one}-weight": "1001"})
    assert (refused.status_code, "Give 0 to 1000." in refused.text, 'value="1001"' in refused.text) == (422, True, True)
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
    page = admin.get(path).text
    assert "Calls of this model will be refused" in page
    assert ">small<" in page
    assert "served-twice" not in page
    assert admin.post(path, status="disabled").status_code == 303
    assert fresh(provider).status == "disabled"
    assert "Enable this provider?" in admin.get(path).text
    assert admin.post(path, status="active").status_code == 303
    assert fresh(provider).status == "active"
    assert admin.post(path, status="asleep").status_code == 404
    auditor = signed_in("auditor")
    assert auditor.post(path, status="disabled").status_code == 403
    assert "Disable provider" not in auditor.get(path).text


def test_a_copy_begins_with_the_settings_and_without_the_secret(people: People, signed_in: SignedIn) -> None:
    admin, id = signed_in("admin"), make("http://127.0.0.1:9/own/v1", timeout_s=7)
    assert f"like={id}" in admin.get(f"/admin/providers/{id}").text
    page = admin.get(f"/admin/providers/new?kind=openai&like={id}").text
    for words in ('value="Upstream copy"', 'value="http://127.0.0.1:9/own/v1"', 'value="7"'):
        assert words in page, words
    assert "cdef" not in page
    assert admin.get("/admin/providers/new?kind=openai&like=nobody").status_code == 404
    db.session.rollback()
    assert db.session.query(Provider).count() == 1
