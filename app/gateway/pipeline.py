"""The journey of one call: candidates, reserve, attempt, answer, settle.

A retryable failure before the first byte moves on to the next deployment; after it the stream ends honestly.
However a call ends, it is settled exactly once, before the last bytes leave.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote

import structlog
from hiredis import ReplyError

from app import clock, store
from app.directory import CallerRecord
from app.gateway import errors, metrics, streaming
from app.gateway.call import Call, Interrupted
from app.gateway.errors import ApiError
from app.gateway.redis_wire import RedisAway
from app.gateway.routing import Candidate
from app.gateway.runtime import Runtime, SpoolFull
from app.metering import money, pricing
from app.metering.reservations import Charge, MeterClosed, Refused, ScopeRef, free_hold
from app.metering.usage import Attempt, Refusal
from app.providers.base import Exchange, UpstreamError
from config import Config

log = structlog.get_logger("gateway.pipeline")


class Served(NamedTuple):
    """An answer on its way: one body, or the pieces of a stream."""

    headers: dict[str, str]
    body: bytes | Iterator[bytes]


def run(runtime: Runtime, call: Call) -> Served:
    """Serve `call`. Raises `ApiError`, everything being settled."""
    ways = [
        way
        for way in runtime.routes.candidates(call.model, call.endpoint, call.provider, call.fallbacks)
        if call.demand.capability in way.adapter.abilities
    ]
    if not ways:
        raise errors.upstream_failed(f"No provider of '{call.model.name}' is ready for {call.endpoint}.")
    _reserve(runtime, call)
    headers = _limit_headers(call)
    try:
        exchange, first = _attempt_in_turn(call, ways)
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
    if call.demand.stream:
        call.demand.forget_question()
        return Served(headers, streaming.relay(call, exchange, first, lambda: _settle(runtime, call)))
    _settle(runtime, call)
    return Served(headers, first)


def chain(call: Call) -> tuple[ScopeRef, ...]:
    """The scopes that pay for a call, innermost first."""
    return scopes_of(call.caller, call.caller.models[call.model.name])


def scopes_of(caller: CallerRecord, subscription_id: str | None) -> tuple[ScopeRef, ...]:
    """A personal key: key, subscription, owner, organisation; a team's: key, subscription, member, team, organisation."""
    scopes = []
    if caller.kind == "key":
        scopes.append(ScopeRef("key", caller.id, caller.id))
    if subscription_id is not None:
        scopes.append(ScopeRef("subscription", subscription_id, subscription_id))
    if caller.team_id is None:
        scopes.append(ScopeRef("user", caller.person_id, caller.username))
    else:
        team = caller.team or caller.team_id
        scopes.append(ScopeRef("member", f"{caller.team_id}:{caller.person_id}", f"{team}/{caller.username}"))
        scopes.append(ScopeRef("team", caller.team_id, team))
    scopes.append(ScopeRef("organisation", store.ORGANISATION, store.ORGANISATION))
    return tuple(scopes)


def address_of(caller: CallerRecord, scope: ScopeRef) -> str:
    """The scope of a caller's chain as the management API and the portal address its budget."""
    match scope.kind:
        case "user":
            return caller.username
        case "member":
            return f"{caller.team_id}:{caller.username}"
        case _:
            return scope.id


def _reserve(runtime: Runtime, call: Call) -> None:
    """Hold what the call may cost over its whole chain. Raises `ApiError` naming what stands in the way."""
    bound = call.bound
    call.price = price = call.model.price_at(clock.now_ms())
    charge = Charge(
        base_nano=pricing.base_nano(price, bound),
        output_price=(price.output_per_mtok or 0) if price and bound.produces_output else 0,
        answers=bound.answers,
        output_limit=bound.output if bound.produces_output else 0,
        assumed_output=pricing.assumed_output(call.model, bound),
        priced=pricing.is_priced(price) and bound.priced_apart is None,
        bucket_tokens=bound.bucket_tokens,
    )
    scopes = chain(call)
    try:
        call.hold = runtime.reserve(call, scopes, charge)
    except Refused as refused:
        error = _refusal(call, refused, runtime.config)
        runtime.keep_refusal(_told(call, refused, error.message))
        raise error from None
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
            raise _too_many(f"key {call.caller.id}", runtime.local_rates.limit(call.caller.id), wait_s) from None
        call.hold = free_hold(call.id, scopes)
    else:
        runtime.local_rates.learn(call.caller.id, call.hold.requests_limit)
    if call.hold.bounded and bound.produces_output:
        call.demand.max_output = call.hold.output_limit  # a bound that is not sent is none
    runtime.begin(call)


