"""What stops a call, at every door: the class of the client's own SDK, a message with a way out, and no second request."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import anthropic
import openai
import pytest

from tests.blueprints.v1.conftest import Client, key_id
from tests.services.gate import Gate
from tests.services.upstream import CHAT, Upstream, WhenReleased

SAID: list[Any] = [{"role": "user", "content": "one two three"}]
BUDGET = re.compile(r"budget of .+ Ask for more at http://\S+/budgets/(\w+)/(\S+)$")


class Seen(NamedTuple):
    """What a program's author has in hand, and how many requests the SDK made by itself."""

    error: openai.APIStatusError | anthropic.APIStatusError
    requests: int

    @property
    def told(self) -> dict[str, Any]:
        body: Any = self.error.body  # openai's SDK takes the envelope off
        told: dict[str, Any] = body["error"] if isinstance(self.error, anthropic.APIError) else body
        return told

    @property
    def message(self) -> str:
        return str(self.told["message"])


Ask = Callable[[Any, str], Any]
OPENAI: dict[str, Ask] = {
    "/v1/chat/completions": lambda sdk, model: sdk.chat.completions.create(model=model, messages=SAID),
    "/v1/chat/completions, streamed": lambda sdk, model: sdk.chat.completions.create(
        model=model, messages=SAID, stream=True
    ),
    "/v1/completions": lambda sdk, model: sdk.completions.create(model=model, prompt="one"),
    "/v1/embeddings": lambda sdk, model: sdk.embeddings.create(model=model, input="one two three"),
}
ANTHROPIC: dict[str, Ask] = {
    "/v1/messages": lambda sdk, model: sdk.messages.create(model=model, messages=SAID, max_tokens=50),
    "/v1/messages, streamed": lambda sdk, model: sdk.messages.create(
        model=model, messages=SAID, max_tokens=50, stream=True
    ),
    "/v1/messages/count_tokens": lambda sdk, model: sdk.messages.count_tokens(model=model, messages=SAID),
}
DOORS = OPENAI | ANTHROPIC
CHARGED = [door for door in DOORS if door != "/v1/messages/count_tokens"]  # a count is free and holds nothing


class Clients:
    """Both SDKs, as programs use them: they try again twice if nobody tells them otherwise."""

    def __init__(self) -> None:
        self.made: list[Any] = []
        self.openai = openai.OpenAI(api_key="none")
        self.anthropic = anthropic.Anthropic(api_key="none")
        for sdk in (self.openai, self.anthropic):
            sdk._client.event_hooks = {"request": [self.made.append]}

    def ask(self, door: str, gate: Gate, key: str, model: str = "small", retries: int = 2) -> Any:
        self.made.clear()
        if door in ANTHROPIC:
            return ANTHROPIC[door](
                self.anthropic.with_options(api_key=key, base_url=gate.url, max_retries=retries), model
            )
        return OPENAI[door](
            self.openai.with_options(api_key=key, base_url=f"{gate.url}/v1", max_retries=retries), model
        )

    def stopped(self, door: str, gate: Gate, key: str, model: str = "small", retries: int = 2) -> Seen:
        """What stops a call there."""
        with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as stopped:
            self.ask(door, gate, key, model, retries)
        return Seen(stopped.value, len(self.made))


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    made = Clients()
    with made.openai, made.anthropic:
        yield made


def expected(door: str, name: str) -> type[Exception]:
    return getattr(anthropic if door in ANTHROPIC else openai, name)  # type: ignore[no-any-return]


@pytest.fixture
def gate(gate: Gate) -> Gate:
    gate.model("small", "up", capabilities=("chat", "completions", "embeddings"))
    gate.model("locked", "up", capabilities=("chat", "completions", "embeddings"))
    return gate


def _revoked(gate: Gate) -> str:
    key = gate.key()
    gate.revoke(key)
    return key


