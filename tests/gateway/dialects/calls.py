"""Requests in OpenAI's formats as tests send them, the calls that they make, and what an upstream can charge for them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import strategies as st

from app.directory import CallerRecord, Deployment, Model
from app.gateway.admission import admit
from app.gateway.call import Call
from app.gateway.endpoints import CHAT, Endpoint
from app.gateway.runtime import Runtime
from app.providers import adapter
from app.providers.addresses import AddressPolicy
from app.providers.openai import OpenAI, OpenAISettings
from app.runtime.forms import Form
from app.runtime.jsonbody import object_of
from config import Gateway

UP = Deployment(id="d", provider_id="p", upstream_model="served/under-another-name")
MODEL = Model(
    id="m", name="small", capabilities=("chat", "embeddings"), created=1, deployments=(UP,), image_tokens=700,
    audio_tokens=300,
)  # fmt: skip
CALLER = CallerRecord(id="k", kind="key", name="k", person_id="p", username="ada", models={"small": "s"})
POLICY = AddressPolicy(allow_private=True, own_ports=frozenset())
VLLM: Any = adapter("vllm")
ADAPTERS: dict[str, OpenAI] = {
    "max_completion_tokens": OpenAI(OpenAISettings(), policy=POLICY),
    "max_tokens": VLLM(VLLM.Settings(), policy=POLICY),
}


def asked(
    body: bytes | dict[str, Any] | Form, model: Model = MODEL, endpoint: Endpoint = CHAT, caller: CallerRecord = CALLER
) -> Call:
    """The call that a body makes."""
    sent = body if isinstance(body, bytes | Form) else json.dumps(body).encode()
    routes = SimpleNamespace(model_for=lambda _: model, endpoint_active=lambda _: True)
    runtime = SimpleNamespace(routes=routes, config=SimpleNamespace(gateway=Gateway()), wire=None)
    return admit(cast(Runtime, runtime), caller, endpoint, sent, id="r")


def sent_up(call: Call, field: str) -> bytes:
    """The bytes that go to an upstream whose limit is called `field`."""
    return b"".join(object_of(ADAPTERS[field]._members(call.request, UP)))


def chat(content: Any = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": "small", "messages": [{"role": "user", "content": content}], **fields}


def charged(body: bytes) -> int:
    """What an upstream charges that takes every byte of UTF-8 for a token; it reads what JSON escapes."""

    def text(value: Any) -> int:
        return sum(len(char.encode("utf-8", "surrogatepass")) for char in value)

    def tokens(value: Any) -> int:
        match value:
            case str():
                return text(value) + 2
            case dict():
                return 1 + sum(text(name) + 4 + tokens(inner) for name, inner in value.items())
            case list():
                return 1 + sum(1 + tokens(inner) for inner in value)
            case _:
                return 1

    return tokens(json.loads(body))


texts = st.text(max_size=30) | st.sampled_from(["\\u4e2d", "\\\\u0041", "\\", "中文字" * 5, "😀é", '"\n\t', "x" * 500])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
names = st.text(min_size=1, max_size=12) | st.sampled_from(["documents", "prediction", "functions", "name", "中"])