def _is_free(call: Call, charge: Charge) -> bool:
    """Whether the call is free by the model's own price, and not only for want of one."""
    return charge.priced and charge.base_nano == 0 and charge.output_price == 0


def _told(call: Call, refused: Refused, message: str) -> Refusal:
    return Refusal(
        request_id=call.id,
        at_ms=clock.now_ms(),
        person_id=call.caller.person_id,
        key_id=call.caller.id if call.caller.kind == "key" else None,
        team_id=call.caller.team_id,
        model=call.model.name,
        endpoint=call.endpoint,
        reason=refused.reason,
        scope_kind=refused.scope.kind,
        scope_id=refused.scope.id,
        scope_shown=refused.scope.shown,
        message=message,
        limit=refused.limit,
        spent=refused.spent,
        held=refused.held,
        amount=refused.amount,
        affordable_tokens=refused.affordable_tokens,
        retry_ms=refused.retry_ms,
        resets_ms=refused.resets_ms,
    )


def _attempt_in_turn(call: Call, ways: list[Candidate]) -> tuple[Exchange, bytes]:
    """Ask one deployment after the other until one answers: its exchange, and its first bytes or whole body."""
    failures: list[UpstreamError] = []
    for way in ways:
        call.provider_id, call.deployment_id = way.provider.id, way.deployment.id
        call.drains = way.adapter.settings.on_disconnect == "drain"
        started = time.monotonic()
        try:
            exchange, first = _attempt(call, way)
        except UpstreamError as error:
            failures.append(error)
            _note(call, way, started, error.message)
            if error.refused:
                break
            continue
        except Interrupted as interrupted:
            _note(call, way, started, interrupted.reason)
            raise
        _note(call, way, started, None)
        return exchange, first
    raise _failure(failures)


def _attempt(call: Call, way: Candidate) -> tuple[Exchange, bytes]:
    exchange: Exchange | None = None
    call.wait()
    try:
        exchange = way.adapter.open(call.demand, way.deployment)
        if call.demand.stream:
            call.exchange = exchange
            first = next(exchange.events_once, b"")
        else:
            exchange.receive()
            call.resume()  # it is here, and is billed whoever leaves now
            first = exchange.body()
    except BaseException:
        if exchange is not None:
            exchange.close()
        raise
    finally:
        call.resume()
    call.exchange, call.first_byte_at = exchange, time.monotonic()
    if not call.demand.stream:
        call.ended_at = call.first_byte_at
        exchange.close()
    return exchange, first


def _note(call: Call, way: Candidate, started: float, error: str | None) -> None:
    call.attempts.append(
        Attempt(
            deployment_id=way.deployment.id,
            provider_id=way.provider.id,
            duration_ms=int((time.monotonic() - started) * 1000),
            error=error,
        )
    )
    metrics.count_attempt(way.provider.name, error is not None)
    if error is not None:
        log.warning("an attempt failed", request_id=call.id, provider=way.provider.name, reason=error)


def _failure(failures: list[UpstreamError]) -> ApiError:
    """What the client is told when no candidate answered."""
    last = failures[-1]
    if last.refused:
        return errors.upstream_refused(last.status or 400, last.message, last.param, last.code)
    if all(failure.status == 429 for failure in failures):
        waits = [failure.retry_after_s for failure in failures if failure.retry_after_s is not None]
        return errors.upstream_busy(max(1, round(min(waits))) if waits else 5)
    if all(failure.timed_out for failure in failures):
        return errors.upstream_timeout()
    return errors.upstream_failed(last.message)


def _settle(runtime: Runtime, call: Call) -> None:
    if call.ended_at is None:
        call.ended_at = time.monotonic()
    runtime.settle(call)


def _settle_interrupted(runtime: Runtime, call: Call, interrupted: Interrupted) -> None:
    streaming.tell_interrupted(call, interrupted)
    _settle(runtime, call)


