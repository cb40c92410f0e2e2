"""Browser sessions: begun, found by their id alone, moved on while used, and ended one by one or all at once."""

from __future__ import annotations

from datetime import timedelta

import pytest
import redis

from app import clock, store
from app.domain import sessions
from app.domain.errors import NotFound
from tests.conftest import SetClock
from tests.house import People


def test_sessions_are_listed_slide_and_end(people: People, wire: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sessions.begin(people.owner.id, address="192.0.2.1", agent="one")
    second = sessions.begin(people.owner.id, address="192.0.2.2", agent="two")
    assert {session.agent for session in sessions.owned_by(people.owner.id)} == {"one", "two"}
    found = sessions.find(first)
    assert found is not None
    name = store.session(found.digest)
    wire.expire(name, 100)
    later = clock.now_ns() + 61 * 10**9
    monkeypatch.setattr("app.clock.now_ns", lambda: later)
    assert sessions.find(first) is not None
    assert wire.ttl(name) > 10_000
    kept = sessions.find(second)
    assert kept is not None
    sessions.end_all(people.owner.id, but=kept.digest)
    assert [session.agent for session in sessions.owned_by(people.owner.id)] == ["two"]
    sessions._slide(found)  # a revoked one does not come back by being used at the same moment
    assert sessions.find(first) is None


def test_the_id_of_a_session_stands_in_its_browser_only(people: People, wire: redis.Redis) -> None:
    id = sessions.begin(people.owner.id, address="192.0.2.1", agent="one")
    [name] = wire.scan_iter(match="session:*")
    kept = f"{name} {wire.hgetall(name)} {wire.smembers(store.sessions_of(people.owner.id))}"
    assert id not in kept
    assert sessions.find(id) is not None
    for word in (name, name.removeprefix("session:")):  # what a stolen file tells opens nothing
        assert sessions.find(word) is None
    sessions.end(id)
    assert sessions.find(id) is None
    assert sessions.owned_by(people.owner.id) == []


def test_a_session_from_before_an_upgrade_is_over(people: People, wire: redis.Redis) -> None:
    old = {"id": "old", "person_id": people.owner.id, "created": 1, "seen": 1, "address": "", "agent": ""}
    wire.hset("session:old", mapping=old)
    wire.sadd(store.sessions_of(people.owner.id), "old")
    assert sessions.find("old") is None
    assert sessions.owned_by(people.owner.id) == []
    assert wire.smembers(store.sessions_of(people.owner.id)) == set()


def test_sessions_come_latest_used_first(people: People, set_clock: SetClock) -> None:
    start = clock.now().replace(microsecond=0)
    ids = []
    for minutes, agent in ((0, "first"), (1, "second"), (2, "third")):
        set_clock(start + timedelta(minutes=minutes))
        ids.append(sessions.begin(people.owner.id, address="", agent=agent))
    set_clock(start + timedelta(minutes=10))
    sessions.find(ids[0])
    assert [one.agent for one in sessions.owned_by(people.owner.id)] == ["first", "third", "second"]


def test_ending_all_but_one_leaves_that_one_and_everybody_elses(people: People) -> None:
    kept, *others = (sessions.begin(people.owner.id, address="", agent="") for _ in range(3))
    strangers = sessions.begin(people.stranger.id, address="", agent="")
    here = sessions.find(kept)
    assert here is not None
    sessions.end_all(people.owner.id, but=here.digest)
    assert [sessions.find(id) is not None for id in (kept, *others, strangers)] == [True, False, False, True]
    sessions.end_all(people.owner.id)
    assert (sessions.owned_by(people.owner.id), sessions.find(kept)) == ([], None)


def test_a_session_is_over_when_it_was_not_used_for_its_life(people: People, wire: redis.Redis) -> None:
    id = sessions.begin(people.owner.id, address="", agent="")
    [found] = sessions.owned_by(people.owner.id)
    lifetime = wire.ttl(store.session(found.digest))
    assert lifetime > 3600
    wire.delete(store.session(found.digest))  # as its end does
    assert sessions.find(id) is None
    assert sessions.owned_by(people.owner.id) == []


def test_what_a_browser_says_of_itself_is_cut(people: People) -> None:
    sessions.begin(people.owner.id, address="x" * 500, agent="y" * 5000)
    [found] = sessions.owned_by(people.owner.id)
    assert (len(found.address), len(found.agent)) == (64, 200)


def test_who_used_the_portal_is_taken_once(people: People, set_clock: SetClock) -> None:
    start = clock.now().replace(microsecond=0)
    set_clock(start)
    id = sessions.begin(people.owner.id, address="", agent="")
    set_clock(start + timedelta(seconds=sessions.SLIDE_EVERY_S))
    sessions.find(id)
    assert sessions.take_seen() == {}, "a page within the minute notes nothing"
    set_clock(start + timedelta(seconds=sessions.SLIDE_EVERY_S + 1))
    sessions.find(id)
    assert sessions.take_seen() == {people.owner.id: start + timedelta(seconds=sessions.SLIDE_EVERY_S + 1)}
    assert sessions.take_seen() == {}


def test_a_redis_that_takes_no_writes_signs_nobody_out(
    people: People, set_clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = clock.now().replace(microsecond=0)
    set_clock(start)
    id = sessions.begin(people.owner.id, address="", agent="")
    set_clock(start + timedelta(hours=1))

    def refuses(*_: object) -> None:
        raise redis.ResponseError("OOM command not allowed")

    monkeypatch.setattr(redis.Redis, "eval", refuses)
    assert sessions.find(id) is not None


@pytest.mark.parametrize(
    ("agent", "device"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0 Safari/537.36 Edg/141",
            "Edge on Windows",
        ),
        (
            "Mozilla/5.0 (Linux; Android 16) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0 Mobile Safari/537.36",
            "Chrome on Android",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1 (KHTML, like Gecko) Version/19 Safari/604",
            "Safari on iPhone",
        ),
        ("curl/8.5.0", "curl/8.5.0"),
        ("", "Unknown browser"),
    ],
)
def test_a_session_tells_its_browser_and_system_in_words(people: People, agent: str, device: str) -> None:
    sessions.begin(people.owner.id, address="192.0.2.1", agent=agent)
    assert [session.device for session in sessions.owned_by(people.owner.id)] == [device]


def test_a_session_is_found_by_its_own_person_alone(people: People) -> None:
    sessions.begin(people.owner.id, address="192.0.2.1", agent="one")
    [session] = sessions.owned_by(people.owner.id)
    assert sessions.get_own(people.owner.id, session.reference) == session
    for person, reference in ((people.stranger, session.reference), (people.owner, "x")):
        with pytest.raises(NotFound):
            sessions.get_own(person.id, reference)
