"""Four gateway processes, five nested budgets, many callers at once: not one nano-unit over, at any instant.

Redis tells the order in which the scripts ran. The plain reference goes through the same calls in that order and must
come to every verdict that clients saw, so that what raced is held against what would have happened one by one.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter as Count
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import redis

from app import clock, store
from app.directory import Price
from app.metering import money, reservations
from app.metering.periods import ALL_TIME
from app.metering.reservations import Meter
from app.metering.usage import UsageEvent
from tests.metering.reference import LEAST_OUTPUT, Asked, Denied, Granted, ReferenceMeter, Scope
from tests.services.gate import Gate
from tests.services.upstream import CHAT, Upstream, WhenReleased, chat
from tests.services.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

WORKERS = 4
# Powers of two, by which the script's floating point divides exactly.
PRICE = Price(id="price", rates={"input_per_mtok": 2**30, "output_per_mtok": 2**31})
TEAMS = ("team-a", "team-b")
KEYS = {"key-1": "team-a", "key-2": "team-a", "key-3": "team-b", "key-4": "team-b", "key-5": None, "key-6": None}
ORGANISATION: Scope = ("organisation", store.ORGANISATION)


def chain(key: str) -> list[Scope]:
    """The scopes that pay for a key's calls, innermost first."""
    team = KEYS[key]
    above = [("user", "person-1")] if team is None else [("member", f"{team}:person-1"), ("team", team)]
    return [("key", key), ("subscription", "subscription-small"), *above, ORGANISATION]


SCOPES = sorted({scope for key in KEYS for scope in chain(key)})


class Answered(NamedTuple):
    """What a client saw."""

    request_id: str
    status: int
    code: str | None
    most_tokens: str | None


@pytest.fixture(scope="module")
def gate_process(valkey: str) -> Iterator[Gate]:
    gate = Gate(valkey, CONFIG_SERVER_WORKERS=str(WORKERS))
    try:
        yield gate.start()
    finally:
        gate.close()


@dataclass
class House:
    """The gateway with its model `small`, six keys of two teams and one person, and no limit yet."""

    gate: Gate
    upstream: Upstream
    keys: dict[str, str] = field(default_factory=dict)

    def begin(self) -> None:
        self.upstream.reset()
        self.gate.begin()
        self.gate.provider("up", base_url=self.upstream.url, timeout_s=60)
        self.gate.model("small", "up", price=PRICE)
        self.keys = {
            id: self.gate.key("small", id=id, **({} if team is None else {"team_id": team}))
            for id, team in KEYS.items()
        }

    def limit(self, scope: Scope, nano: int) -> None:
        self.gate.limit(*scope, money.text(nano))

    def ask(self, key: str, **fields: Any) -> Answered:
        body = json.dumps({"model": "small", **fields})
        connection = http.client.HTTPConnection("127.0.0.1", self.gate.port, timeout=60)
        try:
            connection.request("POST", CHAT, body, {"Authorization": f"Bearer {self.keys[key]}"})
            answer = connection.getresponse()
            told = answer.read()
        finally:
            connection.close()
        code = json.loads(told)["error"]["code"] if answer.status != 200 else None
        return Answered(answer.headers["x-request-id"], answer.status, code, answer.headers.get("x-portico-max-tokens"))

    def counted(self, scope: Scope) -> tuple[int, int]:
        return self.gate.counted(*scope)

    def assert_books_equal_counters(self, calls: int) -> list[UsageEvent]:
        """So many calls are booked, each once, nothing is held, and what is booked is what was counted."""
        events = self.gate.events(calls)
        assert len({event.request_id for event in events}) == len(events) == calls
        booked: Count[Scope] = Count()
        for event in events:
            assert event.cost_nano <= event.hold_nano
            for kind, id, _ in event.scopes:
                booked[kind, id] += event.cost_nano
        assert {scope: self.counted(scope) for scope in SCOPES} == {scope: (booked[scope], 0) for scope in SCOPES}
        assert self.gate.redis.zcard(store.LEASES) == 0
        return events


@pytest.fixture
def house(gate_process: Gate, upstream: Upstream) -> House:
    house = House(gate_process, upstream)
    house.begin()
    return house


SAMPLE = """
local seen = {}
for i = 1, #KEYS, 2 do
  local limit = redis.call('HGET', KEYS[i], 'limit')
  local counted = redis.call('HMGET', KEYS[i + 1], 'spent', 'held')
  seen[#seen + 1] = {tonumber(limit or -1), tonumber(counted[1] or 0), tonumber(counted[2] or 0)}
end
return seen
"""


