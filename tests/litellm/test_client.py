from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from app.litellm import client as module
from app.litellm.client import IN_A_ROW, Breaker, LiteLLM, LiteLLMFailed
from app.providers.addresses import AddressPolicy
from tests.services.litellm import MASTER_KEY, VERSION, LiteLLMServer

POLICY = AddressPolicy(allow_private=True)


@pytest.fixture(scope="module")
def running() -> Iterator[LiteLLMServer]:
    server = LiteLLMServer()
    yield server
    server.stop()


@pytest.fixture
def there(running: LiteLLMServer) -> LiteLLMServer:
    running.reset()
    return running


@pytest.fixture
def naps() -> list[float]:
    return []


@pytest.fixture
def litellm(there: LiteLLMServer, naps: list[float]) -> Iterator[LiteLLM]:
    with LiteLLM(there.url, MASTER_KEY, policy=POLICY, timeout_s=5, sleep=naps.append) as found:
        yield found


def failing(*answers: Any) -> Any:
    """Answers these instead, in order, and then as usual."""
    left = list(answers)
    return lambda method, path: left.pop(0) if left else None


def test_it_tells_its_version_and_whether_the_key_is_right(there: LiteLLMServer, litellm: LiteLLM) -> None:
    assert litellm.version() == VERSION
    litellm.check_key()
    with LiteLLM(there.url, "sk-wrong", policy=POLICY, timeout_s=5) as stranger, pytest.raises(LiteLLMFailed) as failed:
        stranger.check_key()
    assert failed.value.verdict == "auth_error"


def test_lists_are_read_page_by_page(there: LiteLLMServer, litellm: LiteLLM) -> None:
    for number in range(250):
        there.user(f"u{number}")
    assert len(litellm.users()) == 250
    assert len(there.asked) == 3


def test_everything_is_read_by_a_few_requests(there: LiteLLMServer, litellm: LiteLLM) -> None:
    there.user("u1")
    there.team("t1", "Research")
    there.member("t1", "u1", cap=2.5)
    there.key("app", "u1")
    there.model("m", input_cost_per_token=1.5e-7)
    found = litellm.lists(("models", "users", "teams", "members", "keys"))
    assert [len(rows or ()) for rows in found] == [1, 1, 1, 1, 1]
    assert found.models[0]["model_info"]["input_cost_per_token"] == Decimal("1.5E-7")
    assert len(there.asked) == 5


def test_a_list_that_changes_while_it_is_read_is_read_again(there: LiteLLMServer, litellm: LiteLLM) -> None:
    for number in range(150):
        there.user(f"u{number}")

    def change(method: str, path: str) -> None:
        if "page=2" in path and "u0" in there.users:
            del there.users["u0"]  # what was the first of the second page is now on the first

    there.before = change
    assert {row["user_id"] for row in litellm.users()} == {f"u{number}" for number in range(1, 150)}


def test_a_list_that_never_stands_still_is_given_up(there: LiteLLMServer, litellm: LiteLLM) -> None:
    for number in range(150):
        there.user(f"u{number}")
    there.before = lambda method, path: there.user(f"new {len(there.asked)}") and None
    with pytest.raises(LiteLLMFailed, match="changed while they were read"):
        litellm.users()


def test_a_list_is_bounded(there: LiteLLMServer, litellm: LiteLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 100)
    for number in range(101):
        there.user(f"u{number}")
    with pytest.raises(LiteLLMFailed, match="more than 100 users"):
        litellm.users()


