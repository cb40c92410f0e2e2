"""From a body to a call, without HTTP: read, checked, its model found, what it may use bounded.

The doors of /v1 come here, and so does whoever else calls a model: every call is metered the same way.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.directory import CallerRecord
from app.gateway import prompts
from app.gateway.call import Call
from app.gateway.dialects import dialect
from app.gateway.dialects.base import Asked, Dialect
from app.gateway.endpoints import CHAT, Endpoint
from app.gateway.errors import ApiError, bad_request, endpoint_disabled, out_of_scope, routing_fixed, unknown_model
from app.gateway.labels import NO_LABELS, Labels, completed
from app.gateway.routing import FREE, Steering
from app.gateway.runtime import Runtime
from app.metering import pricing
from app.providers.base import UpstreamRequest
from app.runtime.forms import Form


def check_endpoint(runtime: Runtime, caller: CallerRecord, endpoint: Endpoint) -> None:
    """Raises `ApiError` 403 for a key that is not made for this, and 503 for a path that is switched off."""
    check_scope(caller, endpoint)
    if not runtime.routes.endpoint_active(endpoint.path):
        raise endpoint_disabled(endpoint.path)


def check_scope(caller: CallerRecord, endpoint: Endpoint) -> None:
    """Raises `ApiError` 403 for a key that is not made for this endpoint."""
    if caller.scopes and endpoint.scope not in caller.scopes:
        raise out_of_scope(endpoint.scope, caller.scopes)


def catalogue_page(runtime: Runtime, origin: str) -> str:
    """Where people find models and request access, as the client may reach it."""
    return f"{runtime.config.origin_asked(origin)}/models"


def admit(
    runtime: Runtime,
    caller: CallerRecord,
    endpoint: Endpoint,
    body: bytes | Form,
    *,
    id: str,
    origin: str = "",
    session: str = "",
    labels: Labels = NO_LABELS,
    headers: Mapping[str, str] | None = None,
) -> Call:
    """The call that `body` asks for at an endpoint that a model answers. Raises `ApiError` for whatever is wrong with it.

    `id` names the request everywhere; `origin` is where the client found us, such as "https://portal.example.com";
    `session` is what the client's headers call its conversation, `labels` what they say of the call; `headers` are those that
    its dialect passes on.
    """
    assert endpoint.dialect is not None and endpoint.capability is not None
    spoken = dialect(endpoint.dialect)
    asked, prompt_tags = _read(runtime, caller, endpoint, spoken, body)
    checked = asked.checked
    steering = FREE
    if checked.provider is not None or checked.fallback_providers:
        if caller.routing == "fixed":
            raise routing_fixed()
        steering = Steering(checked.provider, tuple(checked.fallback_providers or ()))
    model = runtime.routes.model_for(checked.model)
    if model is None or not caller.may_call(model.name):
        raise unknown_model(checked.model, catalogue_page(runtime, origin), spoken.no_model)
    if endpoint.capability not in model.capabilities:
        offers = ", ".join(model.capabilities) or "nothing"
        raise bad_request(f"The model '{model.name}' can't be used with {endpoint.path}; it offers {offers}.", "model")
    asked = spoken.suited(asked, model)
    bound = checked.bound(asked.size, asked.members, model, asked.priced_apart)
    if asked.tier is not None:
        bound = bound._replace(tier=asked.tier)
    request = UpstreamRequest(
        capability=endpoint.capability,
        dialect=spoken.name,
        model=checked.model if spoken.answers_as_asked else model.name,
        members=asked.members,
        parsed=checked,
        stream=bool(checked.stream),
        include_usage=checked.include_usage,
        prompt_estimate=bound.usual_input,
        max_output=bound.output,
        translate=spoken.conversation,
        form=asked.form,
        keep_alive_s=runtime.config.gateway.keep_alive_s,
        raw=asked.raw,
        headers=headers or {},
        usual_output=pricing.assumed_output(model, bound),
        can_reason="reasoning" in model.features,
    )
    told = completed(labels, asked.members, caller.id, caller.tags)
    if prompt_tags:
        told = told._replace(tags=(*prompt_tags, *told.tags))
    return Call(id, endpoint.path, caller, model, spoken, request, bound, steering, origin, session, told)


def _read(
    runtime: Runtime, caller: CallerRecord, endpoint: Endpoint, spoken: Dialect, body: bytes | Form
) -> tuple[Asked, tuple[str, ...]]:
    """The request in a body, and the tags of the kept prompt that it names. Only one that names a prompt is read twice."""
    asked = refused = None
    try:
        asked = spoken.read(body)
    except ApiError as error:  # with a prompt, messages and model may be missing
        refused = error
    if isinstance(body, bytes) and (asked is None or (endpoint is CHAT and "prompt" in asked.members)):
        expanded = prompts.expand(runtime.wire, caller, endpoint, body)
        if expanded is not None:
            return spoken.read(expanded.body), expanded.tags
    if asked is None:
        assert refused is not None
        raise refused
    return asked, ()
