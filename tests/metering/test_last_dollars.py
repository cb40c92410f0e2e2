"""The end of a budget: agents that name no limit use nearly all of it before the first of them is refused, and never more.

Time is the simulation's own; the scripts are the real ones in a real Valkey.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

import pytest
import redis

from app import store
from app.metering import money
from app.metering.reservations import SHORTEST_ANSWER, Charge, Hold, Meter, Output, Refused
from app.metering.scopes import ScopeRef
from app.runtime.ids import new_id

CHAIN = (ScopeRef("key", "k", "k"), ScopeRef("user", "ada", "ada"))
BUDGET = 50 * 10**9  # nano-units
LONGEST = 16_000  # tokens
OUTPUTS = store.outputs("k", "m")
CHARGE = Charge(1_500_000, 40 * money.NANO, 1, None, LONGEST, True, 0, OUTPUTS)  # 0.0015 and 40 a million tokens
PROMPT_COST = 400_000  # nano-units, of the 1,500,000 that may be

Draw = Callable[[random.Random], float]
LENGTHS: dict[str, Draw] = {
    "constant": lambda chance: 1000,
    "heavy tail": lambda chance: 400 * chance.paretovariate(1.5),
    "bimodal": lambda chance: 300 if chance.random() < 0.8 else 4000,
    "exponential": lambda chance: chance.expovariate(1 / 1000),
}


class Agents:
    """So many agents, each of which makes its next call once the last one has ended."""

    def __init__(self, url: str, count: int, draw: Draw, seed: int, charge: Charge = CHARGE) -> None:
        self.redis = redis.Redis.from_url(url)
        self.redis.flushall()
        run_id = self.redis.info("server")["run_id"]
        self.redis.hset(store.METER, mapping={"epoch": 1, "run_id": run_id})
        self.redis.hset(store.scope("user", "ada"), "limit", BUDGET)
        self.meter = Meter(self.redis.execute_command, lambda: run_id)
        self.chance, self.draw, self.charge = random.Random(seed), draw, charge
        self.spent = self.held = self.calls = self.cut = 0
        self.under_way: list[tuple[float, int, Hold | None, int, int]] = []
        for number in range(count):
            heapq.heappush(self.under_way, (self.chance.random(), number, None, 0, 0))

    def run_until_refused(self) -> Refused:
        while True:
            at, number, hold, length, cost = heapq.heappop(self.under_way)
            if hold is not None:
                self.settle(hold, length, cost)
                heapq.heappush(self.under_way, (at + self.chance.random() * 500, number, None, 0, 0))
                continue
            try:
                hold = self.meter.reserve(new_id(), CHAIN, self.charge, b"{}")
            except Refused as refused:
                return refused
            self.calls += 1
            self.held += hold.amount_nano
            assert hold.amount_nano == self.charge.amount(hold.output_limit)  # what is held is what is sent
            assert hold.output_limit >= SHORTEST_ANSWER
            assert self.spent + self.held <= BUDGET
            wanted = max(1, min(LONGEST, round(self.draw(self.chance))))
            length = min(wanted, hold.output_limit)
            self.cut += length < wanted
            cost = PROMPT_COST + money.half_up(length * self.charge.output_price, money.MTOK)
            ends = at + 100 + length * (0.5 + self.chance.random())
            heapq.heappush(self.under_way, (ends, number, hold, length, cost))

    def settle(self, hold: Hold, length: int, cost: int) -> None:
        self.held -= hold.amount_nano
        self.spent += cost
        if length >= hold.output_limit:  # as `Call.output` tells it
            length = min(2 * length, LONGEST)
        assert self.meter.settle(hold, cost, 0, b"{}", None, Output(OUTPUTS, length))

    def end(self) -> None:
        for _, _, hold, length, cost in self.under_way:
            if hold is not None:
                self.settle(hold, length, cost)
        counted = self.redis.hmget(store.spent("user", "ada", "total"), "spent", "held")
        assert [int(number or 0) for number in counted] == [self.spent, self.held] and self.held == 0


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("lengths", LENGTHS)
def test_20_agents_without_a_limit_use_98_percent_of_50_dollars_before_the_first_refusal(
    redis_url: str, lengths: str, seed: int
) -> None:
    agents = Agents(redis_url, 20, LENGTHS[lengths], seed)
    refused = agents.run_until_refused()
    assert refused.limit - refused.spent - refused.held < agents.charge.amount(SHORTEST_ANSWER)
    at_refusal = agents.spent
    agents.end()
    print(lengths, seed, "calls", agents.calls, "cut", agents.cut, at_refusal / BUDGET, agents.spent / BUDGET)
    assert 0.98 * BUDGET <= agents.spent <= BUDGET
    assert at_refusal >= 0.97 * BUDGET
    assert agents.cut < 0.06 * agents.calls


def test_agents_start_at_once_although_one_default_is_most_of_the_budget(redis_url: str) -> None:
    """Nothing is known of the model's answers yet, and five whole defaults would take it all."""
    charge = CHARGE._replace(assumed_output=250_000)
    agents = Agents(redis_url, 20, LENGTHS["bimodal"], 1, charge)
    agents.run_until_refused()
    agents.end()
    assert 0.98 * BUDGET <= agents.spent <= BUDGET
