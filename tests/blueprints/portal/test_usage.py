"""The usage page, a request's page with its arithmetic, and the same over everyone for admins."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from app.domain.catalog import Model
from app.metering.usage import Attempt
from tests.blueprints.portal.conftest import Browser, make_key, use
from tests.house import People

DAY_MS = 86_400_000


def at(days_ago: float = 0) -> int:
    return int(time.time() * 1000 - days_ago * DAY_MS)


def test_empty_pages_say_what_to_do(people: People, signed_in: Callable[[str], Browser]) -> None:
    owner = signed_in("owner")
    assert "Nothing used yet" in owner.get("/usage").text
    make_key(people.owner)
    page = owner.get("/usage?range=7").text
    assert "No calls in this range" in page
    assert "range=90" in page


def test_the_page_shows_requests_tokens_cost_and_errors_of_its_range(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    key, _ = make_key(people.owner, name="app key", budget={"limit": "3", "period": "month"})
    use(people.owner, small, at(), key_id=key)
    use(people.owner, small, at(), key_id=key, outcome="error", status=502, completion_tokens=0, cost_nano=0)
    use(people.owner, small, at(20), key_id=key, cost_nano=5_000_000_000)
    use(people.stranger, small, at(), cost_nano=77_000_000_000)
    owner = signed_in("owner")
    week = owner.get("/usage?range=7").text
    assert "$0.002 exactly" in week
    assert "2,000 in · 500 out" in week
    assert "50% of requests" in week
    assert "Key app key" in week
    assert "$5.00" not in week
    month = owner.get("/usage").text
    assert "$5.002 exactly" in month
    assert "$77" not in month
    assert 'data-refresh="30"' in month
    assert 'data-chart="stacked"' in month


def test_the_chart_follows_the_metric_and_gathers_the_smallest_models(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    for number in range(9):
        use(people.owner, small, at(), model=f"m{number}", cost_nano=1_000_000 * (number + 1))
    owner = signed_in("owner")
    chart = owner.get("/usage?range=7&metric=cost").text.split('data-chart="stacked"')[1].split("</table>")[0]
    assert "Other models" in chart
    assert 'data-value="0.009"' in chart
    assert 'data-value="0.003"' in chart  # m0 and m1 together
    assert owner.get("/usage?range=x&metric=y&size=z").status_code == 200


def test_older_requests_follow_a_cursor(people: People, small: Model, signed_in: Callable[[str], Browser]) -> None:
    for number in range(25):
        use(people.owner, small, at() - number * 1000)
    owner = signed_in("owner")
    first = owner.get("/usage").text
    assert first.count("/requests/") == 20
    cursor = first.split("cursor=")[1].split('"')[0].split("&amp;")[0]
    assert owner.get(f"/usage?cursor={cursor}").text.count("/requests/") == 5
    assert owner.get("/usage?cursor=nonsense").status_code == 404


def test_a_request_shows_how_its_cost_is_counted_and_what_was_tried(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    provider, deployment = small.deployments[0].provider_id, small.deployments[0].id
    attempts = (
        Attempt(deployment_id=deployment, provider_id=provider, duration_ms=30, error="The provider answered 500."),
        Attempt(deployment_id=deployment, provider_id=provider, duration_ms=90),
    )
    id = use(people.owner, small, at(), attempts=attempts)
    page = signed_in("owner").get(f"/requests/{id}").text
    for words in (
        "$0.002",
        "$1.00 per 1M",
        "$2.00 per 1M",
        ">0.001<",
        "1,000",
        "500",
        "The provider answered 500.",
        id,
    ):
        assert words in page


def test_an_error_is_told(people: People, small: Model, signed_in: Callable[[str], Browser]) -> None:
    id = use(
        people.owner, small, at(), outcome="error", status=502, error_code="upstream_error",
        error_message="No provider answered.", cost_nano=0, completion_tokens=0, price_id=None, attempts=(),
    )  # fmt: skip
    page = signed_in("owner").get(f"/requests/{id}").text
    assert "No provider answered." in page
    assert "upstream_error" in page
    assert "It was never sent to a provider." in page


@pytest.mark.parametrize(("who", "status"), [("owner", 200), ("stranger", 404), ("admin", 200), ("auditor", 200)])
def test_a_request_is_seen_by_its_person_and_by_admins(
    people: People, small: Model, signed_in: Callable[[str], Browser], who: str, status: int
) -> None:
    id = use(people.owner, small, at())
    assert signed_in(who).get(f"/requests/{id}").status_code == status
    assert signed_in("owner").get("/requests/nothing").status_code == 404


def test_an_admins_own_page_shows_their_own_usage_alone(
    people: People, small: Model, signed_in: Callable[[str], Browser]
) -> None:
    use(people.owner, small, at())
    assert "Nothing used yet" in signed_in("admin").get("/usage").text


@pytest.mark.parametrize(("who", "status"), [("owner", 403), ("admin", 200), ("auditor", 200)])
def test_usage_of_everyone_is_for_admins(
    people: People, small: Model, signed_in: Callable[[str], Browser], who: str, status: int
) -> None:
    use(people.owner, small, at())
    use(people.stranger, small, at(), cost_nano=9_000_000)
    answer = signed_in(who).get("/admin/usage")
    assert answer.status_code == status
    if status == 200:
        assert "$0.011 exactly" in answer.text
        top = answer.text.split("Who used most, dearest first")[1].split("</table>")[0]
        assert top.index("stranger") < top.index("owner")
        assert "<html" not in signed_in(who).get("/admin/usage?range=7", fragment=True).text
