"""What a key has spent and may spend, in the shapes that status lines and other tools already read.

`GET /key/info` is LiteLLM's, `GET /api/v1/key` OpenRouter's. Amounts are JSON numbers there: ours in all their digits.
"""

from __future__ import annotations

from typing import Any

import msgspec

from app.blueprints.v1.http import Answer, Request
from app.blueprints.v1.key import standing, time_text
from app.blueprints.v1.serve import own
from app.directory import CallerRecord
from app.metering import money
from app.metering.reservations import Level

RESETS = {"day": "daily", "week": "weekly", "month": "monthly"}  # as OpenRouter writes them
DURATIONS = {"day": "1d", "week": "7d", "month": "30d"}  # as LiteLLM writes periods


def litellm_info(request: Request, caller: CallerRecord) -> Answer:
    level = _telling(request, caller)
    info = {
        "key_name": caller.name,
        "user_id": caller.username,
        "team_id": caller.team_id,
        "models": caller.callable_models(),
        "expires": time_text(caller.expires_ms),
        "spend": _number(level.spent_nano),
        "max_budget": None if level.limit_nano is None else _number(level.limit_nano),
        "budget_duration": DURATIONS.get(level.period),
        "budget_reset_at": time_text(level.resets_ms),
        "rpm_limit": level.rpm,
        "tpm_limit": level.tpm,
        "max_parallel_requests": level.max_parallel,
    }
    return own(request, {"key": caller.id, "info": info})


def openrouter_key(request: Request, caller: CallerRecord) -> Answer:
    level = _telling(request, caller)
    spent = _number(level.spent_nano)
    limit, left = level.limit_nano, level.left_nano
    told = {
        "label": caller.name,
        "limit": None if limit is None else _number(limit),
        "limit_remaining": None if left is None else _number(left),
        "limit_reset": None if level.resets_ms is None else RESETS.get(level.period),
        "usage": spent,
        **{f"usage_{name}": spent if level.period == period else None
           for period, name in (("day", "daily"), ("week", "weekly"), ("month", "monthly"))},
        "is_free_tier": False,
        "expires_at": time_text(caller.expires_ms),
    }  # fmt: skip
    return own(request, {"data": told})


def _telling(request: Request, caller: CallerRecord) -> Level:
    """The key's own budget or, if it has none, the one above it of which least is left."""
    chain, levels, own_level = standing(request, caller)
    if own_level.limit_nano is not None and chain[0].kind == "key":
        return own_level
    shared = [
        (level.left_nano, place)
        for place, (scope, level) in enumerate(zip(chain, levels, strict=True))
        if level.left_nano is not None and scope.kind != "subscription"
    ]
    return levels[min(shared)[1]] if shared else own_level


def _number(nano: int) -> Any:
    return msgspec.Raw(money.text(max(nano, 0)).encode())
