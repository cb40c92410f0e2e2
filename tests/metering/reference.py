"""The meter in plain Python, as the documentation tells it: dictionaries, whole numbers, fractions, nothing else.

It says what must be answered and counted; `test_model.py` and `test_races.py` hold the real meter against it. Where
the real one keeps keys, scripts and leases in Redis, this one keeps what they mean.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, floor
from typing import NamedTuple

from app.metering.periods import ALL_TIME, FOR_EVER_MS, window_of

MTOK = 1_000_000
MINUTE_MS = 60_000
LEASE_MS = 20_000
MOST_AHEAD_MS = 5_000  # of the server's time
LEAST_OUTPUT = 16  # tokens; a shorter answer helps nobody
UNKNOWN_OUTPUT = 4096
OUTPUTS = 64  # that are remembered of each caller
MOST_BESIDE = 20  # calls under way for which room is left

Scope = tuple[str, str]  # kind, id
Counter = tuple[str, str, str]  # kind, id, period name


class Asked(NamedTuple):
    """What a call may use and what it costs; `limit` is its own output limit, None for none."""

    base: int
    price: int  # nano-units a million tokens of output
    answers: int
    limit: int | None
    usual: int  # output limit to assume without one
    priced: bool
    bucket: int  # tokens to take from a minute's allowance

    def amount(self, output: int) -> int:
        """The most it can cost with answers of `output` tokens."""
        return self.base + ceil(Fraction(output * self.answers * self.price, MTOK))

    def affords(self, money: int) -> int:
        """The longest answer that `money` pays for, tokens; 0 where the price or the money says nothing."""
        if self.price == 0 or money < self.base:
            return 0
        return floor(Fraction((money - self.base) * MTOK, self.price * self.answers))


class Granted(NamedTuple):
    at_ms: int
    amount: int
    output: int
    bounded: bool
    requests: tuple[int, int]  # limit and what is left of it in the scope that has the least left; -1 for none
    tokens: tuple[int, int]


class Denied(NamedTuple):
    """`limit` is requests, tokens, parallel requests or nano-units, as the reason says."""

    reason: str
    scope: Scope
    limit: int = 0
    retry_ms: int = 0
    spent: int = 0
    held: int = 0
    amount: int = 0
    affordable: int = 0
    resets_ms: int | None = None


@dataclass
class Limits:
    limit: int | None = None
    spec: str = ALL_TIME
    rpm: int | None = None
    tpm: int | None = None
    parallel: int | None = None


@dataclass
class Bucket:
    """What a minute's allowance held when it was last taken from."""

    left: Fraction
    since_ms: int

    def level(self, capacity: int, now_ms: int) -> Fraction:
        if self.since_ms > now_ms:  # of a time that was wrong
            return Fraction(capacity)
        return min(Fraction(capacity), self.left + Fraction((now_ms - self.since_ms) * capacity, MINUTE_MS))


@dataclass
class Held:
    granted: Granted
    counters: tuple[Counter, ...]
    taken: tuple[int | None, ...]  # tokens taken from each scope's minute
    slots: tuple[Scope, ...]
    lease_ms: int
    cost: int = 0
    tokens: int = 0


class Booked(NamedTuple):
    """A usage event."""

    request_id: str
    cost: int
    counters: tuple[Counter, ...]


