"""Every kind of provider keeps the contract: what was recorded of its upstream gives the same wherever the network cuts it.

A new kind is found here by itself, and fails until it has its recordings (`tests/providers/contract.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.settings import fields_of, schemes_of
from tests.providers import contract
from tests.providers.contract import (
    OURS,
    SHORT,
    SORTS,
    SORTS_WITHIN,
    Outcome,
    Recording,
    Stage,
    adapter_of,
    all_kinds,
    home_of,
    own_recordings_of,
    playing,
    recordings_of,
    speaks_to_clients,
)

KINDS = all_kinds()
UPSTREAM = [kind for kind in KINDS if schemes_of(adapter_of(kind).Settings)]
CASES = [(kind, name) for kind in KINDS for name in recordings_of(kind)]
# Kinds that share an adapter are one as to where bytes are cut.
CUT = [(kind, name) for kind, name in CASES if kind == home_of(kind) and recordings_of(kind)[name].said]
SHORT_ONES = [(kind, name) for kind, name in CUT if len(recordings_of(kind)[name].said or b"") <= SHORT]
LONG_ONES = [case for case in CUT if case not in SHORT_ONES]
STREAMS = [
    (kind, name)
    for kind, name in SHORT_ONES
    if (one := recordings_of(kind)[name]).streams and one.capability == "chat" and one.endpoint != "responses"
]


def of_each(cases: list[tuple[str, str]]) -> Any:
    return pytest.mark.parametrize(("kind", "name"), cases, ids=["-".join(case) for case in cases])


@contextmanager
def staged(kind: str, name: str) -> Iterator[tuple[Stage, Recording]]:
    with playing(kind, recordings_of(kind)[name].settings) as stage:
        yield stage, recordings_of(kind)[name]


def modes(kind: str, recording: Recording) -> list[bool]:
    """Whether to read it in the neutral language: as bytes too where clients speak that, and alone where none does, and for
    what the neutral language has no words."""
    chats = recording.capability == "chat" and recording.endpoint != "responses"
    spoken = speaks_to_clients(kind) and (home_of(kind) != "anthropic" or recording.endpoint == "messages")
    return [mode for mode in (True, False) if (chats if mode else not chats or spoken)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_recordings_of_every_sort(kind: str) -> None:
    sorts = SORTS if kind in UPSTREAM else SORTS_WITHIN
    names = recordings_of(kind)
    assert not {sort for sort in sorts if not any(name.startswith(sort) for name in names)}
    assert all((recording.said is not None) is (kind in UPSTREAM) for recording in names.values())
    assert {recording.capability for recording in names.values()} == set(adapter_of(kind).abilities)


@pytest.mark.parametrize("kind", KINDS)
def test_a_setting_that_reads_like_a_secret_or_an_address_has_its_role(kind: str) -> None:
    for field in fields_of(adapter_of(kind).Settings):
        if re.search(r"key|token|secret|passw|credential", field.name) and field.type == "text":
            assert field.role in ("secret", "secret_env"), field.name
        if re.search(r"ur[li]|host|address|endpoint|server", field.name):
            assert field.role == "address", field.name


@of_each(CASES)
def test_what_was_recorded_gives_what_it_is_known_to_give(kind: str, name: str) -> None:
    with staged(kind, name) as (stage, recording):
        size = len(stage.said_by(recording))
        bytewise = range(1, size, 1 if size <= SHORT else 13)
        for neutral in modes(kind, recording):
            whole = stage.play(recording, neutral=neutral)
            check(recording, whole, neutral)
            if kind in UPSTREAM:
                assert stage.play(recording, bytewise, neutral=neutral) == whole


def check(recording: Recording, outcome: Outcome, neutral: bool) -> None:
    gives = dict(recording.gives)
    expected_error = gives.pop("error", None)
    assert outcome.error == expected_error
    if "usage" in gives:
        assert outcome.used == gives.pop("usage")
    if "finish_reason" in gives:
        assert outcome.finish_reason == gives.pop("finish_reason")
    if expected_error:
        is_told = "usage" in recording.gives  # by an upstream that charges for its failure
        assert not outcome.finish_reason and (is_told or outcome.used is None or outcome.used["estimated"])
    body = gives.pop("body", None)
    if not neutral:
        check_bytes(recording, outcome, body)
        return
    assert outcome.calls == gives.pop("calls", [])
    assert (outcome.text, outcome.reasoning) == (gives.pop("text", ""), gives.pop("reasoning", ""))
    finish = outcome.finish if expected_error else outcome.finish or "none"
    assert finish == gives.pop("finish", finish) and (finish is None) is bool(expected_error)
    assert not gives, "nothing compares these"


def check_bytes(recording: Recording, outcome: Outcome, body: Any) -> None:
    """Each piece is whole, in the dialect of the client, and bears the portal's name of the model, where there is one."""
    if recording.endpoint == "messages":
        check_messages(recording, outcome)
        return
    if recording.endpoint == "responses":
        check_responses(recording, outcome)
        return
    if isinstance(body, str):
        assert b"".join(outcome.pieces).decode() == body
        return
    if recording.streams:
        pieces = [
            part for piece in outcome.pieces for part in piece.split(b"\n\n") if part and not part.startswith(b":")
        ]
        assert all(piece.endswith(b"\n\n") for piece in outcome.pieces)
        values = [json.loads(piece[piece.index(b"data: ") + 6 :]) for piece in pieces]
        asked = bool((recording.asks.get("stream_options") or {}).get("include_usage"))
        told = [value for value in values if "prompt_tokens" in (value.get("usage") or {})]
        assert len(told) == (asked and not outcome.error)
    else:
        values = [json.loads(piece) for piece in outcome.pieces]
        told = [value for value in values if recording.capability in ("chat", "embeddings")]
    assert all(value.get("model", OURS) == OURS for value in values)
    for value in told:
        used = outcome.used or {}
        for quantity in ("prompt_tokens", "completion_tokens"):
            assert value["usage"].get(quantity, 0) == used.get(quantity, 0)
    assert body is None or values == [body]


