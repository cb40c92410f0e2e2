"""The journey of one call: candidates, reserve, attempts, answer, settle.

A retryable failure before the first byte moves on to the next deployment; after it the stream ends honestly. A stream that
is silent for long is begun before its upstream's first byte, with signs of life: the search for one that answers goes on.
However a call ends, it is settled exactly once, before the last bytes leave.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import structlog
from hiredis import ReplyError

from app import clock, store
from app.gateway import affinity, attempts, errors, refusals, streaming
from app.gateway.call import Call, Interrupted
from app.gateway.errors import ApiError
from app.gateway.redis_wire import RedisAway
from app.gateway.runtime import Runtime, SpoolFull
from app.metering import pricing, scopes
from app.metering.reservations import Charge, MeterClosed, Refused, RouteQuery, free_hold
from app.runtime.work import Work

log = structlog.get_logger("gateway.pipeline")


class Served(NamedTuple):
    """An answer on its way: one body, or the pieces of a stream. `media_type` is None for JSON or events."""

    headers: dict[str, str]
    media_type: str | None
    body: bytes | Iterator[bytes]


def run(runtime: Runtime, call: Call) -> Served:
    """Serve `call`. Raises `ApiError`, everything being settled."""
    routes = runtime.routes
    usable = routes.candidates(call.model, call.endpoint, call.request.capability, call.steering)
    if not usable:
        raise errors.upstream_failed(f"No provider of '{call.model.name}' is ready for {call.endpoint}.")
    usable = affinity.who_keeps(call, usable)
    _reserve(runtime, call, affinity.query(call, usable, routes.breakers))
    headers = refusals.limit_headers(call)
    try:
        candidates = routes.with_credentials(call.caller, affinity.choose(call, usable, routes.breakers))
        commit_after_s = runtime.config.gateway.commit_after_s
        if commit_after_s and call.request.stream and call.dialect.streams_events:
            work = Work(partial(attempts.deliver, call, candidates, routes.breakers))
            if not work.wait(commit_after_s):
                return Served(headers, None, streaming.bridge(call, work, lambda: _settle(runtime, call)))
            delivery = work.result()
        else:
            delivery = attempts.deliver(call, candidates, routes.breakers)
    except ApiError as error:
        call.failed("error", error.status, error.code or error.type, error.message)
        _settle(runtime, call)
        error.headers = headers | error.headers
        raise
    except Interrupted as interrupted:
        _settle_interrupted(runtime, call, interrupted)
        raise
    except BaseException:
        call.failed("error", 500, "internal_error", "The gateway failed.")
        _settle(runtime, call)
        raise
    media_type = delivery.exchange.media_type
    if call.request.stream:
        call.request.forget_question()
        return Served(headers, media_type, streaming.relay(call, delivery, lambda: _settle(runtime, call)))
    _settle(runtime, call)
    return Served(headers, media_type, delivery.first)


def _reserve(runtime: Runtime, call: Call, query: RouteQuery) -> None:
    """Hold what the call may cost over its whole chain. Raises `ApiError` naming what stands in the way."""
    charge = charge_of(call)
    chain = scopes.chain_of(call.caller, *call.paid_by)
    try:
        call.hold = runtime.reserve(call, chain, charge, query)
    except Refused as refused:
        raise refusals.refusal_of(call, refused, runtime.config) from None
    except SpoolFull:
        raise errors.unavailable("The usage log") from None
    except (RedisAway, MeterClosed, ReplyError) as trouble:
        if isinstance(trouble, ReplyError):
            log.error("a reserve failed in Redis", request_id=call.id, reason=str(trouble))
        if not _is_free(call, charge):
            raise errors.unavailable("The meter") from None
        # Rates fail open and money fails closed: what costs nothing goes on, by this process's own count.
        wait_s = runtime.local_rates.wait_s(call.caller.id)
        if wait_s:
            raise refusals.too_many_here(call, runtime.local_rates.limit(call.caller.id), wait_s) from None
        call.hold = free_hold(call.id, chain)
    else:
        runtime.local_rates.learn(call.caller.id, call.hold.requests_limit)
    if call.hold.bounded and call.bound.produces_output:
        call.request.max_output = call.hold.output_limit  # a bound that is not sent is none
    runtime.begin(call)


def charge_of(call: Call) -> Charge:
    """What a reserve is asked for, at the price that holds now."""
    bound = call.bound
    call.price = price = call.model.price_at(clock.now_ms())
    return Charge(
        base_nano=pricing.base_nano(price, bound),
        output_price=pricing.output_price(price, bound),
        answers=bound.answers,
        output_limit=bound.output if bound.produces_output else 0,
        assumed_output=call.request.usual_output,
        priced=pricing.is_priced(price, bound) and pricing.unpriced_member(price, bound) is None,
        bucket_tokens=bound.bucket_tokens,
        outputs_key=store.outputs(call.caller.id, call.model.name),
    )


def _is_free(call: Call, charge: Charge) -> bool:
    """Whether the call is free by the model's own price, and not only for want of one."""
    return charge.priced and charge.base_nano == 0 and charge.output_price == 0


def _settle(runtime: Runtime, call: Call) -> None:
    if call.ended_at is None:
        call.ended_at = time.monotonic()
    runtime.settle(call)


def _settle_interrupted(runtime: Runtime, call: Call, interrupted: Interrupted) -> None:
    streaming.tell_interrupted(call, interrupted)
    _settle(runtime, call)