class Watch:
    """Reads limit, spent and held of every scope at one instant, over and over, and keeps whatever is over."""

    def __init__(self, url: str) -> None:
        self.samples = 0
        self.over: list[tuple[Scope, int, int, int]] = []
        self.highest: Count[Scope] = Count()
        self._redis = redis.Redis.from_url(url)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._redis.close()

    def _watch(self) -> None:
        names = [name for scope in SCOPES for name in (store.scope(*scope), store.spent(*scope, "total"))]
        read = self._redis.register_script(SAMPLE)
        while not self._ended.is_set():
            for scope, (limit, spent, held) in zip(SCOPES, read(keys=names), strict=True):
                self.highest[scope] = max(self.highest[scope], spent + held)
                if 0 <= limit < spent + held:
                    self.over.append((scope, limit, spent, held))
            self.samples += 1
            time.sleep(0.0005)


@contextmanager
def order_of_scripts(url: str) -> Iterator[list[list[str]]]:
    """The scripts that Redis runs meanwhile, in their order, each as the words of its command."""
    seen: list[list[str]] = []
    client, stopper = redis.Redis.from_url(url), redis.Redis.from_url(url)
    monitor = client.monitor()

    def read() -> None:
        for told in monitor.listen():
            command = told["command"]
            if told["client_type"] != "lua" and command.startswith("EVALSHA"):
                seen.append(command.split(" "))
            elif command == "ECHO enough":
                return

    with monitor:
        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield seen
        finally:
            stopper.echo("enough")
            thread.join(30)
            client.close()
            stopper.close()
    assert not thread.is_alive()


class Replay:
    """The same calls one by one: what each should have been told."""

    def __init__(self, limits: dict[Scope, int]) -> None:
        self.meter = ReferenceMeter(server_ms=0)
        for scope, limit in limits.items():
            self.meter.limits[scope].limit = limit
        self.verdicts: dict[str, Granted | Denied] = {}
        self.settled = 0

    def go(self, scripts: list[list[str]]) -> None:
        reserve, settle = reservations.RESERVE.digest, reservations.SETTLE.digest
        for _, digest, count, *rest in scripts:
            keys, args = rest[: int(count)], rest[int(count) :]
            if digest == reserve:
                self.reserve(keys, args)
            elif digest == settle:
                assert self.meter.settle(
                    args[0], int(args[1]), int(args[2]), None if args[10] == "-1" else int(args[10])
                )
                self.settled += 1

    def reserve(self, keys: list[str], args: list[str]) -> None:
        if any(spec != ALL_TIME for spec in args[13::3]):
            raise AssertionError("only budgets without a period are replayed")
        base, price, answers, limit, usual, priced, bucket = (int(arg) for arg in args[3:10])
        asked = Asked(base, price, answers, None if limit < 0 else limit, usual, priced == 1, bucket)
        scopes = tuple(_scope(key) for key in keys[8::3])
        verdict = self.meter.reserve(args[0], scopes, asked)
        assert verdict is not None
        self.verdicts[args[0]] = verdict
        if isinstance(verdict, Denied):
            left = min(left for scope in scopes if (left := self.meter.left(scope)) is not None)
            least = asked.amount(min(usual, LEAST_OUTPUT) if asked.limit is None else asked.limit)
            assert left < least, "refused although it would have fitted"


def _scope(key: str) -> Scope:
    kind, _, id = key.removeprefix(store.scope("", "").removesuffix(":")).partition(":")
    return kind, id


def assert_each_verdict_is_the_replayed_one(
    house: House, replay: Replay, answers: list[Answered], events: list[UsageEvent]
) -> None:
    holds = {event.request_id: event.hold_nano for event in events}
    some_refused = any(isinstance(verdict, Denied) for verdict in replay.verdicts.values())
    kept = {event.request_id: event.refusal for event in house.gate.refused(1 if some_refused else 0)}
    assert replay.verdicts.keys() == {answer.request_id for answer in answers}
    for answer in answers:
        verdict = replay.verdicts[answer.request_id]
        if isinstance(verdict, Granted):
            assert answer.status == 200
            assert holds[answer.request_id] == verdict.amount
            assert answer.most_tokens in (None, str(verdict.output))
        else:
            assert (answer.status, answer.code) == (429, "insufficient_quota")
            told = kept.get(answer.request_id)  # none where there were too many in this minute
            assert told is None or verdict == Denied(
                told.reason, (told.scope_kind, told.scope_id), told.limit, told.retry_ms, told.spent, told.held,
                told.amount, told.affordable_tokens, told.resets_ms,
            )  # fmt: skip


def all_at_once(calls: list[Callable[[], Answered]], refused: Callable[[], None]) -> list[Answered]:
    """Make all calls at the same moment; `refused` is told of each that was not let in."""
    ready = threading.Barrier(len(calls))

    def one(call: Callable[[], Answered]) -> Answered:
        ready.wait(30)
        answer = call()
        if answer.status != 200:
            refused()
        return answer

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


