"""Two programs that change one object: the one whose `If-Match` is stale is told so, and changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from flask import Flask
from msgspec import UNSET, Struct, UnsetType
from sqlalchemy import select

from app.blueprints.api.contract import OPERATIONS, VERSIONS
from app.blueprints.api.versions import Version
from app.domain import credentials, keys, prompts, providers, sync
from app.domain.audit import AuditEntry
from app.domain.providers import Endpoint, Provider
from app.extensions import db, transaction
from app.workflows import config_changes
from tests.house import People, Program, make_model, make_team, sign_in


class Case(NamedTuple):
    """An object, a change of it by one program and another by a second one."""

    rule: str
    path: str
    theirs: dict[str, Any]
    mine: dict[str, Any]


LITELLM = "http://127.0.0.1:9"
CASES = [
    Case("/admin/users/<username>", "/admin/users/owner", {"email": "a@example.org"}, {"rpm": 5}),
    Case("/api/budgets/<scope>/<id>", "/api/budgets/user/owner", {"limit": "5"}, {"limit": "7"}),
    Case("/api/configs/<id>", "/api/configs/{config}", {"name": "Theirs"}, {"description": "Mine."}),
    Case("/api/endpoints/<id>", "/api/endpoints/{endpoint}", {"active": False}, {"mapping": {"providers": []}}),
    Case("/api/keys/<id>", "/api/keys/{key}", {"paused": True}, {"budget": {"limit": "3"}}),
    Case("/api/models/<path:name>", "/api/models/small", {"context_window": 5}, {"price": {"input_per_mtok": "9"}}),
    Case("/api/prompts/<id>", "/api/prompts/{prompt}", {"description": "Ours."}, {"template": "Say {{text}}"}),
    Case("/api/providers/<id>", "/api/providers/{provider}", {"status": "disabled"}, {"name": "Echo 2"}),
    Case("/api/settings", "/api/settings", {"portal.banner": "Theirs"}, {"log.level": "warning"}),
    Case("/api/sync/policies", "/api/sync/policies", {"users": {"delete": "pull"}}, {"teams": {"delete": "push"}}),
    Case(
        "/api/sync/connection",
        "/api/sync/connection",
        {"url": LITELLM, "timeout_s": 7},
        {"url": LITELLM, "timeout_s": 9},
    ),
    Case("/api/tokens/<id>", "/api/tokens/{credential}", {"name": "Theirs"}, {"name": "Mine"}),
    Case("/api/teams/<id>", "/api/teams/{team}", {"budget": {"limit": "3"}}, {"description": "Ours."}),
    Case(
        "/api/teams/<id>/members/<username>",
        "/api/teams/{team}/members/member",
        {"budget": {"limit": "1"}},
        {"role": "owner"},
    ),
]
every_object = pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule)


@pytest.fixture
def ids(people: People) -> dict[str, str]:
    def make() -> dict[str, str]:
        make_model(people.admin)
        key, _ = keys.create(people.owner, by=people.owner, name="app")
        endpoint, provider = db.session.scalars(select(Endpoint)).first(), db.session.scalars(select(Provider)).first()
        assert endpoint is not None
        assert provider is not None
        prompt = prompts.create(by=people.admin, name="Translate", template="{{text}}")
        config = config_changes.save(by=people.admin, name="Saved")
        cloud = providers.create(
            by=people.admin, name="Cloud", kind="openai", config={"base_url": LITELLM, "personal_credentials": True}
        )
        own = credentials.create(by=people.admin, provider=cloud.id, name="Own", token="sk-of-the-admin-0123456789")
        sync.connect(by=people.admin, url=LITELLM, master_key="sk-of-litellm", interval_minutes=0, timeout_s=5)
        return {
            "credential": own.id,
            "prompt": prompt.id,
            "config": config.id,
            "key": key.id,
            "team": make_team().id,
            "endpoint": endpoint.id,
            "provider": provider.id,
        }

    return transaction(make)


@pytest.fixture
def admin(app: Flask, ids: dict[str, str]) -> Program:
    return sign_in(app, "admin")


def changes() -> dict[str, str]:
    """The method of each rule by which an object can be changed; the door declares them when it is opened."""
    return {
        operation.rule: operation.method
        for operation in OPERATIONS
        if operation.method in ("PUT", "PATCH") and operation.body
    }


def change(program: Program, case: Case, path: str, body: dict[str, Any], tag: str | None = None) -> Any:
    headers = {} if tag is None else {"If-Match": tag}
    return getattr(program, changes()[case.rule].lower())(path, json=body, headers=headers)


def acts() -> int:
    db.session.rollback()
    return db.session.query(AuditEntry).count()


def test_every_object_that_can_be_changed_is_tried_here(app: Flask) -> None:
    shown = {operation.rule for operation in OPERATIONS if operation.method == "GET"}
    assert {case.rule for case in CASES} == set(changes()) == set(VERSIONS)
    assert set(changes()) <= shown


@every_object
def test_the_second_of_two_programs_is_refused_until_it_has_read_again(
    case: Case, admin: Program, ids: dict[str, str]
) -> None:
    path = case.path.format(**ids)
    read = admin.get(path)
    tag = read.headers["ETag"]
    assert tag.startswith('"')
    assert admin.get(path).headers["ETag"] == tag
    first = change(admin, case, path, case.theirs, tag)
    assert first.status_code == 200, first.text
    assert first.headers["ETag"] == admin.get(path).headers["ETag"] != tag
    before, done = admin.get(path).get_json(), acts()
    refused = change(admin, case, path, case.mine, tag)
    assert refused.status_code == 412
    assert refused.get_json()["error"]["code"] == "precondition_failed"
    assert admin.get(path).get_json() == before
    assert acts() == done
    assert change(admin, case, path, case.mine, first.headers["ETag"]).status_code == 200


@every_object
def test_without_if_match_a_change_is_accepted(case: Case, admin: Program, ids: dict[str, str]) -> None:
    path = case.path.format(**ids)
    assert change(admin, case, path, case.theirs).status_code == 200
    assert change(admin, case, path, case.mine).status_code == 200


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ("*", 200),
        ("{tag}", 200),
        ('"another", {tag}', 200),
        ('"another", "yet another"', 412),
        ("W/{tag}", 412),  # a weak tag never matches: RFC 9110, 13.1.1
        ("", 412),
    ],
)
def test_if_match_is_read_as_the_standard_says(sent: str, status: int, admin: Program, ids: dict[str, str]) -> None:
    path = f"/api/keys/{ids['key']}"
    tag = admin.get(path).headers["ETag"]
    answer = admin.patch(path, json={"rpm": 7}, headers={"If-Match": sent.format(tag=tag)})
    assert answer.status_code == status
    assert admin.get(path).get_json()["rpm"] == (7 if status == 200 else None)


def test_a_stale_deletion_is_refused_too_and_what_is_gone_is_not_found(admin: Program, ids: dict[str, str]) -> None:
    path = "/api/models/small"
    tag = admin.get(path).headers["ETag"]
    assert admin.put(path, json={"restricted": True}).status_code == 200
    assert admin.delete(path, headers={"If-Match": tag}).status_code == 412
    assert admin.delete(path, headers={"If-Match": "*"}).status_code == 204
    assert admin.put(path, json={"restricted": False}, headers={"If-Match": "*"}).status_code == 404


class Inner(Struct):
    limit: str | UnsetType = UNSET


class Body(Struct):
    name: str
    budget: Inner | None = None
    rows: list[Inner] = []


class Told(Struct):
    name: str
    budget: dict[str, str] | None = None
    rows: list[dict[str, str]] = []
    used: int = 0
    paused: bool = False


def test_what_changes_by_itself_is_no_part_of_the_version() -> None:
    of = Version(Body, ("paused",)).of
    seen = of(Told("app", {"limit": "5", "spent": "1"}, [{"limit": "1", "at": "8"}], used=1))
    assert seen == of(Told("app", {"limit": "5", "spent": "2"}, [{"limit": "1", "at": "9"}], used=2))
    others = [
        Told("other", {"limit": "5"}, [{"limit": "1"}]),
        Told("app", {"limit": "6"}, [{"limit": "1"}]),
        Told("app", None, [{"limit": "1"}]),
        Told("app", {"limit": "5"}, [{"limit": "1"}, {"limit": "1"}]),
        Told("app", {"limit": "5"}, [{"limit": "1"}], paused=True),
    ]
    assert len({seen, *map(of, others)}) == 6


def test_a_secret_that_changes_behind_its_mask_changes_the_version(admin: Program, ids: dict[str, str]) -> None:
    body = {"name": "Other", "provider": "openai", "config": {"base_url": "http://127.0.0.1:9", "api_key": "sk-1-same"}}
    path = f"/api/providers/{admin.post('/api/providers', json=body).get_json()['id']}"
    before = admin.get(path)
    assert admin.put(path, json={"config": {**body["config"], "api_key": "sk-2-same"}}).status_code == 200  # type: ignore[dict-item]
    assert admin.get(path).headers["ETag"] != before.headers["ETag"]


def test_of_programs_that_change_the_same_version_at_the_same_moment_one_wins(
    app: Flask, admin: Program, ids: dict[str, str]
) -> None:
    """Each changes another part of the key, so that no row is written by two of them."""
    path = f"/api/keys/{ids['key']}"
    bodies: list[dict[str, Any]] = [{"name": "first"}, {"budget": {"limit": "3"}}, {"rpm": 4}, {"note": "Fourth."}]
    programs = [sign_in(app, "admin") for _ in bodies]
    for _ in range(3):
        tag = admin.get(path).headers["ETag"]
        start, statuses = threading.Barrier(len(bodies)), []

        def run(program: Program, body: dict[str, Any], tag: str = tag, start: Any = start) -> None:
            start.wait()
            statuses.append(program.patch(path, json=body, headers={"If-Match": tag}).status_code)  # noqa: B023

        run_together([lambda one=one, body=body: run(one, body) for one, body in zip(programs, bodies, strict=True)])  # type: ignore[misc]
        assert sorted(statuses) == [200, 412, 412, 412]
        assert admin.patch(path, json={"name": "app", "budget": None, "rpm": None, "note": None}).status_code == 200


def run_together(works: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
