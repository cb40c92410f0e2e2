"""The meter against a real Valkey: all or nothing, once, in every scope of the chain."""

from __future__ import annotations

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app import clock, store
from app.metering.periods import window_of
from app.metering.pricing import DEFAULT_OUTPUT_TOKENS
from app.metering.reservations import (
    LEASE_MS,
    NO_QUERY,
    ORIGIN_S,
    OUTPUTS,
    OUTPUTS_S,
    Charge,
    Meter,
    MeterClosed,
    Origin,
    Output,
    Refused,
    RouteQuery,
    output_for,
    usual_output,
)
from app.metering.scopes import ScopeRef
from app.metering.usage import UsageEvent
from app.runtime.ids import new_id
from tests.examples import examples

CHAIN = tuple(
    ScopeRef(kind, id, id)
    for kind, id in (("key", "k"), ("subscription", "s"), ("member", "t:p"), ("team", "t"), ("organisation", "default"))
)

RECENT = store.outputs("k", "m")


class Bench:
    """A meter, the Redis it stands on, and short ways to ask both."""

    def __init__(self, url: str) -> None:
        self.redis = redis.Redis.from_url(url)
        self.run_id = self.redis.info("server")["run_id"]
        self.meter = Meter(self.redis.execute_command, lambda: self.run_id)
        self.begin()

    def begin(self) -> None:
        self.redis.flushall()
        self.redis.hset(store.METER, mapping={"epoch": 1, "run_id": self.run_id})

    def limit(self, kind: str, id: str, **fields) -> None:
        self.redis.hset(store.scope(kind, id), mapping=fields)

    def reserve(
        self,
        id=None,
        *,
        base=0,
        price=0,
        output=0,
        assumed=0,
        answers=1,
        priced=True,
        tokens=0,
        chain=CHAIN,
        query=NO_QUERY,
    ):
        charge = Charge(base, price, answers, output, assumed, priced, tokens, RECENT)
        return self.meter.reserve(id or new_id(), chain, charge, event("r", 0), query)

    def counted(self, kind: str, id: str, spec: str = "total|UTC") -> tuple[int, int]:
        window = window_of(spec, clock.now_ms())
        spent, held = self.redis.hmget(store.spent(kind, id, window.name), "spent", "held")
        return int(spent or 0), int(held or 0)

    def settle(self, hold, cost: int, tokens: int = 0, output: int | None = None) -> bool:
        learnt = None if output is None else Output(RECENT, output)
        return self.meter.settle(hold, cost, tokens, event(hold.request_id, cost), None, learnt)


def event(request_id: str, cost: int) -> bytes:
    return msgspec.json.encode(
        UsageEvent(
            request_id=request_id, attempt=1, at_ms=1, person_id="p", model="m", endpoint="/v1/chat/completions",
            api_type="chat", outcome="ok", status=200, cost_nano=cost,
            scopes=tuple((scope.kind, scope.id, "total") for scope in CHAIN),
        )
    )  # fmt: skip


@pytest.fixture
def bench(redis_url):
    return Bench(redis_url)


def test_a_hold_is_counted_in_every_scope_and_settled_once(bench):
    hold = bench.reserve(base=100)
    assert [bench.counted(scope.kind, scope.id) for scope in CHAIN] == [(0, 100)] * 5
    assert bench.settle(hold, 60)
    assert not bench.settle(hold, 60)
    assert [bench.counted(scope.kind, scope.id) for scope in CHAIN] == [(60, 0)] * 5
    assert bench.redis.xlen(store.USAGE) == 1
    assert bench.redis.zcard(store.LEASES) == 0


@pytest.mark.parametrize("tight", range(5))
def test_a_refusal_names_the_tightest_scope_and_takes_nothing(bench, tight):
    for index, scope in enumerate(CHAIN):
        bench.limit(scope.kind, scope.id, limit=50 if index == tight else 1000, rpm=10, tpm=1000)
    with pytest.raises(Refused) as refused:
        bench.reserve(base=51, tokens=5)
    assert (refused.value.reason, refused.value.scope) == ("budget", CHAIN[tight])
    assert (refused.value.limit, refused.value.amount) == (50, 51)
    assert [bench.counted(scope.kind, scope.id) for scope in CHAIN] == [(0, 0)] * 5
    assert bench.reserve(base=50, tokens=5).requests_left == 9