@pytest.mark.parametrize("tight", ["key", "subscription", "member", "team", "organisation"])
def test_of_200_calls_at_once_on_a_budget_worth_50_exactly_50_are_let_in(house: House, tight: str) -> None:
    asked = {"messages": [{"role": "user", "content": "one two three"}], "max_tokens": 100}
    house.ask("key-1", **asked)
    (hold,) = {event.hold_nano for event in house.gate.events(1)}
    house.begin()
    keys = {"key": ["key-1"], "organisation": list(KEYS)}.get(tight, ["key-1", "key-2"])
    limits = dict.fromkeys(SCOPES, 250 * hold) | {scope: 50 * hold for scope in chain("key-1") if scope[0] == tight}
    for scope, limit in limits.items():
        house.limit(scope, limit)
    released, refusals = threading.Event(), threading.Semaphore(0)
    house.upstream.always(CHAT, lambda body: WhenReleased(body, released))

    def release() -> None:
        for _ in range(150):
            if not refusals.acquire(timeout=30):
                break
        released.set()

    letting_go = threading.Thread(target=release)
    with order_of_scripts(house.gate.config.redis_url) as scripts, Watch(house.gate.config.redis_url) as watch:
        letting_go.start()
        answers = all_at_once(
            [lambda key=keys[n % len(keys)]: house.ask(key, **asked) for n in range(200)], refusals.release
        )
        letting_go.join()
        assert Count(answer.status for answer in answers) == {200: 50, 429: 150}
        events = house.assert_books_equal_counters(50)
    assert watch.over == []
    assert watch.samples > 5  # often enough, on a busy machine too
    assert max(watch.highest[scope] for scope in limits if scope[0] == tight) == 50 * hold
    replay = Replay(limits)
    replay.go(scripts)
    assert_each_verdict_is_the_replayed_one(house, replay, answers, events)


def test_a_thousand_mixed_calls_never_exceed_five_nested_budgets_and_none_is_refused_that_would_fit(
    house: House,
) -> None:
    chance = random.Random(7)
    limits = dict.fromkeys(SCOPES, 60000000)  # a call holds up to some 900,000 and costs a twentieth of it
    limits |= {
        ORGANISATION: 25_000_000, ("team", "team-a"): 9_000_000, ("team", "team-b"): 8_000_000, ("key", "key-2"): 2_500_000,
        ("member", "team-b:person-1"): 6_000_000, ("subscription", "subscription-small"): 20_000_000,
        ("user", "person-1"): 7_000_000,
    }  # fmt: skip
    for scope, limit in limits.items():
        house.limit(scope, limit)
    house.upstream.always(CHAT, lambda body: chat(body, delay_s=0.0005 * len(body["messages"][0]["content"]) % 0.02))

    def call() -> Callable[[], Answered]:
        key = chance.choice(list(KEYS))
        said = "word " * chance.randrange(1, 40)
        fields: dict[str, Any] = {"messages": [{"role": "user", "content": said}]}
        if chance.random() < 0.6:
            fields["max_tokens"] = chance.randrange(1, 400)
        if chance.random() < 0.3:
            fields["n"] = chance.randrange(1, 4)
        if chance.random() < 0.3:
            fields["stream"] = True
        return lambda: house.ask(key, **fields)

    calls = [call() for _ in range(1_000)]
    with (
        order_of_scripts(house.gate.config.redis_url) as scripts,
        Watch(house.gate.config.redis_url) as watch,
        ThreadPoolExecutor(48) as pool,
    ):
        answers = list(pool.map(lambda call: call(), calls))
        admitted = sum(answer.status == 200 for answer in answers)
        events = house.assert_books_equal_counters(admitted)
    assert watch.over == []
    assert watch.samples > 200
    assert 100 < admitted < 950, "both verdicts must be common, or the race shows nothing"
    replay = Replay(limits)
    replay.go(scripts)
    assert replay.settled == admitted
    assert_each_verdict_is_the_replayed_one(house, replay, answers, events)
    assert len({verdict.scope for verdict in replay.verdicts.values() if isinstance(verdict, Denied)}) >= 3


def test_what_is_booked_of_a_call_that_never_beat_bears_its_time_and_its_counters(house: House) -> None:
    """Its worker may die within the first five seconds; the reaper has nothing but what the reserve has kept."""
    released = threading.Event()
    house.upstream.always(CHAT, lambda body: WhenReleased(body, released))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(house.ask, "key-1", messages=[{"role": "user", "content": "one"}], max_tokens=5)
        try:
            until(lambda: house.gate.redis.zcard(store.LEASES))
            holds = house.gate.redis.zrange(store.LEASES, 0, -1)
            house.gate.redis.zadd(store.LEASES, {holds[0]: 1})
            run_id = house.gate.redis.info("server")["run_id"]
            assert Meter(house.gate.redis.execute_command, lambda: run_id).expire(holds[0].decode())
            event = house.gate.events(1)[0]
        finally:
            released.set()
        assert answer.result(30).status == 200
    assert abs(event.at_ms - clock.now_ms()) < 60_000
    assert [scope[:2] for scope in event.scopes] == chain("key-1")
    assert (event.outcome, event.status) != ("ok", 200)
