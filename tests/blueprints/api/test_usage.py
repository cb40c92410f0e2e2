"""Usage and requests for programs: exact sums, decimal money, and nobody else's."""

from __future__ import annotations

import csv
import time
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask

from app import clock
from app.domain import keys
from app.extensions import db, transaction
from app.ledger import posting, rollups
from app.metering.usage import UsageEvent
from tests.house import People, Program, make_model, sign_in
from tests.ledger.books import event

DAY_MS = 86_400_000
PROGRAMS = ("admin", "owner", "stranger", "auditor")


class Posted:
    """Three people's usage: two requests of the owner today, one of theirs 3 days ago, one of the stranger."""

    def __init__(self, who: People) -> None:
        owner, stranger = who.owner.id, who.stranger.id
        self.provider = make_model(who.admin).deployments[0].provider
        self.key = keys.create(person=who.owner, by=who.owner, name="app")[0].id
        self.now = now = clock.now_ms()
        common: dict[str, Any] = {"person_id": owner, "key_id": self.key, "provider_id": self.provider.id, "at_ms": now}
        self.first = event(**common, cost_nano=125_000)
        self.failed = event(
            **{**common, "at_ms": now + 1}, outcome="error", status=502, error_code="upstream_error",
            error_message="The upstream failed.", cost_nano=0, completion_tokens=0, model="large",
        )  # fmt: skip
        self.older = event(**{**common, "at_ms": now - 3 * DAY_MS}, api_type="embeddings", endpoint="/v1/embeddings")
        self.other = event(person_id=stranger, key_id=None, at_ms=now + 2, cost_nano=1)

    @property
    def all(self) -> list[UsageEvent]:
        return [self.first, self.failed, self.older, self.other]


@pytest.fixture
def posted(people: People) -> Posted:
    made = transaction(lambda: Posted(people))
    provider = made.provider.name  # read while the session has it
    assert posting.post(made.all) == 4
    rollups.derive()
    assert provider == "Echo"
    db.session.remove()
    return made


@pytest.fixture
def programs(app: Flask, posted: Posted) -> dict[str, Program]:
    return {name: sign_in(app, name) for name in PROGRAMS}


def test_a_person_sees_their_own_usage(programs: dict[str, Program]) -> None:
    answer = programs["owner"].get("/usage/me/day?num_periods=7")
    assert answer.status_code == 200
    body = answer.get_json()
    assert (len(body["data"]), body["page"], body["total"]) == (7, 1, 7)
    today = body["data"][0]
    assert today["request_count"] == 2
    assert today["error_count"] == 1
    assert today["cost"] == "0.000125"
    assert (today["prompt_tokens"], today["completion_tokens"], today["total_tokens"]) == (20, 5, 25)
    assert today["period_start"].endswith("T00:00:00Z")
    assert set(today["models"]) == {"echo", "large"}
    assert today["models"]["echo"]["cost"] == "0.000125"
    assert body["data"][3]["api_types"]["embeddings"]["request_count"] == 1
    assert body["data"][1]["request_count"] == 0


@pytest.mark.parametrize("period", ["week", "month"])
def test_longer_periods_hold_the_days(programs: dict[str, Program], period: str) -> None:
    rows = programs["owner"].get(f"/usage/me/{period}?num_periods=2").get_json()["data"]
    assert len(rows) == 2
    assert sum(row["request_count"] for row in rows) == 3


def test_usage_is_narrowed_by_model_and_kind_of_api(programs: dict[str, Program]) -> None:
    def count(narrowed: str) -> int:
        rows = programs["owner"].get(f"/usage/me/day?num_periods=7&{narrowed}").get_json()["data"]
        return sum(row["request_count"] for row in rows)

    assert count("model=large") == 1
    assert count("api_type=embeddings") == 1
    assert count("model=nothing") == 0


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/usage/me/year", "period"),
        ("/usage/me/day?num_periods=0", "num_periods"),
        ("/usage/me/day?num_periods=1001", "num_periods"),
        ("/usage/me/day?limit=201", "limit"),
        ("/api/requests?cursor=nonsense", "cursor"),
        ("/api/requests?status=fine", "status"),
        ("/api/requests?status=99999", "status"),
        ("/api/requests?from=yesterday", "from"),
        ("/api/requests?limit=0", "limit"),
        ("/api/requests/stats?groupBy=year", "groupBy"),
        ("/api/requests/stats?groupBy=hour&from=1970-01-01T00:00:00Z", "groupBy"),
    ],
)
def test_a_bad_field_is_named(programs: dict[str, Program], path: str, field: str) -> None:
    answer = programs["admin"].get(path)
    assert answer.status_code == 422, answer.get_json()
    assert answer.get_json()["error"]["field"] == field