@dataclass
class ReferenceMeter:
    server_ms: int
    clock_ms: int | None = None  # the meter's, as far as it has noted one
    patient_ms: int = 0  # no lease is over before
    stepped_ms: int | None = None  # how far the server's time went back when it last did
    open: bool = True
    limits: dict[Scope, Limits] = field(default_factory=lambda: defaultdict(Limits))
    spent: dict[Counter, int] = field(default_factory=lambda: defaultdict(int))
    held: dict[Counter, int] = field(default_factory=lambda: defaultdict(int))
    requests: dict[Scope, Bucket] = field(default_factory=dict)
    tokens: dict[Scope, Bucket] = field(default_factory=dict)
    holds: dict[str, Held] = field(default_factory=dict)
    done: dict[str, Booked] = field(default_factory=dict)
    reaped: set[str] = field(default_factory=set)
    outputs: dict[Scope, list[int]] = field(default_factory=lambda: defaultdict(list))  # of callers, the last one last
    slots: dict[Scope, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))  # when each ends

    @property
    def now_ms(self) -> int:
        return self.server_ms if self.clock_ms is None else self.clock_ms

    def look(self) -> None:
        """Whoever asks the meter something looks at the server's time first."""
        now_ms = self.now_ms
        if now_ms > self.server_ms + MOST_AHEAD_MS:
            self.stepped_ms, self.patient_ms = self.server_ms - now_ms, 0
            self.clock_ms = self.server_ms
            return
        if self.server_ms - now_ms > LEASE_MS * 3 // 4:
            self.patient_ms = self.server_ms + LEASE_MS
        self.clock_ms = max(now_ms, self.server_ms)

    def counter(self, scope: Scope) -> Counter:
        """The counter a call admitted now would be charged to."""
        return (*scope, window_of(self.limits[scope].spec, self.now_ms).name)

    def left(self, scope: Scope) -> int | None:
        """What the scope's budget can still pay for; None without one."""
        limit, counter = self.limits[scope].limit, self.counter(scope)
        return None if limit is None else limit - self.spent[counter] - self.held[counter]

    def busy(self, scope: Scope) -> int:
        """How many calls occupy a slot of the scope."""
        return sum(1 for ends_ms in self.slots[scope].values() if 0 < ends_ms - self.now_ms <= LEASE_MS)

    def reserve(self, request_id: str, chain: tuple[Scope, ...], asked: Asked) -> Granted | Denied | None:
        """None while the meter is closed, and for a request that has ended."""
        if not self.open:
            return None
        self.look()
        if request_id in self.done:
            return None
        if request_id in self.holds:
            return self.holds[request_id].granted
        return self._rates(chain, asked) or self._money(chain, asked) or self._grant(request_id, chain, asked)

    def _rates(self, chain: tuple[Scope, ...], asked: Asked) -> Denied | None:
        for scope in chain:
            told = self.limits[scope]
            if told.rpm is not None and (level := self._requests(scope)) < 1:
                return Denied("requests", scope, told.rpm, ceil((1 - level) * MINUTE_MS / told.rpm))
            if told.tpm is not None:
                # What is larger than a minute's allowance waits for a full bucket.
                take, level = min(asked.bucket, told.tpm), self._tokens(scope)
                if level < take:
                    return Denied("tokens", scope, told.tpm, ceil((take - level) * MINUTE_MS / told.tpm))
            if told.parallel is not None:
                ended = [id for id, ends_ms in self.slots[scope].items() if ends_ms <= self.now_ms]
                for id in ended:
                    del self.slots[scope][id]
                if self.busy(scope) >= told.parallel:
                    return Denied("parallel", scope, told.parallel, 1000)
        return None

    def _tightest(self, chain: tuple[Scope, ...]) -> tuple[Scope, int] | None:
        left = [(scope, left) for scope in chain if (left := self.left(scope)) is not None]
        return min(left, key=lambda pair: pair[1]) if left else None  # of equals the innermost

    def output(self, chain: tuple[Scope, ...], asked: Asked) -> int:
        """The output limit the call would get: its own, or the usual one while there is room for it and for calls beside
        it, or else what nearly all of its caller's recent answers took, as far as the money goes."""
        tightest = self._tightest(chain)
        if asked.limit is not None or tightest is None or asked.price == 0:
            return asked.usual if asked.limit is None else asked.limit
        scope, left = tightest
        high = min(self.high_output(chain[0]), asked.usual)
        held = self.held[self.counter(scope)]
        beside = next((count for count in range(MOST_BESIDE) if count * asked.amount(high) >= held), MOST_BESIDE)
        fits = asked.affords(left)
        if asked.amount(asked.usual) + beside * asked.amount(high) <= left or fits < LEAST_OUTPUT:
            return asked.usual
        share = asked.affords(left // (beside + 1))
        return min(asked.usual, fits, max(LEAST_OUTPUT, min(high, share)))

    def high_output(self, caller: Scope) -> int:
        """A quarter more than the longest of the caller's last outputs, a twentieth of them apart."""
        known = sorted(self.outputs[caller][-OUTPUTS:])
        if not known:
            return UNKNOWN_OUTPUT
        return max(LEAST_OUTPUT, ceil(known[ceil(Fraction(95 * len(known), 100)) - 1] * Fraction(5, 4)))

    def _money(self, chain: tuple[Scope, ...], asked: Asked) -> Denied | None:
        tightest = self._tightest(chain)
        if tightest is None:
            return None
        scope, left = tightest
        if not asked.priced:
            return Denied("unpriced", scope)
        amount = asked.amount(self.output(chain, asked))
        if amount == 0 or amount <= left:
            return None
        counter, told = self.counter(scope), self.limits[scope]
        ends_ms = window_of(told.spec, self.now_ms).end_ms
        return Denied(
            "budget", scope, told.limit or 0, 0, self.spent[counter], self.held[counter], amount, asked.affords(left),
            ends_ms if ends_ms < FOR_EVER_MS else None,
        )  # fmt: skip

    def _grant(self, request_id: str, chain: tuple[Scope, ...], asked: Asked) -> Granted:
        output = self.output(chain, asked)
        amount = asked.amount(output)
        bounded = self._tightest(chain) is not None
        counters = tuple(self.counter(scope) for scope in chain)
        requests: list[tuple[Fraction, int]] = []
        tokens: list[tuple[Fraction, int]] = []
        taken: list[int | None] = []
        slots = []
        for scope, counter in zip(chain, counters, strict=True):
            told = self.limits[scope]
            self.held[counter] += amount
            if told.rpm is not None:
                self.requests[scope] = Bucket(self._requests(scope) - 1, self.now_ms)
                requests.append((self.requests[scope].left, told.rpm))
            taken.append(None)
            if told.tpm is not None:
                taken[-1] = min(asked.bucket, told.tpm)
                self.tokens[scope] = Bucket(self._tokens(scope) - taken[-1], self.now_ms)
                tokens.append((self.tokens[scope].left, told.tpm))
            if told.parallel is not None:
                slots.append(scope)
        granted = Granted(self.now_ms, amount, output, bounded, _least(requests), _least(tokens))
        self.holds[request_id] = Held(granted, counters, tuple(taken), tuple(slots), 0)
        self._lease(request_id)
        return granted

    def _lease(self, request_id: str) -> None:
        hold = self.holds[request_id]
        hold.lease_ms = self.now_ms + LEASE_MS
        for scope in hold.slots:
            self.slots[scope][request_id] = hold.lease_ms

    def beat(self, request_id: str, cost: int, tokens: int) -> bool:
        """False when the call must stop. While the meter is closed nothing is known, so the call goes on."""
        if not self.open:
            return True
        if request_id not in self.holds:
            return False
        self.look()
        hold = self.holds[request_id]
        hold.cost, hold.tokens = cost, tokens
        self._lease(request_id)
        return True

    def settle(self, request_id: str, cost: int, tokens: int, output: int | None = None) -> bool | None:
        """Whether it was this call that settled; None while the meter is closed. `output` is to be remembered of its caller."""
        if not self.open:
            return None
        if request_id in self.done:
            return False
        hold = self.holds.pop(request_id)
        for counter, taken in zip(hold.counters, hold.taken, strict=True):
            self.held[counter] -= hold.granted.amount
            self.spent[counter] += cost
            self.slots[counter[:2]].pop(request_id, None)
            if taken is not None:  # the estimate comes back, what was really used goes
                self.tokens[counter[:2]].left += taken - tokens
        if output is not None:
            self.outputs[hold.counters[0][:2]].append(output)
        self.done[request_id] = Booked(request_id, cost, hold.counters)
        return True

    def expire(self, request_id: str) -> bool | None:
        """The reaper: a hold whose lease has ended is settled at the progress of its last beat."""
        if not self.open:
            return None
        hold = self.holds.get(request_id)
        if hold is None:
            return False
        self.look()
        if hold.lease_ms > self.now_ms or self.patient_ms > self.now_ms:
            return False
        self.reaped.add(request_id)
        return self.settle(request_id, hold.cost, hold.tokens)

    def overdue(self) -> list[str]:
        """Whose lease has ended. One that ends later than is possible was given while the time was wrong."""
        self.look()
        for hold in self.holds.values():
            hold.lease_ms = min(hold.lease_ms, self.now_ms + LEASE_MS)
        return sorted(id for id, hold in self.holds.items() if hold.lease_ms <= self.now_ms)

    def lose(self) -> None:
        """Redis was flushed."""
        self.open, self.clock_ms, self.patient_ms = False, None, 0
        self.outputs.clear()

    def recount(self, alive: set[str]) -> None:
        """Redis was lost: what was spent is in the books, what is held is what workers that live put back.

        Buckets are full again, for rates may err in the client's favour; slots stay with the calls that go on.
        """
        self.holds = {id: hold for id, hold in self.holds.items() if id in alive}
        self.held.clear()
        self.spent.clear()
        self.requests.clear()
        self.tokens.clear()
        self.slots.clear()
        self.patient_ms = 0
        for id, hold in self.holds.items():
            self.look()
            hold.taken = tuple(None for _ in hold.counters)
            self._lease(id)
            for counter in hold.counters:
                self.held[counter] += hold.granted.amount
        for booked in self.done.values():
            for counter in booked.counters:
                self.spent[counter] += booked.cost
        self.open = True

    def _requests(self, scope: Scope) -> Fraction:
        return _level(self.requests.get(scope), self.limits[scope].rpm, self.now_ms)

    def _tokens(self, scope: Scope) -> Fraction:
        return _level(self.tokens.get(scope), self.limits[scope].tpm, self.now_ms)


def _level(bucket: Bucket | None, capacity: int | None, now_ms: int) -> Fraction:
    """How full a minute's allowance is: it starts full."""
    assert capacity is not None
    return Fraction(capacity) if bucket is None else bucket.level(capacity, now_ms)


def _least(levels: list[tuple[Fraction, int]]) -> tuple[int, int]:
    """Limit and rest of the scope with the least left."""
    if not levels:
        return -1, -1
    left, limit = min(levels, key=lambda pair: pair[0])
    return limit, floor(left)