def test_a_request_is_refused_only_while_what_is_left_is_less_than_its_hold(bench):
    bench.limit("key", "k", limit=100)
    first = bench.reserve(base=60)
    with pytest.raises(Refused):
        bench.reserve(base=41)
    bench.reserve(base=40)
    bench.settle(first, 10)
    bench.reserve(base=50)
    assert bench.counted("key", "k") == (10, 90)


def test_a_repeated_reserve_counts_once(bench):
    bench.limit("key", "k", limit=100)
    first = bench.reserve("same", base=60)
    again = bench.reserve("same", base=60)
    assert (again.at_ms, again.amount_nano) == (first.at_ms, first.amount_nano)
    assert bench.counted("key", "k") == (0, 60)


def test_a_limit_raised_acts_at_once_and_one_lowered_stops_new_requests_only(bench):
    bench.limit("team", "t", limit=10)
    with pytest.raises(Refused):
        bench.reserve(base=20)
    bench.limit("team", "t", limit=30)
    hold = bench.reserve(base=20)
    bench.limit("team", "t", limit=5)
    with pytest.raises(Refused):
        bench.reserve(base=1)
    assert bench.settle(hold, 20)
    assert bench.counted("team", "t") == (20, 0)


def test_a_changed_period_is_followed_by_a_meter_that_knew_the_old_one(bench):
    bench.reserve(base=1)
    bench.limit("key", "k", spec="day|Asia/Tokyo", limit=10)
    hold = bench.reserve(base=2)
    assert hold.windows[0] == window_of("day|Asia/Tokyo", hold.at_ms)
    assert bench.counted("key", "k", "day|Asia/Tokyo") == (0, 2)
    assert bench.counted("key", "k") == (0, 1)


def test_a_request_that_names_no_limit_gets_what_the_tightest_budget_affords(bench):
    bench.limit("organisation", "default", limit=1000)
    hold = bench.reserve(base=100, price=10_000_000, output=None, assumed=4096)  # 10 nano a token
    assert (hold.output_limit, hold.amount_nano, hold.bounded) == (90, 1000, True)
    with pytest.raises(Refused):
        bench.reserve(base=0, price=10_000_000, output=None, assumed=4096)


UNNAMED = {"price": 10_000_000, "output": None, "assumed": 4000}  # 10 nano-units a token


def test_a_default_is_held_whole_while_it_fits_and_near_the_end_what_recent_answers_took(bench):
    bench.redis.rpush(RECENT, *range(1, 101))
    for left, output in ((40_000, 4000), (39_999, 119), (1_190, 119), (1_189, 118), (160, 16)):
        bench.limit("key", "k", limit=left)
        hold = bench.reserve(**UNNAMED)
        assert (hold.output_limit, hold.amount_nano) == (output, output * 10)
        bench.settle(hold, 0)


def test_beside_calls_under_way_a_default_is_held_only_if_it_leaves_something_for_others(bench):
    bench.redis.rpush(RECENT, 80)  # so that a usual answer may cost 1,000
    bench.limit("key", "k", limit=100_000)
    others = [bench.reserve(base=1_000) for _ in range(3)]
    bench.limit("key", "k", limit=3_000 + 40_000 + 3_000)
    hold = bench.reserve(**UNNAMED)
    assert hold.output_limit == 4000
    bench.settle(hold, 1)
    hold = bench.reserve(**UNNAMED)
    assert hold.output_limit == 100
    bench.settle(hold, 39_000)
    assert [bench.reserve(**UNNAMED).output_limit for _ in range(4)] == [99, 60, 40, 33]  # a fair share
    for other in others:
        bench.settle(other, 0)


def test_a_limit_of_the_clients_own_is_held_as_it_is_however_little_is_left(bench):
    bench.redis.rpush(RECENT, 20)
    bench.limit("key", "k", limit=10_000)
    with pytest.raises(Refused) as refused:
        bench.reserve(price=10_000_000, output=1001, assumed=4000)
    assert refused.value.affordable_tokens == 1000
    assert bench.reserve(price=10_000_000, output=1000, assumed=4000).output_limit == 1000


