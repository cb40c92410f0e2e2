"""The usage page of a person, and the same over everyone for admins."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from app import clock
from app.domain.catalog import Model
from app.ledger import rollups
from app.pages import usage as usage_pages
from tests.blueprints.portal.conftest import Browser, make_key, use
from tests.conftest import SetClock
from tests.house import People
from tests.page import Page, read

DAY_MS = 86_400_000


def at(days_ago: float = 0) -> int:
    return int(clock.now_ms() - days_ago * DAY_MS)


def test_empty_pages_say_what_to_do(people: People, signed_in: Callable[[str], Browser]) -> None:
    owner = signed_in("owner")
    assert "Nothing used yet" in owner.page("/usage").headings
    make_key(people.owner)
    page = owner.page("/usage?range=7")
    assert "No calls in this range" in page.headings
    assert "range=90" in page.link("Show 90 days").href


def test_the_page_shows_requests_tokens_cost_and_errors_of_its_range(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    key, _ = make_key(people.owner, name="app key", budget={"limit": "3", "period": "month"})
    use(people.owner, small, at(), key_id=key)
    use(people.owner, small, at(), key_id=key, outcome="error", status=502, completion_tokens=0, cost_nano=0)
    use(people.owner, small, at(20), key_id=key, cost_nano=5_000_000_000)
    use(people.stranger, small, at(), cost_nano=77_000_000_000)
    owner = signed_in("owner")
    week = owner.page("/usage?range=7")
    assert week.definition("Requests") == "2"
    assert "$0.002 exactly" in week.definition("Cost").note
    assert "2,000 in · 500 out" in week.definition("Tokens").note
    assert week.definition("Success rate") == "50%"
    assert "1 failed" in week.definition("Success rate").note
    assert "Key app key a month" in week.section("Spend against budget").texts
    answer = owner.get("/usage")
    month = read(answer)
    assert "$5.002 exactly" in month.definition("Cost").note
    assert "$77" not in answer.text
    assert 'data-refresh="30"' in answer.text
    assert month.section("Tokens a day by model").table().heads == ["Day", "small"]


def test_the_chart_follows_the_metric_and_gathers_the_smallest_models(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    for number in range(9):
        use(people.owner, small, at(), model=f"m{number}", cost_nano=1_000_000 * (number + 1))
    owner = signed_in("owner")
    chart = owner.page("/usage?range=7&metric=cost").table("Cost a day by model")
    [used] = [row for row in chart.rows if "$0.009" in row]
    assert used.cell("m8") == "$0.009"
    assert used.cell("Other models") == "$0.003"  # m0 and m1 together
    assert owner.get("/usage?range=x&metric=y&size=z").status_code == 200


def test_an_admins_own_page_shows_their_own_usage_alone(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    use(people.owner, small, at())
    assert "Nothing used yet" in signed_in("admin").page("/usage").headings


@pytest.mark.parametrize(("who", "status"), [("owner", 403), ("admin", 200), ("auditor", 200)])
def test_usage_of_everyone_is_for_admins(
    people: People, small: Model, signed_in: Callable[[str], Browser], who: str, status: int
) -> None:
    use(people.owner, small, at())
    use(people.stranger, small, at(), cost_nano=9_000_000)
    page = signed_in(who).page("/admin/usage", status=status)
    if status == 200:
        assert "$0.011 exactly" in page.definition("Cost").note
        assert page.table("Top users, most expensive first").row_names == ["stranger", "owner"]
        assert not signed_in(who).page("/admin/usage?range=7", fragment=True).is_whole


def test_each_figure_is_compared_with_the_period_before(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    for days in (1, 2, 3):
        use(people.owner, small, at(days), cost_nano=30_000_000, duration_ms=200)
    for days in (8, 9):
        use(people.owner, small, at(days), cost_nano=10_000_000, duration_ms=400)
    answer = signed_in("owner").get("/usage?range=7")
    page = read(answer)
    assert page.definition("Requests").note == "+50%"  # three after two
    assert page.definition("Cost").note == "+350%"  # nine cents after two
    assert page.definition("Mean duration").note == "-50% of all requests"
    assert re.search(r'class="good">-50%', answer.text)  # half as long is welcome
    assert "Changes compare" in page
    assert "newest 2,000" not in page


def bars_of(page: Page) -> tuple[str, int]:
    """How long a bar of the chart is, and how many there are. All of what these tests used is in them."""
    [chart] = [table for table in page.tables if table.heads[1:] == ["small"]]
    assert sum(int(cell.text.replace(",", "")) for cell in chart.column("small")) == 1500
    return chart.heads[0], len(chart.rows)


@pytest.mark.slow
def test_the_chart_has_a_bar_for_each_step_that_the_range_touches(
    people: People, small: Model, signed_in: Callable[[str], Browser], turn: datetime
) -> None:
    use(people.owner, small, at())
    owner = signed_in("owner")
    days = [turn.date() - timedelta(days=back) for back in range(90)]
    weeks, months = {day.isocalendar()[:2] for day in days}, {(day.year, day.month) for day in days}
    for asked, head, bars in [
        ("range=1", "Hour", 24), ("range=7", "Day", 7), ("range=7&by=hour", "Hour", 6 * 24 + turn.hour + 1),
        ("range=30", "Day", 30), ("range=90", "Week", len(weeks)), ("range=90&by=hour", "Week", len(weeks)),
        ("range=90&by=month", "Month", len(months)), ("range=90&by=day", "Day", 90),
    ]:  # fmt: skip
        assert bars_of(owner.page(f"/usage?{asked}")) == (head, bars), asked


@pytest.mark.parametrize(
    ("asked", "head", "bars"),
    [
        ("from=2026-01-05&to=2026-01-18", "Day", 14), ("from=2026-01-05&to=2026-01-18&by=week", "Week", 2),
        ("from=2025-11-30&to=2026-03-01&by=month", "Month", 5),
        ("range=7&from=2026-01-05&to=2026-01-18", "Day", 7),
    ],
)  # fmt: skip
def test_the_chart_follows_the_days_that_are_chosen(
    people: People,
    small: Model,
    signed_in: Callable[[str], Browser],
    set_clock: SetClock,
    asked: str,
    head: str,
    bars: int,
) -> None:
    set_clock(datetime(2026, 1, 9, 12, tzinfo=UTC))
    use(people.owner, small, at())
    set_clock(datetime(2026, 1 if "range" in asked else 6, 12, tzinfo=UTC))
    assert bars_of(signed_in("owner").page(f"/usage?{asked}")) == (head, bars)


@pytest.mark.parametrize("asked", ["from=2026-01-09&to=2026-01-08", "from=x", "from=2020-01-01&to=2026-01-01",
                                   "from=2999-01-01&to=2999-01-02", "range=custom&to=0001-01-01"])  # fmt: skip
def test_days_that_are_none_ask_for_others(people: People, signed_in: Callable[[str], Browser], asked: str) -> None:
    page = signed_in("owner").page(f"/usage?{asked}")
    assert "Pick a range" in page.headings
    assert {"First day, UTC", "Last day, UTC"} <= {field.text for field in page.fields}


def test_a_filter_narrows_everything_and_can_be_taken_out(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    first, _ = make_key(people.owner, name="first key")
    second, _ = make_key(people.owner, name="second key")
    use(people.owner, small, at(), key_id=first, cost_nano=1_000_000_000)
    use(people.owner, small, at(), key_id=second, cost_nano=4_000_000_000, model="large")
    owner = signed_in("owner")
    page = owner.page(f"/usage?key={first}")
    assert page.definition("Cost") == "$1.00"
    assert "Remove filter Key: first key" in page.links
    by_key = owner.page("/usage?group=key").table("Usage by key, most expensive first")
    assert by_key.row_names == ["second key", "first key"]
    assert by_key.column("Share of cost") == ["80%", "20%"]
    assert "No calls fit these filters" in owner.page("/usage?model=none").headings
    assert "user" not in [field.sent_as for field in page.fields]
    assert "Remove filter User" not in owner.get("/usage?user=stranger").text
    theirs = owner.page("/usage?user=stranger&provider=x&group=user")
    assert theirs.definition("Cost") == "$5.00"  # what only admins narrow by is no filter here


def test_errors_are_told_by_kind_and_lead_to_the_requests(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    use(people.owner, small, at(), outcome="error", status=502, error_code="upstream_error", cost_nano=0)
    use(people.owner, small, at(), outcome="error", status=504, error_code="upstream_timeout", cost_nano=0)
    use(people.owner, small, at())
    owner = signed_in("owner")
    kind = owner.page("/usage?range=7").section("Errors").row("upstream_timeout")
    assert (kind.cell("Status"), kind.cell("Requests")) == ("504", "1")
    there = owner.page(kind.link("upstream_timeout").href)
    assert [row.cell("Status").texts[0] for row in there.rows] == ["504"]
    assert "Remove filter Error code: upstream_timeout" in there.links


def test_streams_and_whole_answers_stand_side_by_side(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    use(people.owner, small, at(), stream=True, ttft_ms=100, duration_ms=1100, completion_tokens=50)
    use(people.owner, small, at(), stream=False, ttft_ms=None, duration_ms=10, outcome="error", status=502)
    table = signed_in("owner").page("/usage").table("Streaming and non-streaming")
    stream, whole = table.row("Streaming"), table.row("Non-streaming")
    assert (stream.cell("Tokens/s"), stream.cell("First token, p50")) == ("50.0", "100 ms")
    assert whole.cell("Errors") == "1 (100%)"


def test_the_hours_of_the_week_follow_the_zone(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    use(people.owner, small, at(1), prompt_tokens=5000, completion_tokens=0)
    owner = signed_in("owner")

    def hours(zone: str) -> tuple[int, int]:
        rows = owner.page(f"/usage?tz={zone}").section("Usage by hour and weekday").table().rows
        [found] = [
            (day, hour) for day, row in enumerate(rows) for hour in range(24) if row.cell(f"{hour:02}:00") != "·"
        ]
        return found

    day, hour = hours("UTC")
    moment = time.gmtime(at(1) / 1000)
    assert (day, hour) == (moment.tm_wday, moment.tm_hour)
    later = (day * 24 + hour + 9) % 168
    assert hours("Asia/Tokyo") == divmod(later, 24)
    assert hours("nowhere") == (day, hour)


@pytest.mark.parametrize("form", ["csv", "json"])
def test_the_sums_are_a_file(people: People, small: Model, signed_in: Callable[[str], Browser], form: str) -> None:
    key, _ = make_key(people.owner, name="=cmd")
    use(people.owner, small, at(), key_id=key)
    use(people.owner, small, at(3), key_id=key, cost_nano=1)
    use(people.stranger, small, at(), cost_nano=9_000_000)
    answer = signed_in("owner").get(f"/usage?range=7&group=key&format={form}", buffered=True)
    if form == "json":
        rows = answer.get_json()["data"]
        assert [(row["cost"], row["requests"], row["key"]) for row in rows] == [
            ("0.000000001", 1, "=cmd"), ("0.002", 1, "=cmd"),
        ]  # fmt: skip
        assert rows[0]["key_id"] == key
    else:
        lines = answer.text.splitlines()
        assert len(lines) == 3
        assert "'=cmd" in lines[1]


def test_sums_can_be_of_a_status(people: People, small: Model, signed_in: Callable[[str], Browser]) -> None:
    use(people.owner, small, at())
    use(people.owner, small, at(2), model="other", outcome="error", status=502, cost_nano=0)
    owner = signed_in("owner")
    failed = owner.page("/usage?range=7&status=error")
    assert (failed.definition("Requests"), failed.definition("Success rate")) == ("1", "0%")
    assert failed.section("By model").link("1 requests of other").href == "/activity?range=7&status=error&model=other"
    assert owner.page("/usage?range=7&status=502").definition("Requests") == "1"
    assert "No calls fit these filters" in owner.page("/usage?range=7&status=404").headings
    assert owner.page("/usage?range=7&status=nonsense").definition("Requests") == "2"


def test_parts_of_the_whole_are_a_donut_and_a_table(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    use(people.owner, small, at(), cost_nano=3_000_000_000)
    owner = signed_in("owner")
    assert 'data-chart="donut"' not in owner.get("/usage").text  # one part is no part
    for number in range(8):
        use(people.owner, small, at(1), model=f"m{number}", cost_nano=1_000_000_000)
    page = owner.page("/usage?metric=cost")
    table = next(table for table in page.tables if table.heads == ["Model", "Cost"])
    assert table.rows[0].cells == {"Model": "small", "Cost": "$3.00 (27.3%)"}
    assert table.rows[-1].cells == {"Model": "Other models", "Cost": "$2.00 (18.2%)"}
    assert len(table.rows) == 8
    assert 'data-chart="donut"' not in owner.get("/usage?group=tag").text


def test_every_row_leads_to_its_requests(people: People, small: Model, signed_in: Callable[[str], Browser]) -> None:
    key, _ = make_key(people.owner, name="app")
    use(people.owner, small, at(), key_id=key)
    owner = signed_in("owner")
    link = owner.page("/usage?group=key").section("By key").link("1 requests of app")
    assert link.href == f"/activity?key={key}"
    assert len(owner.page(link.href).table().rows) == 1
    link = signed_in("admin").page("/admin/usage?range=7").section("Top users").link("1 requests of owner")
    assert link.href == "/admin/activity?range=7&user=owner"


def test_a_chosen_user_narrows_the_keys_that_are_offered(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    for person, names in ((people.owner, ("mine", "my other")), (people.stranger, ("theirs", "their other"))):
        for name in names:
            key, _ = make_key(person, name=name)
            use(person, small, at(), key_id=key)
    auditor = signed_in("auditor")
    everyone = auditor.page("/admin/usage")
    assert {"theirs", "mine"} <= set(everyone.field("Key").choices)
    assert everyone.definition("Requests").note == "2 active users"
    owners = auditor.page("/admin/usage?user=owner&group=user")
    assert owners.field("Key").choices == ["Key: all", "mine", "my other"]
    assert owners.definition("Requests").note == "1 active user"
    assert "No calls fit these filters" in auditor.page("/admin/usage?user=nobody").headings


def test_pages_take_few_queries_however_much_was_used(
    people: People,
    small: Model,
    signed_in: Callable[[str], Browser],
    count_queries: Callable[[], int],
    subtests: pytest.Subtests,
) -> None:
    most = [
        ("owner", "/home", 13),
        ("admin", "/home", 14),
        ("owner", "/keys", 9),
        ("owner", "/budgets", 11),
        ("owner", "/usage", 15),
        ("owner", "/usage?range=90&group=key&metric=cost", 15),
        ("owner", "/usage?model=small", 14),
        ("owner", "/activity", 12),
        ("admin", "/admin/usage", 13),
        ("admin", "/admin/usage?group=user&metric=cost&model=small", 15),
        ("admin", "/admin/activity", 12),
        ("admin", "/admin/people", 11),
        ("admin", "/admin/approvals", 8),
    ]
    key, _ = make_key(people.owner)
    for more in (1, 12):
        for number in range(more):
            use(people.owner, small, at(number), model=f"m{number}", key_id=key)
            use(people.owner, small, at(number), model="small", outcome="error", status=502)
        for who, address, allowed in most:
            browser = signed_in(who)
            count_queries()
            with subtests.test(who=who, address=address, more=more):
                assert browser.get(address).status_code == 200
                assert count_queries() <= allowed


def test_a_range_up_to_now_counts_what_came_last_and_nothing_before_it(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    """Its sums come from days, weeks and months that still run: before and after the rollups know of it."""
    use(people.owner, small, at(), cost_nano=1_000_000_000)
    use(people.owner, small, at(6.99), cost_nano=2_000_000_000)
    use(people.owner, small, at(40), cost_nano=4_000_000_000)
    owner = signed_in("owner")
    for _ in range(2):
        spent = [
            owner.page(f"/usage?{asked}").definition("Cost") for asked in ("range=1", "range=30", "range=90&by=month")
        ]
        assert spent == ["$1.00", "$3.00", "$7.00"]
        rollups.derive()


def test_who_used_most_of_a_model_is_told_on_demand_where_many_people_are(
    people: People, small: Model, signed_in: Callable[[str], Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(people.owner, small, at(), model="small")
    admin = signed_in("admin")
    assert "Top users" in admin.page("/admin/usage?model=small").headings
    monkeypatch.setattr(usage_pages, "OFFERED", 1)
    page = admin.page("/admin/usage?model=small")
    assert "Top users" not in page.headings
    assert "active user" not in page.definition("Requests").note
    assert page.field("User")
    assert page.link("Show users and teams").href == "/admin/usage?model=small&tops=1"
    whole = admin.page("/admin/usage?model=small&tops=1")
    assert "Top users" in whole.headings
    assert "Show users and teams" not in whole.links
    assert "Top users" in admin.page("/admin/usage").headings
    assert "Top users" in admin.page("/admin/usage?model=small&user=owner").headings


def test_usage_is_divided_by_session_agent_and_tag_and_each_leads_to_its_own(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    for tags in (("alpha", "beta"), ("beta",), ()):
        use(people.owner, small, at(), session_id="s1", agent="codex", tags=tags)
    owner = signed_in("owner")
    expected = {"session": {"s1": "3"}, "agent": {"codex": "3"}, "tag": {"beta": "2", "alpha": "1", "Untagged": "1"}}
    for group, rows in expected.items():
        page = owner.page(f"/usage?group={group}")
        assert not any("-" in cell for row in page.tables[0].rows for cell in row.cells.values()), (
            "nothing is left over"
        )
        table = page.table(f"Usage by {group}, most expensive first")
        assert {row.cells[group.capitalize()]: row.cells["Requests"] for row in table.rows} == rows
        name = next(iter(rows))
        [row, *_] = owner.page(table.link(name).href).table(f"Usage by {group}, most expensive first").rows
        assert row.cells[group.capitalize()] == name
        told = owner.get(f"/usage?group={group}&format=json", buffered=True).get_json()["data"]
        assert {one[group]: one["requests"] for one in told} == {name: int(count) for name, count in rows.items()}
