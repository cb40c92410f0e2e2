"""Refused calls are kept within bounds: the first of a person's minute one by one, the others as counts, none lost."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from app import store
from app.directory import CallerRecord
from app.gateway import refused_calls
from app.gateway.errors import ApiError, bad_key, bad_request, no_key, unknown_model
from app.gateway.redis_wire import RedisAway, RedisWire
from app.gateway.refused_calls import RefusedCalls
from app.metering.usage import Refusal, UsageEvent
from app.runtime.ids import new_id
from app.runtime.key_text import new_key
from tests.conftest import SetClock
from tests.gateway.dialects.calls import asked, chat

NOW = datetime(2026, 11, 5, 12, 0, 30, tzinfo=UTC)
CHAT = "/v1/chat/completions"


def caller(person: str = "p", kind: str = "key") -> CallerRecord:
    return CallerRecord(id=f"k-{person}", kind=kind, name="app", person_id=person, username=person)  # type: ignore[arg-type]


class Stream:
    """What was sent, as Redis would have it; `away` while it is not there."""

    def __init__(self) -> None:
        self.events: list[UsageEvent] = []
        self.scopes: set[str] = set()
        self.commands = 0
        self.away = False

    def send(self, name: str, script: str, keys: int, stream: str, exhausted: str, scopes: int, *rest: object) -> None:
        if self.away:
            raise RedisAway("x")
        self.commands += 1
        assert (name, keys, stream, exhausted) == ("EVAL", 2, store.USAGE, store.EXHAUSTED)
        self.scopes.update(map(str, rest[:scopes]))
        self.events += [msgspec.json.decode(raw, type=UsageEvent) for raw in rest[scopes:]]  # type: ignore[arg-type]

    @property
    def sums(self) -> Counter[str]:
        sums: Counter[str] = Counter()
        for event in self.events:
            sums[event.person_id] += event.refused
        return sums


@pytest.fixture
def stream() -> Stream:
    return Stream()


@pytest.fixture
def noting(stream: Stream, set_clock: SetClock) -> RefusedCalls:
    set_clock(NOW)
    return RefusedCalls(stream.send)


def test_a_refused_call_is_told_with_its_id_and_reason(stream: Stream, noting: RefusedCalls) -> None:
    noting.note(caller(), "r1", CHAT, unknown_model("gpt-9", "https://portal.example/models"))
    noting.note(caller(kind="token"), "r2", CHAT, bad_request("No such member.", "x"))
    noting.tell()
    first, second = stream.events
    assert (first.request_id, first.person_id, first.key_id, first.kind, first.outcome) == (
        "r1", "p", "k-p", "refusal", "refused",
    )  # fmt: skip
    assert (first.status, first.error_code, first.refused, first.model) == (404, "model_not_found", 1, "")
    assert first.refusal == Refusal(reason="model", asked="gpt-9") and first.at_ms == int(NOW.timestamp() * 1000)
    assert (second.key_id, second.refusal, second.error_message) == (None, Refusal(reason="other"), "No such member.")
    assert (first.cost_nano, first.hold_nano, first.scopes, first.prompt_tokens) == (0, 0, (), 0)
    assert stream.commands == 1


def test_an_admitted_call_is_told_with_its_model(stream: Stream, noting: RefusedCalls) -> None:
    made = asked(chat())
    error = ApiError(429, "requests", "rate_limit_exceeded", "Too many.")
    error.refusal = Refusal(reason="requests", scope_kind="key", scope_id="k", scope_shown="k", limit=3, retry_ms=500)
    noting.note(made.caller, made.id, made.endpoint, error, made)
    noting.tell()
    [event] = stream.events
    assert (event.request_id, event.model, event.api_type, event.refusal) == ("r", "small", "chat", error.refusal)


def test_a_flood_is_counted_and_told_when_its_minute_is_over(
    stream: Stream, noting: RefusedCalls, set_clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refused_calls, "ROWS", 3)
    for number in range(10):
        noting.note(caller("p"), f"p{number}", CHAT, bad_request("No."))
        noting.note(caller("q"), f"q{number}", CHAT, unknown_model(f"m{number}", "x"))
    noting.tell()
    noting.tell()
    assert [event.request_id for event in stream.events] == ["p0", "q0", "p1", "q1", "p2", "q2"]
    set_clock(NOW + timedelta(seconds=31))
    noting.note(caller("p"), "later", CHAT, bad_request("No."))  # still of the minute that nobody closed
    noting.tell()
    counts = stream.events[6:]
    assert {(one.person_id, one.status, one.refused) for one in counts} == {("p", 400, 8), ("q", 404, 7)}
    assert all(one.refusal and one.refusal.counted and one.at_ms % 60_000 == 0 for one in counts)
    noting.note(caller("p"), "again", CHAT, bad_request("No."))
    noting.tell()
    assert stream.events[-1].request_id == "again"


def test_unknown_keys_are_counted_by_cause_and_belong_to_nobody(
    stream: Stream, noting: RefusedCalls, set_clock: SetClock
) -> None:
    for _ in range(500):
        noting.nobody(CHAT, bad_key())
    noting.nobody(CHAT, no_key())
    noting.tell()
    assert stream.events == []
    set_clock(NOW + timedelta(minutes=1))
    noting.tell()
    assert {(one.person_id, one.key_id, one.error_code, one.refused) for one in stream.events} == {
        ("", None, "invalid_api_key", 500), ("", None, refused_calls.NO_KEY, 1),
    }  # fmt: skip


def test_while_redis_is_away_memory_stays_bounded_and_the_sums_whole(
    stream: Stream, noting: RefusedCalls, set_clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, bound in (("ROWS_OF_ALL", 10), ("KINDS", 5), ("AT_ONCE", 4)):
        monkeypatch.setattr(refused_calls, name, bound)
    stream.away = True
    for minute in range(5):
        set_clock(NOW + timedelta(minutes=minute))
        for person in range(20):
            noting.note(caller(str(person)), f"{minute}-{person}", f"/v1/{person}", bad_request("No."))
        with pytest.raises(RedisAway):
            noting.tell()
    assert len(noting._events) <= 10 + 5 + 20 and len(noting._counts) <= 5 + 20
    stream.away = False
    for minute in (6, 7):
        set_clock(NOW + timedelta(minutes=minute))
        noting.tell()
    assert stream.sums == {str(person): 5 for person in range(20)}


def test_a_budget_in_which_not_even_a_short_answer_fits_is_noted(stream: Stream, noting: RefusedCalls) -> None:
    for id, reason, tokens in (("a", "budget", 15), ("a", "budget", 0), ("b", "budget", 16), ("c", "requests", 0)):
        error = ApiError(429, "x", "x", "x")
        error.refusal = Refusal(reason=reason, scope_kind="key", scope_id=id, affordable_tokens=tokens)  # type: ignore[arg-type]
        noting.note(caller(), new_id(), CHAT, error)
    noting.tell()
    assert stream.scopes == {"key:a"}


def test_no_secret_and_nothing_unprintable_is_kept(stream: Stream, noting: RefusedCalls) -> None:
    key = new_key()
    noting.note(caller(), "r", CHAT, unknown_model(f"{key}\0\ud800", "https://portal.example/models"))
    noting.tell()
    told = msgspec.json.encode(stream.events[0]).decode()
    assert key not in told and "\0" not in told and "sk-***" in told


@given(st.text(max_size=3000))
def test_any_text_of_a_client_can_be_told(text: str) -> None:
    stream = Stream()
    noting = RefusedCalls(stream.send)
    noting.note(caller(), "r", CHAT, unknown_model(text, "x"))
    noting.tell()
    [event] = stream.events
    assert event.refusal and len(event.refusal.asked) <= 2 * refused_calls.LONGEST_NAME
    assert "\0" not in (event.error_message or "") + event.refusal.asked


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([400, 404, 429]), st.booleans()), max_size=60))
def test_every_call_is_counted_once_whatever_is_kept_of_it(calls: list[tuple[int, int, bool]]) -> None:
    stream, noted = Stream(), Counter[str]()
    noting = RefusedCalls(stream.send)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refused_calls, "ROWS", 2)
        patch.setattr(refused_calls, "KINDS", 3)
        minute = noting._minute
        for number, (person, status, ends) in enumerate(calls):
            noting.note(caller(str(person)), str(number), CHAT, ApiError(status, "x", None, "x"))
            noted[str(person)] += 1
            if ends:
                minute += 1
                patch.setattr("app.clock.now_ns", lambda at=minute: at * 60_000_000_000)
            noting.tell()
        patch.setattr("app.clock.now_ns", lambda: (minute + 1) * 60_000_000_000)
        noting.tell()
    assert stream.sums == noted


def test_redis_has_the_events_in_its_stream(redis_url: str, set_clock: SetClock) -> None:
    set_clock(NOW)
    server = redis.Redis.from_url(redis_url)
    noting = RefusedCalls(RedisWire(redis_url).call)
    error = ApiError(429, "insufficient_quota", "insufficient_quota", "Spent.")
    error.refusal = Refusal(reason="budget", scope_kind="user", scope_id="p", scope_shown="ada")
    for number in range(3):
        noting.note(caller(), f"r{number}", CHAT, error)
    noting.tell()
    told = [msgspec.json.decode(fields[b"e"], type=UsageEvent) for _, fields in server.xrange(store.USAGE)]
    assert [event.request_id for event in told] == ["r0", "r1", "r2"]
    assert server.smembers(store.EXHAUSTED) == {b"user:p"}