def test_the_last_outputs_are_remembered_for_a_week_and_no_more_than_64_of_them(bench):
    bench.settle(bench.reserve(), 0)
    assert not bench.redis.exists(RECENT)
    for output in range(100):
        bench.settle(bench.reserve(), 0, output=output)
    assert bench.meter.outputs(RECENT) == list(range(99, 35, -1)) and len(bench.meter.outputs(RECENT)) == OUTPUTS
    assert OUTPUTS_S - 60 < bench.redis.ttl(RECENT) <= OUTPUTS_S
    assert bench.redis.memory_usage(RECENT) < 600  # bytes


def test_what_is_no_list_of_outputs_keeps_no_call_from_being_settled(bench):
    bench.redis.set(RECENT, "no list")
    assert bench.settle(bench.reserve(base=100), 60, output=5)
    assert [bench.counted(scope.kind, scope.id) for scope in CHAIN] == [(60, 0)] * 5


@settings(deadline=None, max_examples=examples(80), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    base=st.integers(0, 10**6), price=st.integers(0, 10**11), answers=st.integers(1, 4), assumed=st.integers(0, 130_000),
    left=st.integers(0, 10**10), held=st.integers(0, 10**10), outputs=st.lists(st.integers(0, 200_000), max_size=70),
)  # fmt: skip
def test_an_estimate_works_out_what_a_reserve_holds_and_no_call_is_refused_that_a_short_answer_would_fit(
    bench, base, price, answers, assumed, left, held, outputs
):
    bench.begin()
    if outputs:
        bench.redis.rpush(RECENT, *outputs)
    bench.redis.hset(store.spent("key", "k", "total"), "held", held)
    bench.limit("key", "k", limit=left + held)
    charge = Charge(base, price, answers, None, assumed, True, 0)
    output = output_for(charge, left, held, usual_output(outputs))
    ask = {"base": base, "price": price, "answers": answers, "output": None, "assumed": assumed}
    if charge.amount(min(assumed, 16)) > left:
        with pytest.raises(Refused) as refused:
            bench.reserve(**ask)
        assert refused.value.amount == charge.amount(output)
    else:
        hold = bench.reserve(**ask)
        assert (hold.output_limit, hold.amount_nano) == (output, charge.amount(output))
        assert hold.amount_nano <= left and hold.output_limit >= min(assumed, 16)


def test_fewer_than_16_affordable_tokens_are_refused_and_the_number_is_told(bench):
    bench.limit("key", "k", limit=159)
    with pytest.raises(Refused) as refused:
        bench.reserve(price=10_000_000, output=None, assumed=4096)
    assert refused.value.affordable_tokens == 15
    assert bench.reserve(price=10_000_000, output=15).amount_nano == 150


def test_a_model_without_a_price_is_refused_only_where_a_budget_applies(bench):
    bench.settle(bench.reserve(priced=False), 0)
    bench.limit("user", "other", limit=5)
    bench.limit("team", "t", limit=5)
    with pytest.raises(Refused) as refused:
        bench.reserve(priced=False)
    assert (refused.value.reason, refused.value.scope.kind) == ("unpriced", "team")


def test_an_explicitly_free_model_works_when_the_budget_is_spent(bench):
    bench.limit("key", "k", limit=10)
    bench.settle(bench.reserve(base=10), 10)
    with pytest.raises(Refused):
        bench.reserve(base=1)
    assert bench.reserve(base=0, price=0, output=100).amount_nano == 0


def test_requests_a_minute_start_full_and_tell_when_to_come_back(bench):
    bench.limit("key", "k", rpm=2)
    assert [bench.reserve().requests_left for _ in range(2)] == [1, 0]
    with pytest.raises(Refused) as refused:
        bench.reserve()
    assert refused.value.reason == "requests"
    assert 25_000 < refused.value.retry_ms <= 30_000


