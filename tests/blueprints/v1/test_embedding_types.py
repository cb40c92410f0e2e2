"""The type of an embedding's texts: a model's instruction is put beside them, and the member stays here."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate
from tests.services.upstream import EMBEDDINGS as PATH
from tests.services.upstream import Upstream

QUERY, PASSAGE = "Instruct: Find what answers.\nQuery: {text}", "passage: {text} \u00e9"


@pytest.fixture
def gate(gate: Gate) -> Gate:
    instructions = {"query_instruction": QUERY, "passage_instruction": PASSAGE}
    gate.model("finder", "up", capabilities=("embeddings",), **instructions)
    gate.model("plain", "up", capabilities=("embeddings",))
    gate.model("inside", "echo", capabilities=("embeddings",), **instructions)
    return gate


@pytest.mark.parametrize(
    ("type", "given", "sent"),
    [
        ("query", "What is red?", QUERY.replace("{text}", "What is red?")),
        ("query", ["one", '"two" {text}'], [QUERY.replace("{text}", "one"), QUERY.replace("{text}", '"two" {text}')]),
        ("passage", ["A strawberry 🍓"], [PASSAGE.replace("{text}", "A strawberry 🍓")]), (None, "As it is", "As it is"),
        (None, [1, 2], [1, 2]),
    ],
)  # fmt: skip
def test_texts_become_what_the_instruction_of_their_type_makes_of_them(
    gate: Gate, upstream: Upstream, sdk: openai.OpenAI, type: str | None, given: Any, sent: Any
) -> None:
    made = sdk.embeddings.create(model="finder", input=given, encoding_format="float", extra_body={"type": type})
    assert len(made.data) == (len(given) if isinstance(given, list) and isinstance(given[0], str) else 1)
    assert upstream.requests[-1].json == {"model": "finder-up", "input": sent, "encoding_format": "float"}
    (event,) = gate.events()
    assert (event.prompt_tokens, event.estimated) == (made.usage.prompt_tokens, False)


def test_a_model_without_instructions_gets_texts_as_they_are(gate: Gate, upstream: Upstream, client: Client) -> None:
    for type in ("query", "passage"):
        assert client(PATH, {"model": "plain", "input": "A boat", "type": type}).status == 200
        assert upstream.requests[-1].json == {"model": "plain-up", "input": "A boat"}
    assert client(PATH, {"model": "plain", "input": [[1, 2]], "type": "query"}).status == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"type": "question"}, "type"), ({"type": 7}, "type"), ({"type": "query", "input": [1, 2]}, "type")],
)
def test_what_is_wrong_with_a_type_is_told(gate: Gate, client: Client, fields: dict[str, Any], param: str) -> None:
    answer = client(PATH, {"model": "finder", "input": "A boat"} | fields)
    assert (answer.status, answer.param) == (400, param)


def test_a_hold_covers_the_instruction_of_every_text(gate: Gate, upstream: Upstream, client: Client) -> None:
    gate.limit("user", "person-1", "1")
    body = {"model": "finder", "input": ["a"] * 100}
    assert client(PATH, body).status == client(PATH, body | {"type": "query"}).status == 200
    without, with_it = (event.hold_nano for event in gate.events(2))
    assert with_it - without >= 100 * (len(QUERY) - len("{text}")) * 1000


def test_vectors_made_here_follow_the_instruction_too(gate: Gate, client: Client) -> None:
    vectors = [client(PATH, {"model": "inside", "input": "A boat"} | fields).json["data"][0]["embedding"]
               for fields in ({}, {"type": "query"}, {"input": QUERY.replace("{text}", "A boat")})]  # fmt: skip
    assert vectors[0] != vectors[1] == vectors[2]