KEYS: dict[str, Callable[[Gate], str]] = {
    "revoked, paused or never made": _revoked,
    "expired": lambda gate: gate.key(expires_ms=1),
    "mistyped": lambda gate: "sk-nonsense",
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("trouble", KEYS)
def test_a_key_that_is_not_valid_is_told_once_with_the_page_of_keys(
    clients: Clients, gate: Gate, door: str, trouble: str
) -> None:
    seen = clients.stopped(door, gate, KEYS[trouble](gate))
    assert type(seen.error) is expected(door, "AuthenticationError") and seen.requests == 1
    assert "not valid" in seen.message and seen.message.endswith(f"See {gate.url}/keys")
    assert seen.told["type"] == ("authentication_error" if door in ANTHROPIC else "invalid_request_error")


@pytest.mark.parametrize("door", DOORS)
def test_a_key_that_is_not_made_for_a_door_is_told_once_with_the_page_of_keys(
    clients: Clients, gate: Gate, door: str
) -> None:
    seen = clients.stopped(door, gate, gate.key(scopes=("images",)))
    assert type(seen.error) is expected(door, "PermissionDeniedError") and seen.requests == 1
    assert "only for images" in seen.message and seen.message.endswith(f"See {gate.url}/keys")


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("model", ["locked", "unheard-of"])
def test_a_model_without_a_subscription_is_told_once_with_the_catalogue(
    clients: Clients, gate: Gate, door: str, model: str
) -> None:
    """Whether it was never requested, awaits a decision, was suspended or has ended; and as if there were no such model."""
    seen = clients.stopped(door, gate, gate.key("small"), model)
    name = "PermissionDeniedError" if door in ANTHROPIC else "NotFoundError"  # of which Claude Code shows the message
    assert type(seen.error) is expected(door, name) and seen.requests == 1
    assert model in seen.message and seen.message.endswith(f"request access at {gate.url}/models")


CHAINS = {
    "key": {}, "subscription": {}, "user": {}, "organisation": {}, "member": {"team_id": "team-1"},
    "team": {"team_id": "team-1"},
}  # fmt: skip


@pytest.mark.parametrize("door", CHARGED)
@pytest.mark.parametrize("scope", CHAINS)
def test_a_spent_budget_is_told_once_with_its_own_page(
    clients: Clients, gate: Gate, upstream: Upstream, door: str, scope: str
) -> None:
    key = gate.key(**CHAINS[scope])
    id, address = {
        "key": (key_id(key), key_id(key)),
        "subscription": ("subscription-small", "subscription-small"),
        "user": ("person-1", "ada"),
        "member": ("team-1:person-1", "team-1:ada"),
        "team": ("team-1", "team-1"),
        "organisation": ("default", "default"),
    }[scope]
    gate.limit(scope, id, "0", "day")
    seen = clients.stopped(door, gate, key)
    assert type(seen.error) is expected(door, "RateLimitError") and seen.requests == 1
    assert seen.told["type"] == ("billing_error" if door in ANTHROPIC else "insufficient_quota")
    told = BUDGET.search(seen.message)
    assert told is not None and told.groups() == (scope, address)
    assert 1 <= int(seen.error.response.headers["Retry-After"]) <= 86_400
    assert upstream.requests == [] and gate.redis.xlen("usage") == 0


def test_a_spent_budget_keeps_nobody_from_counting_tokens(clients: Clients, gate: Gate) -> None:
    key = gate.key()
    gate.limit("key", key_id(key), "0")
    assert clients.ask("/v1/messages/count_tokens", gate, key).input_tokens > 0


@pytest.mark.parametrize("door", CHARGED)
def test_a_model_without_a_price_under_a_budget_is_told_once_with_its_page(
    clients: Clients, gate: Gate, door: str
) -> None:
    gate.model("small", "up", price=None, capabilities=("chat", "completions", "embeddings"))
    gate.limit("user", "person-1", "5")
    seen = clients.stopped(door, gate, gate.key())
    assert type(seen.error) is expected(door, "PermissionDeniedError") and seen.requests == 1
    assert "no price" in seen.message and seen.message.endswith(f"See {gate.url}/models/small")


@pytest.mark.parametrize("door", CHARGED)
@pytest.mark.parametrize(("rate", "words"), [({"rpm": 1}, "1 requests a minute"), ({"tpm": 1}, "1 tokens a minute")])
def test_a_rate_may_be_tried_again_when_it_says(
    clients: Clients, gate: Gate, door: str, rate: dict[str, int], words: str
) -> None:
    key = gate.key()
    gate.limit("key", key_id(key), None, **rate)
    clients.ask(door, gate, key)
    seen = clients.stopped(door, gate, key, retries=0)
    assert type(seen.error) is expected(door, "RateLimitError")
    assert words in seen.message and seen.message.endswith(" s.")
    assert seen.told["type"] == ("rate_limit_error" if door in ANTHROPIC else "requests" if "rpm" in rate else "tokens")
    assert int(seen.error.response.headers["Retry-After"]) >= 1
    assert "x-should-retry" not in seen.error.response.headers


@pytest.mark.parametrize("door", ["/v1/chat/completions", "/v1/messages"])
def test_too_many_at_a_time_may_be_tried_again_in_a_second(
    clients: Clients, gate: Gate, upstream: Upstream, door: str
) -> None:
    key, released = gate.key(), threading.Event()
    gate.limit("key", key_id(key), None, parallel=1)
    upstream.always(CHAT, lambda body: WhenReleased(body, released))
    first = threading.Thread(target=Client(gate, key).chat)
    first.start()
    try:
        upstream.wait_for_requests(1)
        seen = clients.stopped(door, gate, key, retries=0)
    finally:
        released.set()
        first.join()
    assert type(seen.error) is expected(door, "RateLimitError")
    assert "1 requests at a time" in seen.message and seen.error.response.headers["Retry-After"] == "1"


@pytest.mark.parametrize("door", DOORS)
def test_a_path_that_is_switched_off_is_told_once(clients: Clients, gate: Gate, door: str) -> None:
    gate.endpoint(door.partition(",")[0].removesuffix("/count_tokens"), active=False)  # which goes with messages
    seen = clients.stopped(door, gate, gate.key())
    assert seen.error.status_code == 503 and seen.requests == 1
    assert "is switched off here" in seen.message