@pytest.mark.parametrize("path", ["/usage/me/day", "/usage/admin/summary", "/api/requests", "/api/requests/stats"])
def test_nobody_reads_without_a_token(app: Flask, programs: dict[str, Program], path: str) -> None:
    assert app.test_client().get(path).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "/usage/admin/user/stranger/day",
        "/usage/admin/user/owner/day",
        "/usage/admin/all/day",
        "/usage/admin/summary",
        "/usage/admin/recent",
    ],
)
def test_only_admins_read_over_everyone(programs: dict[str, Program], path: str) -> None:
    assert programs["owner"].get(path).status_code == 403
    assert programs["admin"].get(path).status_code == 200
    assert programs["auditor"].get(path).status_code == 200


def test_admins_see_a_person_and_everyone(programs: dict[str, Program]) -> None:
    admin = programs["admin"]
    assert admin.get("/usage/admin/user/stranger/day").get_json()["data"][0]["request_count"] == 1
    assert admin.get("/usage/admin/user/nobody/day").status_code == 404
    assert admin.get("/usage/admin/all/day").get_json()["data"][0]["request_count"] == 3
    assert admin.get("/usage/me/day").get_json()["data"][0]["request_count"] == 0


def test_the_summary_counts_today(programs: dict[str, Program]) -> None:
    assert programs["admin"].get("/usage/admin/summary").get_json() == {
        "total_users": 4,
        "active_users_today": 2,
        "requests_today": 3,
        "errors_today": 1,
        "refused_today": 0,
        "tokens_today": 40,
        "cost_today": "0.000125001",
    }


def test_requests_are_ones_own_and_everybodys_for_admins(programs: dict[str, Program], posted: Posted) -> None:
    mine = programs["owner"].get("/api/requests").get_json()
    assert [row["id"] for row in mine["data"]] == [
        posted.failed.request_id,
        posted.first.request_id,
        posted.older.request_id,
    ]
    assert mine["total"] == 3
    assert mine["next_cursor"] is None
    assert programs["owner"].get("/api/requests?user=stranger").get_json()["data"] == []
    assert programs["admin"].get("/api/requests").get_json()["total"] == 4
    assert programs["admin"].get("/usage/admin/recent?limit=1").get_json()["data"][0]["user"] == "stranger"


def test_a_request_tells_what_happened(programs: dict[str, Program], posted: Posted) -> None:
    found = programs["owner"].get(f"/api/requests/{posted.failed.request_id}").get_json()
    assert found["user"] == "owner"
    assert found["key_name"] == "app"
    assert found["provider"] == "Echo"
    assert (found["status"], found["outcome"]) == (502, "error")
    assert found["error"] == {"code": "upstream_error", "message": "The upstream failed."}
    assert found["cost"] == "0"
    assert found["attempts"][0]["duration_ms"] == 40
    assert found["corrections"] == []


def test_somebody_elses_request_is_not_there(programs: dict[str, Program], posted: Posted) -> None:
    assert programs["stranger"].get(f"/api/requests/{posted.first.request_id}").status_code == 404
    assert programs["admin"].get(f"/api/requests/{posted.first.request_id}").status_code == 200
    assert programs["admin"].get("/api/requests/none").status_code == 404


def test_every_filter_of_requests_narrows(programs: dict[str, Program], posted: Posted) -> None:
    def ids(query: str) -> set[str]:
        answer = programs["admin"].get(f"/api/requests?{query}")
        assert answer.status_code == 200, answer.get_json()
        return {row["id"] for row in answer.get_json()["data"]}

    first, failed, older, other = (told.request_id for told in posted.all)
    assert ids("provider=Echo") == {first, failed, older}
    assert ids("provider=provider-1") == {other}
    assert ids("endpoint=/v1/embeddings") == {older}
    assert ids("model=large") == {failed}
    assert ids("user=OWNER") == {first, failed, older}
    assert ids("user=nobody") == set()
    assert ids(f"key={posted.key}") == {first, failed, older}
    assert ids("status=502") == ids("status=error") == {failed}
    assert ids("from=2000-01-01T00:00:00Z&to=2000-01-02") == set()
    assert older not in ids("from=" + time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(posted.now / 1000 - 86_400)))


def test_requests_are_walked_by_cursor_and_by_page(programs: dict[str, Program], posted: Posted) -> None:
    expected = [told.request_id for told in sorted(posted.all, key=lambda told: -told.at_ms)]
    seen, cursor = [], ""
    while cursor is not None:
        body = programs["admin"].get(f"/api/requests?limit=3&cursor={cursor}").get_json()
        seen += [row["id"] for row in body["data"]]
        cursor = body["next_cursor"]
    assert seen == expected
    for path in ("/api/requests", "/api/audit"):  # a cursor goes before whatever page is named beside it
        first = programs["admin"].get(f"{path}?limit=2").get_json()
        after = [programs["admin"].get(f"{path}?limit=2&cursor={first['next_cursor']}{page}").get_json()["data"]
                 for page in ("", "&page=900000")]  # fmt: skip
        assert after[0] == after[1] != []
    second = programs["admin"].get("/api/requests?limit=3&page=2").get_json()
    assert [row["id"] for row in second["data"]] == expected[3:]