def test_an_answer_is_bounded(there: LiteLLMServer, litellm: LiteLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    there.before = lambda method, path: (200, {"data": ["x" * 2000]}, {})
    with pytest.raises(LiteLLMFailed, match="too large"):
        litellm.models()


def test_an_older_one_without_pages_of_teams_is_read_too(there: LiteLLMServer, litellm: LiteLLM) -> None:
    there.team("t1", "Research")
    there.before = lambda method, path: (404, {"detail": "Not Found"}, {}) if path.startswith("/v2") else None
    assert [row["team_id"] for row in litellm.teams()] == ["t1"]


def test_without_a_list_of_memberships_caps_are_unknown(there: LiteLLMServer, litellm: LiteLLM) -> None:
    there.before = lambda method, path: (404, {"detail": "Not Found"}, {}) if path.startswith("/team/list") else None
    assert litellm.memberships() is None


def test_it_waits_as_long_as_it_is_told(there: LiteLLMServer, litellm: LiteLLM, naps: list[float]) -> None:
    there.before = failing((429, {}, {"Retry-After": "7"}), (429, {}, {"Retry-After": "3600"}))
    litellm.users()
    assert naps == [7.0, module.LONGEST_PATIENCE_S]


def test_a_read_that_fails_is_tried_again_and_a_write_is_not(
    there: LiteLLMServer, litellm: LiteLLM, naps: list[float]
) -> None:
    there.before = failing((503, {}, {}), (502, "not JSON", {}))
    litellm.users()
    assert naps == [0.2, 1.0]
    there.before = failing((500, {}, {}))
    with pytest.raises(LiteLLMFailed, match="status 500"):
        litellm.write("/user/new", {"user_id": "ada"})
    assert not there.users


def test_a_redirect_is_not_followed(there: LiteLLMServer, litellm: LiteLLM) -> None:
    other = LiteLLMServer()
    there.before = lambda method, path: (307, {}, {"Location": f"{other.url}{path}"})
    with pytest.raises(LiteLLMFailed, match="redirects"):
        litellm.users()
    other.stop()
    assert not other.asked


def test_a_refusal_is_told_without_the_key(there: LiteLLMServer, litellm: LiteLLM) -> None:
    there.before = lambda method, path: (400, {"error": {"message": f"{MASTER_KEY} may not"}}, {})
    with pytest.raises(LiteLLMFailed) as failed:
        litellm.write("/user/new", {})
    assert (failed.value.message, failed.value.refused) == ("LiteLLM says: •••• may not", True)


@pytest.mark.parametrize("document", ["not JSON", [], {"users": 5}, {}, "[" * 100_000])
def test_odd_answers_are_failures(there: LiteLLMServer, litellm: LiteLLM, document: Any) -> None:
    there.before = lambda method, path: (200, document, {})
    with pytest.raises(LiteLLMFailed) as failed:
        litellm.users()
    assert failed.value.verdict == "bad_response"


def test_nobody_at_the_address_is_a_connection_error() -> None:
    with (
        LiteLLM("http://127.0.0.1:9", "k", policy=POLICY, timeout_s=1, sleep=lambda s: None) as lost,
        pytest.raises(LiteLLMFailed) as failed,
    ):
        lost.version()
    assert failed.value.verdict == "connection_error"


def test_after_failures_in_a_row_nothing_is_asked_for_a_while(there: LiteLLMServer, set_clock: Any) -> None:
    set_clock(datetime(2027, 1, 1, tzinfo=UTC))
    breaker = Breaker()
    there.before = lambda method, path: (500, {}, {})
    with LiteLLM(there.url, MASTER_KEY, policy=POLICY, timeout_s=5, breaker=breaker, sleep=lambda s: None) as litellm:
        for _ in range(2):
            with pytest.raises(LiteLLMFailed):
                litellm.users()
        assert len(there.asked) == IN_A_ROW
        there.reset()
        with pytest.raises(LiteLLMFailed, match="left alone"):
            litellm.users()
        assert not there.asked
        set_clock(datetime(2027, 1, 1, 0, 0, 30, tzinfo=UTC))
        litellm.users()
    assert breaker == Breaker()


def test_decimals_are_sent_as_they_are(there: LiteLLMServer, litellm: LiteLLM) -> None:
    there.model("m")
    litellm.write("/model/id-of-m/update", {"model_info": {"input_cost_per_token": Decimal("1.5E-7")}}, method="PATCH")
    assert json.dumps(there.models["id-of-m"]["model_info"]["input_cost_per_token"]) == "1.5e-07"
