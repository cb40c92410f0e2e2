"""What every adapter inherits, and what it is asked with."""

from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta

from app.gateway.dialects.openai_chat import ChatRequest
from app.providers.addresses import AddressPolicy
from app.providers.base import PROMPT_KEPT, Adapter, CheckResult, Exchange, UpstreamRequest
from app.providers.settings import ADDRESS, Deadlines, Settings, address

POLICY = AddressPolicy(allow_private=True)


class Double(Settings):
    front: Annotated[str, Meta(extra=ADDRESS)] = "https://front.example/v1"
    back: Annotated[str, Meta(extra=address("grpc"))] = "grpc://back.example:8001"


class Single(Settings):
    place: Annotated[str, Meta(extra=ADDRESS)] = "https://only.example/v1"


class Silent(Adapter):
    def open(self, request: UpstreamRequest, deployment: Any) -> Exchange:
        raise AssertionError("nobody asks")

    def check(self, **asked: Any) -> CheckResult:
        raise AssertionError("nobody asks")


def adapter(settings: Settings) -> Silent:
    kind = type("Kind", (Silent,), {"Settings": type(settings)})
    made: Silent = kind(settings, policy=POLICY)
    return made


def test_an_adapter_dials_its_address_or_the_one_that_it_names() -> None:
    assert adapter(Single(timeout_s=7)).dial().origin == ("https", "only.example", 443, "/v1")
    assert adapter(Single(timeout_s=7)).dial().deadlines == Deadlines(7, 7, 7, 3600)
    slow = Single(timeout_s=70, first_byte_timeout_s=600, idle_timeout_s=5, total_timeout_s=900)
    assert adapter(slow).dial().deadlines == Deadlines(10, 600, 5, 900)
    assert adapter(Single(connect_timeout_s=20)).dial().deadlines == Deadlines(20, 60, 60, 3600)
    double = adapter(Double())
    assert (double.dial("front").origin.port, double.dial("back").origin.port) == (443, 8001)


@pytest.mark.parametrize("settings", [Double(), Settings()])
def test_an_adapter_never_guesses_which_address_is_meant(settings: Settings) -> None:
    with pytest.raises(ValueError, match="unpack"):
        adapter(settings).dial()


def test_only_what_has_the_role_of_an_address_is_dialled() -> None:
    with pytest.raises(KeyError):
        adapter(Double()).dial("on_disconnect")


def request(content: str, **more: Any) -> UpstreamRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    members = {"messages": json.dumps(body["messages"]).encode(), "tools": b'[{"name": "look_up"}]', "user": b'"u"'}
    return UpstreamRequest(
        **{"capability": "chat", "dialect": "openai_chat", "model": "m", "members": members,
           "parsed": msgspec.convert(body, ChatRequest)} | more,
    )  # fmt: skip


@pytest.mark.parametrize("content", ["a short question", "word " * PROMPT_KEPT])
def test_a_question_that_is_forgotten_is_counted_as_before(content: str) -> None:
    """What a stream keeps of its question is bounded, and enough to count its tokens."""
    asked = request(content, stream=True)
    before = asked.question()
    asked.forget_question()
    assert asked.question() == before
    assert asked.parsed is None and "user" not in asked.members
    assert sum(map(len, asked.members.values())) <= PROMPT_KEPT
    counted = before.tokens_counted()
    assert counted / 2 <= asked.prompt_estimate <= counted * 2 + 20


def test_a_request_of_a_dialect_without_translation_says_so() -> None:
    with pytest.raises(AssertionError, match="openai_chat is not translated"):
        request("hi").conversation()
