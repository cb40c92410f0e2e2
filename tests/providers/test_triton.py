"""Triton's adapter where no server is needed: tokens that models tell in their ways, and a process without gRPC."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.providers import triton_grpc
from app.providers.addresses import AddressPolicy
from app.providers.base import UpstreamError, UpstreamRequest
from app.providers.triton import Triton, TritonSettings
from app.providers.triton_errors import failure
from app.providers.triton_exchanges import TritonText
from app.providers.triton_http import HttpTransport
from app.providers.triton_tensors import Model, Spec, map_of

ROOT = Path(__file__).resolve().parents[2]
POLICY = AddressPolicy(allow_private=True)


def text_of(*answers: dict[str, Any], each: bool = False, repeats_text: bool = False) -> TritonText:
    """An exchange whose model gives these answers, to its end."""
    names = {"text": "BYTES", "num_output_tokens": "UINT32", "num_input_tokens": "UINT32", "finish_reason": "BYTES"}
    inputs = {"prompt": Spec("prompt", "BYTES")}
    if each:
        inputs["return_num_output_tokens"] = Spec("return_num_output_tokens", "BOOL")
    tensors = map_of(Model(inputs, {name: Spec(name, kind) for name, kind in names.items()}), "chat")
    request = UpstreamRequest(capability="chat", dialect="openai_chat", model="m", members={}, parsed=None)
    came: Any = [{name: [value] for name, value in answer.items()} for answer in answers]
    exchange = TritonText(came, request, tensors, repeats_text=repeats_text)
    exchange.receive()
    return exchange


def answer(text: str, count: int | None = None, **more: Any) -> dict[str, Any]:
    told = {} if count is None else {"num_output_tokens": count}
    return {"text": text.encode(), "num_input_tokens": 5} | told | more


@pytest.mark.parametrize(
    ("counts", "each", "tokens"),
    [
        ([1, 1, 1], False, 3), ([1, 2, 3], False, 3), ([1, 2, 3], True, 6), ([1, 1, 2], False, 4), ([2, 4, 5], False, 5),
        ([None, None, 7], False, 7), ([0, 0, 7], False, 7), ([4], False, 4), ([5, 5], False, 10),
    ],
)  # fmt: skip
def test_tokens_are_those_of_each_answer_or_of_all_so_far(counts: list[Any], each: bool, tokens: int) -> None:
    exchange = text_of(*(answer(f"word{place} ", count) for place, count in enumerate(counts)), each=each)
    exchange.reply()
    used = exchange.conclude()
    assert (used.prompt_tokens, used.completion_tokens, used.estimated) == (5, tokens, False)


def test_tokens_that_were_told_too_early_are_counted_here() -> None:
    exchange = text_of(answer("one ", 1), answer("two three four"))
    exchange.reply()
    assert exchange.conclude().estimated and exchange.conclude().completion_tokens >= 4


def test_a_model_that_repeats_its_text_is_passed_on_once() -> None:
    exchange = text_of(answer("Hel"), answer("Hello"), answer("Hello you"), repeats_text=True)
    (part,) = exchange.reply().parts
    assert part.text == "Hello you"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("told", "finish"),
    [("stop", "stop"), ("LENGTH", "length"), ("eos", "stop"), ("max_tokens", "length"), ("whatever", "stop")],
)
def test_how_a_text_ended_is_said_in_the_neutral_words(told: str, finish: str) -> None:
    assert text_of(answer("x", finish_reason=told.encode())).reply().finish == finish


def test_a_model_without_an_answer_and_one_without_its_output_have_failed() -> None:
    for answers in ((), ({"other": b"x"},)):
        with pytest.raises(UpstreamError):
            text_of(*answers).reply()


@pytest.mark.parametrize(
    ("said", "status", "refused"),
    [
        ("Request for unknown model: 'x' is not found", 404, False),
        ("Request for unknown model: 'x' has no available versions", 404, False),
        ("[request id: 7] unexpected inference input 'y' for model 'x'", 502, False),
        ("prompt of 9000 tokens is longer than the maximum model length of 4096", 400, True),
        ("inference input data-type is 'INT32', but model expects 'INT64'", 502, False),
    ],
)
def test_only_a_prompt_that_is_too_long_is_the_client_s_fault(said: str, status: int, refused: bool) -> None:
    error = failure(said)
    assert (error.status, error.refused) == (status, refused) and "request id" not in error.message


@pytest.mark.parametrize(
    ("settings", "origin"),
    [
        ({}, "http://triton.example.com:8000"),
        ({"http_url": "https://triton.example.com:444/x"}, "https://triton.example.com:444"),
    ],
)
def test_http_takes_over_where_grpc_can_t_be_used_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], origin: str
) -> None:
    monkeypatch.setattr(triton_grpc, "trouble", lambda: "no module named grpc")
    with capture_logs() as logs:
        made = Triton(TritonSettings(base_url="grpc://triton.example.com:8001", **settings), policy=POLICY)
    assert isinstance(made._transport, HttpTransport)
    at = made._transport._pool.origin
    assert f"{at.scheme}://{at.host}:{at.port}" == origin
    (line,) = logs
    assert line["event"] == "gRPC can't be used: HTTP takes over" and line["reason"] == "no module named grpc"


TRIED = """
from gevent import monkey; monkey.patch_all()
import sys
import time
from app.providers import adapter, kinds
from app.providers.addresses import AddressPolicy
for kind in kinds():
    adapter(kind)
