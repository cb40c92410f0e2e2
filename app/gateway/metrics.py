"""What Prometheus is told of /v1. Labels are bounded: paths that exist, statuses, and providers that admins named."""

from __future__ import annotations

from functools import cache

from prometheus_client import Counter, Histogram

from app.gateway.call import Call

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

REQUESTS = Counter("portico_requests", "Calls of /v1 by what was answered.", ["endpoint", "status"])
TOKENS = Counter("portico_tokens", "Tokens of settled calls.", ["endpoint", "direction"])
COST = Counter("portico_cost_nano", "Cost of settled calls, nano-units of the currency.", ["endpoint"])
DURATION = Histogram("portico_request_seconds", "Admission to last byte.", ["endpoint"], buckets=_SECONDS)
FIRST_BYTE = Histogram("portico_first_byte_seconds", "Admission to first byte.", ["endpoint"], buckets=_SECONDS)
ATTEMPTS = Counter("portico_upstream_attempts", "Attempts at providers.", ["provider", "outcome"])


class _Measures:
    """The children of one endpoint's labels: looking them up costs as much as counting does."""

    def __init__(self, endpoint: str) -> None:
        self.duration = DURATION.labels(endpoint)
        self.first_byte = FIRST_BYTE.labels(endpoint)
        self.tokens_in = TOKENS.labels(endpoint, "in")
        self.tokens_out = TOKENS.labels(endpoint, "out")
        self.cost = COST.labels(endpoint)


_of = cache(_Measures)
_answered = cache(REQUESTS.labels)
_attempted = cache(ATTEMPTS.labels)


def count_call(call: Call) -> None:
    """A call that held money has ended."""
    _answered(call.endpoint, call.status).inc()
    measures = _of(call.endpoint)
    if call.ended_at is not None:
        measures.duration.observe(call.ended_at - call.started)
    if call.first_byte_at is not None:
        measures.first_byte.observe(call.first_byte_at - call.started)
        measures.tokens_in.inc(call.usage.prompt_tokens)
        measures.tokens_out.inc(call.usage.completion_tokens)
        measures.cost.inc(call.cost_nano)


def count_refusal(endpoint: str, status: int) -> None:
    """A request that was refused before it held anything."""
    _answered(endpoint, status).inc()


def count_attempt(provider: str, failed: bool) -> None:
    _attempted(provider, "failed" if failed else "ok").inc()
