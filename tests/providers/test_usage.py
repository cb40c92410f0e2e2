"""What an upstream says of usage is evidence: read in any shape, merged, bounded, and never believed beyond reason."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.gateway.dialects.openai_chat import ChatRequest
from app.providers import tokens, usage
from app.providers.base import Possible, UpstreamRequest, Usage
from app.providers.usage import Tally, Told, read

POSSIBLE = Possible(prompt=200, told_prompt=4_296, answer=1_000, answers=1)
QUESTION = "How many tokens are in this question?"  # 8 of o200k
WORDS = "The quick brown fox jumps over the lazy dog. " * 60  # 2,700 characters, 600 tokens


def request(**more: Any) -> UpstreamRequest:
    asked = {"model": "m", "messages": [{"role": "user", "content": QUESTION}]}
    return UpstreamRequest(
        **{"capability": "chat", "dialect": "openai_chat", "model": "m", "members": {},
           "parsed": msgspec.convert(asked, ChatRequest), "possible": POSSIBLE, "prompt_estimate": 50} | more,
    )  # fmt: skip


def tally(*frames: Any, **more: Any) -> Tally:
    """After these frames: a text is a piece of the answer, anything else is what the upstream tells of usage."""
    made = Tally(request(stream=True, **more))
    for frame in frames:
        if isinstance(frame, str):
            made.hear({"role": msgspec.Raw(b'"assistant"'), "content": msgspec.Raw(json.dumps(frame).encode())})
        else:
            made.tell(json.dumps(frame).encode())
    return made


def figures(told: Usage) -> tuple[int, int, bool]:
    return told.prompt_tokens, told.completion_tokens, told.estimated


@pytest.mark.parametrize(
    ("said", "prompt", "completion", "cached"),
    [
        ({"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140}, 100, 40, None),
        ({"input_tokens": 100, "output_tokens": 40}, 100, 40, None),
        ({"prompt_tokens": 0, "completion_tokens": 0, "input_tokens": 100, "output_tokens": 40}, 100, 40, None),
        ({"prompt_tokens": "100", "completion_tokens": "40"}, 100, 40, None),
        ({"prompt_tokens": 100.0, "completion_tokens": "40.0"}, 100, 40, None),
        ({"prompt_tokens": 100, "completion_tokens": 40, "prompt_tokens_details": []}, 100, 40, None),
        ({"prompt_tokens": 100, "completion_tokens": 40, "prompt_tokens_details": {"cached_tokens": 60}}, 100, 40, 60),
        ({"prompt_tokens": 100, "completion_tokens": 40, "prompt_tokens_details": {"cached_tokens": None}}, 100, 40, None),
        ({"prompt_tokens": 100, "completion_tokens": 40, "prompt_cache_hit_tokens": 60}, 100, 40, 60),
        ({"input_tokens": 100, "output_tokens": 40, "input_tokens_details": {"cached_tokens": 7}}, 100, 40, 7),
        ({"prompt_tokens": 0, "completion_tokens": 50, "total_tokens": 50}, 0, 50, None),
        ({"prompt_tokens": 100, "total_tokens": 140}, 100, 40, None),
        ({"completion_tokens": 40, "total_tokens": 140}, 100, 40, None),
        ({"prompt_tokens": 100, "total_tokens": 40}, 100, None, None),
        ({"total_tokens": 140}, None, None, None),
        ({"prompt_tokens": True, "completion_tokens": False}, None, None, None),
        ({"prompt_tokens": -5, "completion_tokens": {"n": 1}}, None, None, None),
        ({"prompt_tokens": "many", "completion_tokens": "nan"}, None, None, None),
        ({"prompt_tokens": None, "completion_tokens": [40]}, None, None, None),
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115,
             "completion_tokens_details": {"reasoning_tokens": 100}}, 10, 105, None,
        ),
        ({}, None, None, None),
        ([], None, None, None),
        ("100", None, None, None),
    ],
)  # fmt: skip
def test_figures_are_read_in_every_shape_they_come_in(said, prompt, completion, cached):
    told = read(json.dumps(said).encode())
    assert (told.prompt, told.completion, told.cached) == (prompt, completion, cached)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"prompt_tokens": 1e400, "completion_tokens": NaN}', b'{"prompt_tokens": -Infinity}', b"null", b"", b"{",
        b'{"prompt_tokens": ' + b"9" * 5000 + b"}", b'{"a": ' * 100_000, b"\xff\xfe", b'{"prompt_tokens": "\\ud83d"}',
    ],
)  # fmt: skip
def test_what_is_no_figure_is_not_told_and_raises_nothing(raw):
    assert read(raw) == Told()


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5) | st.just("100"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = (*usage.PROMPT, *usage.COMPLETION, *usage.DETAILS, *usage.CACHED, "total_tokens", "completion_tokens_details")
FRAMES = st.dictionaries(st.sampled_from(NAMES), ANY, max_size=6)


@settings(deadline=None)  # the first loads the vocabulary
@given(st.lists(FRAMES | st.text(max_size=20), max_size=8), st.none() | st.integers(0, 30))
def test_whatever_an_upstream_tells_an_answer_is_never_free_and_never_beyond_what_is_possible(frames, limit):
    told = tally(*frames, max_output=limit)
    for progress in (msgspec.structs.replace(told.usage), told.conclude()):
        assert 0 <= progress.prompt_tokens <= POSSIBLE.told_prompt
        assert 0 <= progress.cached_tokens <= progress.prompt_tokens
        seen = sum(len(json.dumps(frame)) for frame in frames if isinstance(frame, str))
        assert 0 <= progress.completion_tokens <= max(POSSIBLE.answer, seen)
    if any(isinstance(frame, str) and frame.strip() for frame in frames) and limit != 0:
        assert told.usage.completion_tokens > 0
    assert figures(told.conclude()) == figures(told.usage)


def test_frames_are_merged_field_by_field():
    full = {"prompt_tokens": 100, "completion_tokens": 40, "prompt_tokens_details": {"cached_tokens": 10}}
    for later in ({"cost": 0.0021}, {"prompt_tokens": 0, "completion_tokens": 0}, {"completion_tokens": 0}, None, {}):
        told = tally("some words", full, later)
        assert figures(told.conclude()) == (100, 40, False)
        assert told.usage.cached_tokens == 10
    assert figures(tally("a", {"prompt_tokens": 100}, {"completion_tokens": 40}).conclude()) == (100, 40, False)


def test_after_a_first_frame_of_zeros_a_long_answer_is_counted():
    told = tally({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, WORDS)
    assert figures(told.conclude()) == (8, 600, True)


def test_after_a_figure_of_the_prompt_alone_the_answer_is_counted():
    assert figures(tally({"prompt_tokens": 100, "completion_tokens": 0}, WORDS).conclude()) == (100, 600, True)
    assert figures(tally({"prompt_tokens": 100}, WORDS).conclude()) == (100, 600, True)


def test_zeros_at_the_end_of_an_answer_are_no_figures():
    told = tally(WORDS, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0})
    assert figures(told.conclude()) == (8, 600, True)
    assert figures(tally(WORDS, {"prompt_tokens": 100, "completion_tokens": 0}).conclude()) == (100, 600, True)


def test_an_answer_without_a_word_may_have_used_nothing():
    assert figures(tally({"prompt_tokens": 100, "completion_tokens": 0}).conclude()) == (100, 0, False)


def test_usage_told_again_and_again_is_exact_wherever_the_stream_is_cut():
    frames: list[Any] = []
    for number in range(1, 6):
        frames += [" word", {"prompt_tokens": 9, "completion_tokens": number}]
        assert figures(tally(*frames).conclude()) == (9, number, False)


def test_usage_in_the_middle_holds_for_what_came_before_it():
    told = tally("The quick brown", {"prompt_tokens": 9, "completion_tokens": 40}, WORDS, None)
    assert figures(told.conclude()) == (9, 640, True)


def test_figures_that_do_not_grow_while_text_comes_are_no_count():
    frame = {"prompt_tokens": 9, "completion_tokens": 1}
    told = tally(*[part for _ in range(60) for part in (" words and more words", frame)])
    assert told.conclude().estimated
    assert told.usage.completion_tokens == pytest.approx(240, rel=0.05)


@pytest.mark.parametrize("figure", [10**18, 9 * 10**12, 2**63, 2**64, 10**300, 1e300])
@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
def test_a_figure_that_the_request_cannot_have_used_is_not_believed(name, figure):
    told = tally("hello world", {"prompt_tokens": 8, "completion_tokens": 2} | {name: figure})
    assert figures(told.conclude()) == (8, 2, True)
    assert told.usage.unreadable is not None and told.usage.unreadable.startswith(name)
    assert len(told.usage.unreadable) < 60


def test_more_than_the_limit_that_was_sent_is_believed_up_to_what_the_model_can():
    assert figures(tally("hi", {"prompt_tokens": 8, "completion_tokens": 900}, max_output=3).conclude()) == (
        8,
        900,
        False,
    )
    assert tally("hi", {"prompt_tokens": 8, "completion_tokens": 1001}, max_output=3).conclude().estimated


def test_an_answer_longer_than_the_model_is_believed_when_its_text_was_seen():
    told = tally(WORDS, {"prompt_tokens": 8, "completion_tokens": 1500})
    assert figures(told.conclude()) == (8, 1500, False)


def test_an_estimate_never_exceeds_the_bounds():
    told = tally(WORDS * 10, max_output=100, possible=POSSIBLE._replace(prompt=5, answers=2))
    assert figures(told.conclude()) == (5, 200, True)


def test_a_total_alone_is_what_an_embedding_used_and_bounds_a_chat():
    assert figures(tally({"total_tokens": 30}, capability="embeddings").conclude()) == (30, 0, False)
    assert figures(tally("hello world", {"total_tokens": 30}).conclude()) == (28, 2, True)


def test_a_total_beyond_what_is_possible_is_not_believed_either():
    beyond = {"total_tokens": POSSIBLE.told_prompt + POSSIBLE.answer + 1}
    assert tally(beyond, capability="embeddings").conclude().prompt_tokens == 8
    assert figures(tally("hello world", beyond).conclude()) == (8, 2, True)
    within = {"total_tokens": POSSIBLE.told_prompt + POSSIBLE.answer}
    assert tally("hello world", within).conclude().prompt_tokens == POSSIBLE.told_prompt


def test_members_without_text_are_not_kept_however_many_there_are() -> None:
    made = Tally(request(stream=True))
    for number in range(1000):
        assert not made.hear({f"a{number}": msgspec.Raw(b"1"), f"b{number}": msgspec.Raw(b'{"index": 0}')})
    assert not made._kept


def test_the_text_is_counted_and_not_the_json_around_it():
    made = Tally(request(stream=True))
    call = [
        {"index": 0, "id": "call_0123456789", "type": "function", "function": {"name": "find", "arguments": '{"city":'}}
    ]
    made.hear({"content": msgspec.Raw(b"null"), "tool_calls": msgspec.Raw(json.dumps(call).encode())})
    more = [{"index": 0, "function": {"arguments": '"Rome"}'}}]
    made.hear({"tool_calls": msgspec.Raw(json.dumps(more).encode())})
    assert made.conclude().completion_tokens == tokens.count('find{"city":"Rome"}')


def test_reasoning_told_under_two_names_is_counted_once():
    made = Tally(request(stream=True))
    thought = msgspec.Raw(json.dumps(WORDS).encode())
    made.hear({"reasoning": thought, "reasoning_content": thought})
    assert made.conclude().completion_tokens == 600


def test_a_character_in_two_halves_is_counted_as_one():
    made = Tally(request(stream=True))
    for half in (b'"smile \\ud83d"', b'"\\ude00"'):
        made.hear({"content": msgspec.Raw(half)})
    assert made.conclude().completion_tokens == tokens.count("smile \U0001f600")
    made = Tally(request(stream=True))
    made.hear({"content": msgspec.Raw(b'"half \\ud83d"')})
    assert made.conclude().completion_tokens > 0


def test_a_long_stream_is_kept_in_part_and_counted_in_whole():
    made = tally(*[WORDS] * 200)  # 540 kB
    assert sum(len(piece) for pieces in made._kept.values() for piece in pieces) < 2 * usage.KEPT
    made._request.possible = Possible()
    assert made.conclude().completion_tokens == pytest.approx(600 * 200, rel=0.02)


def test_progress_is_near_the_truth_while_nothing_is_told():
    assert tally(WORDS).usage.completion_tokens == 675  # four bytes a token, in one piece
    assert tally(*["a "] * 300).usage.completion_tokens == 300


def test_without_the_tokenizer_the_call_is_charged_all_the_same(monkeypatch):
    def fails(text: str) -> int:
        raise tokens.VocabularyError("no vocabulary")

    monkeypatch.setattr(tokens, "count", fails)
    assert figures(tally(WORDS).conclude()) == (10, 675, True)


def whole(body: Any, said: Any = None, **more: Any) -> Usage:
    made = Tally(request(**more))
    made.hear_whole(json.dumps(body).encode())
    made.tell(json.dumps(said).encode())
    return made.conclude()


def test_a_whole_answer_without_usage_is_counted_by_its_text():
    message = {"role": "assistant", "content": "hello world", "reasoning": "quick brown", "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": "{}"}}]}  # fmt: skip
    body = {"id": "chatcmpl-1", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    assert figures(whole(body)) == (8, 6, True)
    assert figures(whole(body, {"prompt_tokens": 7, "completion_tokens": 5})) == (7, 5, False)
    assert figures(whole(body, {"prompt_tokens": 7, "completion_tokens": 0})) == (7, 6, True)


@pytest.mark.parametrize("tools", [b'[{"type":"function"}]', msgspec.Raw(b'["' + b"long " * 4_000 + b'"]')])
def test_a_forgotten_question_is_counted_by_what_is_kept_of_it(tools):
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
    ]
    parsed = msgspec.convert({"model": "m", "messages": messages}, ChatRequest)
    asked = request(
        possible=Possible(), parsed=parsed, members={"messages": json.dumps(messages).encode(), "tools": tools}
    )
    expected = asked.question().tokens_counted()
    assert expected > 16
    asked.stream = True
    asked.forget_question()
    assert asked.parsed is None
    assert sum(map(len, asked.members.values())) < 16_384
    assert asked.question().tokens_counted() == pytest.approx(expected, rel=0.1)
    assert asked.prompt_estimate == pytest.approx(expected, rel=0.4, abs=30)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('{"a": 1, "usage": {"x": 2}, "b": {"usage": 3}}', {"a": 1, "b": {"usage": 3}}),
        ('{"usage": null}', {}),
        ('{"a": NaN, "usage": 1}', {"a": None}),
        ('{"a": "\\ud83d", "usage": 1}', {"a": "\ud83d"}),
        ('{"a\\"b": 1e400}', {'a"b': float("inf")}),
    ],
)
def test_a_member_is_taken_out_and_put_in_at_the_top_alone(data, expected):
    def loads(text: bytes) -> Any:
        return json.loads(text, parse_constant=lambda _: None if "NaN" in data else float("inf"))

    assert loads(usage.with_member(data.encode(), "usage", None)) == expected
    assert loads(usage.with_member(data.encode(), "usage", b"[4]")) == expected | {"usage": [4]}


@given(prompt=st.integers(0, 10**6), completion=st.integers(0, 10**6), cached=st.none() | st.integers(0, 10**6))
def test_the_usual_usage_is_read_as_the_unusual_is(prompt: int, completion: int, cached: int | None) -> None:
    usual = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    found = [read(msgspec.json.encode(said))[:3] for said in (usual, usual | {"output_tokens": completion})]
    assert found[0] == found[1] == (prompt, cached, completion)


def test_a_cache_that_is_told_by_another_name_is_seen_within_the_details_too() -> None:
    details = {"cached_tokens": 0, "prompt_cache_hit_tokens": 3}
    assert (
        read(msgspec.json.encode({"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": details})).cached
        == 3
    )


def test_what_is_guessed_while_a_stream_goes_on_is_no_more_than_the_answer_can_be() -> None:
    made = Tally(request(stream=True))
    made.tell(b'{"completion_tokens": 90}')
    for _ in range(3):
        made.hear({"content": msgspec.Raw(msgspec.json.encode("a long piece of an answer " * 4))})
    most = max(POSSIBLE.answer * POSSIBLE.answers, 3 * 104)
    assert 90 < made.usage.completion_tokens <= most
    made = Tally(request(stream=True))
    made.tell(msgspec.json.encode({"completion_tokens": POSSIBLE.answer * POSSIBLE.answers}))
    made.hear({"content": msgspec.Raw(b'"one more word"')})
    assert made.usage.completion_tokens == max(POSSIBLE.answer * POSSIBLE.answers, 13)
