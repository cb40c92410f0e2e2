"""What Prometheus is told of /v1. Labels are bounded: paths that exist, statuses, and providers that admins named."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from app.gateway.call import Call

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)

REQUESTS = Counter("portico_requests", "Calls of /v1 by what was answered.", ["endpoint", "status"])
TOKENS = Counter("portico_tokens", "Tokens of settled calls.", ["endpoint", "direction"])
COST = Counter("portico_cost_nano", "Cost of settled calls, nano-units of the currency.", ["endpoint"])
DURATION = Histogram("portico_request_seconds", "Admission to last byte.", ["endpoint"], buckets=_SECONDS)
FIRST_BYTE = Histogram("portico_first_byte_seconds", "Admission to first byte.", ["endpoint"], buckets=_SECONDS)
ATTEMPTS = Counter("portico_upstream_attempts", "Attempts at providers.", ["provider", "outcome"])


def count_call(call: Call) -> None:
    """A call that held money has ended."""
    endpoint = call.endpoint
    REQUESTS.labels(endpoint, call.status).inc()
    if call.ended_at is not None:
        DURATION.labels(endpoint).observe(call.ended_at - call.started)
    if call.first_byte_at is not None:
        FIRST_BYTE.labels(endpoint).observe(call.first_byte_at - call.started)
        TOKENS.labels(endpoint, "in").inc(call.usage.prompt_tokens)
        TOKENS.labels(endpoint, "out").inc(call.usage.completion_tokens)
        COST.labels(endpoint).inc(call.cost_nano)


def count_refusal(endpoint: str, status: int) -> None:
    """A request that was refused before it held anything."""
    REQUESTS.labels(endpoint, status).inc()


def count_attempt(provider: str, failed: bool) -> None:
    ATTEMPTS.labels(provider, "failed" if failed else "ok").inc()
