"""The admins' pages about teams: the list of all of them, and what each has to be charged."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from app import clock
from app.domain import teams
from app.domain.catalog import Model
from app.domain.teams import Team
from app.extensions import db, transaction
from app.reports import chargeback
from app.reports import usage as usage_reports
from app.workflows import offboarding
from tests.blueprints.portal.conftest import Browser, make_key, use
from tests.house import People
from tests.page import Page

SignedIn = Callable[[str], Browser]


@pytest.fixture
def research(people: People) -> str:
    return transaction(teams.create, by=people.owner, name="Research").id


def month_ms(months_ago: int) -> int:
    """A moment in the middle of a month gone by."""
    start, end = chargeback.months_before(clock.now_ms(), months_ago + 1)[0]
    return start + (end - start) // 3 if months_ago else max(start, clock.now_ms() - 1)


def month_name(months_ago: int) -> str:
    return f"{datetime.fromtimestamp(month_ms(months_ago) / 1000, UTC):%Y-%m}"


def bill(page: Page) -> dict[str, str]:
    """What each who pays is charged, and the sum."""
    return {row.cell("Team or person").texts[0]: row.cell("Cost").text for row in page.table().rows}


def test_admins_find_every_team_with_its_owners(people: People, research: str, signed_in: SignedIn) -> None:
    transaction(teams.create, by=people.stranger, name="Alpha")
    for who in ("admin", "auditor"):
        page = signed_in(who).page("/admin/teams")
        assert page.row_names == ["Alpha", "Research"]
        assert page.table().column("Owners") == ["stranger", "owner"]
        assert page.row("Research").link("Research").href == f"/teams/{research}"
    admin = signed_in("admin")
    assert admin.page("/admin/teams?q=res", fragment=True).row_names == ["Research"]
    assert "No team fits" in admin.page("/admin/teams?q=nothing").empty
    told = admin.get("/admin/teams?format=json&sort=-name", buffered=True).get_json()["data"]
    assert [(one["name"], one["owners"], one["members"]) for one in told] == [
        ("Research", ["owner"], 1),
        ("Alpha", ["stranger"], 1),
    ]
    assert signed_in("owner").get("/admin/teams").status_code == 403


def test_a_team_whose_owner_is_gone_stands_out(people: People, research: str, signed_in: SignedIn) -> None:
    transaction(offboarding.delete, people.owner, by=people.admin)
    assert signed_in("admin").page("/admin/teams").row("Research").cell("Owners") == "Nobody"


def test_the_bill_of_a_month_is_what_the_ledger_holds(
    people: People, research: str, small: Model, signed_in: SignedIn
) -> None:
    use(people.owner, small, month_ms(0), team_id=research, cost_nano=3_000_000_001)
    use(people.stranger, small, month_ms(0), team_id=research, cost_nano=1_000_000_000)
    use(people.owner, small, month_ms(0), cost_nano=500_000_000)
    use(people.owner, small, month_ms(1), team_id=research, cost_nano=20_000_000_000)
    admin = signed_in("admin")
    told = admin.get("/admin/chargeback?format=json", buffered=True).get_json()["data"]
    assert [(one["month"], one["kind"], one["name"], one["requests"], one["cost"]) for one in told] == [
        (month_name(0), "team", "Research", 2, "4.000000001"),
        (month_name(0), "personal", "owner", 1, "0.5"),
    ]
    db.session.rollback()
    [start, _] = chargeback.months_before(clock.now_ms(), 1)[0]
    whole = usage_reports.totals(people.admin, filters=usage_reports.Filters(from_ms=start)).cost_nano
    assert sum(Decimal(one["cost"]) for one in told) * 10**9 == whole
    both = admin.get(
        f"/admin/chargeback?from={month_name(1)}&to={month_name(0)}&format=csv", buffered=True
    ).text.splitlines()
    assert [line.split(",")[0] for line in both] == ["month", month_name(0), month_name(0), month_name(1)]
    former = admin.page(f"/admin/chargeback?from={month_name(1)}&to={month_name(1)}")
    assert bill(former) == {"Research": "$20.00", "Everybody above": "$20.00"}
    page = admin.page("/admin/chargeback")
    assert bill(page) == {"Research": "$4.00", "owner": "$0.50", "Everybody above": "$4.50"}
    assert page.definition("Cost") == "$4.50"
    assert f"/admin/usage?team={research}" in page.row("Research").link("Research").href


def test_the_bill_is_searched_narrowed_and_sorted(
    people: People, research: str, small: Model, signed_in: SignedIn
) -> None:
    use(people.owner, small, month_ms(0), team_id=research, cost_nano=1_000_000_000)
    use(people.stranger, small, month_ms(0), cost_nano=9_000_000_000)
    admin = signed_in("auditor")

    def names(query: str) -> list[str]:
        told = admin.get(f"/admin/chargeback?format=json&{query}", buffered=True).get_json()["data"]
        return [one["name"] for one in told]

    assert names("") == ["stranger", "Research"]
    assert names("sort=name") == ["Research", "stranger"]
    assert names("sort=cost") == ["Research", "stranger"]
    assert names("kind=team") == ["Research"]
    assert names("q=STRANG") == ["stranger"]
    page = admin.page("/admin/chargeback?kind=team")
    assert bill(page) == {"Research": "$1.00", "Everybody above": "$1.00"}
    assert "of $10.00 in all" in page.definition("Cost").note
    assert "Nobody who fits" in admin.page("/admin/chargeback?q=nothing").empty
    assert admin.get("/admin/chargeback?from=x&to=2001-01&sort=y&kind=z&page=9").status_code == 200
    assert signed_in("owner").get("/admin/chargeback").status_code == 403


def test_a_team_that_was_removed_keeps_its_name_on_the_bill(
    people: People, research: str, small: Model, signed_in: SignedIn
) -> None:
    admin = signed_in("admin")
    assert "Nothing used in these months" in admin.page("/admin/chargeback").empty
    use(people.owner, small, month_ms(0), team_id=research)
    transaction(offboarding.dissolve, db.session.get_one(Team, research), by=people.owner)
    assert "Research" in bill(admin.page("/admin/chargeback"))
    assert admin.page(f"/admin/usage?team={research}").table("By team, most expensive first").row_names == ["Research"]


def test_a_person_who_was_removed_keeps_name_and_key_on_the_bill_and_in_usage(
    people: People, small: Model, signed_in: SignedIn
) -> None:
    key, _ = make_key(people.stranger, name="theirs")
    use(people.stranger, small, month_ms(0), key_id=key)
    transaction(offboarding.delete, people.stranger, by=people.admin)
    admin = signed_in("admin")
    assert "stranger" in bill(admin.page("/admin/chargeback"))
    usage = admin.page("/admin/usage?group=key")
    assert usage.table("Usage by key, most expensive first").row_names == ["theirs"]
    assert usage.table("Top users, most expensive first").row_names == ["stranger"]
    [row] = admin.page("/admin/activity").table("Requests, newest first").rows
    assert (row.cell("User"), row.cell("Key")) == ("stranger", "theirs")
    [told] = admin.get("/admin/activity?format=json", buffered=True).get_json()["data"]
    assert (told["user"], told["key"]) == ("stranger", "theirs")


def test_admins_tell_usage_apart_by_team(people: People, research: str, small: Model, signed_in: SignedIn) -> None:
    use(people.owner, small, month_ms(0), team_id=research, cost_nano=3_000_000_000)
    use(people.owner, small, month_ms(0), cost_nano=1_000_000_000)
    admin = signed_in("admin")
    told = admin.page("/admin/usage?group=team&range=90").table("Usage by team, most expensive first")
    assert told.row_names == ["Research", "Personal"]
    assert told.column("Cost") == ["$3.00", "$1.00"]
    assert admin.page(f"/admin/usage?team={research}&range=90").definition("Cost") == "$3.00"
