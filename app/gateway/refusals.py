"""What a client is told of limits: the refusal when one stands in the way, and the headers when none does."""

from __future__ import annotations

from urllib.parse import quote

from app import clock
from app.gateway import errors
from app.gateway.call import Call
from app.gateway.errors import ApiError
from app.metering import money, pricing, scopes
from app.metering.reservations import Refused
from app.metering.scopes import ScopeRef
from app.metering.usage import Refusal
from config import Config


def refusal_of(call: Call, refused: Refused, config: Config) -> ApiError:
    """The error for a call whose reserve was refused: what limit, of whom, and the way out."""
    error = _error(call, refused, config)
    error.refusal = _facts(refused)
    return error


def _error(call: Call, refused: Refused, config: Config) -> ApiError:
    scope = f"{refused.scope.kind} {refused.scope.shown}"
    if refused.reason == "unpriced" and pricing.is_priced(call.price, call.bound):
        member = pricing.unpriced_member(call.price, call.bound)
        return errors.bad_request(
            f"What '{member}' costs is not part of the price of '{call.model.name}', so it can't be used under the budget"
            f" of {scope}. Leave it out.", member,
        )  # fmt: skip
    if refused.reason == "unpriced":
        return ApiError(
            403, errors.INVALID, "model_not_priced",
            f"The model '{call.model.name}' has no price, so it can't be used under the budget of {scope}."
            " Ask an administrator for a price; 0 makes it free.", param="model", page=f"/models/{quote(call.model.name)}",
        )  # fmt: skip
    if refused.reason == "budget":
        status = call.dialect.budget_stop or config.gateway.budget_stop_status
        return _budget_refusal(refused, scope, _page_of(call, refused.scope, config), status)
    wait = max(1, -(-refused.retry_ms // 1000))
    error = too_many(scope, refused.limit, wait, refused.reason)
    if refused.reason != "parallel":
        wanted = 1 if refused.reason == "requests" else min(call.bound.bucket_tokens, refused.limit)
        left = wanted - refused.retry_ms * refused.limit / 60_000
        error.headers |= _bucket_headers(refused.reason, refused.limit, left)
    return error


def too_many(scope: str, limit: int, wait: int, reason: str = "requests") -> ApiError:
    """The error for a rate or for calls at a time. `wait` is in whole seconds."""
    unit = {"requests": "requests a minute", "tokens": "tokens a minute", "parallel": "requests at a time"}
    return ApiError(
        429,
        "tokens" if reason == "tokens" else "requests",
        "rate_limit_exceeded",
        f"Rate limit of {scope} reached: {limit} {unit[reason]}. Try again in {wait} s.",
        headers={"Retry-After": str(wait)},
    )


def too_many_here(call: Call, limit: int, wait: int) -> ApiError:
    """The error for a rate that this process counted by itself, as Redis is away. `wait` is in whole seconds."""
    id = call.caller.id
    error = too_many(f"key {id}", limit, wait)
    error.refusal = Refusal(
        reason="requests", scope_kind="key", scope_id=id, scope_shown=id, limit=limit, retry_ms=wait * 1000
    )
    return error


def _budget_refusal(refused: Refused, scope: str, page: str, status: int) -> ApiError:
    over = refused.spent - refused.limit
    left = max(refused.limit - refused.spent - refused.held, 0)
    resets = (
        f"It resets at {clock.from_ms(refused.resets_ms):%Y-%m-%dT%H:%M:%SZ}."
        if refused.resets_ms is not None
        else "It does not reset."
    )
    smaller = (
        f" A request with max_tokens of at most {refused.affordable_tokens} would fit."
        if refused.affordable_tokens > 0
        else ""
    )
    return ApiError(
        status,
        "insufficient_quota",
        "insufficient_quota",
        f"The budget of {scope} can't pay for this request: limit {money.text(refused.limit)}, spent"
        f" {money.text(max(refused.spent, 0))}, reserved {money.text(refused.held)},"
        f" {f'over by {money.text(over)}' if over > 0 else f'remaining {money.text(left)}'}; the request may"
        f" cost {money.text(refused.amount)}. {resets}{smaller} Ask for more at {page}",
        headers=_until_reset(refused.resets_ms) | errors.FINAL,
    )


def _until_reset(resets_ms: int | None) -> dict[str, str]:
    return {} if resets_ms is None else {"Retry-After": str(max(1, -(-(resets_ms - clock.now_ms()) // 1000)))}


def _page_of(call: Call, scope: ScopeRef, config: Config) -> str:
    """The page of a scope's budget, where more of it can be asked for, as the client may reach it."""
    return f"{config.origin_asked(call.origin)}/budgets/{scope.kind}/{quote(scopes.address_of(call.caller, scope), safe=':')}"


def _facts(refused: Refused) -> Refusal:
    """What is kept of the limit, for the caller's owner and for admins."""
    return Refusal(
        reason=refused.reason,
        scope_kind=refused.scope.kind,
        scope_id=refused.scope.id,
        scope_shown=refused.scope.shown,
        limit=refused.limit,
        spent=refused.spent,
        held=refused.held,
        amount=refused.amount,
        affordable_tokens=refused.affordable_tokens,
        retry_ms=refused.retry_ms,
        resets_ms=refused.resets_ms,
    )


def limit_headers(call: Call) -> dict[str, str]:
    """What a call that is let in is told of its rates, and of an output limit that it did not name."""
    hold = call.hold
    headers: dict[str, str] = {}
    if hold.requests_limit >= 0:
        headers |= _bucket_headers("requests", hold.requests_limit, hold.requests_left)
    if hold.tokens_limit >= 0:
        headers |= _bucket_headers("tokens", hold.tokens_limit, hold.tokens_left)
    if call.bound.output is None and call.request.max_output is not None:
        headers["x-portico-max-tokens"] = str(call.request.max_output)
    return headers


def _bucket_headers(what: str, capacity: int, left: float) -> dict[str, str]:
    """What a client is told of a bucket, and how long until it is full again, as OpenAI spells it: "1.5s"."""
    return {
        f"x-ratelimit-limit-{what}": str(capacity),
        f"x-ratelimit-remaining-{what}": str(max(int(left), 0)),
        f"x-ratelimit-reset-{what}": f"{(capacity - left) * 60 / capacity:.3g}s" if capacity else "0s",
    }