@pytest.mark.parametrize("step", ["hour", "day", "week", "month"])
def test_stats_group_requests(programs: dict[str, Program], step: str) -> None:
    body = programs["owner"].get(f"/api/requests/stats?groupBy={step}").get_json()
    rows = body["data"]
    assert body["total"] == len(rows)
    assert sum(row["request_count"] for row in rows) == (2 if step == "hour" else 3)
    used = [row for row in rows if row["request_count"]]  # the last row may be of an hour that has only just begun
    assert used[-1]["error_count"] == 1
    assert used[-1]["mean_duration_ms"] == 40
    failed = programs["owner"].get(f"/api/requests/stats?groupBy={step}&status=502").get_json()["data"]
    assert sum(row["request_count"] for row in failed) == 1


def test_an_admins_token_without_the_admin_scope_sees_its_own_only(
    app: Flask,
    programs: dict[str, Program],
) -> None:
    narrow = sign_in(app, "admin", scope="portal")
    assert narrow.get("/api/requests").get_json()["data"] == []
    assert narrow.get("/usage/admin/all/day").status_code == 403


def test_corrections_are_money_and_no_requests(programs: dict[str, Program], posted: Posted) -> None:
    first = posted.first
    with programs["admin"].client.application.app_context():
        credit = event(
            request_id=first.request_id, kind="credit", at_ms=first.at_ms, person_id=first.person_id, cost_nano=-25_000,
            prompt_tokens=0, completion_tokens=0, duration_ms=0, ttft_ms=None, attempts=(),
        )  # fmt: skip
        repair = event(kind="repair", at_ms=posted.now, person_id="", model="", key_id=None, cost_nano=0, moved_nano=5,
                       prompt_tokens=0, completion_tokens=0)  # fmt: skip
        assert posting.post([credit, repair]) == 2
        db.session.remove()
    admin = programs["admin"]
    assert admin.get("/api/requests").get_json()["total"] == 4
    assert admin.get(f"/api/requests/{repair.request_id}").status_code == 404
    found = programs["owner"].get(f"/api/requests/{first.request_id}").get_json()
    assert found["cost"] == "0.000125"
    assert [(one["kind"], one["cost"]) for one in found["corrections"]] == [("credit", "-0.000025")]
    today = admin.get("/usage/admin/all/day?num_periods=1").get_json()["data"][0]
    assert (today["request_count"], today["error_count"], today["cost"]) == (3, 1, "0.000100001")
    assert "" not in today["models"]
    summary = admin.get("/usage/admin/summary").get_json()
    assert (summary["active_users_today"], summary["cost_today"]) == (2, "0.000100001")


def test_pages_of_requests_are_counted_and_bounded(programs: dict[str, Program]) -> None:
    body = programs["admin"].get("/api/requests?limit=2&page=2").get_json()
    assert (body["page"], body["limit"], body["total"], len(body["data"])) == (2, 2, 4, 2)
    assert programs["admin"].get("/api/requests?limit=201").status_code == 422
    assert programs["admin"].get("/usage/me/day").get_json()["total"] == 30


@pytest.mark.parametrize("narrowed", ["model=large", "user=stranger", "provider=Echo", "endpoint=/v1/embeddings"])
def test_statistics_take_the_filters_of_the_list(programs: dict[str, Program], narrowed: str) -> None:
    admin = programs["admin"]
    rows = admin.get(f"/api/requests/stats?groupBy=week&{narrowed}").get_json()["data"]
    assert sum(row["request_count"] for row in rows) == admin.get(f"/api/requests?{narrowed}").get_json()["total"] > 0


# --- what clients say of their calls ---


@pytest.fixture
def labelled(people: People) -> list[UsageEvent]:
    now = clock.now_ms()
    owner = people.owner.id
    told = [
        event(
            person_id=owner, at_ms=now - 2, session_id="s1", agent="codex", turn_id="t", cost_nano=1, outcome="error"
        ),
        event(
            person_id=owner, at_ms=now - 1, session_id="s1", agent="codex", turn_id="t", tags=("a", "b"), cost_nano=10
        ),
        event(person_id=owner, at_ms=now, session_id="s2", tags=("b",), cost_nano=100, unpriced={"searches": 2}),
        event(person_id=people.stranger.id, at_ms=now, session_id="s1", tags=("a",), cost_nano=1000),
    ]
    posting.post(told)
    db.session.rollback()
    return told