made = adapter("triton")
made(made.Settings(base_url="http://127.0.0.1:9"), policy=AddressPolicy(allow_private=True))
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"grpc", "tritonclient", "google", "numpy"}))
made(made.Settings(base_url="grpc://127.0.0.1:9"), policy=AddressPolicy(allow_private=True))
from app.providers import triton_grpc
print("grpc" in sys.modules, triton_grpc.trouble())
"""


@pytest.mark.slow
def test_grpc_is_loaded_where_a_provider_wants_it_and_nowhere_else() -> None:
    done = subprocess.run([sys.executable, "-c", TRIED], capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.stdout.splitlines() == ["", "True None"], done.stderr


def test_a_place_where_nobody_listens_is_unreachable_over_grpc() -> None:
    made = Triton(TritonSettings(base_url="grpc://127.0.0.1:9", timeout_s=5), policy=POLICY)
    result = made.check(model="m", prompt=None, parameters={})
    made.close()
    assert result.result == "connection_error" and "127.0.0.1" not in result.detail


def test_an_address_that_may_not_be_used_is_not_connected_to_over_grpc() -> None:
    made = Triton(TritonSettings(base_url="grpc://127.0.0.1:9"), policy=AddressPolicy(allow_private=False))
    result = made.check(model="m", prompt=None, parameters={})
    assert result.result == "connection_error" and "may not be used" in result.detail


def test_a_channel_is_kept_until_the_address_means_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = triton_grpc.GrpcTransport(
        Triton(TritonSettings(base_url="http://127.0.0.1:9"), policy=POLICY).dial("base_url"), ()
    )
    first = transport.taken()
    assert transport.taken() is first
    first.give_back()
    monkeypatch.setattr(transport._dial, "places", lambda: [(2, ("127.0.0.2", 9))])
    other = transport.taken()
    assert other is not first
    first.give_back()  # the last call on it ends, and it is closed
    other.is_broken = True
    assert transport.taken() is not other
    transport.close()


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_a_server_that_says_nothing_is_not_waited_for_beyond_the_deadline(transport: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"{transport}://127.0.0.1:{silent.getsockname()[1]}"
        made = Triton(TritonSettings(base_url=address, timeout_s=1, connect_timeout_s=1), policy=POLICY)
        started = time.monotonic()
        result = made.check(model="m", prompt=None, parameters={})
        made.close()
    assert result.result in ("timeout", "connection_error") and time.monotonic() - started < 10
