"""Circuit breakers and warm caches over real sockets: a dead upstream costs its time once, a conversation stays where it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from app import clock, store
from app.directory import Deployment
from app.gateway.breakers import deployment_breaker, provider_breaker, read_trips
from app.runtime.ids import new_id
from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate
from tests.services.upstream import CHAT, Answer, Hang, Upstream, chat, failure, usage
from tests.services.waiting import until

TIMEOUT_S = 1


@pytest.fixture
def spare(gate: Gate, upstream: Upstream, make_upstream: Callable[[], Upstream]) -> Upstream:
    """A second upstream for the model `safe`, tried after the first."""
    second = make_upstream()
    gate.provider("up", base_url=upstream.url, timeout_s=TIMEOUT_S)
    gate.provider("spare", base_url=second.url, timeout_s=TIMEOUT_S)
    gate.model("safe", "up", "spare")
    return second


def trips(gate: Gate) -> dict[str, Any]:
    return read_trips(gate.redis.hgetall(store.BREAKERS))


def end_the_time(gate: Gate, breaker: str) -> None:
    """As if the time of an open breaker were over, for all processes."""
    until(lambda: breaker in trips(gate), lambda: f"no such breaker: {trips(gate)}")
    over = msgspec.structs.replace(trips(gate)[breaker], until_ms=clock.now_ms() - 1)
    gate.redis.hset(store.BREAKERS, breaker, msgspec.json.encode(over))
    gate.redis.set(store.BREAKERS_VERSION, new_id())


UP, SPARE = deployment_breaker("deployment-safe-up"), deployment_breaker("deployment-safe-spare")


def test_a_dead_deployment_costs_no_client_a_timeout_twice(gate, upstream, spare) -> None:
    upstream.always(CHAT, Hang())
    client = Client(gate, gate.key())
    for _ in range(6):
        assert client.chat(model="safe").status == 200
    assert len(upstream.requests) == 1
    assert [event.attempt for event in gate.events(6)] == [2, 1, 1, 1, 1, 1]


def test_a_model_whose_only_deployment_hangs_costs_its_clients_one_timeout(gate, upstream) -> None:
    gate.provider("up", base_url=upstream.url, timeout_s=TIMEOUT_S)
    gate.model("alone", "up")
    way = deployment_breaker("deployment-alone-up")
    upstream.always(CHAT, Hang())
    client = Client(gate, gate.key())
    assert client.chat(model="alone").error == (504, "upstream_error", "upstream_timeout")
    for stream in (False, True, False):
        refused = client.chat(model="alone", stream=stream)
        assert refused.error == (504, "upstream_error", "upstream_timeout")
        assert 20 < int(refused.headers["retry-after"]) <= 30
        assert "did not begin to answer within 1 s" in refused.json["error"]["message"]
    assert len(upstream.requests) == 1
    assert [(event.status, len(event.attempts), event.cost_nano) for event in gate.events(4)] == [
        (504, 1, 0), (504, 0, 0), (504, 0, 0), (504, 0, 0),
    ]  # fmt: skip
    assert gate.counted("organisation", "default") == (0, 0)
    end_the_time(gate, way)
    client.chat(model="alone")  # whose reserve tells of the new version
    upstream.reset()
    upstream.script(CHAT, lambda body: chat(body, delay_s=0.5))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: client.chat(f"{n}", model="alone"), range(8)))
    assert sorted(one.status for one in answers) == [200] + [504] * 7
    assert {one.headers["retry-after"] for one in answers if one.status == 504} == {"5"}
    assert [request.path for request in upstream.requests] == ["/v1/models", CHAT]
    until(lambda: not trips(gate), lambda: f"it did not close: {trips(gate)}")
    assert client.chat(model="alone").status == 200


@pytest.mark.parametrize("has_spare", [False, True])
def test_a_dead_deployment_costs_nobody_a_second_timeout_when_its_time_is_over(
    gate: Gate, upstream: Upstream, make_upstream: Callable[[], Upstream], has_spare: bool
) -> None:
    deadline_s = 4
    gate.provider("up", base_url=upstream.url, timeout_s=deadline_s)
    gate.provider("spare", base_url=make_upstream().url)
    gate.model("safe", "up", *["spare"] * has_spare)
    upstream.always(CHAT, Hang())
    upstream.always("/v1/models", Hang())
    client = Client(gate, gate.key())
    assert client.chat(model="safe").status == (200 if has_spare else 504)
    opened_ms = trips(gate)[UP].at_ms
    end_the_time(gate, UP)
    if has_spare:
        client.chat(model="safe", provider="spare")  # whose reserve tells of the new version
    else:
        client.chat(model="safe")
    began = time.monotonic()
    for _ in range(3):
        assert client.chat(model="safe").status == (200 if has_spare else 504)
    assert time.monotonic() - began < deadline_s
    assert [request.path for request in upstream.requests].count(CHAT) == 1
    until(lambda: trips(gate)[UP].at_ms > opened_ms, lambda: f"it was not asked: {trips(gate)}")
    assert trips(gate)[UP].times == 2
    upstream.reset()
    end_the_time(gate, UP)
    until(lambda: client.chat(model="safe", provider="up").status == 200)
    until(lambda: not trips(gate), lambda: f"it did not close: {trips(gate)}")


def test_a_model_whose_only_deployment_answers_others_refuses_nobody(gate, upstream) -> None:
    gate.provider("up", base_url=upstream.url, timeout_s=TIMEOUT_S)
    gate.model("alone", "up")
    client = Client(gate, gate.key())
    with ThreadPoolExecutor(1) as pool:
        upstream.script(CHAT, Hang())
        slow = pool.submit(client.chat, "too long a question", model="alone")
        upstream.wait_for_requests(1)
        assert client.chat(model="alone").status == 200
        assert slow.result().status == 504
    assert client.chat(model="alone").status == 200


@pytest.mark.slow
def test_all_processes_know_what_one_found_out(gate, valkey, upstream, spare) -> None:
    other = Gate(valkey)
    other.pepper = gate.pepper
    other.env["CONFIG_SECURITY_KEY_PEPPER"] = gate.pepper.decode()
    try:
        other.start()
        upstream.always(CHAT, Hang())
        key = gate.key()
        assert Client(gate, key).chat(model="safe").status == 200
        until(lambda: UP in trips(gate), lambda: "it was not told")
        assert Client(other, key).chat(model="safe").status == 200
        assert len(upstream.requests) == 1
    finally:
        other.close()


def test_a_half_open_breaker_lets_one_call_through_and_closes_when_it_is_answered(gate, upstream, spare) -> None:
    client = Client(gate, gate.key())
    upstream.script(CHAT, Hang())
    client.chat(model="safe")
    end_the_time(gate, UP)
    client.chat(model="safe", provider="spare")  # whose reserve tells of the new version
    client.chat("first", model="safe")  # which has its list asked for
    until(lambda: trips(gate)[UP].listed, lambda: f"it was not asked: {trips(gate)}")
    upstream.reset()
    with ThreadPoolExecutor(8) as pool:
        upstream.script(CHAT, lambda body: chat(body, delay_s=0.5))
        answers = list(pool.map(lambda n: client.chat(f"{n}", model="safe").status, range(8)))
    assert answers == [200] * 8
    assert len(upstream.requests) == 1  # seven did not wait for it
    until(lambda: not trips(gate), lambda: f"it did not close: {trips(gate)}")
    client.chat(model="safe")
    assert len(upstream.requests) == 2


def test_a_failed_probe_opens_the_breaker_for_longer(gate, upstream, spare) -> None:
    client = Client(gate, gate.key())
    with upstream.refusing():
        client.chat(model="safe")
        end_the_time(gate, provider_breaker("provider-up"))
        for _ in range(3):
            assert client.chat(model="safe").status == 200
        until(lambda: trips(gate)[provider_breaker("provider-up")].times == 2, lambda: f"{trips(gate)}")


def test_a_connection_that_fails_counts_for_every_deployment_of_the_provider(gate, upstream, spare) -> None:
    gate.model("another", "up", "spare")
    client = Client(gate, gate.key())
    with upstream.refusing():
        assert client.chat(model="safe").status == 200
    assert client.chat(model="another").status == 200
    assert upstream.requests == []


def test_a_provider_that_cannot_be_reached_is_tried_once_a_call(gate, upstream, spare) -> None:
    ways = tuple(
        Deployment(id=f"twice-{n}", provider_id=f"provider-{at}", upstream_model="m", priority=n)
        for n, at in enumerate(("up", "up", "spare"))
    )
    gate.models["safe"] = msgspec.structs.replace(gate.models["safe"], deployments=ways)
    gate.publish()
    with upstream.refusing():
        assert Client(gate, gate.key()).chat(model="safe").status == 200
    (event,) = gate.events(1)
    assert [attempt.deployment_id for attempt in event.attempts] == ["twice-0", "twice-2"]


def test_a_deployment_that_asks_to_be_left_alone_is(gate, upstream, spare) -> None:
    upstream.always(CHAT, failure(429, retry_after="30"))
    client = Client(gate, gate.key())
    for _ in range(4):
        assert client.chat(model="safe").status == 200
    assert len(upstream.requests) == 1
    until(lambda: UP in trips(gate), lambda: "it was not told")
    assert 25_000 < trips(gate)[UP].until_ms - clock.now_ms() <= 30_000


def test_failures_that_a_fallback_rescued_open_a_breaker_too(gate, upstream, spare) -> None:
    upstream.always(CHAT, failure(500))
    client = Client(gate, gate.key())
    for _ in range(6):
        assert client.chat(model="safe").status == 200
    assert len(upstream.requests) == 3


def test_where_all_are_dead_all_are_tried(gate, upstream, spare) -> None:
    client = Client(gate, gate.key())
    with upstream.refusing(), spare.refusing():
        for _ in range(3):
            assert client.chat(model="safe").error == (502, "upstream_error", None)
        until(lambda: len(trips(gate)) == 2, lambda: f"{trips(gate)}")
    assert client.chat(model="safe").status == 200
    assert len(upstream.requests) == 1


def test_streams_that_are_cut_count_as_failures(gate, upstream, spare) -> None:
    upstream.always(CHAT, lambda body: chat(body, cut_after=2))
    client = Client(gate, gate.key())
    for _ in range(3):
        assert b"upstream_cut" in client.chat(model="safe", stream=True).body
    assert b"[DONE]" in client.chat(model="safe", stream=True).body
    assert [event.attempts[-1].error is None for event in gate.events(4)] == [False, False, False, True]


def test_every_attempt_is_counted_where_its_provider_is_judged(gate, upstream, spare) -> None:
    gate.model("judged", "up", "spare")
    client = Client(gate, gate.key())
    upstream.script(CHAT, *[failure(500)] * 2, lambda body: chat(body, cut_after=2))
    for _ in range(2):
        assert client.chat(model="judged").status == 200
    client.chat(model="judged", stream=True)
    sums: dict[str, str] = {}

    def counted() -> bool:
        for name in gate.redis.keys(f"{store.TAG}:traffic:*"):
            sums.update({field.decode(): value.decode() for field, value in gate.redis.hgetall(name).items()})
        return sums.get("deployment-judged-up:errors") == "3"

    until(counted, lambda: f"{sums} {gate.log()}")
    assert (sums["deployment-judged-up:requests"], sums["deployment-judged-spare:requests"]) == ("3", "2")
    assert "deployment-judged-spare:errors" not in sums
    went = gate.redis.hgetall(store.went("deployment-judged-up"))
    assert (went[b"row"], b"cut" in went[b"reason"]) == (b"3", True)


WITHOUT_ANSWER = {"id": "1", "object": "chat.completion", "choices": [], "usage": usage(7, 5)}


def test_what_a_failed_attempt_cost_is_told_and_charged_to_nobody(gate, upstream, spare) -> None:
    upstream.script(CHAT, Answer(WITHOUT_ANSWER))
    assert Client(gate, gate.key()).chat(model="safe").status == 200
    (event,) = gate.events(1)
    failed, delivered = event.attempts
    assert (failed.cost_nano, delivered.cost_nano) == (7 * 1000 + 5 * 2000, 0)
    assert event.cost_nano == event.prompt_tokens * 1000 + event.completion_tokens * 2000 != failed.cost_nano
    assert gate.counted("organisation", "default") == (event.cost_nano, 0)


@pytest.mark.parametrize(
    ("settings", "behaviour", "words"),
    [
        ({"first_byte_timeout_s": 1}, Hang(), "did not begin to answer within 1 s"),
        ({"total_timeout_s": 1}, Hang(), "took longer than 1 s"),
    ],
)
def test_a_client_is_told_which_deadline_was_missed(gate, upstream, settings, behaviour, words) -> None:
    gate.provider("up", base_url=upstream.url, **settings)
    upstream.script(CHAT, behaviour)
    answer = Client(gate, gate.key()).chat()
    assert answer.error == (504, "upstream_error", "upstream_timeout")
    assert words in answer.json["error"]["message"]


def test_a_stream_that_falls_silent_is_cut_and_says_so(gate, upstream, spare) -> None:
    gate.provider("up", base_url=upstream.url, idle_timeout_s=1)
    upstream.script(CHAT, lambda body: chat(body, hang_after=2))
    body = Client(gate, gate.key()).chat(model="safe", stream=True).body
    assert b"nothing came for 1 s" in body and b"upstream_cut" in body and b"[DONE]" not in body
    assert spare.requests == []
    until(lambda: UP in trips(gate), lambda: "it does not cost another client its time")


@pytest.fixture
def four(gate: Gate, make_upstream: Callable[[], Upstream]) -> list[Upstream]:
    """Four upstreams that serve the model `wide` alike."""
    upstreams = [make_upstream() for _ in range(4)]
    for n, one in enumerate(upstreams):
        gate.provider(f"up{n}", base_url=one.url, timeout_s=TIMEOUT_S)
    gate.model("wide", *(f"up{n}" for n in range(4)))
    alike = tuple(msgspec.structs.replace(way, priority=0) for way in gate.models["wide"].deployments)
    gate.models["wide"] = msgspec.structs.replace(gate.models["wide"], deployments=alike)
    gate.publish()
    return upstreams


class Conversation:
    """A conversation that grows; `headers` and `members` name it, if they do."""

    def __init__(self, gate: Gate, begins: str = "Hello", **more: Any) -> None:
        self.client = Client(gate, gate.key())
        self.messages: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}]
        self.begins, self.more = begins, more
        self.headers: dict[str, str] = {}

    def turn(self, **message: Any) -> None:
        said = {"role": "user", "content": self.begins if len(self.messages) == 1 else f"turn {len(self.messages)}"}
        self.messages.append(said | message)
        body = {"model": "wide", "messages": self.messages, **self.more}
        answer = self.client("/v1/chat/completions", body, **self.headers)
        assert answer.status == 200, answer.body
        self.messages.append(answer.json["choices"][0]["message"])


def served(gate: Gate, count: int) -> list[str]:
    return [event.deployment_id or "" for event in gate.events(count)]


def test_fifty_turns_stay_on_one_deployment(gate, four) -> None:
    conversation = Conversation(gate)
    for _ in range(50):
        conversation.turn()
    assert len(set(served(gate, 50))) == 1
    assert not gate.redis.keys(store.origin("*"))  # it follows from its hash alone


def test_a_conversation_fails_over_within_one_turn_and_stays_where_it_went(gate, four) -> None:
    conversation = Conversation(gate)
    conversation.turn()
    (home,) = served(gate, 1)
    index = int(home[-1])
    with four[index].refusing():
        for _ in range(5):
            conversation.turn()
        (left,) = set(served(gate, 6)[1:])
        assert left != home
        end_the_time(gate, provider_breaker(f"provider-up{index}"))
    for _ in range(5):
        conversation.turn()
    assert set(served(gate, 11)[6:]) == {left}
    (kept,) = gate.redis.keys(store.origin("*"))
    assert gate.redis.get(kept) == left.encode() and 3500 < gate.redis.ttl(kept) <= 3600
    gate.redis.delete(kept)  # as after an hour of silence
    conversation.turn()
    assert served(gate, 12)[-1] == home


def test_conversations_are_told_apart_by_what_clients_call_them(gate, four) -> None:
    for n in range(12):
        for conversation in (
            Conversation(gate, f"different {n}", prompt_cache_key="one"),
            Conversation(gate, "the same", prompt_cache_key=f"cache {n}"),
            Conversation(gate, "the same"),
        ):
            conversation.client.key = gate.key(id="key-one")
            conversation.headers = {"x-session-id": "s"} if "prompt_cache_key" not in conversation.more else {}
            conversation.turn()
    places = served(gate, 36)
    assert len(set(places[0::3])) == 1 and len(set(places[1::3])) > 1 and len(set(places[2::3])) == 1


SIGNED = {"role": "assistant", "content": "so", "thinking_blocks": [{"type": "thinking", "signature": "of home"}]}


def test_what_only_its_home_understands_goes_home_or_is_left_out(gate, four) -> None:
    conversation = Conversation(gate)
    conversation.turn()
    (home,) = served(gate, 1)
    index = int(home[-1])
    conversation.messages.append(SIGNED)
    conversation.turn()
    assert b"of home" in four[index].last.body
    with four[index].refusing():
        conversation.turn()
    other = four[int(served(gate, 3)[-1][-1])]
    assert b"of home" not in other.last.body and b"Be brief." in other.last.body


def test_bytes_of_the_prompt_go_up_as_they_came(gate, four) -> None:
    body = b'{"model":"wide","tools":[{"type":"function","function":{"name":"b"}}],"messages":[ {"content":"x",  "role":"user"}]}'
    assert Client(gate, gate.key())("/v1/chat/completions", body).status == 200
    (seen,) = [one.last.body for one in four if one.requests]
    assert b'"messages":[ {"content":"x",  "role":"user"}]' in seen
    assert seen.index(b'"tools"') < seen.index(b'"messages"')


def test_requests_that_stand_alone_are_shared_by_chance_unless_a_session_names_them(gate, four) -> None:
    client = Client(gate, gate.key())
    for _ in range(24):
        assert client("/v1/embeddings", {"model": "wide", "input": "the same"}).status == 200
        named = client("/v1/embeddings", {"model": "wide", "input": "the same"}, **{"x-session-affinity": "s"})
        assert named.status == 200
    places = served(gate, 48)
    assert len(set(places[0::2])) > 1 and len(set(places[1::2])) == 1
