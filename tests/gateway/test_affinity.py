"""A conversation stays with the deployment whose cache knows it; what leads elsewhere is kept, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import clock, store
from app.directory import Deployment, Provider
from app.gateway import affinity
from app.gateway.breakers import Breakers, Trip, deployment_breaker
from app.gateway.call import Call
from app.gateway.endpoints import RESPONSES
from app.gateway.errors import ApiError
from app.gateway.routing import Candidate
from app.metering.reservations import NO_QUERY, Hold, Origin
from app.providers.echo import EchoSettings
from tests.gateway.dialects.calls import CALLER, asked, chat

ADAPTER = SimpleNamespace(settings=EchoSettings())
CLOSED = Breakers(lambda *command: None)


def ways(*priorities: int) -> list[Candidate]:
    return [
        Candidate(
            Deployment(id=f"d{n}", provider_id=f"p{n}", upstream_model="m", priority=priority),
            Provider(id=f"p{n}", name=f"p{n}", kind="echo"),
            ADAPTER,
        )
        for n, priority in enumerate(priorities)
    ]


def led(call: Call, usable: list[Candidate], origin: str = "", breakers: Breakers = CLOSED, **hold: Any) -> list[str]:
    """The deployments to try for a call of which a reserve found this."""
    affinity.query(call, usable, breakers)
    call.hold = Hold("r", (), (), [], 0, 0, 0, bounded=False, origin=origin, **hold)
    return [one.deployment.id for one in affinity.choose(call, usable, breakers)]


def conversation(content: str = "Why?", session: str = "", **caller: Any) -> Call:
    call = asked(chat(content), caller=msgspec.structs.replace(CALLER, **caller))
    call.session = session
    return call


def names(*calls: Call) -> list[str]:
    return [affinity.conversation_of(call) for call in calls]


@given(st.text(max_size=30), st.text(max_size=10))
def test_two_callers_never_share_a_conversation_and_one_keeps_its_own(content: str, session: str) -> None:
    first, again, other = names(
        conversation(content, session), conversation(content, session), conversation(content, session, id="another")
    )
    assert first == again != other
    assert len(first) == 32


def test_a_session_that_is_no_text_is_no_fault() -> None:
    assert names(conversation(session="\udcff")) != names(conversation(session="\udcfe"))


@given(st.text(min_size=1, max_size=20), st.integers(2, 5))
def test_a_conversation_is_led_to_the_same_deployment_every_time(content: str, many: int) -> None:
    usable = ways(*[0] * many)
    first = led(conversation(content), usable)
    assert all(led(conversation(content), usable) == first for _ in range(3))
    assert sorted(first) == [way.deployment.id for way in usable]


def test_one_way_needs_no_question() -> None:
    call = conversation()
    assert affinity.query(call, ways(0), CLOSED) == NO_QUERY
    assert call.conversation == "" and affinity.origin_of(call) is None


def test_a_reserve_is_asked_where_the_conversation_was() -> None:
    call = conversation()
    query = affinity.query(call, ways(0, 0), CLOSED)
    assert query == NO_QUERY._replace(origin_key=store.origin(call.conversation))


@pytest.mark.parametrize("origin", ["d0", "d1", "d2"])
def test_a_conversation_that_moved_stays_where_it_moved(origin: str) -> None:
    assert led(conversation(), ways(0, 0, 0), origin)[0] == origin


def test_a_home_of_a_lower_priority_is_left_unless_the_request_is_bound_to_it() -> None:
    free = conversation()
    assert led(free, ways(0, 1), "d1") == ["d0", "d1"]
    thought = {"role": "assistant", "content": "a", "reasoning_details": [1]}
    bound = asked(chat() | {"messages": [*chat()["messages"], thought]})
    assert led(bound, ways(0, 1), "d1") == ["d1", "d0"]
    for call in (free, bound):
        assert call.home is not None and call.home.deployment.id == "d1"


def served(call: Call, deployment: str | None, at: float | None = 1.0) -> Origin | None:
    call.deployment_id, call.first_byte_at = deployment, at
    return affinity.origin_of(call)


def test_only_a_conversation_that_had_to_move_is_kept_and_one_that_came_back_is_forgotten() -> None:
    usable = ways(0, 0)
    home, other = led(conversation(), usable)
    settled = conversation()
    led(settled, usable)
    key = store.origin(settled.conversation)
    assert served(settled, home) is None
    assert served(settled, other) == Origin(key, other)
    assert served(settled, other, None) is None  # it answered nothing
    back = conversation()
    led(back, usable, other)
    assert served(back, home) == Origin(key, "")
    assert served(back, other) == Origin(key, other)


def going_on(usable: list[Candidate], id: str = "resp_1") -> Call:
    call = asked({"model": "small", "input": "And?", "previous_response_id": id}, endpoint=RESPONSES)
    affinity.query(call, affinity.who_keeps(call, usable), CLOSED)
    return call


class TestARequestThatGoesOnFromAnAnswer:
    ABLE = SimpleNamespace(settings=EchoSettings(), speaks=lambda dialect: dialect == "openai_responses")

    def able(self, *priorities: int) -> list[Candidate]:
        return [way._replace(adapter=self.ABLE) for way in ways(*priorities)]

    def test_is_led_by_the_answer_s_name_to_its_origin_alone(self) -> None:
        first, usable = asked({"model": "small", "input": "Why?"}, endpoint=RESPONSES), self.able(0, 0, 1)
        led(first, usable)
        first.exchange = cast(Any, SimpleNamespace(kept_as="resp_1"))
        kept = served(first, "d2")
        after = going_on(usable)
        assert kept == Origin(store.origin(after.conversation), "d2")
        assert led(after, usable, "d2") == ["d2"]

    def test_is_refused_where_that_is_gone(self) -> None:
        with pytest.raises(ApiError) as refused:
            led(going_on(self.able(0, 0)), self.able(0, 0), "d7")
        assert (refused.value.status, refused.value.param) == (400, "previous_response_id")

    def test_asks_those_that_can_have_it(self) -> None:
        plain = SimpleNamespace(settings=EchoSettings(), speaks=lambda dialect: False)
        mixed = [*self.able(0), ways(0, 0)[1]._replace(adapter=plain)]
        call = going_on(mixed)
        assert [one.deployment.id for one in affinity.who_keeps(call, mixed)] == ["d0"]
        with pytest.raises(ApiError):
            affinity.who_keeps(call, mixed[1:])


class Tripped(Breakers):
    def __init__(self, **trips: Trip) -> None:
        super().__init__(lambda *command: None)
        self.trips = {deployment_breaker(id): trip for id, trip in trips.items()}

    def refresh(self, version: str) -> None:
        """There is no other version."""


def test_health_comes_before_a_home() -> None:
    now = clock.now_ms()
    is_open = Tripped(d1=Trip(since_ms=now, at_ms=now, until_ms=now + 60_000, reason="dead", times=1))
    assert led(conversation(), ways(0, 0), "d1", is_open) == ["d0"]


def test_where_all_hang_one_call_tries_and_the_others_are_refused_whatever_their_home() -> None:
    now = clock.now_ms()
    hangs = Trip(
        since_ms=now - 9, at_ms=now - 9, until_ms=now - 1, reason="It hangs.", times=1, hangs=True, listed=True
    )
    for many in (1, 2):
        usable = ways(*[0] * many)
        dead = Tripped(**{way.deployment.id: hangs for way in usable})
        call = conversation()
        query = affinity.query(call, usable, dead)
        assert (query.probe_key, query.peers) == (store.probe(call.probe), "")  # no home is well, so none keeps it away
        assert len(led(conversation(), usable, "d0", dead, has_probe=True)) == 1
        with pytest.raises(ApiError, match="It hangs") as refused:
            led(conversation(), usable, "d0", dead)
        assert (refused.value.status, refused.value.headers) == (504, {"Retry-After": "5"})
        assert len(led(conversation(), usable, "d0", dead, reserved=False)) == 1  # no other process can be asked


def test_a_deployment_that_may_be_well_again_is_tried_by_the_one_call_that_got_its_probe() -> None:
    now = clock.now_ms()
    half_open = Tripped(d0=Trip(since_ms=now - 9, at_ms=now - 9, until_ms=now - 1, reason="dead", times=1))
    call = conversation()
    query = affinity.query(call, ways(0, 1), half_open)
    assert (query.probe_key, query.peers) == (store.probe(deployment_breaker("d0")), "")
    assert query.probe_ms > 1000 * ADAPTER.settings.deadlines.first_byte_s
    assert led(conversation(), ways(0, 1), "", half_open, has_probe=True) == ["d0", "d1"]
    without = conversation()
    assert led(without, ways(0, 1), "", half_open) == ["d1", "d0"]
    assert without.probe == ""
    assert cast(Any, without.home).deployment.id == "d0"
