"""`GET /v1/key` tells a caller its limits and what is left, by the numbers that enforcement uses."""

from __future__ import annotations

import pytest

from tests.blueprints.v1.conftest import Client, key_id

pytestmark = pytest.mark.both_lanes


def test_the_keys_own_page_tells_the_numbers_that_enforcement_uses(gate, key, client):
    gate.limit("key", key_id(key), "1", "day", "Asia/Tokyo", rpm=60)
    gate.limit("organisation", "default", "5")
    client.chat(model="echo-1")
    told = client("/v1/key").json
    assert told["limits"] == {"rpm": 60, "tpm": None, "max_parallel": None}
    assert (told["budget"]["limit"], told["budget"]["spent"], told["budget"]["remaining"]) == (
        "1",
        "0.000009",
        "0.999991",
    )
    assert told["budget"]["period"] == "day"
    assert told["budget"]["resets_at"].endswith("T15:00:00Z")
    assert [(budget["scope"], budget["id"]) for budget in told["budgets"]] == [
        ("key", key_id(key)), ("organisation", "default"),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["key", "token"])
def test_the_budgets_of_a_caller_are_told_in_the_order_in_which_a_call_must_fit_them(gate, kind):
    client = Client(gate, gate.key("echo-1", id="mine", kind=kind))
    for scope, id in (("organisation", "default"), ("user", "person-1"), ("subscription", "subscription-echo-1")):
        gate.limit(scope, id, "5" if scope != "user" else "3", rpm={"user": 7, "subscription": 9}.get(scope, 11))
    told = client("/v1/key").json
    first = [("key", "mine")] if kind == "key" else []
    assert [(budget["scope"], budget["id"]) for budget in told["budgets"]] == [
        *first, ("subscription", "subscription-echo-1"), ("user", "ada"), ("organisation", "default"),
    ]  # fmt: skip
    own = {"key": (None, None), "token": ("3", 7)}[kind]  # a token's own limits are its owner's
    assert (told["budget"]["limit"], told["limits"]["rpm"]) == own