def check_messages(recording: Recording, outcome: Outcome) -> None:
    """The same of Anthropic's dialect: events have names, and usage tells what is charged."""
    used = outcome.used or {}
    if not recording.streams:
        values = [json.loads(piece) for piece in outcome.pieces]
        told = values
    else:
        assert all(piece.endswith(b"\n\n") for piece in outcome.pieces)
        events = [part.decode() for piece in outcome.pieces for part in piece.split(b"\n\n") if part]
        values = [json.loads(event.partition("\ndata: ")[2]) for event in events]
        assert [event.partition("\n")[0] for event in events] == [f"event: {value['type']}" for value in values]
        assert [value["type"] for value in values[-2:]] == ["message_delta", "message_stop"] or outcome.error
        told = [value for value in values if value["type"] == "message_delta"]
        values = [value["message"] for value in values if value["type"] == "message_start"]
    assert all(value["model"] == OURS for value in values)
    for value in told:
        assert value["usage"]["output_tokens"] == used["completion_tokens"]


def check_responses(recording: Recording, outcome: Outcome) -> None:
    """The same of OpenAI's Responses."""
    if not recording.streams:
        told = values = [json.loads(piece) for piece in outcome.pieces]
    else:
        assert all(piece.endswith(b"\n\n") for piece in outcome.pieces)
        events = [part.decode() for piece in outcome.pieces for part in piece.split(b"\n\n") if part]
        said = [json.loads(event.partition("\ndata: ")[2]) for event in events]
        assert [event.partition("\n")[0] for event in events] == [f"event: {value['type']}" for value in said]
        assert outcome.error or said[-1]["type"] in ("response.completed", "response.incomplete")
        values = [value["response"] for value in said if "response" in value]
        told = [] if outcome.error else values[-1:]
    assert all(value["model"] == OURS for value in values)
    for value in told:
        assert value["usage"]["output_tokens"] == (outcome.used or {})["completion_tokens"]


FORM_FIELD = re.compile(r'name="(\w+)"\r\n\r\n(.*?)\r\n--', re.DOTALL)
ASKED = [(kind, name) for kind in KINDS for name, one in own_recordings_of(kind).items() if one.asked]


def test_each_kind_of_openai_s_shape_shows_how_it_is_asked() -> None:
    assert {kind for kind, _ in ASKED} >= {kind for kind in KINDS if home_of(kind) == "openai"}


