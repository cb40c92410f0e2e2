"""The meter and its plain reference go through the same random lives and always say and count the same.

The server's time is a field beside the meter's clock: it begins in a distant year and moves by steps in which token
buckets fill by eighths, so that both sides are exact. Now and then it is wrong, and goes back.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter as Count
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from app import store
from app.extensions import db
from app.ledger import entries, posting
from app.ledger.budgets import SPENT
from app.ledger.recount import recount
from app.metering import reservations
from app.metering.periods import FOR_EVER_MS, window_of
from app.metering.reservations import Charge, Hold, Meter, MeterClosed, Output, Refused
from app.metering.scopes import ScopeRef
from app.metering.usage import UsageEvent
from app.providers.base import Possible, UpstreamRequest
from app.providers.usage import Tally
from tests.examples import examples
from tests.ledger import books
from tests.metering.reference import LEASE_MS, Asked, Booked, Denied, Granted, ReferenceMeter, Scope

STEP_MS = 7_500
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
# Ten minutes before a month, a week and New York's winter time begin; a Sunday.
STARTS = int(datetime(2094, 10, 31, 23, 50, tzinfo=UTC).timestamp() * 1000)

ORGANISATION: Scope = ("organisation", "default")
CHAINS: tuple[tuple[Scope, ...], ...] = (
    (("subscription", "s1"), ("user", "ada"), ORGANISATION),
    (("key", "k1"), ("subscription", "s1"), ("user", "ada"), ORGANISATION),
    (("key", "k2"), ("subscription", "s2"), ("user", "ada"), ORGANISATION),
    (("key", "k3"), ("subscription", "s3"), ("member", "t:ada"), ("team", "t"), ORGANISATION),
    (("key", "k4"), ("subscription", "s3"), ("member", "t:bob"), ("team", "t"), ORGANISATION),
)
SCOPES = sorted({scope for chain in CHAINS for scope in chain})
SPECS = ("total|UTC", "day|Europe/Berlin", "day|America/New_York", "week|Asia/Kathmandu", "month|Pacific/Apia")

# Powers of two: quotients by them are exact in the script's floating point.
PRICES = (0, 2**20, 2**24, 2**30)
ASKED = st.builds(
    Asked,
    base=st.integers(0, 3_000),
    price=st.sampled_from(PRICES),
    answers=st.integers(1, 3),
    limit=st.none() | st.integers(0, 300) | st.just(2**31),  # the longest answer that /v1 lets be asked for
    usual=st.sampled_from((0, 16, 100, 4096)),
    priced=st.just(True),
    bucket=st.integers(0, 600),
)
FREE = Asked(0, 0, 1, 100, 100, True, 50)
UNPRICED = FREE._replace(priced=False)

LIMITS: dict[str, st.SearchStrategy[Any]] = {
    "limit": st.none() | st.integers(0, 100_000),
    "spec": st.sampled_from(SPECS),
    "rpm": st.none() | st.integers(1, 5),
    "tpm": st.none() | st.integers(1, 800),
    "parallel": st.none() | st.integers(1, 2),
}
CHANGES = st.sampled_from(("limit", "limit", "spec", "rpm", "tpm", "tpm", "parallel")).flatmap(
    lambda name: st.tuples(st.just(name), LIMITS[name])
)
MOVES = (
    st.integers(1, 8).map(lambda steps: steps * STEP_MS)
    | st.integers(1, 30).map(lambda hours: hours * HOUR_MS)
    | st.sampled_from((DAY_MS, 7 * DAY_MS, 31 * DAY_MS))
)


class TestScript(reservations._Script):
    """A script that takes the meter's own word for the server's time."""

    __test__ = False

    def __init__(self, script: reservations._Script) -> None:
        self._text = script._text.replace("redis.call('TIME')", "redis.call('HMGET', KEYS[1], 'server_s', 'server_us')")
        self.digest = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()


def with_a_time_of_its_own(patch: pytest.MonkeyPatch) -> None:
    for name in ("RESERVE", "BEAT", "SETTLE", "RESTORE", "OVERDUE"):
        patch.setattr(reservations, name, TestScript(getattr(reservations, name)))


def set_server_time(client: redis.Redis, ms: int) -> None:
    client.hset(store.METER, mapping={"server_s": ms // 1000, "server_us": ms % 1000 * 1000})


# What upstreams tell of usage, true or not.
FIGURES = (
    st.integers(0, 900) | st.integers(0, 2**64) | st.sampled_from((None, -1, "7", 7.0, [], 1e300, 2**53, 2**63, 2**64))
)
LIES = st.dictionaries(
    st.sampled_from(("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "cost")),
    FIGURES,
    max_size=4,
)


class WorkersClock:
    """The time of day as the asking worker knows it."""

    ms = 0

    def now_ms(self) -> int:
        return self.ms


class Life(RuleBasedStateMachine):
    """One deployment: two workers with a meter each, a reaper, a janitor, and everything that goes wrong."""

    url: str
    folder: Path
    clock: WorkersClock

    def __init__(self) -> None:
        super().__init__()
        self.redis = redis.Redis.from_url(self.url)
        self.run_id = self.redis.info("server")["run_id"]
        self.workers = [Meter(self.redis.execute_command, lambda: self.run_id) for _ in range(2)]
        self.expected = ReferenceMeter(STARTS)
        self.holds: dict[str, Hold] = {}
        self.worker: dict[str, int] = {}
        self.chains: dict[str, tuple[Scope, ...]] = {}
        self.asked: dict[str, Asked] = {}
        self.orphans: set[str] = set()  # holds whose worker died
        self.late: dict[str, int] = {}  # what was charged after the reaper had settled
        self.spool: list[UsageEvent] = []
        self.excused: dict[tuple[str, str, str], int] = {}  # the use of counters that a lowered limit left above it
        self.counted = False
        self.redis.flushall()
        self.redis.hset(store.METER, mapping={"epoch": "1", "run_id": self.run_id})
        set_server_time(self.redis, STARTS)

    # What happens

    @initialize(limits=st.lists(st.tuples(st.sampled_from(SCOPES), CHANGES), min_size=2, max_size=8))
    def some_limits(self, limits: list[tuple[Scope, tuple[str, Any]]]) -> None:
        for scope, change in limits:
            self.change_limit(scope, change)

    @rule(
        calls=st.lists(
            st.tuples(
                st.integers(0, 1),
                st.sampled_from(CHAINS),
                ASKED | ASKED | ASKED | st.sampled_from((FREE, UNPRICED)),
            ),
            min_size=1,
            max_size=5,
        )
    )
    def reserve(self, calls: list[tuple[int, tuple[Scope, ...], Asked]]) -> None:
        for worker, chain, asked in calls:
            id = f"r{len(self.asked)}"
            self.worker[id], self.chains[id], self.asked[id] = worker, chain, asked
            self.try_reserve(id)

    def try_reserve(self, id: str) -> None:
        chain, asked = self.chains[id], self.asked[id]
        expected = self.expected.reserve(id, chain, asked)
        told = self.ask(self.workers[self.worker[id]], id, chain, asked)
        if isinstance(expected, Denied) or expected is None:
            assert told == expected
            return
        assert isinstance(told, Hold)
        again = id in self.holds
        assert (told.at_ms, told.amount_nano, told.output_limit, told.bounded) == expected[:4]
        if not again:
            assert granted(told) == expected
            counters = self.expected.holds[id].counters
            assert [window.name for window in told.windows] == [period for _, _, period in counters]
            self.holds[id] = told

    def ask(self, meter: Meter, id: str, chain: tuple[Scope, ...], asked: Asked) -> Hold | Denied | None:
        # The second worker's clock is behind the meter's, so that periods end earlier than it thinks.
        self.clock.ms = self.expected.now_ms - (STEP_MS if meter is self.workers[1] else 0)
        try:
            return meter.reserve(
                id,
                tuple(ScopeRef(kind, name, name) for kind, name in chain),
                Charge(
                    asked.base,
                    asked.price,
                    asked.answers,
                    asked.limit,
                    asked.usual,
                    asked.priced,
                    asked.bucket,
                    store.outputs(chain[0][1], "m"),
                ),
                msgspec.json.encode(self.event(id, 0, 0, ())),
            )
        except Refused as refused:
            return denied(refused)
        except MeterClosed:
            return None

    @rule(
        worker=st.integers(0, 1),
        chain=st.sampled_from(CHAINS),
        tight=st.integers(0, 4),
        second=st.integers(0, 4),
        asked=ASKED,
        short=st.integers(-1, 1),
        tokens=st.sampled_from((15, 16, 40)),
    )
    def reserve_at_the_limit(
        self, worker: int, chain: tuple[Scope, ...], tight: int, second: int, asked: Asked, short: int, tokens: int
    ) -> None:
        """Two scopes have just what the call needs, or one nano-unit more or less."""
        amount = asked.amount(tokens if asked.limit is None else asked.limit)
        for scope in {chain[tight % len(chain)], chain[second % len(chain)]}:
            used = self.use(self.expected.counter(scope))
            self.change_limit(scope, ("limit", max(used + amount + short, 0)))
        self.reserve([(worker, chain, asked._replace(usual=100))])

    @rule(chain=st.sampled_from(CHAINS), which=st.integers(0, 4), spec=st.sampled_from(SPECS[1:]), before=st.booleans())
    def reserve_at_the_turn_of_a_period(self, chain: tuple[Scope, ...], which: int, spec: str, before: bool) -> None:
        """A worker that knows the period well asks in its last moment, or in the first one of the next."""
        scope = chain[which % len(chain)]
        self.change_limit(scope, ("spec", spec))
        self.reserve([(1, chain, FREE)])
        self.move_clock_to_the_end_of_a_period(scope, before)
        self.reserve([(1, chain, FREE)])

    @rule(chain=st.sampled_from(CHAINS), which=st.integers(0, 4), beats=st.integers(0, 3))
    def reserve_beside_a_long_call(self, chain: tuple[Scope, ...], which: int, beats: int) -> None:
        """A call that beats keeps its slot for as long as it goes on."""
        self.change_limit(chain[which % len(chain)], ("parallel", 1))
        self.reserve([(0, chain, FREE)])
        id = f"r{len(self.asked) - 1}"
        for _ in range(beats):
            self.move_clock(2 * STEP_MS)
            if id in self.expected.holds:
                self.beat_for(id, 0, 1)
        self.reserve([(1, chain, FREE)])

    @rule(chain=st.sampled_from(CHAINS), which=st.integers(0, 4), rpm=st.integers(1, 5), steps=st.integers(1, 8))
    def reserve_more_than_a_minute_allows(self, chain: tuple[Scope, ...], which: int, rpm: int, steps: int) -> None:
        """A client uses up its requests a minute, waits a little and comes back."""
        self.change_limit(chain[which % len(chain)], ("rpm", rpm))
        self.reserve([(0, chain, FREE)] * (rpm + 1))
        self.move_clock(steps * STEP_MS)
        self.reserve([(1, chain, FREE)])

    @precondition(lambda self: self.asked)
    @rule(pick=st.integers(0, 10**6))
    def reserve_again(self, pick: int) -> None:
        """A command whose answer was lost is sent once more, whatever became of the request meanwhile."""
        granted = [id for id in self.asked if id in self.holds]
        if granted:
            self.try_reserve(granted[pick % len(granted)])

    @precondition(lambda self: self.alive())
    @rule(pick=st.integers(0, 10**6), cost=st.integers(0, 4_000), tokens=st.integers(0, 900))
    def beat(self, pick: int, cost: int, tokens: int) -> None:
        id = self.alive()[pick % len(self.alive())]
        if self.expected.holds[id].lease_ms > self.expected.now_ms:
            self.beat_for(id, cost, tokens)

    def beat_for(self, id: str, cost: int, tokens: int) -> None:
        hold = self.holds[id]
        told = self.meter(id).beat(hold, cost, msgspec.json.encode(self.event(id, cost, tokens, hold)))
        assert told == self.expected.beat(id, cost, tokens)

    @precondition(lambda self: self.expected.done)
    @rule(pick=st.integers(0, 10**6))
    def beat_after_the_end(self, pick: int) -> None:
        id = sorted(self.expected.done)[pick % len(self.expected.done)]
        assert not self.meter(id).beat(self.holds[id], 1, b"{}")

    @precondition(lambda self: self.alive())
    @rule(
        pick=st.integers(0, 10**6), share=st.integers(0, 8), tokens=st.integers(0, 900), replayed=st.booleans(),
        over=st.sampled_from((0, 0, 0, 0, 0, 777)),
    )  # fmt: skip
    def settle(self, pick: int, share: int, tokens: int, replayed: bool, over: int) -> None:
        """The worker settles, or the janitor does it by the line that the worker had written before it died."""
        id = self.alive()[pick % len(self.alive())]
        hold = self.holds[id]
        cost = hold.amount_nano * share // 8 + over
        self.settle_once(id, cost, tokens, replayed)
        assert not self.meter(id).settle(hold, cost, tokens, b"{}")
        assert not self.meter(id).settle_event(self.spool[-1])

    @precondition(lambda self: self.alive())
    @rule(
        pick=st.integers(0, 10**6),
        frames=st.lists(LIES | st.sampled_from(("", " word", "a long piece of an answer " * 20)), max_size=5),
        ends=st.booleans(),
        replayed=st.booleans(),
    )
    def believe_an_upstream(self, pick: int, frames: list[Any], ends: bool, replayed: bool) -> None:
        """An upstream tells whatever it likes, and the call goes on or ends with what is believed of it."""
        id = self.alive()[pick % len(self.alive())]
        hold, asked = self.holds[id], self.asked[id]
        most = Possible(asked.bucket, asked.bucket + 100, max(hold.output_limit, 1000), asked.answers)
        request = UpstreamRequest(
            capability="chat", dialect="openai_chat", model="m", members={}, parsed=None, possible=most,
            max_output=hold.output_limit if hold.bounded else None,
        )  # fmt: skip
        tally = Tally(request)
        for frame in frames:
            if isinstance(frame, str):
                tally.hear({"content": msgspec.Raw(msgspec.json.encode(frame))})
            else:
                tally.tell(json.dumps(frame).encode())
        used = tally.conclude() if ends else tally.usage
        text = sum(len(frame) for frame in frames if isinstance(frame, str))
        assert used.prompt_tokens <= most.told_prompt
        assert used.completion_tokens <= max(most.answer * most.answers, text)
        cost = asked._replace(answers=1).amount(used.completion_tokens)
        if ends:
            self.settle_once(id, cost, used.prompt_tokens + used.completion_tokens, replayed)
        elif self.expected.holds[id].lease_ms > self.expected.now_ms:
            self.beat_for(id, cost, used.prompt_tokens + used.completion_tokens)

    def settle_once(self, id: str, cost: int, tokens: int, replayed: bool) -> None:
        hold = self.holds[id]
        event = self.event(id, cost, tokens, hold)
        self.spool.append(event)
        counters = self.expected.holds[id].counters
        unnamed = self.asked[id].limit is None and not replayed
        expected = self.expected.settle(id, cost, tokens, tokens if unnamed else None)
        if replayed:
            assert self.meter(id).settle_event(event) == expected
        else:
            output = Output(store.outputs(hold.scopes[0].id, "m"), tokens) if unnamed else None
            settlement = self.meter(id).settle(hold, cost, tokens, msgspec.json.encode(event), output=output)
            assert bool(settlement) == expected
        if cost > hold.amount_nano:
            self.excuse(counters)

    @precondition(lambda self: self.expected.done)
    @rule(pick=st.integers(0, 10**6), cost=st.integers(0, 5_000), tokens=st.integers(0, 900))
    def settle_again(self, pick: int, cost: int, tokens: int) -> None:
        """Nothing that comes after the end changes anything, unless the reaper had charged less than was due."""
        id = sorted(self.expected.done)[pick % len(self.expected.done)]
        if id in self.expected.reaped:
            return
        assert not self.meter(id).settle(self.holds[id], cost, tokens, b"{}")

    @precondition(lambda self: self.reaped())
    @rule(pick=st.integers(0, 10**6), more=st.integers(0, 3_000))
    def settle_late(self, pick: int, more: int) -> None:
        """A worker that slept past its lease wakes up and tells what came out after the reaper had settled."""
        id = self.reaped()[pick % len(self.reaped())]
        booked, hold = self.expected.done[id], self.holds[id]
        told = self.meter(id).settle(hold, booked.cost + more, 0, b"{}")
        assert not told.applied
        assert told.reaped is not None and told.reaped.cost_nano == booked.cost
        late = msgspec.structs.replace(self.event(id, more, 0, hold), kind="late", overdraft_nano=more)
        self.spool.append(late)
        assert self.meter(id).settle_late(hold, late)
        assert not self.meter(id).settle_late(hold, late)
        self.late[id] = more
        self.expected.done[id] = Booked(id, booked.cost + more, booked.counters)
        for counter in booked.counters:
            self.expected.spent[counter] += more
        self.excuse(booked.counters)

    @precondition(lambda self: self.expected.holds)
    @rule(pick=st.integers(0, 10**6))
    def expire(self, pick: int) -> None:
        """The reaper comes by: it settles a hold whose lease has ended, and leaves one that lives alone."""
        id = sorted(self.expected.holds)[pick % len(self.expected.holds)]
        self.expire_one(id)

    def expire_one(self, id: str) -> None:
        hold = self.expected.holds[id]
        expected = self.expected.expire(id)
        assert bool(self.meter(id).expire(id)) == expected
        assert not self.meter(id).expire(id)
        if hold.cost > hold.granted.amount:
            self.excuse(hold.counters)

    @rule(worker=st.integers(0, 1))
    def crash(self, worker: int) -> None:
        """A worker dies with all it knew."""
        self.orphans |= {id for id in self.expected.holds if self.worker[id] == worker}
        self.workers[worker] = Meter(self.redis.execute_command, lambda: self.run_id)

    @rule(ms=MOVES)
    def move_clock(self, ms: int) -> None:
        self.expected.server_ms += ms
        set_server_time(self.redis, self.expected.server_ms)

    @rule(hours=st.integers(1, 30), asked=ASKED, chain=st.sampled_from(CHAINS), seen=st.booleans())
    def the_time_is_wrong_for_a_while(self, hours: int, asked: Asked, chain: tuple[Scope, ...], seen: bool) -> None:
        """The server's time jumps ahead, a call is made by it, and it comes back."""
        self.move_clock(hours * HOUR_MS)
        if seen:
            self.reserve([(0, chain, asked)])
            self.the_reaper_comes_by()
        self.move_clock(-hours * HOUR_MS)
        self.reserve([(1, chain, asked)])

    @rule(ms=MOVES)
    def the_time_goes_back(self, ms: int) -> None:
        if ms < 7 * DAY_MS:
            self.move_clock(-ms)

    @rule(asked=ASKED, chain=st.sampled_from(CHAINS), ms=st.integers(1, 5_000))
    def the_time_is_corrected_by_a_little(self, asked: Asked, chain: tuple[Scope, ...], ms: int) -> None:
        """Which is waited out."""
        self.the_reaper_comes_by()
        before = self.expected.now_ms
        self.move_clock(-ms)
        self.reserve([(0, chain, asked)])
        assert self.expected.now_ms == before
        self.move_clock(ms)

    @rule()
    def the_reaper_comes_by(self) -> None:
        expected = self.expected.overdue()
        now_ms, over = self.workers[0].overdue(1000)
        assert (now_ms, sorted(over)) == (self.expected.now_ms, expected)
        for id in expected:
            self.expire_one(id)

    @rule(scope=st.sampled_from(SCOPES), before=st.booleans())
    def move_clock_to_the_end_of_a_period(self, scope: Scope, before: bool) -> None:
        """To its last step, or to the instant at which the next one begins."""
        ends_ms = window_of(self.expected.limits[scope].spec, self.expected.now_ms).end_ms
        to_ms = ends_ms - STEP_MS * before
        if ends_ms < FOR_EVER_MS and to_ms > self.expected.now_ms:
            self.move_clock(to_ms - self.expected.server_ms)

    @rule(scope=st.sampled_from(SCOPES), change=CHANGES)
    def change_limit(self, scope: Scope, change: tuple[str, Any]) -> None:
        name, value = change
        setattr(self.expected.limits[scope], name, value)
        self.publish(scope)
        counters = {self.expected.counter(scope), *self.expected.spent, *self.expected.held}
        self.excuse(tuple(counter for counter in counters if counter[:2] == scope))  # the time may go back to any

    def publish(self, scope: Scope) -> None:
        key = store.scope(*scope)
        for name in LIMITS:
            value = getattr(self.expected.limits[scope], name)
            if value is None:
                self.redis.hdel(key, name)
            else:
                self.redis.hset(key, name, value)

    @rule(restarted=st.booleans(), asked=ASKED, chain=st.sampled_from(CHAINS))
    def close(self, restarted: bool, asked: Asked, chain: tuple[Scope, ...]) -> None:
        """Without an epoch, or in another run of the server, nothing is let in, nothing settled, nothing changed."""
        if restarted:
            self.redis.hset(store.METER, "run_id", "another")
        else:
            self.redis.hdel(store.METER, "epoch")
        before = self.everything()
        self.expected.open = False
        self.everything_waits(chain, asked)
        assert self.everything() == before
        self.expected.open = True
        self.redis.hset(store.METER, mapping={"epoch": "2", "run_id": self.run_id})

    def everything_waits(self, chain: tuple[Scope, ...], asked: Asked) -> None:
        assert self.ask(self.workers[0], "too early", chain, asked) is None
        for id in self.alive()[:2]:
            assert self.meter(id).beat(self.holds[id], 1, b"{}")  # it may go on
            with pytest.raises(MeterClosed):
                self.meter(id).settle(self.holds[id], 1, 1, b"{}")

    @rule(ended=st.integers(0, 3), asked=ASKED, chain=st.sampled_from(CHAINS))
    def lose_redis(self, ended: int, asked: Asked, chain: tuple[Scope, ...]) -> None:
        """Redis loses everything; it is counted anew from books, spools and what living workers hold."""
        self.begin_books()
        self.drain()  # what the reaper settled is in no spool
        self.redis.flushall()
        self.expected.lose()
        self.everything_waits(chain, asked)
        assert self.redis.dbsize() == 0
        set_server_time(self.redis, self.expected.server_ms)
        ending = self.alive()[:ended]  # calls that end while the meter is closed: their lines are written
        for id in ending:
            hold = self.holds[id]
            self.spool.append(self.event(id, hold.amount_nano // 2, 7, hold))
        living = [id for id in self.alive() if id not in ending]

        def workers_report() -> None:
            self.drain()
            count = self.workers[0].counting()
            assert count is not None
            for id in living:
                progress = self.expected.holds[id]
                event = msgspec.json.encode(self.event(id, progress.cost, progress.tokens, self.holds[id]))
                self.meter(id).restore(count, self.holds[id], progress.cost, event)

        assert recount(self.redis, self.folder, workers_report, posting.post, lambda path: self.spool)
        for id in ending:
            held = self.expected.holds.pop(id)
            self.expected.done[id] = Booked(id, held.granted.amount // 2, held.counters)
        self.expected.recount(set(living))
        for scope in SCOPES:
            self.publish(scope)
        for id in living:  # the next beat puts its lease where it belongs
            self.beat_for(id, self.expected.holds[id].cost, self.expected.holds[id].tokens)
        for id in ending:  # the worker repeats what was refused
            assert not self.meter(id).settle(self.holds[id], self.holds[id].amount_nano // 2, 7, b"{}")

    # What must be true at every instant

    @invariant()
    def everything_counted_is_the_same(self) -> None:
        expected = self.expected
        counters = sorted(expected.spent.keys() | expected.held.keys())
        with self.redis.pipeline(transaction=True) as pipe:
            for counter in counters:
                pipe.hmget(store.spent(*counter), "spent", "held")
            for scope in SCOPES:
                pipe.zcount(store.slots(*scope), f"({expected.now_ms}", expected.now_ms + LEASE_MS)
                pipe.hmget(store.scope(*scope), "requests", "tokens")
            pipe.zrange(store.LEASES, 0, -1)
            *answers, leases = pipe.execute()
        seen = {counter: tuple(int(part or 0) for part in answers.pop(0)) for counter in counters}
        assert seen == {counter: (expected.spent[counter], expected.held[counter]) for counter in counters}
        for scope in SCOPES:
            assert answers.pop(0) == expected.busy(scope), f"slots of {scope}"
            for bucket, left in zip((expected.requests, expected.tokens), answers.pop(0), strict=True):
                assert (scope in bucket) == (left is not None)
                assert left is None or float(left) == bucket[scope].left
        assert {id.decode() for id in leases} == expected.holds.keys()

    @invariant()
    def no_budget_is_overspent(self) -> None:
        for scope in SCOPES:
            limit, counter = self.expected.limits[scope].limit, self.expected.counter(scope)
            if limit is not None:
                assert self.use(counter) <= max(limit, self.excused.get(counter, 0)), counter

    def teardown(self) -> None:
        """In the end every call is settled or its lease ends: nothing is held, and the books say what was counted."""
        for number, id in enumerate(self.alive()):
            if number % 2:
                self.settle_once(id, self.holds[id].amount_nano, 3, replayed=bool(number % 3))
        for _ in range(2 + 2 * LEASE_MS // STEP_MS):  # a lease of patience after the last move, and a lease
            self.the_reaper_comes_by()
            self.move_clock(STEP_MS)
        assert not self.expected.holds
        self.everything_counted_is_the_same()
        assert not any(self.expected.held.values())
        assert self.redis.zcard(store.LEASES) == 0
        assert not self.redis.exists(*(store.hold(id) for id in ("none", *self.holds)))
        assert not any(self.redis.zcard(store.slots(*scope)) for scope in SCOPES)
        assert self.booked() == Count({counter: spent for counter, spent in self.expected.spent.items() if spent})
        self.redis.close()

    # Helpers

    def meter(self, id: str) -> Meter:
        return self.workers[self.worker[id]]

    def alive(self) -> list[str]:
        """Requests that go on and whose worker lives."""
        return sorted(self.expected.holds.keys() - self.orphans)

    def reaped(self) -> list[str]:
        return sorted(self.expected.reaped - self.late.keys() - self.orphans)

    def use(self, counter: tuple[str, str, str]) -> int:
        return self.expected.spent[counter] + self.expected.held[counter]

    def excuse(self, counters: tuple[tuple[str, str, str], ...]) -> None:
        for counter in counters:
            self.excused[counter] = self.use(counter)

    def event(self, id: str, cost: int, tokens: int, hold: Hold | tuple[()]) -> UsageEvent:
        return UsageEvent(
            request_id=id, attempt=1, at_ms=self.expected.now_ms, person_id="ada", model="m", api_type="chat",
            endpoint="/v1/chat/completions", outcome="ok", status=200, cost_nano=cost, completion_tokens=tokens,
            scopes=tuple(
                (scope.kind, scope.id, window.name) for scope, window in zip(hold.scopes, hold.windows, strict=True)
            ) if isinstance(hold, Hold) else (),
        )  # fmt: skip

    def everything(self) -> dict[bytes, bytes | None]:
        return {key: self.redis.dump(key) for key in self.redis.scan_iter()}

    def stream(self) -> list[UsageEvent]:
        return [msgspec.json.decode(fields[b"e"], type=UsageEvent) for _, fields in self.redis.xrange(store.USAGE)]

    def begin_books(self) -> None:
        if not self.counted:
            with db.engine.begin() as connection:
                for table in (entries.ENTRY, SPENT, books.HOURLY):
                    connection.execute(table.delete())
        self.counted = True

    def drain(self) -> None:
        posting.post([self.complete(event) for event in self.stream()])
        self.redis.delete(store.USAGE)

    def complete(self, event: UsageEvent) -> UsageEvent:
        """The reaper's event of a call that never beat is the one it was reserved with, which knows no counters."""
        if event.scopes or event.request_id not in self.expected.done:
            return event
        return msgspec.structs.replace(event, scopes=self.expected.done[event.request_id].counters)

    def booked(self) -> Count[tuple[str, str, str]]:
        """What the usage events add up to, for each counter."""
        sums: dict[tuple[str, str, str], int] = defaultdict(int)
        if not self.counted:
            events = self.stream()
            assert len({(event.request_id, event.kind) for event in events}) == len(events)
            for event in events:
                for counter in event.scopes:
                    sums[counter] += event.cost_nano
        else:
            self.drain()
            with db.engine.connect() as connection:
                for row in connection.execute(SPENT.select()):
                    sums[row.kind, row.id, row.period] = row.spent_nano
        return Count({counter: spent for counter, spent in sums.items() if spent})


def granted(hold: Hold) -> Granted:
    return Granted(
        hold.at_ms, hold.amount_nano, hold.output_limit, hold.bounded, (hold.requests_limit, hold.requests_left),
        (hold.tokens_limit, hold.tokens_left),
    )  # fmt: skip


def denied(refused: Refused) -> Denied:
    assert refused.resets_ms is None or refused.resets_ms < FOR_EVER_MS
    return Denied(
        refused.reason, (refused.scope.kind, refused.scope.id), refused.limit, refused.retry_ms, refused.spent,
        refused.held, refused.amount, refused.affordable_tokens, refused.resets_ms,
    )  # fmt: skip


def live(url: str, database_url: str, folder: Path, lives: int, steps: int, *phases: Phase) -> None:
    """Lead so many lives of so many steps."""
    (folder / "1.jsonl").touch()
    app = books.open_books(books.settings(folder, database_url))
    clock = WorkersClock()
    machine = type("Life", (Life,), {"url": url, "folder": folder, "clock": clock})
    with app.app_context(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(reservations, "clock", clock)
        with_a_time_of_its_own(patch)
        try:
            run_state_machine_as_test(  # type: ignore[no-untyped-call]
                machine,
                settings=settings(
                    max_examples=lives,
                    stateful_step_count=steps,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                    phases=(Phase.generate, *phases),
                    report_multiple_bugs=False,
                ),
            )
        finally:
            db.session.remove()
            db.engine.dispose()


def test_the_meter_says_and_counts_what_the_reference_does(
    redis_url: str, books_sqlite_url: str, tmp_path: Path
) -> None:
    live(redis_url, books_sqlite_url, tmp_path, examples(75), 40)  # the slow one below leads longer lives


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_meter_agrees_with_the_reference_in_many_long_lives(
    redis_url: str, books_sqlite_url: str, tmp_path: Path
) -> None:
    live(redis_url, books_sqlite_url, tmp_path, int(os.environ.get("MODEL_LIVES", examples(60))), 120, Phase.shrink)


class Bare:
    """An open meter and nothing else."""

    def __init__(self, url: str) -> None:
        self.redis = redis.Redis.from_url(url)
        self.run_id = self.redis.info("server")["run_id"]
        self.meter = Meter(self.redis.execute_command, lambda: self.run_id)
        self.redis.hset(store.METER, mapping={"epoch": "1", "run_id": self.run_id})
        self.chain = tuple(ScopeRef(kind, name, name) for kind, name in CHAINS[3])

    def reserve(self, id: str, asked: Asked = FREE) -> Hold:
        charge = Charge(asked.base, asked.price, asked.answers, asked.limit, asked.usual, asked.priced, asked.bucket)
        return self.meter.reserve(id, self.chain, charge, msgspec.json.encode(self.event(id)))

    def event(self, id: str, hold: Hold | None = None, **fields: Any) -> UsageEvent:
        scopes = zip(hold.scopes, hold.windows, strict=True) if hold else ()
        told: dict[str, Any] = {
            "request_id": id, "attempt": 1, "at_ms": 1, "person_id": "ada", "model": "m", "api_type": "chat",
            "endpoint": "/v1/chat/completions", "outcome": "ok", "status": 200,
            "scopes": tuple((scope.kind, scope.id, window.name) for scope, window in scopes),
        }  # fmt: skip
        return UsageEvent(**(told | fields))

    def counted(self) -> list[tuple[int, int]]:
        counters = [self.redis.hmget(store.spent(ref.kind, ref.id, "total"), "spent", "held") for ref in self.chain]
        return [(int(spent or 0), int(held or 0)) for spent, held in counters]


@pytest.fixture
def bare(redis_url: str) -> Bare:
    return Bare(redis_url)


@pytest.mark.parametrize(("left", "price", "answers"), [(8_058_000, 10**9, 2), (3_938, 2 * 10**6, 1)])
def test_what_is_left_is_offered_to_the_last_token_at_list_prices(
    bare: Bare, left: int, price: int, answers: int
) -> None:
    bare.redis.hset(store.scope("key", "k3"), "limit", left)
    asked = Asked(0, price, answers, None, 100_000, True, 0)
    assert bare.reserve("r", asked).output_limit == asked.affords(left)


def test_a_spooled_line_of_what_came_after_the_lease_is_charged_when_it_is_replayed(bare: Bare) -> None:
    """The worker died between writing the line and charging it; the books will have it."""
    hold = bare.reserve("r")
    bare.redis.zadd(store.LEASES, {"r": 1})
    assert bare.meter.expire("r")
    assert bare.meter.settle_event(bare.event("r", hold, kind="late", cost_nano=70, overdraft_nano=70))
    assert bare.counted() == [(70, 0)] * 5


def test_a_beat_that_finds_its_hold_after_the_lease_has_its_slot_again(bare: Bare) -> None:
    bare.redis.hset(store.scope("key", "k3"), "parallel", 1)
    slow = bare.reserve("slow")
    bare.redis.zadd(store.slots("key", "k3"), {"slow": 1})
    bare.redis.zadd(store.LEASES, {"slow": 1})
    quick = bare.reserve("quick")  # which takes the slot of the call whose lease is over
    bare.meter.settle(quick, 0, 0, msgspec.json.encode(bare.event("quick", quick)))
    if bare.meter.beat(slow, 0, msgspec.json.encode(bare.event("slow", slow))):  # or it is told to stop
        with pytest.raises(Refused):
            bare.reserve("next")


class Timed(Bare):
    """A bare meter on a server whose time the test sets."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.server_ms = STARTS
        self.pass_by(0)

    def pass_by(self, ms: int) -> None:
        self.server_ms += ms
        set_server_time(self.redis, self.server_ms)

    def wait(self, ms: int, *alive: Hold) -> set[str]:
        """Let time pass by the second, with the beats of what goes on and a look of the reaper; whom it settled."""
        settled = set()
        for second in range(0, ms, 1000):
            self.pass_by(1000)
            for hold in alive if second % 5000 == 0 else ():
                assert self.meter.beat(hold, 0, msgspec.json.encode(self.event(hold.request_id, hold)))
            settled |= {id for id in self.meter.overdue(1000)[1] if self.meter.expire(id)}
        return settled

    def noted(self) -> int:
        """The step that was noticed last, ms."""
        return int(self.redis.hget(store.METER, "step_ms") or 0)


@pytest.fixture
def timed(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Timed:
    with_a_time_of_its_own(monkeypatch)
    return Timed(redis_url)


def test_a_time_that_was_an_hour_ahead_is_left_at_once_and_noted(timed: Timed) -> None:
    timed.pass_by(HOUR_MS)
    timed.reserve("wrong")
    timed.pass_by(-HOUR_MS)
    assert timed.reserve("right").at_ms == STARTS
    assert timed.noted() == -HOUR_MS


def test_a_correction_of_some_seconds_is_waited_out(timed: Timed) -> None:
    timed.reserve("first")
    timed.pass_by(-5_000)
    assert timed.reserve("second").at_ms == STARTS
    assert timed.noted() == 0


def test_a_dead_hold_of_a_wrong_time_ends_with_a_lease_of_the_right_one(timed: Timed) -> None:
    timed.redis.hset(store.scope("key", "k3"), "parallel", 1)
    timed.pass_by(HOUR_MS)
    timed.reserve("dead")
    timed.pass_by(-HOUR_MS)
    assert timed.wait(19_000) == set()
    assert timed.wait(2_000) == {"dead"}
    assert timed.reserve("next")


def test_rates_and_slots_of_a_wrong_time_hold_nobody_up(timed: Timed) -> None:
    timed.redis.hset(store.scope("key", "k3"), mapping={"rpm": 1, "tpm": 10, "parallel": 1})
    timed.pass_by(HOUR_MS)
    timed.reserve("wrong", FREE._replace(bucket=10))
    timed.pass_by(-HOUR_MS)
    timed.reserve("right", FREE._replace(bucket=10))
    with pytest.raises(Refused):  # and from then on as usual
        timed.reserve("another")


def test_a_call_that_goes_on_outlives_a_step_of_time(timed: Timed) -> None:
    timed.redis.hset(store.scope("key", "k3"), "parallel", 1)
    alive = timed.reserve("alive")
    for step in (HOUR_MS, -HOUR_MS, HOUR_MS, -2 * HOUR_MS):
        timed.pass_by(step)
        assert not timed.meter.expire("alive")
        assert timed.wait(21_000, alive) == set()
    assert timed.meter.settle(alive, 0, 0, msgspec.json.encode(timed.event("alive", alive)))


def test_a_dead_hold_ends_two_leases_after_the_time_went_ahead(timed: Timed) -> None:
    timed.reserve("dead")
    timed.pass_by(HOUR_MS)
    assert timed.wait(19_000) == set()
    assert timed.wait(3_000) == {"dead"}


def test_a_time_that_was_more_than_a_week_ahead_has_the_counters_counted_anew(timed: Timed) -> None:
    """Redis has thrown away the counters of the present, which were too old by then."""
    timed.pass_by(8 * DAY_MS)
    timed.reserve("wrong")
    timed.pass_by(-8 * DAY_MS)
    timed.meter.overdue(1)
    with pytest.raises(MeterClosed):
        timed.reserve("right")


def test_a_call_that_goes_on_keeps_its_slot_when_redis_is_counted_anew(
    bare: Bare, books_sqlite_url: str, tmp_path: Path
) -> None:
    bare.redis.hset(store.scope("key", "k3"), "parallel", 1)
    hold = bare.reserve("r")
    bare.redis.flushall()

    def put_back() -> None:
        bare.meter.restore(bare.meter.counting() or "", hold, 0, msgspec.json.encode(bare.event("r", hold)))

    with books.opened(books.settings(tmp_path, books_sqlite_url)):
        assert recount(bare.redis, tmp_path / "spool", put_back, posting.post, lambda path: [])
    bare.redis.hset(store.scope("key", "k3"), "parallel", 1)  # as the drainer publishes it
    with pytest.raises(Refused, match="parallel"):
        bare.reserve("another")
    assert bare.meter.settle(hold, 0, 0, msgspec.json.encode(bare.event("r", hold)))
    assert bare.reserve("another")


def test_what_the_reaper_settled_is_remembered_for_a_day(bare: Bare) -> None:
    """A worker may sleep far longer than a settled call's tombstone lasts."""
    bare.meter.settle(bare.reserve("usual"), 1, 0, msgspec.json.encode(bare.event("usual")))
    bare.reserve("reaped")
    bare.redis.zadd(store.LEASES, {"reaped": 1})
    assert bare.meter.expire("reaped")
    assert bare.redis.pttl(store.tombstone("usual")) <= 300_000
    assert bare.redis.pttl(store.tombstone("reaped")) > 86_000_000


def test_what_the_reaper_had_settled_stays_settled_when_redis_is_counted_anew(
    bare: Bare, books_sqlite_url: str, tmp_path: Path
) -> None:
    """Its worker slept through the lease and through the loss of Redis, and settles when it wakes."""
    with books.opened(books.settings(tmp_path, books_sqlite_url)):
        hold = bare.reserve("r")
        assert bare.meter.beat(hold, 30, msgspec.json.encode(bare.event("r", hold, at_ms=hold.at_ms, cost_nano=30)))
        bare.redis.zadd(store.LEASES, {"r": 1})
        assert bare.meter.expire("r")
        ((_, fields),) = bare.redis.xrange(store.USAGE)
        posting.post([msgspec.json.decode(fields[b"e"], type=UsageEvent)])
        bare.redis.flushall()
        assert recount(bare.redis, tmp_path / "spool", lambda: None, posting.post, lambda path: [])
        assert bare.counted() == [(30, 0)] * 5
        settlement = bare.meter.settle(hold, 50, 0, msgspec.json.encode(bare.event("r", hold, cost_nano=50)))
    assert not settlement
    assert settlement.reaped is not None and settlement.reaped.cost_nano == 30  # the rest comes as a late entry
    assert bare.counted() == [(30, 0)] * 5


def test_a_hold_beyond_what_doubles_tell_exactly_is_refused_without_any_budget(bare: Bare) -> None:
    with pytest.raises(Refused) as refused:
        bare.reserve("r", Asked(9 * 10**15 + 1, 0, 1, 0, 0, True, 0))
    assert refused.value.reason == "budget"
    assert bare.counted()[0] == (0, 0)
