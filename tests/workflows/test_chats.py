"""What is read of a chat's stream, whoever the upstream is and however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from app.domain import subscriptions
from app.extensions import transaction
from app.workflows import inference, publication
from app.workflows.chats import Answering, Figures
from tests.house import People, make_model, metered  # noqa: F401


def answering(*chunks: bytes) -> Answering:
    """An answer of these pieces, each as /v1 sends it."""

    def pieces() -> Iterator[bytes]:
        yield from chunks

    return Answering((None, pieces()))  # type: ignore[arg-type]


def chunk(**delta: Any) -> bytes:
    return b"data: " + msgspec.json.encode({"choices": [{"index": 0, "delta": delta}]}) + b"\n\n"


def test_words_thoughts_and_calls_are_put_together() -> None:
    first = {"index": 0, "id": "c1", "function": {"name": "weather", "arguments": '{"in":'}}
    last = {"index": 0, "function": {"arguments": '"Bonn"}'}}
    found = answering(
        chunk(role="assistant", content=""),
        chunk(reasoning_content="Hm"), chunk(reasoning="m."),
        b": keep-alive\n\n",
        chunk(content="It "), chunk(content="rains."),
        chunk(tool_calls=[first]), chunk(tool_calls=[last]),
        b'data: {"choices": [{"index": 1, "delta": {"content": "another choice"}}]}\n\n',
        b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n',
        b'data: "what nobody knows"\n\n', b"data: [DONE]\n\n",
    )  # fmt: skip
    assert [part.kind for part in found] == ["reasoning", "reasoning", "figures", "text", "text"]
    assert (found.text, found.reasoning) == ("It rains.", "Hmm.")
    assert [(call.id, call.name, call.arguments) for call in found.calls] == [("c1", "weather", '{"in":"Bonn"}')]
    assert found.error is None


def test_a_stream_that_is_cut_keeps_what_came_and_says_why() -> None:
    found = answering(chunk(content="It "), b'data: {"error": {"message": "The provider went away."}}\n\n').whole()
    assert (found.text, found.error) == ("It ", "The provider went away.")


def test_speed_is_counted_from_the_first_token() -> None:
    assert Figures(id="1", model="m", completion_tokens=10, duration_ms=2500, ttft_ms=500).tokens_per_s == 5
    assert Figures(id="1", model="m", completion_tokens=10).tokens_per_s is None


@pytest.mark.parametrize("ends", ["read to its end", "left early"])
def test_a_call_is_settled_once_with_what_came(people: People, metered: None, ends: str) -> None:  # noqa: F811
    model = transaction(make_model)
    transaction(subscriptions.request, people.owner, model, by=people.owner)
    publication.publish_all()
    asked = {"model": "small", "messages": [{"role": "user", "content": "one two three"}]}
    found = Answering(inference.stream(inference.caller_of(people.owner), asked))
    if ends == "left early":
        parts = iter(found)
        next(parts)
        parts.close()  # type: ignore[attr-defined]
        assert found.text == "one"
    else:
        found.whole()
        assert (found.text, found.figures.finish_reason) == ("one two three", "stop")
    assert found.figures.cost_nano == (3 + len(found.text.split())) * 1000 + len(found.text.split()) * 1000
