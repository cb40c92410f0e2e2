"""From a body to a call: who may ask for what is judged before anything is paid for."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from app.directory import CallerRecord, Deployment, Model
from app.domain.payers import SHORTEST_PROMPT
from app.gateway.admission import admit, check_endpoint
from app.gateway.call import Call
from app.gateway.endpoints import CHAT, COMPLETIONS, EMBEDDINGS, TABLE, Endpoint
from app.gateway.errors import ApiError
from app.gateway.runtime import Runtime
from config import Config, Gateway
from tests.gateway.dialects.calls import CALLER, MODEL, asked, chat

MODELS = {"small": MODEL, "other": msgspec.structs.replace(MODEL, id="o", name="other")}


def runtime(*, is_active: bool = True) -> Runtime:
    routes = SimpleNamespace(model_for=MODELS.get, endpoint_active=lambda _: is_active)
    return cast(Runtime, SimpleNamespace(routes=routes, config=Config(gateway=Gateway(keep_alive_s=7))))


def admitted(body: dict[str, Any], endpoint: Endpoint = CHAT, **caller: Any) -> Call:
    who = msgspec.structs.replace(CALLER, **caller)
    return admit(runtime(), who, endpoint, json.dumps(body).encode(), id="r", origin="https://x.test", session="s")


def refusal(body: dict[str, Any], endpoint: Endpoint = CHAT, **caller: Any) -> tuple[int, str | None, str | None]:
    with pytest.raises(ApiError) as refused:
        admitted(body, endpoint, **caller)
    return refused.value.status, refused.value.code, refused.value.param


def test_a_call_knows_who_asks_what_of_whom() -> None:
    call = admitted(chat(max_tokens=5, stream=True, stream_options={"include_usage": True}))
    assert (call.id, call.endpoint, call.caller, call.model) == ("r", CHAT.path, CALLER, MODEL)
    assert (call.origin, call.session) == ("https://x.test", "s")
    request = call.request
    assert (request.capability, request.dialect, request.model) == ("chat", "openai_chat", "small")
    assert (request.stream, request.include_usage, request.max_output) == (True, True, 5)
    assert request.keep_alive_s == 7
    assert request.prompt_estimate == call.bound.usual_input


def test_a_model_that_is_not_there_and_one_that_is_not_ones_own_are_told_alike() -> None:
    missing = refusal({**chat(), "model": "nothing"})
    assert missing == refusal({**chat(), "model": "other"}) == (404, "model_not_found", "model")
    assert admitted({**chat(), "model": "other"}, models={"other": "s"}).model.name == "other"


def test_a_model_is_asked_for_what_it_can_do() -> None:
    assert refusal({"model": "small", "prompt": "a"}, COMPLETIONS) == (400, None, "model")


@pytest.mark.parametrize("steering", [{"provider": "up"}, {"fallback_providers": ["down"]}])
def test_a_caller_whose_routing_is_fixed_steers_nowhere(steering: dict[str, Any]) -> None:
    assert refusal(chat(**steering), routing="fixed") == (403, None, "provider")
    assert refusal({**chat(**steering), "model": "nothing"}, routing="fixed")[0] == 403
    assert admitted(chat(provider=None, fallback_providers=[]), routing="fixed").steering.provider is None


@pytest.mark.parametrize("endpoint", TABLE, ids=lambda endpoint: endpoint.id)
def test_a_key_is_good_for_its_scopes_alone(endpoint: Endpoint) -> None:
    others: tuple[Any, ...] = tuple({one.scope for one in TABLE} - {endpoint.scope})
    for scopes in ((), (endpoint.scope,), (endpoint.scope, *others)):
        check_endpoint(runtime(), msgspec.structs.replace(CALLER, scopes=scopes), endpoint)
    with pytest.raises(ApiError) as refused:
        check_endpoint(runtime(), msgspec.structs.replace(CALLER, scopes=others), endpoint)
    assert (refused.value.status, refused.value.code) == (403, "insufficient_scope")


def test_a_path_that_is_switched_off_is_told_to_those_alone_who_might_use_it() -> None:
    def status(caller: CallerRecord) -> int:
        with pytest.raises(ApiError) as refused:
            check_endpoint(runtime(is_active=False), caller, CHAT)
        return refused.value.status

    assert status(CALLER) == 503
    assert status(msgspec.structs.replace(CALLER, scopes=("images",))) == 403


def test_the_smallest_call_holds_what_a_budget_must_have_not_to_be_used_up() -> None:
    model = Model(id="m", name="m", capabilities=("embeddings",), created=1, deployments=(Deployment("d", "p", "u"),))
    caller = msgspec.structs.replace(CALLER, models={"m": "s"})
    smallest = asked(b'{"model":"m","input":[1]}', model, EMBEDDINGS, caller).bound.input
    assert smallest == SHORTEST_PROMPT


def test_a_kept_prompt_is_asked_in_its_words_and_told_by_its_tags() -> None:
    owner = msgspec.json.encode({"person_id": CALLER.person_id})
    text = msgspec.json.encode({"version": 1, "template": "Say {{word}}", "model": "small"})
    served = runtime()
    served.wire = cast(Any, SimpleNamespace(call=lambda *_: [owner, text]))
    who = msgspec.structs.replace(CALLER, tags=("mine",))
    body = {"prompt": {"id": "p", "variables": {"word": "hello"}}, "metadata": {"tags": "mine,other"}}
    call = admit(served, who, CHAT, json.dumps(body).encode(), id="r")
    assert [message.content for message in call.request.parsed.messages] == ["Say hello"]
    assert call.labels.tags == ("prompt:p", "prompt:p:1", "mine")
    assert "prompt" not in call.request.members
