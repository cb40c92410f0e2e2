"""`GET /v1/key`: what this key may do and what is left, by the numbers that enforcement itself uses."""

from __future__ import annotations

from datetime import UTC, datetime
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
    chain = list(scopes.chain_of(caller, None))
    models = caller.callable_models()
    chain[1:1] = [ScopeRef("subscription", id, id) for id in sorted({caller.models[name] for name in models})]
    now_ms = clock.now_ms()
    try:
        levels = request.runtime.meter.levels(chain, now_ms)
    except RedisAway:
        raise unavailable("The meter") from None
    first = levels[0]  # the key's; of an access token its owner's
    shown = {
        "id": caller.id,
        "name": caller.name,
        "models": models,
        "expires_at": _time(caller.expires_ms),
        "limits": {"rpm": first.rpm, "tpm": first.tpm, "max_parallel": first.max_parallel},
        "budget": _budget(first),
        "budgets": [
            {"scope": scope.kind, "id": scopes.address_of(caller, scope), **_budget(level)}
            for scope, level in zip(chain, levels, strict=True)
            if level is first or level.limit_nano is not None
        ],
    }
    return own(request, shown)


def _budget(level: Level) -> dict[str, Any]:
    limit = level.limit_nano
    return {
        "limit": None if limit is None else money.text(limit),
        "spent": money.text(max(level.spent_nano, 0)),
        "reserved": money.text(level.held_nano),
        "remaining": None if limit is None else money.text(max(limit - level.spent_nano - level.held_nano, 0)),
        "period": level.period,
        "resets_at": _time(level.resets_ms),
    }


def _time(ms: int | None) -> str | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
