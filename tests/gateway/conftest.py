"""Calls without HTTP: through admission and the pipeline, metered as all are, to a real upstream and a real Valkey."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.gateway import pipeline
from app.gateway.admission import admit
from app.gateway.endpoints import Endpoint
from app.gateway.runtime import Runtime
from app.runtime.ids import new_id
from tests.services.gate import Gate
from tests.services.upstream import Upstream

Call = Callable[..., bytes]


@pytest.fixture
def keep_alive_s() -> float:
    return 15.0


@pytest.fixture
def gate(redis_url: str, upstream: Upstream, keep_alive_s: float) -> Iterator[Gate]:
    """`small` is served by an upstream of OpenAI's shape, `claude` by one of Anthropic's; both are the same upstream."""
    made = Gate(redis_url, CONFIG_GATEWAY_KEEP_ALIVE_S=str(keep_alive_s))
    made.begin()
    made.provider("shaped", base_url=f"{upstream.url}")
    made.provider("anthropic", "anthropic", base_url=upstream.url.removesuffix("/v1"), api_key="sk-ant-1")
    made.model("small", "shaped", capabilities=("chat",))
    made.model("claude", "anthropic", capabilities=("chat",))
    yield made
    made.close()


@pytest.fixture
def call(gate: Gate) -> Iterator[Call]:
    """Runs a call; its bytes, or the pieces of its stream joined."""
    runtime = Runtime(gate.config)
    keys: dict[str, str] = {}

    def run(endpoint: Endpoint, body: dict[str, Any] | bytes, key: str = "", **headers: str) -> bytes:
        key = key or keys.setdefault("usual", gate.key())
        caller = runtime.access.caller(key)
        runtime.routes.refresh(runtime.access.directory_version)
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        admitted = admit(runtime, caller, endpoint, sent, id=new_id(), headers=headers)
        served = pipeline.run(runtime, admitted)
        return served.body if isinstance(served.body, bytes) else b"".join(served.body)

    yield run
    runtime._beats.kill()
    runtime.spool.close()
