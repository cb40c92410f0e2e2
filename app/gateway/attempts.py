"""The attempts of one call: candidates in turn, until one answers.

A failure before the first byte moves on to the next candidate, unless the upstream judged the request itself. Each attempt
tells the circuit breakers how it went, also one that a fallback rescued, and a stream that was cut later.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import msgspec
import structlog

from app import clock
from app.gateway import errors, metrics
from app.gateway.breakers import Breakers, trip_of
from app.gateway.call import Call, Interrupted
from app.gateway.errors import ApiError
from app.gateway.routing import Candidate
from app.metering.usage import Attempt
from app.providers.base import Exchange, Pieces, UpstreamError

PATIENT_S = 10.0  # a client that leaves a stream which has not begun by then leaves because of its upstream
OF_CREDENTIALS = (401, 402, 403, 429)  # statuses that judge a person's own credential and not the deployment
ABANDONED = "Clients left because it did not begin to answer."

log = structlog.get_logger("gateway.attempts")


def _unjudged(error: UpstreamError | None) -> None:
    """Nobody judges the deployment."""


class Delivery(NamedTuple):
    """An answer in the client's dialect: its whole body, or the first bytes of a stream and those that follow. `ended` is
    to be told how the stream ended: with an error of the upstream's, or None for well."""

    exchange: Exchange
    first: bytes
    pieces: Pieces
    ended: Callable[[UpstreamError | None], None] = _unjudged


def deliver(call: Call, candidates: list[Candidate], breakers: Breakers) -> Delivery:
    """Ask one candidate after the other until one answers. Raises `ApiError` if none does, and `Interrupted`."""
    failures: list[UpstreamError] = []
    first_ms = clock.now_ms()
    for candidate in candidates:
        deployment, provider = candidate.deployment, candidate.provider
        if failures and _has_failed_since(breakers, candidate, first_ms):
            continue
        call.provider_id, call.deployment_id = provider.id, deployment.id
        call.drains = candidate.adapter.settings.on_disconnect == "drain"
        if call.home is not None and call.home.provider.id != provider.id:
            call.dialect.leave_home(call.request)
        started, began_ms = time.monotonic(), clock.now_ms()
        call.exchange = None
        try:
            delivery = _attempt(call, candidate)
        except UpstreamError as error:
            failures.append(error)
            cost_nano = call.cost_of_failed()
            _note(call, candidate, started, error.message, cost_nano)
            if candidate.credential_id is None or error.status not in OF_CREDENTIALS:
                breakers.traffic.asked(deployment.id)
                breakers.failed(deployment.id, provider.id, error, began_ms, cost_nano)
            elif call.probe:  # it tells nothing of the deployment
                breakers.give_back(call.probe)
            if error.refused:
                break
            continue
        except Interrupted as interrupted:
            _note(call, candidate, started, interrupted.reason)
            if call.probe:
                breakers.give_back(call.probe)
            if interrupted.reason == "gone" and call.request.stream and time.monotonic() - started >= PATIENT_S:
                breakers.traffic.asked(deployment.id)
                breakers.failed(deployment.id, provider.id, UpstreamError(ABANDONED), began_ms)
            raise
        _note(call, candidate, started, None)
        breakers.traffic.asked(deployment.id)
        breakers.answered(deployment.id, provider.id, began_ms)
        begun_ms = clock.now_ms()
        if not call.request.stream:
            breakers.succeeded(deployment.id)
            return delivery
        return delivery._replace(ended=partial(_judge_end, call, candidate, breakers, begun_ms))
    raise _failure(failures)


def _has_failed_since(breakers: Breakers, candidate: Candidate, since_ms: int) -> bool:
    """Whether a deployment was found dead while this call asked another: by other calls, or by this one, which could not
    connect to its provider."""
    trip = trip_of(breakers.trips, candidate.deployment.id, candidate.provider.id)
    return trip is not None and trip.at_ms >= since_ms


def _judge_end(
    call: Call, candidate: Candidate, breakers: Breakers, begun_ms: int, error: UpstreamError | None
) -> None:
    """A stream ended: well, or cut after its first byte, which came at `begun_ms`."""
    deployment, provider = candidate.deployment, candidate.provider
    if error is None:
        breakers.succeeded(deployment.id)
        return
    call.attempts[-1] = msgspec.structs.replace(call.attempts[-1], error=error.message)
    breakers.failed(deployment.id, provider.id, error, begun_ms)


def _attempt(call: Call, candidate: Candidate) -> Delivery:
    request, dialect = call.request, call.dialect
    exchange: Exchange | None = None
    pieces = _ended(None)
    call.wait()
    try:
        call.exchange = exchange = candidate.adapter.open(request, candidate.deployment)
        is_same = exchange.speaks == dialect.name
        if request.stream:
            pieces = exchange.events() if is_same else dialect.events(request, exchange)
            first, pieces = _begun(pieces)
        else:
            exchange.receive()
            call.resume()  # it is here, and is billed whoever leaves now
            first = exchange.body() if is_same else dialect.answer(request, exchange)
    except BaseException:
        if exchange is not None:
            exchange.close()
        raise
    finally:
        call.resume()
    call.first_byte_at = time.monotonic()
    if request.stream:
        call.came()
    else:
        call.ended_at = call.first_byte_at
        exchange.close()
    return Delivery(exchange, first, pieces)


def _begun(pieces: Pieces) -> tuple[bytes, Pieces]:
    """The first piece, once it is here, and those that follow. None comes first where the last is the only one."""
    try:
        return next(pieces), pieces
    except StopIteration as end:
        return b"", _ended(end.value)


def _ended(last: bytes | None) -> Pieces:
    yield from ()
    return last


def _note(call: Call, candidate: Candidate, started: float, error: str | None, cost_nano: int = 0) -> None:
    call.attempts.append(
        Attempt(
            deployment_id=candidate.deployment.id,
            provider_id=candidate.provider.id,
            credential_id=candidate.credential_id,
            duration_ms=int((time.monotonic() - started) * 1000),
            error=error,
            cost_nano=cost_nano,
        )
    )
    metrics.count_attempt(candidate.provider.name, error is not None)
    if error is not None:
        log.warning("an attempt failed", request_id=call.id, provider=candidate.provider.name, reason=error)


def _failure(failures: list[UpstreamError]) -> ApiError:
    """What the client is told when no candidate answered."""
    last = failures[-1]
    if last.refused:
        return errors.upstream_refused(last.status or 400, last.message, last.param, last.code, last.original)
    if all(failure.status == 429 for failure in failures):
        waits = [failure.retry_after_s for failure in failures if failure.retry_after_s is not None]
        return errors.upstream_busy(max(1, round(min(waits))) if waits else 5)
    if all(failure.timed_out for failure in failures):
        return errors.upstream_timeout(last.message)
    return errors.upstream_failed(last.message)