def _refusal(call: Call, refused: Refused, config: Config) -> ApiError:
    scope = f"{refused.scope.kind} {refused.scope.shown}"
    if refused.reason == "unpriced" and pricing.is_priced(call.price):
        member = call.bound.priced_apart
        return errors.bad_request(
            f"What '{member}' costs is not part of the price of '{call.model.name}', so it can't be used under the budget"
            f" of {scope}. Leave it out.", member,
        )  # fmt: skip
    if refused.reason == "unpriced":
        return ApiError(
            403, errors.INVALID, "model_not_priced",
            f"The model '{call.model.name}' has no price, so it can't be used under the budget of {scope}."
            " Ask an administrator for a price; 0 makes it free.", param="model",
        )  # fmt: skip
    if refused.reason == "budget":
        return _budget_refusal(refused, scope, _page_of(call, refused.scope, config))
    wait = max(1, -(-refused.retry_ms // 1000))
    error = _too_many(scope, refused.limit, wait, refused.reason)
    if refused.reason != "parallel":
        wanted = 1 if refused.reason == "requests" else min(call.bound.bucket_tokens, refused.limit)
        left = wanted - refused.retry_ms * refused.limit / 60_000
        error.headers |= _bucket_headers(refused.reason, refused.limit, left)
    return error


def _too_many(scope: str, limit: int, wait: int, reason: str = "requests") -> ApiError:
    unit = {"requests": "requests a minute", "tokens": "tokens a minute", "parallel": "requests at a time"}
    return ApiError(
        429,
        "tokens" if reason == "tokens" else "requests",
        "rate_limit_exceeded",
        f"Rate limit of {scope} reached: {limit} {unit[reason]}. Try again in {wait} s.",
        headers={"Retry-After": str(wait)},
    )


def _budget_refusal(refused: Refused, scope: str, page: str) -> ApiError:
    over = refused.spent - refused.limit
    left = max(refused.limit - refused.spent - refused.held, 0)
    resets = (
        f"It resets at {datetime.fromtimestamp(refused.resets_ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}."
        if refused.resets_ms is not None
        else "It does not reset."
    )
    smaller = (
        f" A request with max_tokens of at most {refused.affordable_tokens} would fit."
        if refused.affordable_tokens > 0
        else ""
    )
    return ApiError(
        429,
        "insufficient_quota",
        "insufficient_quota",
        f"The budget of {scope} can't pay for this request: limit {money.text(refused.limit)}, spent"
        f" {money.text(max(refused.spent, 0))}, reserved {money.text(refused.held)},"
        f" {f'over by {money.text(over)}' if over > 0 else f'remaining {money.text(left)}'}; the request may"
        f" cost {money.text(refused.amount)}. {resets}{smaller} Ask for more at {page}",
        headers={"x-should-retry": "false"},
    )


def _page_of(call: Call, scope: ScopeRef, config: Config) -> str:
    """The page of a scope's budget, where more of it can be asked for, as the client may reach it."""
    return f"{config.origin_asked(call.origin)}/budgets/{scope.kind}/{quote(address_of(call.caller, scope), safe=':')}"


def _limit_headers(call: Call) -> dict[str, str]:
    hold = call.hold
    headers: dict[str, str] = {}
    if hold.requests_limit >= 0:
        headers |= _bucket_headers("requests", hold.requests_limit, hold.requests_left)
    if hold.tokens_limit >= 0:
        headers |= _bucket_headers("tokens", hold.tokens_limit, hold.tokens_left)
    if call.bound.output is None and call.demand.max_output is not None:
        headers["x-portico-max-tokens"] = str(call.demand.max_output)
    return headers


def _bucket_headers(what: str, capacity: int, left: float) -> dict[str, str]:
    """What a client is told of a bucket, and how long until it is full again, as OpenAI spells it: "1.5s"."""
    return {
        f"x-ratelimit-limit-{what}": str(capacity),
        f"x-ratelimit-remaining-{what}": str(max(int(left), 0)),
        f"x-ratelimit-reset-{what}": f"{(capacity - left) * 60 / capacity:.3g}s" if capacity else "0s",
    }