@of_each(ASKED)
def test_the_upstream_is_asked_as_it_wants_to_be(kind: str, name: str) -> None:
    with staged(kind, name) as (stage, recording):
        stage.play(recording, neutral=modes(kind, recording)[-1])
        ((head, _, body),) = [request.partition(b"\r\n\r\n") for request in stage.player.requests]
        line, *lines = head.decode().split("\r\n")
        headers = {field.lower(): value for field, _, value in (one.partition(": ") for one in lines)}
        asked = recording.asked or {}
        assert line == f"POST {asked['path']} HTTP/1.1"
        for field, value in asked["headers"].items():
            expected = value and value.replace("{SECRET}", contract.SECRET)
            assert headers.get(field.lower()) == expected, field
        is_form = headers["content-type"].startswith("multipart/")
        members = dict(FORM_FIELD.findall(body.decode("latin-1"))) if is_form else json.loads(body)
        assert {member: members.get(member) for member in asked["members"]} == asked["members"]
        assert not members.keys() & set(asked.get("without", ()))


@of_each(SHORT_ONES)
def test_a_short_answer_gives_the_same_wherever_it_is_cut(kind: str, name: str) -> None:
    with staged(kind, name) as (stage, recording):
        (*_, mode) = modes(kind, recording)
        whole = stage.play(recording, neutral=mode)
        for place in range(1, len(stage.said_by(recording))):
            assert stage.play(recording, [place], neutral=mode) == whole, place


@given(case=st.sampled_from(LONG_ONES), fractions=st.lists(st.floats(0, 1), max_size=20))
def test_a_long_answer_gives_the_same_wherever_it_is_cut(case: tuple[str, str], fractions: list[float]) -> None:
    with staged(*case) as (stage, recording):
        (*_, mode) = modes(case[0], recording)
        size = len(stage.said_by(recording))
        cuts = [int(fraction * size) for fraction in fractions]
        assert stage.play(recording, cuts, neutral=mode) == stage.play(recording, neutral=mode)


@of_each(STREAMS)
def test_a_stream_that_ends_anywhere_is_whole_or_a_failure(kind: str, name: str) -> None:
    """Whether the connection breaks or the body ends as HTTP has it: what came before is a beginning of what the whole gives,
    and is counted; nothing else is ever raised."""
    with staged(kind, name) as (stage, recording):
        whole = stage.play(recording, neutral=True)
        broken = (stage.play(recording, until=place, neutral=True) for place in range(len(stage.said_by(recording))))
        ended = (stage.play(shorter, neutral=True) for shorter in contract.shortened(recording))
        for part in (*broken, *ended):
            assert whole.text.startswith(part.text) and whole.reasoning.startswith(part.reasoning)
            for known, begun in zip(whole.calls, part.calls, strict=False):
                assert all(full.startswith(start) for full, start in zip(known, begun, strict=True))
            if part.error is None:
                assert (part.text, part.calls, part.finish) == (whole.text, whole.calls, whole.finish)
            else:
                assert part.finish is None and 0 < len(part.error["message"]) <= 500
            if part.text or part.calls:
                assert part.used is not None and part.used.get("completion_tokens", 0) > 0


@of_each([case for case in CASES if case[1].startswith("error") and recordings_of(case[0])[case[1]].said])
def test_a_try_at_a_provider_that_fails_is_told_safely(kind: str, name: str) -> None:
    with staged(kind, name) as (stage, recording):
        if not recording.streams and recording.capability == "chat":
            result = stage.check(recording)
            assert result.result != "ok" and 0 < len(result.detail) <= 500


@pytest.mark.parametrize("kind", UPSTREAM)
def test_a_connection_is_kept_for_the_next_call_where_the_protocol_knows_that(kind: str) -> None:
    with staged(kind, "plain") as (stage, recording):
        for _ in range(3):
            stage.play(recording, neutral=True)
        assert stage.player.connections == (1 if recording.is_http else 3)


def test_the_suite_finds_a_leak() -> None:
    """It fails for an answer that tells a secret or an address."""
    for told in (contract.SECRET, *contract.INTERNAL, "127.0.0.1:4711"):
        with pytest.raises(AssertionError):
            contract.assert_keeps_quiet([{"event": f"asked {told}"}], port=4711)
