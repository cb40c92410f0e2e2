"""`GET /v1/key`: what this key may do and what is left, by the numbers that enforcement itself uses."""

from __future__ import annotations

from typing import Any

from app import clock
from app.blueprints.v1.http import Answer, Request
from app.blueprints.v1.serve import own
from app.directory import CallerRecord
from app.gateway.errors import unavailable
from app.gateway.redis_wire import RedisAway
from app.metering import money, scopes
from app.metering.reservations import Level
from app.metering.scopes import ScopeRef


def show_key(request: Request, caller: CallerRecord) -> Answer:
    chain, levels, own_level = standing(request, caller)
    shown = {
        "id": caller.id,
        "name": caller.name,
        "models": caller.callable_models(),
        "expires_at": time_text(caller.expires_ms),
        "limits": {"rpm": own_level.rpm, "tpm": own_level.tpm, "max_parallel": own_level.max_parallel},
        "budget": _budget(own_level),
        "budgets": [
            {"scope": scope.kind, "id": scopes.address_of(caller, scope), **_budget(level)}
            for scope, level in zip(chain, levels, strict=True)
            if level is own_level or level.limit_nano is not None
        ],
    }
    return own(request, shown)


def standing(request: Request, caller: CallerRecord) -> tuple[tuple[ScopeRef, ...], list[Level], Level]:
    """The caller's whole chain and how each scope of it stands, and the key's own level (of an access token its owner's).
    Raises `ApiError` 503."""
    chain = scopes.chain_of(caller, *sorted({caller.models[name] for name in caller.callable_models()}))
    try:
        levels = request.runtime.meter.levels(chain, clock.now_ms())
    except RedisAway:
        raise unavailable("The meter") from None
    return (
        chain,
        levels,
        next(level for scope, level in zip(chain, levels, strict=True) if scope.kind != "subscription"),
    )


def _budget(level: Level) -> dict[str, Any]:
    limit = level.limit_nano
    return {
        "limit": None if limit is None else money.text(limit),
        "spent": money.text(max(level.spent_nano, 0)),
        "reserved": money.text(level.held_nano),
        "remaining": None if level.left_nano is None else money.text(max(level.left_nano, 0)),
        "period": level.period,
        "resets_at": time_text(level.resets_ms),
    }


def time_text(ms: int | None) -> str | None:
    """A time as JSON has it, None for none."""
    return None if ms is None else f"{clock.from_ms(ms):%Y-%m-%dT%H:%M:%SZ}"
