"""The names of Redis's keys: one slot, one thing a name, and the counter that is in it."""

from __future__ import annotations

import inspect

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ClusterDownError, OutOfMemoryError, ReadOnlyError
from redis.sentinel import SentinelConnectionPool, SentinelManagedSSLConnection

from app import store
from app.metering import periods

KINDS = st.sampled_from(["key", "subscription", "user", "team", "member", "organisation"])
IDS = st.text("abc-0189", min_size=1)


@given(
    KINDS,
    st.lists(IDS, min_size=1, max_size=2).map(":".join),
    st.sampled_from(["day", "week", "month", "total"]),
    st.integers(0, 2**41),
)
def test_a_counters_name_is_read_back_from_its_key(kind: str, id: str, period: str, at_ms: int) -> None:
    """A member's id has a colon of its own."""
    name = periods.window_of(f"{period}|UTC", at_ms).name
    assert store.counter_of(store.spent(kind, id, name)) == (kind, id, name)


def test_all_keys_that_a_script_touches_lie_in_one_slot() -> None:
    named = (store.caller("d"), store.scope("key", "1"), store.spent("key", "1", "total"), store.slots("key", "1"),
             store.hold("r"), store.tombstone("r"), store.denials(1), store.counted("c"), store.METER,
             store.LEASES, store.USAGE, store.EXHAUSTED, store.DIRECTORY, store.PROBE)  # fmt: skip
    assert {name.partition("}")[0] for name in named} == {"{org:default"}
    assert len(set(named)) == len(named)


def test_no_two_functions_name_the_same_key() -> None:
    names: list[str] = []
    for function in vars(store).values():
        if inspect.isfunction(function) and function.__module__ == store.__name__:
            hints = inspect.signature(function).parameters.values()
            if function is not store.counter_of and all(p.annotation in ("str", "int") for p in hints) and hints:
                made = function(*(("x" if p.annotation == "str" else 7) for p in hints))
                names += [made] if isinstance(made, str) else made if isinstance(made, tuple) else []
    assert len(names) > 10
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("error", "serving"),
    [
        (OutOfMemoryError("command not allowed"), False),
        (ReadOnlyError("You can't write against a read only replica."), False),
        (ClusterDownError("CLUSTERDOWN Hash slot not served"), False),
        (redis.ResponseError("LOADING Redis is loading the dataset in memory"), False),
        (redis.ResponseError("BUSY Redis is busy running a script."), False),
        (redis.ResponseError("WRONGTYPE Operation against a key"), True),
        (redis.ResponseError("The server is not LOADING"), True),
        (redis.ResponseError(""), True),
    ],
)
def test_a_servers_own_trouble_is_told_from_a_wrong_command(error: Exception, serving: bool) -> None:
    assert store.is_not_serving(error) is not serving


def test_a_page_does_not_hang_while_redis_is_away() -> None:
    client = store.connect("redis://127.0.0.1:1/0")
    assert client is store.connect("redis://127.0.0.1:1/0")
    settings = client.connection_pool.connection_kwargs
    assert 0 < settings["socket_timeout"] <= 5 and 0 < settings["socket_connect_timeout"] <= 5
    with pytest.raises(redis.ConnectionError):
        client.ping()


def test_sentinels_are_asked_for_the_primary_and_give_its_database_and_credentials() -> None:
    made = store.pool("rediss+sentinel://user:p%40w@s1:26380,s2/main/3?sentinel_password=other", socket_timeout=1)
    assert isinstance(made, SentinelConnectionPool)
    assert (made.service_name, made.connection_class) == ("main", SentinelManagedSSLConnection)
    kwargs = made.connection_kwargs
    assert (kwargs["db"], kwargs["username"], kwargs["password"]) == (3, "user", "p@w")
    asked = [one.connection_pool.connection_kwargs for one in made.sentinel_manager.sentinels]
    assert [(one["host"], one["port"], one["password"]) for one in asked] == [
        ("s1", 26380, "other"),
        ("s2", 26379, "other"),
    ]
    assert asked[0]["socket_timeout"] == 1


def test_a_server_s_address_leads_to_the_server() -> None:
    assert not isinstance(store.pool("redis://host"), SentinelConnectionPool)
