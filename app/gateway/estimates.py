"""What a request would hold and probably cost, without making it: the same admission, no reserve, no upstream."""

from __future__ import annotations

from typing import Any

from app import clock
from app.gateway import pipeline
from app.gateway.call import Call
from app.gateway.runtime import Runtime
from app.metering import money, pricing, scopes
from app.metering.reservations import output_for, usual_output
from app.providers.tokens import apart


def estimate_of(runtime: Runtime, call: Call) -> dict[str, Any]:
    """The answer of `POST /v1/estimate`. Raises `RedisAway` if the meter can't tell what is left.

    `hold` is the most that the call can cost; near the end of a budget an answer without a limit of its own holds less, as
    a reserve would have it. `likely_cost` is for the prompt's real tokens and an answer of usual length.
    """
    charge = pipeline.charge_of(call)
    chain = scopes.chain_of(call.caller, *call.paid_by)
    levels = runtime.meter.levels(chain, clock.now_ms())
    lefts = [
        (left, level.held_nano, scope)
        for scope, level in zip(chain, levels, strict=True)
        if (left := level.left_nano) is not None
    ]
    output = charge.assumed_output if charge.output_limit is None else charge.output_limit
    tightest = min(lefts, key=lambda one: one[0]) if lefts else None
    if charge.output_limit is None and tightest is not None:
        left, held, _ = tightest
        output = output_for(charge, left, held, usual_output(runtime.meter.outputs(charge.outputs_key)))
    hold = charge.amount(output)
    affordable = tightest is None or charge.priced and hold <= max(tightest[0], 0)
    bound = call.bound
    limited_by = None
    if tightest is not None and not affordable:
        left, _, scope = tightest
        limited_by = {
            "scope": scope.kind, "id": scopes.address_of(call.caller, scope), "remaining": money.text(max(left, 0)),
        }  # fmt: skip
    return {
        "object": "estimate",
        "model": call.model.name,
        "prompt_tokens_bound": bound.input,
        "completion_tokens_bound": output * bound.answers if bound.produces_output else 0,
        "hold": money.text(hold),
        "likely_cost": money.text(min(_likely(call, output), hold)),
        "currency": runtime.config.portal.currency,
        "affordable": affordable,
        "limited_by": limited_by,
    }


def _likely(call: Call, output: int) -> int:
    question = call.request.question()
    used = {"prompt_tokens": apart(question.tokens_counted), **call.bound.more}
    if call.bound.produces_output:
        used["completion_tokens"] = min(output, pricing.UNNAMED_OUTPUT_TOKENS) * call.bound.answers
    return pricing.cost_nano(call.price, used, call.bound.tier)
