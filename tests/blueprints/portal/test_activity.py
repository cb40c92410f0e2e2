"""The list of requests and a request's page with its tries and its arithmetic; the same over everyone for admins."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.domain.catalog import Model
from app.ledger.posting import post
from app.metering.usage import Attempt, UsageEvent
from app.runtime.ids import new_id
from tests.blueprints.portal.conftest import Browser, make_key, use
from tests.blueprints.portal.test_usage import at
from tests.house import People
from tests.page import Page, read


def listed(page: Page) -> list[str]:
    """The ids of the requests that a list shows, in their order."""
    return [row.cell("Time").hrefs[0].rpartition("/")[2] for row in page.rows]


def test_pages_lead_to_older_requests_and_back(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    ids = [use(people.owner, small, at() - number * 1000) for number in range(45)]
    owner = signed_in("owner")
    pages, path = [], "/activity"
    for _ in range(3):
        page = owner.page(path)
        pages.append(listed(page))
        path = page.link("Older").href if "Older" in page.links else ""
    assert [len(page) for page in pages] == [20, 20, 5]
    assert [id for page in pages for id in page] == ids
    assert listed(owner.page(page.link("Newer").href)) == pages[1]
    assert len(listed(owner.page("/activity?size=50"))) == 45
    assert owner.get("/activity?cursor=nonsense").status_code == 404


def test_the_list_tells_what_was_asked_and_what_served(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    provider, deployment = small.deployments[0].provider_id, small.deployments[0].id
    key, _ = make_key(people.owner, name="my app")
    tried = Attempt(deployment_id=deployment, provider_id=provider, duration_ms=5, error="It answered 500.")
    served = Attempt(deployment_id=deployment, provider_id=provider, duration_ms=95)
    use(
        people.owner, small, at(), key_id=key, stream=True, ttft_ms=100, duration_ms=1100, completion_tokens=50,
        finish_reason="length", attempts=(tried, served),
    )  # fmt: skip
    [row] = signed_in("owner").page("/activity").rows
    assert row.cells == {
        "Time": row.cell("Time").text, "Model": "small echo · Echo", "Key": "my app",
        "Status": "OK length stream 1 fallback", "Tokens": "1,000 in 50 out", "Cost": "$0.002", "Duration": "1.1 s",
        "First token": "100 ms", "Tokens/s": "50.0",
    }  # fmt: skip
    [row] = signed_in("auditor").page("/admin/activity").rows
    assert row.cell("User") == "owner"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("status=error", "failed"), ("status=502", "failed"), ("status=ok", "first older"), ("model=large", "failed"),
        ("endpoint=/v1/embeddings", "older"), ("range=1", "first failed"), ("code=upstream_error", "failed"),
        ("code=other", ""), ("user=stranger", "first failed older"),
    ],
)  # fmt: skip
def test_every_filter_narrows(
    people: People, small: Model, signed_in: Callable[[str], Browser], asked: str, found: str
) -> None:
    ids = {
        "first": use(people.owner, small, at()),
        "failed": use(
            people.owner, small, at(), model="large", outcome="error", status=502, error_code="upstream_error"
        ),
        "older": use(people.owner, small, at(3), endpoint="/v1/embeddings", api_type="embeddings"),
    }
    use(people.stranger, small, at())
    page = signed_in("owner").page(f"/activity?{asked}")
    assert set(listed(page)) == {ids[name] for name in found.split()}
    if not found:
        assert "No request fits these filters" in page.headings


def test_a_request_is_found_by_its_id_whatever_the_range(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    id = use(people.owner, small, at(200))
    assert listed(signed_in("owner").page(f"/activity?q={id}")) == [id]
    assert "No such request" in signed_in("stranger").page(f"/activity?q={id}").headings
    assert listed(signed_in("admin").page(f"/admin/activity?q={id}")) == [id]


def test_empty_lists_say_what_to_do(people: People, small: Model, signed_in: Callable[[str], Browser]) -> None:
    owner = signed_in("owner")
    assert "range=90" in owner.page("/activity").link("Show 90 days").href
    assert "Pick a range" in owner.page("/activity?from=x").headings


def test_corrections_of_the_books_are_no_requests(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    id = use(people.owner, small, at())
    use(people.owner, small, at(), request_id=id, kind="credit", cost_nano=-500_000, price_id=None)
    post([UsageEvent(
        request_id=new_id(), attempt=0, kind="repair", at_ms=at(), person_id="", model="", endpoint="", api_type="",
        outcome="ok", status=200, moved_nano=1,
    )])  # fmt: skip
    admin = signed_in("admin")
    assert listed(admin.page("/admin/activity")) == [id]
    page = admin.page(f"/admin/activity/{id}")
    assert "-$0.0005" in page.section("Given back").texts
    assert admin.page("/admin/usage").definition("Cost").note == "$0.0015 exactly"


@pytest.mark.parametrize("form", ["csv", "json"])
def test_the_filtered_requests_are_a_file(
    people: People, small: Model, signed_in: Callable[[str], Browser], form: str
) -> None:
    ids = [use(people.owner, small, at() - number, model="large") for number in range(3)]
    use(people.owner, small, at())
    use(people.stranger, small, at(), model="large")
    answer = signed_in("owner").get(f"/activity?model=large&format={form}", buffered=True)
    if form == "json":
        rows = answer.get_json()["data"]
        assert {row["id"] for row in rows} == set(ids)
        assert (rows[0]["cost"], rows[0]["provider"], rows[0]["upstream_model"]) == ("0.002", "Echo", "echo")
        assert (rows[0]["user"], rows[0]["fallbacks"]) == ("owner", 0)
    else:
        assert len(answer.text.splitlines()) == 4


def test_a_request_shows_how_its_cost_is_counted_and_what_was_tried(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    provider, deployment = small.deployments[0].provider_id, small.deployments[0].id
    key, _ = make_key(people.owner, name="my app")
    attempts = (
        Attempt(deployment_id=deployment, provider_id=provider, duration_ms=100, error="The provider answered 500."),
        Attempt(deployment_id=deployment, provider_id=provider, duration_ms=300),
    )
    scopes = (("key", key, "month-1"), ("user", people.owner.id, "total"), ("organisation", "default", "total"))
    id = use(people.owner, small, at(), key_id=key, attempts=attempts, duration_ms=400, scopes=scopes)
    answer = signed_in("owner").get(f"/activity/{id}")
    page = read(answer)
    cost, sums = page.section("What it cost"), page.table("How the cost is counted")
    assert "$0.002" in cost.texts
    assert [list(row.cells.values()) for row in sums.rows] == [
        ["Input", "1,000", "$1.00 per 1M", "0.001"],
        ["Output", "500", "$2.00 per 1M", "0.001"],
        ["Sum", "", "", "0.002"],
    ]
    tries = page.section("Attempts")
    assert tries.row("1").cell("Result") == "Failed The provider answered 500."
    assert tries.row("2").cell("Result") == "Answered"
    assert tries.row("2").cell("Timeline").images == ["from 100 ms, for 300 ms"]
    assert 'x="25.0" width="75.0"' in answer.text
    assert "1 attempt failed before the last one" in tries
    charged = page.section("Charged to").table()
    assert charged.column("Of") == ["my app", "owner", "everyone"]
    assert charged.column("Period") == ["of that month", "in total", "in total"]
    details = page.section("Details").facts
    assert (details["Endpoint"], details["Key"]) == ("/v1/chat/completions", "my app")
    assert "Bearer $PORTICO_API_KEY" in page.section("Call it again").codes[0]
    assert id in page.codes
    assert "sk-" not in answer.text


def test_an_error_is_told(people: People, small: Model, signed_in: Callable[[str], Browser]) -> None:
    id = use(
        people.owner, small, at(), outcome="error", status=502, error_code="upstream_error",
        error_message="No provider answered.", cost_nano=0, completion_tokens=0, price_id=None, attempts=(),
    )  # fmt: skip
    page = signed_in("owner").page(f"/activity/{id}")
    assert "No provider answered." in page.alert
    assert "upstream_error" in page.alert
    assert "It was never sent to a provider." in page.texts
    assert "No budget was charged." in page.texts


@pytest.mark.parametrize(
    ("who", "own", "everyones"),
    [("owner", 200, 403), ("stranger", 404, 403), ("admin", 200, 200), ("auditor", 200, 200)],
)
def test_a_request_is_seen_by_its_person_and_by_admins(
    people: People, small: Model, signed_in: Callable[[str], Browser], who: str, own: int, everyones: int
) -> None:
    id = use(people.owner, small, at())
    somebody = signed_in(who)
    assert somebody.get(f"/activity/{id}").status_code == own
    assert somebody.get(f"/admin/activity/{id}").status_code == everyones
    assert somebody.get("/admin/activity").status_code == everyones
    assert somebody.get("/activity/nothing").status_code == 404
    assert listed(somebody.page("/activity")) == ([id] if who == "owner" else [])


def test_former_addresses_lead_to_the_request(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    answer = signed_in("owner").get("/requests/abc")
    assert (answer.status_code, answer.headers["Location"]) == (301, "/activity/abc")


def test_the_requests_of_one_turn_are_one_row_with_its_attempts_inside(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    now = at()
    failed = {"turn_id": "t", "session_id": "s1", "outcome": "error", "status": 502, "error_code": "upstream_error"}
    attempts = [use(people.owner, small, now - 5_000 * back, **failed) for back in (2, 1)]
    last = use(
        people.owner, small, now, turn_id="t", session_id="s1", agent="codex", tags=("alpha",), unpriced={"searches": 3}
    )
    other = use(people.owner, small, now - 7_000)
    use(people.stranger, small, now, turn_id="t", session_id="s1")
    owner = signed_in("owner")
    page = owner.page("/activity")
    assert listed(page) == [last, other]
    assert "2 earlier attempts" in page.rows[0].cell("Status").text
    assert "$0.006 in all" in page.rows[0].cell("Cost").text
    assert [href.rpartition("/")[2] for href in page.rows[0].cell("Status").hrefs] == attempts[::-1]
    assert listed(owner.page("/activity?turn=t")) == [last, *attempts[::-1]]
    for query in ("session=s1", "tag=alpha", "agent=codex"):
        assert listed(owner.page(f"/activity?{query}")) == [last]
    assert "No request fits" in owner.page("/activity?session=s2").empty
    shown = owner.page(f"/activity/{last}")
    assert len(shown.table("Requests of this turn, newest first").rows) == 3
    assert "$0.006 together" in shown.text
    assert {
        "Session": "s1",
        "Agent": "codex",
        "Tags": "alpha",
        "Without a price": "3 searches",
    }.items() <= shown.facts.items()
    told = owner.get("/activity?format=json&tag=alpha", buffered=True).get_json()["data"]
    assert [(one["session_id"], one["turn_id"], one["tags"]) for one in told] == [("s1", "t", ["alpha"])]


def test_the_list_is_live_on_demand_and_on_its_first_page(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    owner = signed_in("owner")
    assert "data-refresh" not in owner.get("/activity").text
    assert owner.page("/activity?range=7").link("Go live").href == "/activity?range=7&live=1"
    live = owner.get("/activity?range=7&live=1")
    assert 'data-refresh="5"' in live.text
    assert read(live).link("Stop live").href == "/activity?range=7"
    assert "data-refresh" not in owner.get("/activity?live=1&q=nothing").text
