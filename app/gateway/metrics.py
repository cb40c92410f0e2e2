"""What Prometheus is told of /v1. Labels are bounded: paths that exist, statuses, and providers that admins named.

Its counters are files that all processes share, each step of one a write under a lock. So a call only leaves a note, and
`tell` counts the notes, once a second and at the end of the process.
"""

from __future__ import annotations

import atexit
from bisect import bisect_left
from collections import Counter as Sum
from collections import defaultdict
from functools import cache
from typing import Any

from prometheus_client import Counter, Histogram

from app.gateway.call import Call

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Timing(Histogram):
    """A histogram that takes many values in few writes: each write looks at the process's id and takes a lock."""

    def observe_all(self, values: list[float]) -> None:
        self._sum.inc(sum(values))
        places = Sum(bisect_left(self._upper_bounds, value) for value in values)  # the last bound is infinite
        for place, times in places.items():
            self._buckets[place].inc(times)


REQUESTS = Counter("portico_requests", "Calls of /v1 by what was answered.", ["endpoint", "status"])
TOKENS = Counter("portico_tokens", "Tokens of settled calls.", ["endpoint", "direction"])
COST = Counter("portico_cost_nano", "Cost of settled calls, nano-units of the currency.", ["endpoint"])
DURATION = Timing("portico_request_seconds", "Admission to last byte.", ["endpoint"], buckets=_SECONDS)
FIRST_BYTE = Timing("portico_first_byte_seconds", "Admission to first byte.", ["endpoint"], buckets=_SECONDS)
DENIALS = Counter("portico_denials", "Keys refused and models denied by /v1.", ["reason"])
ATTEMPTS = Counter("portico_upstream_attempts", "Attempts at providers.", ["provider", "outcome"])
ALARMS = Counter(
    "portico_usage_alarms",
    "Settled calls whose usage an operator should look at: overdraft, unreadable, late, not_counted, refused, unpriced.",
    ["reason"],
)
DROPPED = Counter(
    "portico_dropped",
    "What clients asked for in their dialect and their provider's has no word for.",
    ["dialect", "what"],
)

_sums: Sum[tuple[Any, ...]] = Sum()  # by counter and labels
_seconds: defaultdict[tuple[Timing, str], list[float]] = defaultdict(list)  # by histogram and endpoint


def count_call(call: Call, cost_nano: int) -> None:
    """A call that held money has ended."""
    endpoint = call.endpoint
    _sums[REQUESTS, endpoint, call.status] += 1
    if call.ended_at is not None:
        _seconds[DURATION, endpoint].append(call.ended_at - call.started)
    if call.first_byte_at is not None:
        _seconds[FIRST_BYTE, endpoint].append(call.first_byte_at - call.started)
        _sums[TOKENS, endpoint, "in"] += call.usage.prompt_tokens
        _sums[TOKENS, endpoint, "out"] += call.usage.completion_tokens
        _sums[COST, endpoint] += cost_nano


def count_refusal(endpoint: str, status: int) -> None:
    """A request that was refused before it held anything."""
    _sums[REQUESTS, endpoint, status] += 1


def count_denial(reason: str) -> None:
    """No key (`no_key`), one that is not valid (`invalid_key`), or a model that it may not use (`model`)."""
    _sums[DENIALS, reason] += 1


def count_attempt(provider: str, failed: bool) -> None:
    _sums[ATTEMPTS, provider, "failed" if failed else "ok"] += 1


def count_dropped(dialect: str, what: str) -> None:
    """Something of a request that was not sent; `what` is from a list of the dialect's own."""
    _sums[DROPPED, dialect, what] += 1


def count_alarm(reason: str) -> None:
    """Something about a call's usage that should not have been."""
    _sums[ALARMS, reason] += 1


def tell() -> None:
    """Count what was noted since the last time. Never waits."""
    sums, seconds = _sums.copy(), _seconds.copy()
    _sums.clear()
    _seconds.clear()
    for counter, amount in sums.items():
        _child(*counter).inc(amount)
    for key, values in seconds.items():
        _child(*key).observe_all(values)


@cache
def _child(metric: Any, *labels: object) -> Any:
    """Of a metric, the one with these labels."""
    return metric.labels(*labels)


atexit.register(tell)
