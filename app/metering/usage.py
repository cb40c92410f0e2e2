"""The usage event: all that is ever told of one call, from the hot side to the books.

It is written to the worker's spool, appended to the stream by the settle, and posted once into the ledger.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from app.metering.quantities import Quantities
from app.runtime.agents import Agent

Outcome = Literal["ok", "error", "cancelled", "refused"]
Cause = Literal["requests", "tokens", "parallel", "budget", "unpriced", "model", "other"]


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One try at one deployment and how it ended. `cost_nano` is what a failed one cost all the same, by the model's price and
    the usage that it told: the client does not pay for it."""

    deployment_id: str
    provider_id: str
    duration_ms: int
    error: str | None = None
    cost_nano: int = 0
    credential_id: str | None = None  # of the person's own credential that was sent


class Refusal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a call was refused before an upstream was asked.

    For `requests`, `tokens`, `parallel`, `budget` and `unpriced` it has the limit of a scope as it stood then: `limit`, `spent`,
    `held` and `amount` are nano-units for a budget; for a rate `limit` is the number a minute. `model` is one that is not there
    or that the caller may not use, `asked` its name. All else is told by the event's message. `counted` marks an event that
    stands for the calls of a minute that were too many to be kept one by one.
    """

    reason: Cause
    asked: str = ""
    counted: bool = False
    scope_kind: str = ""
    scope_id: str = ""
    scope_shown: str = ""  # the scope's id in words people know
    limit: int = 0
    spent: int = 0
    held: int = 0
    amount: int = 0
    affordable_tokens: int = 0
    retry_ms: int = 0
    resets_ms: int | None = None


class UsageEvent(Quantities, kw_only=True, omit_defaults=True):
    """One ledger row. `(request_id, attempt, kind)` names it for ever; money in nano-units, times in ms.

    `at_ms` is the meter's own time of admission and decides the period. `scopes` are the counters it was charged
    to, as (scope kind, scope id, period name), so that they can be counted again from the books.
    """

    request_id: str
    attempt: int
    # late: what came out after the reaper had settled. credit: room given back to a budget. repair: a counter put right.
    # refusal: a call, or `refused` of them, that was refused before an upstream was asked; it used and cost nothing.
    kind: Literal["usage", "late", "credit", "repair", "refusal"] = "usage"
    at_ms: int
    person_id: str
    key_id: str | None = None  # None for a call with an access token
    secret_id: str | None = None  # which of the key's secrets was presented
    team_id: str | None = None
    subscription_id: str | None = None
    model: str
    endpoint: str  # "/v1/chat/completions"
    api_type: str  # "chat"
    provider_id: str | None = None
    deployment_id: str | None = None
    outcome: Outcome
    status: int  # the HTTP status answered
    error_code: str | None = None
    error_message: str | None = None  # safe to show
    finish_reason: str | None = None
    stream: bool = False
    estimated: bool = False  # the upstream told no usage, or none that can be; tokens were counted here
    service_tier: str | None = None  # as the upstream told it, if it is one of the price's
    cost_nano: int = 0
    hold_nano: int = 0
    overdraft_nano: int = 0
    moved_nano: int = 0  # what a repair or a credit moved its counter by, at no cost
    price_id: str | None = None
    duration_ms: int = 0
    ttft_ms: int | None = None
    session_id: str | None = None  # this and what follows are the client's own words, see `app.gateway.labels`
    agent: str | None = None
    subagent_id: str | None = None
    turn_id: str | None = None
    tags: tuple[str, ...] = ()
    unpriced: dict[str, int] | None = (
        None  # what was used for which the price has no member: quantities, and the upstream's names
    )
    attempts: tuple[Attempt, ...] = ()
    scopes: tuple[tuple[str, str, str], ...] = ()
    refused: int = 0  # how many calls a refusal stands for
    refusal: Refusal | None = None


class LastCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a call with a key began: the first that one client was answered, or the last that it was refused.

    `status` is that of the answer's head, 200 or the refusal's; how a stream went on is told by the ledger alone.
    """

    request_id: str
    at_ms: int
    agent: Agent | None = None
    status: int
    code: str | None = None
    message: str | None = None  # what the client was told
