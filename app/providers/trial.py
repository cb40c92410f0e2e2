"""A try at a provider whose list of models may be partial, or kept from its key."""

from __future__ import annotations

import time
from collections.abc import Callable

from app.providers.base import CheckResult, CheckVerdict, UpstreamError
from app.providers.model_list import ListedModel
from app.providers.openai import verdict_of


def try_out(list_models: Callable[[], tuple[ListedModel, ...] | None], ask: Callable[[], None] | None) -> CheckResult:
    """What comes of asking for the list, and of a real call to a model, which alone tells whether that is there; `ask` is None
    for no call. Both raise `UpstreamError`."""
    started = time.monotonic()
    offered: tuple[str, ...] = ()
    result: CheckVerdict = "ok"
    detail = "The provider answers."
    try:
        try:
            offered = tuple(one.id for one in list_models() or ())
        except UpstreamError as error:
            if ask is None or error.unconnected or error.timed_out:
                raise
        if ask is not None:
            ask()
        elif offered:
            detail = f"The provider answers and offers {len(offered)} models."
    except UpstreamError as error:
        result, detail = verdict_of(error), error.message
    latency_ms = int((time.monotonic() - started) * 1000)
    return CheckResult(result=result, latency_ms=latency_ms, detail=detail, models=offered)
