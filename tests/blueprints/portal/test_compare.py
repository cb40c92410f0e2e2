"""Models side by side: chosen in the catalogue without scripts, only those that the person can see, four at most."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from app import clock
from app.domain.catalog import Model
from app.extensions import transaction
from tests.blueprints.portal.conftest import Browser, make_model, tell, use
from tests.house import People

SignedIn = Callable[[str], Browser]


@pytest.fixture
def large(people: People) -> Model:
    price = {"input_per_mtok": "5", "output_per_mtok": "15", "cached_input_per_mtok": "0.5"}
    return transaction(make_model, people.admin, "lab/large", price=price, context_window=128_000, features=["tools"])


def test_price_limits_health_and_times_stand_side_by_side(
    people: People, small: Model, large: Model, wire: redis.Redis, signed_in: SignedIn
) -> None:
    use(people.stranger, small, clock.now_ms(), stream=True, duration_ms=2000, ttft_ms=500, completion_tokens=30)
    tell(wire, large.deployments[0].id, failures=3)
    owner = signed_in("owner")
    page = owner.page("/models/compare?model=small&model=lab/large&model=small")
    table = page.table("Models side by side")

    def line(name: str) -> list[str]:
        return [table.row(name).cell(model).text for model in ("small", "lab/large")]

    assert line("Input, per 1M tokens") == ["$1.00", "$5.00"]
    assert line("Cached input, per 1M tokens")[1] == "$0.50"
    assert line("Context, tokens")[1] == "128,000"
    assert line("Response p50 / p95, 24 h") == ["2.0 s / 2.0 s", "– / –"]
    assert line("First token p50 / p95, 24 h")[0] == "500 ms / 500 ms"
    assert line("Tokens/s of streams, 24 h") == ["20.0", "–"]
    assert line("Uptime, 24 h") == ["100%", "No requests"]
    assert line("Health")[1].startswith("Failing since ")
    assert "10.0.0.7" not in owner.get("/models/compare?model=lab/large").text
    assert page.link("Remove small").href == "/models/compare?model=lab/large"


def test_the_boxes_of_the_catalogue_lead_to_the_comparison(small: Model, large: Model, signed_in: SignedIn) -> None:
    owner = signed_in("owner")
    for view in ("cards", "table"):
        answer = owner.get(f"/models?view={view}")
        assert answer.text.count('name="model" value="small" form="compare"') == 1
        assert '<form id="compare" method="get" action="/models/compare">' in answer.text
        assert 'type="submit" form="compare"' in answer.text


def test_what_cannot_be_compared_is_said(people: People, small: Model, signed_in: SignedIn) -> None:
    transaction(make_model, people.admin, "secret", status="hidden")
    owner = signed_in("owner")
    assert "Choose a model" in owner.page("/models/compare").headings
    page = owner.page("/models/compare?model=small&model=secret")
    assert page.alert.heading == "There is no model named secret"
    assert page.table("Models side by side").row("Your access").cell("small") == "Open"
    for number in range(4):
        transaction(make_model, people.admin, f"m{number}")
    five = owner.page("/models/compare?model=small" + "".join(f"&model=m{number}" for number in range(4)))
    assert five.alert.heading == "At most 4 models fit"
    assert "m2" in five.table().text and "m3" not in five.table().text
    assert owner.get("/models/compare?model=" + "x" * 5000).status_code == 200