def test_estimated_tokens_are_taken_and_the_difference_comes_back(bench):
    bench.limit("key", "k", tpm=100)
    hold = bench.reserve(tokens=90)
    with pytest.raises(Refused) as refused:
        bench.reserve(tokens=50)
    assert refused.value.reason == "tokens"
    bench.settle(hold, 0, tokens=10)
    assert bench.reserve(tokens=90).tokens_left <= 1


def test_a_request_larger_than_a_minutes_tokens_waits_for_a_full_bucket_only(bench):
    bench.limit("key", "k", tpm=100)
    hold = bench.reserve(tokens=5000)
    bench.settle(hold, 0, tokens=5000)
    with pytest.raises(Refused) as refused:
        bench.reserve(tokens=1)
    assert refused.value.retry_ms > 2_000_000  # what was really used has to come back first


def test_parallel_requests_are_leased_slots(bench):
    bench.limit("key", "k", parallel=1)
    hold = bench.reserve()
    with pytest.raises(Refused) as refused:
        bench.reserve()
    assert refused.value.reason == "parallel"
    bench.settle(hold, 0)
    bench.reserve("stuck")
    bench.redis.zadd(store.slots("key", "k"), {"stuck": 1})  # its lease has ended
    bench.reserve()


def test_a_beat_keeps_a_hold_alive_and_tells_when_it_is_gone(bench):
    hold = bench.reserve(base=5)
    bench.redis.zadd(store.LEASES, {hold.request_id: 1})
    assert bench.meter.beat(hold, 3, event(hold.request_id, 3))
    assert bench.redis.zscore(store.LEASES, hold.request_id) > clock.now_ms() + LEASE_MS - 5_000
    assert not bench.meter.expire(hold.request_id)
    bench.settle(hold, 4)
    assert not bench.meter.beat(hold, 3, event(hold.request_id, 3))


def test_an_ended_lease_is_settled_at_its_progress(bench):
    hold = bench.reserve(base=50)
    assert bench.meter.beat(hold, 30, event(hold.request_id, 30))
    bench.redis.zadd(store.LEASES, {hold.request_id: 1})
    assert bench.meter.expire(hold.request_id)
    assert not bench.meter.expire(hold.request_id)
    assert bench.counted("key", "k") == (30, 0)
    assert bench.redis.xlen(store.USAGE) == 1


def test_a_replayed_spool_line_settles_a_hold_that_nobody_settled(bench):
    hold = bench.reserve(base=50)
    told = msgspec.json.decode(event(hold.request_id, 20), type=UsageEvent)
    assert bench.meter.settle_event(told)
    assert not bench.meter.settle_event(told)
    assert [bench.counted(scope.kind, scope.id) for scope in CHAIN] == [(20, 0)] * 5


def test_without_an_epoch_or_after_a_restart_nothing_is_let_in(bench):
    bench.redis.hset(store.METER, "run_id", "another")
    with pytest.raises(MeterClosed):
        bench.reserve(base=1)
    bench.redis.delete(store.METER)
    with pytest.raises(MeterClosed):
        bench.reserve(base=1)
    assert bench.counted("key", "k") == (0, 0)


def test_the_clock_does_not_go_back_by_a_correction(bench):
    ahead = clock.now_ms() + 4_000
    bench.redis.hset(store.METER, "clock", ahead)
    assert bench.reserve().at_ms == ahead


