"""How long a prompt is: as the provider counts that would be asked, else by our own tokenizer. It costs nothing."""

from __future__ import annotations

from app.gateway.call import Call
from app.gateway.errors import upstream_refused
from app.gateway.runtime import Runtime
from app.providers import tokens
from app.providers.base import UpstreamError


def prompt_tokens(runtime: Runtime, call: Call, path: str) -> int:
    """The tokens of the prompt of a call that would be made at `path`. Raises `ApiError` if the provider refuses it."""
    candidates = runtime.routes.candidates(call.model, path, call.request.capability, call.steering)
    for candidate in runtime.routes.with_credentials(call.caller, candidates[:1]):
        try:
            counted: int | None = candidate.adapter.count_tokens(call.request, candidate.deployment)
        except UpstreamError as error:
            if error.refused:
                raise upstream_refused(
                    error.status or 400, error.message, error.param, error.code, error.original
                ) from None
        else:
            if counted is not None:
                return counted
    counted = tokens.apart(call.request.question().tokens_counted)
    return max(min(counted, call.request.possible.prompt), 1)