@pytest.mark.parametrize(
    ("asked", "found"),
    [("session=s1", [1, 0]), ("agent=codex", [1, 0]), ("tag=b", [2, 1]), ("tag=a&session=s1", [1]), ("turn=t", [1, 0])],
)
def test_requests_are_found_by_what_clients_said(
    app: Flask, labelled: list[UsageEvent], asked: str, found: list[int]
) -> None:
    owner = sign_in(app, "owner")
    data = owner.get(f"/api/requests?{asked}").get_json()["data"]
    assert [one["id"] for one in data] == [labelled[place].request_id for place in found]
    assert owner.get(f"/api/requests/stats?groupBy=day&{asked}").get_json()["data"][-1]["request_count"] == len(found)


def test_a_request_tells_what_its_client_said_and_what_had_no_price(app: Flask, labelled: list[UsageEvent]) -> None:
    owner = sign_in(app, "owner")
    one = owner.get(f"/api/requests/{labelled[1].request_id}").get_json()
    told = {name: one[name] for name in ("session_id", "agent", "subagent_id", "turn_id", "tags", "unpriced")}
    assert told == {
        "session_id": "s1", "agent": "codex", "subagent_id": None, "turn_id": "t", "tags": ["a", "b"], "unpriced": {},
    }  # fmt: skip
    assert owner.get(f"/api/requests/{labelled[2].request_id}").get_json()["unpriced"] == {"searches": 2}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("groupBy=session", {"s2": "0.0000001", "s1": "0.000000011"}),
        ("groupBy=agent", {"Not told": "0.0000001", "codex": "0.000000011"}),
        ("groupBy=tag", {"b": "0.00000011", "a": "0.00000001", "Untagged": "0.000000001"}),
        ("groupBy=tag&session=s1", {"b": "0.00000001", "a": "0.00000001", "Untagged": "0.000000001"}),
        ("groupBy=model", {"echo": "0.000000111"}),
        ("groupBy=user", {"owner": "0.000000111"}),
    ],
)
def test_usage_is_divided_by_what_clients_said(
    app: Flask, labelled: list[UsageEvent], asked: str, expected: dict[str, str]
) -> None:
    answer = sign_in(app, "owner").get(f"/api/usage?{asked}").get_json()
    assert {one["name"]: one["cost"] for one in answer["data"]} == expected
    assert (answer["page"], answer["total"]) == (1, len(expected))
    first = sign_in(app, "owner").get(f"/api/usage?{asked}&limit=1").get_json()["data"]
    assert first == answer["data"][:1]


def test_admins_divide_the_usage_of_everyone(app: Flask, labelled: list[UsageEvent]) -> None:
    data = sign_in(app, "admin").get("/api/usage?groupBy=session").get_json()["data"]
    assert [(one["id"], one["request_count"], one["error_count"]) for one in data] == [("s1", 3, 1), ("s2", 1, 0)]
    for path in ("/api/usage?page=11000", "/api/usage?groupBy=nothing"):
        assert sign_in(app, "admin").get(path).status_code == 422


def test_the_chargeback_file_is_the_ledger_in_either_format(app: Flask, labelled: list[UsageEvent]) -> None:
    admin = sign_in(app, "admin")
    lines = admin.get("/api/chargeback").get_json()["data"]
    assert sum(Decimal(line["BilledCost"]) for line in lines) == Decimal("0.000001111")
    table = list(csv.DictReader(admin.get("/api/chargeback/file", buffered=True).text.splitlines()))
    assert [line["BilledCost"] for line in table] == [line["BilledCost"] for line in lines]
    assert [line["ResourceId"] for line in table] == [line["ResourceId"] or "" for line in lines]
    month = f"{clock.now():%Y-%m}"
    assert admin.get(f"/api/chargeback?from={month}&to={month}").get_json()["data"] == lines
    for query, field in (("from=2001-01", "from"), ("to=x", "to"), (f"from={month}&to=2001-01", "to")):
        refused = admin.get(f"/api/chargeback?{query}")
        assert (refused.status_code, refused.get_json()["error"]["field"]) == (422, field)
        assert admin.get(f"/api/chargeback/file?{query}").status_code == 422
    assert admin.get("/api/chargeback?limit=1&page=2").get_json()["data"] == lines[1:2]
    assert sign_in(app, "owner").get("/api/chargeback").status_code == 403


def test_what_had_no_price_is_listed_for_admins(app: Flask, labelled: list[UsageEvent]) -> None:
    admin = sign_in(app, "admin")
    assert admin.get("/api/unpriced-usage").get_json()["data"] == []  # there is no such model any more
    [line] = admin.get("/api/unpriced-usage?state=all").get_json()["data"]
    assert (line["model"], line["quantity"], line["amount"], line["request_count"], line["price_id"]) == (
        "echo", "searches", 2, 1, None,
    )  # fmt: skip
    assert sign_in(app, "owner").get("/api/unpriced-usage").status_code == 403