@settings(deadline=None, max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    price=st.integers(1, 10**12), answers=st.integers(1, 8), base=st.integers(0, 10**9), limit=st.integers(0, 10**13)
)
@example(price=2, answers=6, base=0, limit=1)  # near the end
def test_an_affordable_answer_never_costs_more_than_is_left(bench, price, answers, base, limit):
    bench.begin()
    bench.limit("key", "k", limit=limit)
    exact = max((limit - base) * 1_000_000 // (price * answers), 0) if base <= limit else 0
    ask = {"base": base, "price": price, "output": None, "assumed": 100_000, "answers": answers}
    if exact < 16:
        with pytest.raises(Refused) as refused:
            bench.reserve(**ask)
        assert refused.value.affordable_tokens == exact
    else:
        hold = bench.reserve(**ask)
        assert hold.output_limit == (100_000 if exact >= 100_000 else min(exact, DEFAULT_OUTPUT_TOKENS))
        assert hold.amount_nano == base + -(-hold.output_limit * answers * price // 1_000_000) <= limit


def test_a_settle_after_the_reaper_learns_what_was_charged_and_charges_the_rest_once(bench):
    hold = bench.reserve(base=50)
    assert bench.meter.beat(hold, 30, event(hold.request_id, 30))
    bench.redis.zadd(store.LEASES, {hold.request_id: 1})
    assert bench.meter.expire(hold.request_id)
    settlement = bench.meter.settle(hold, 70, 0, event(hold.request_id, 70))
    assert not settlement
    assert settlement.reaped.cost_nano == 30
    late = msgspec.structs.replace(
        msgspec.json.decode(event(hold.request_id, 40), type=UsageEvent), kind="late", overdraft_nano=40
    )
    assert bench.meter.settle_late(hold, late)
    assert not bench.meter.settle_late(hold, late)
    assert [bench.counted(scope.kind, scope.id) for scope in CHAIN] == [(70, 0)] * 5
    assert bench.redis.xlen(store.USAGE) == 2


NUMBERS = st.sampled_from((0, 1, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64)) | st.integers(-(2**70), 2**70)
# What a counter may say that can't take any part of a cost.
BROKEN = st.sampled_from((b"9223372036854775807", b"-9223372036854775808", b"abc", b"1.5", b"nan", b""))
MOST = 2**53 - 1


def exact(number: int) -> int:
    return max(-MOST, min(number, MOST))


@settings(deadline=None, max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cost=NUMBERS, tokens=NUMBERS, broken=st.none() | st.tuples(st.integers(0, 4), BROKEN), way=st.integers(0, 2))
def test_no_number_makes_a_settle_fail_half_way(bench, cost, tokens, broken, way):
    bench.begin()
    for scope in CHAIN:
        bench.limit(scope.kind, scope.id, tpm=1000, parallel=2)
    hold = bench.reserve("r", base=100, tokens=50)
    if broken is not None:
        scope = CHAIN[broken[0]]
        bench.redis.hset(store.spent(scope.kind, scope.id, "total"), "spent", broken[1])
        bench.redis.hset(store.scope(scope.kind, scope.id), "tokens", broken[1])
    if way == 0:
        assert bench.settle(hold, cost, tokens)
    elif way == 1:
        bench.meter.beat(hold, cost, event("r", 0))
        bench.redis.zadd(store.LEASES, {"r": 1})
        assert bench.meter.expire("r")
    else:
        told = msgspec.structs.replace(
            msgspec.json.decode(event("r", 0), type=UsageEvent), cost_nano=cost, prompt_tokens=tokens
        )
        assert bench.meter.settle_event(told)
    assert bench.redis.xlen(store.USAGE) == 1
    assert bench.redis.zcard(store.LEASES) == 0 and not bench.redis.exists(store.hold("r"))
    for index, scope in enumerate(CHAIN):
        assert bench.redis.zcard(store.slots(scope.kind, scope.id)) == 0
        spent, held = bench.redis.hmget(store.spent(scope.kind, scope.id, "total"), "spent", "held")
        assert held == b"0"
        if broken is None or index != broken[0]:
            assert int(spent or 0) == exact(cost)
    assert not bench.settle(hold, cost, tokens)  # nothing is repeated
    assert bench.redis.xlen(store.USAGE) == 1


@pytest.mark.parametrize("key", [store.scope("team", "t"), store.spent("team", "t", "total"), store.slots("team", "t")])
def test_a_counter_that_is_none_keeps_no_other_from_being_counted(bench, key):
    hold = bench.reserve("r", base=100)
    bench.redis.set(key, "no counter")
    settlement = bench.meter.settle(hold, 60, 5, event("r", 60))
    assert settlement.applied and settlement.counted == (key != store.spent("team", "t", "total"))
    assert [bench.counted(scope.kind, scope.id) for scope in CHAIN if scope.kind != "team"] == [(60, 0)] * 4


@settings(deadline=None, max_examples=examples(80), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    base=NUMBERS, price=NUMBERS, output=st.none() | NUMBERS, assumed=NUMBERS, tokens=NUMBERS, limited=st.booleans(),
    broken=st.none() | st.integers(0, 4),
)  # fmt: skip
def test_no_number_makes_a_reserve_fail_half_way(bench, base, price, output, assumed, tokens, limited, broken):
    bench.begin()
    if limited:
        bench.limit("organisation", "default", limit=10**15, tpm=1000)
    if broken is not None:
        bench.redis.hset(store.spent(CHAIN[broken].kind, CHAIN[broken].id, "total"), "held", 2**63 - 1)
    before = [bench.counted(scope.kind, scope.id) for scope in CHAIN]
    try:
        hold = bench.reserve("r", base=base, price=price, output=output, assumed=assumed, tokens=tokens)
    except (Refused, redis.ResponseError):
        assert [bench.counted(scope.kind, scope.id) for scope in CHAIN] == before
        assert not bench.redis.exists(store.hold("r")) and bench.redis.zcard(store.LEASES) == 0
    else:
        assert 0 <= hold.amount_nano <= 9 * 10**15
        after = [(spent, held + hold.amount_nano) for spent, held in before]
        assert [bench.counted(scope.kind, scope.id) for scope in CHAIN] == after


@pytest.mark.parametrize("value", [b"\xff no event", None])
@pytest.mark.parametrize("name", ["event", "cost", "at"])
def test_a_hold_that_cannot_be_read_comes_off_and_what_stood_in_it_is_kept(bench, name, value):
    bench.reserve("r", base=100)
    if value is None:
        bench.redis.hdel(store.hold("r"), name)
    else:
        bench.redis.hset(store.hold("r"), name, value)
    bench.redis.zadd(store.LEASES, {"r": 1})
    assert bench.meter.expire("r") is None
    assert [bench.counted(scope.kind, scope.id) for scope in CHAIN] == [(0, 0)] * 5
    assert bench.redis.xlen(store.USAGE) == 1 and bench.redis.zcard(store.LEASES) == 0


def test_a_bucket_of_which_only_half_is_left_is_full(bench):
    bench.limit("key", "k", tpm=1000, tokens=-500)  # as a settle leaves it after the scope was taken away
    assert bench.reserve(tokens=10).tokens_left == 990


BREAKER, CONVERSATION = "deployment:d", "conversation"
QUERY = RouteQuery(store.origin(CONVERSATION), store.probe(BREAKER), 60_000, "d1 d2")


def test_a_reserve_tells_the_version_of_the_breakers(bench):
    assert bench.reserve().breakers == ""
    bench.redis.set(store.BREAKERS_VERSION, "7")
    hold = bench.reserve("r")
    assert (hold.breakers, hold.origin, hold.has_probe) == ("7", "", False)
    assert bench.reserve("r").breakers == "7"  # also where a lost answer is asked for once more


def test_one_of_all_calls_gets_a_probe_and_none_that_is_refused(bench):
    bench.limit("key", "k", limit=5)
    with pytest.raises(Refused):
        bench.reserve(base=6, query=QUERY)
    assert [bench.reserve(query=QUERY).has_probe for _ in range(3)] == [True, False, False]
    assert 59_000 < bench.redis.pttl(store.probe(BREAKER)) <= 60_000


def test_a_conversation_that_is_well_where_it_is_probes_nothing(bench):
    bench.redis.set(store.origin(CONVERSATION), "d2")
    hold = bench.reserve(query=QUERY)
    assert (hold.origin, hold.has_probe) == ("d2", False)
    bench.redis.set(store.origin(CONVERSATION), "d3")  # which is tried after those
    hold = bench.reserve(query=QUERY)
    assert (hold.origin, hold.has_probe) == ("d3", True)


def test_a_settle_keeps_an_origin_for_an_hour_forgets_it_or_leaves_it(bench):
    key = store.origin(CONVERSATION)

    def settle(origin: Origin | None) -> bytes | None:
        hold = bench.reserve()
        assert bench.meter.settle(hold, 0, 0, event(hold.request_id, 0), origin)
        return bench.redis.get(key)

    assert settle(Origin(key, "d2")) == b"d2" and ORIGIN_S - 60 < bench.redis.ttl(key) <= ORIGIN_S
    assert settle(None) == b"d2"
    assert settle(Origin(key, "")) is None
