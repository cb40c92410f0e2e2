"""Tokens are counted by the real vocabulary, in a time that grows with the text and not faster, whatever it says."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers import tokens
from app.providers.tokens import Sample, apart, count, sample, texts_of
from tests.growth import assert_linear

ROOT = Path(__file__).resolve().parents[2]
WORDS = "The quick brown fox jumps over the lazy dog. "
# Texts on which tokenizers were seen to take the square of their length, or to run out of their stack.
HOSTILE = ["a", " ", "\n", "-", "é", "\t ", "0", "\U0001f600", "a\u0301"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 0), ("hello world", 2), ("one two three", 3), ("a b c d e f", 6), ("Grüße aus München", 5), ("    ", 1)],
)
def test_a_text_has_the_tokens_that_o200k_gives_it(text, expected):
    assert count(text) == expected


def test_a_long_text_is_counted_in_pieces_and_loses_hardly_a_token():
    whole = len(tokens._encoding().encode_ordinary(WORDS * 2000))
    assert count(WORDS * 2000) == pytest.approx(whole, rel=0.005)


@pytest.mark.parametrize("letter", HOSTILE)
def test_the_time_grows_with_the_text_and_not_faster(letter):
    assert count(letter) > 0
    assert_linear(count, lambda size: letter * (size // len(letter)), 50_000)


def test_what_the_tokenizer_dies_of_is_an_error_and_not_the_end_of_a_greenlet(monkeypatch):
    class Panics:
        def encode_ordinary(self, text: str) -> list[int]:
            raise BaseException("a panic")

    monkeypatch.setattr(tokens, "_encoding", Panics)
    with pytest.raises(tokens.VocabularyError):
        count("text")


def test_a_vocabulary_that_was_changed_is_refused(monkeypatch):
    monkeypatch.setattr(tokens, "VOCABULARY_SHA256", "0" * 64)
    with pytest.raises(tokens.VocabularyError, match="not the vocabulary"):
        tokens._encoding.__wrapped__()


@pytest.mark.slow
def test_the_vocabulary_is_the_one_that_is_vendored_and_needs_no_network(monkeypatch):
    pinned = json.loads((ROOT / "tools/vendor.lock.json").read_text())["vocabulary"]
    assert pinned["sha256"] == tokens.VOCABULARY_SHA256
    monkeypatch.setattr(socket, "socket", None)
    assert tokens._encoding.__wrapped__().encode_ordinary("hello world") == [24912, 2375]


def test_counting_waits_in_a_native_thread_while_others_go_on():
    ticks = []

    def tick() -> None:
        while True:
            ticks.append(1)
            gevent.sleep(0.001)

    apart(lambda: count("warm"))
    others = gevent.spawn(tick)
    try:
        assert apart(lambda: count(WORDS * 5000)) > 40_000
    finally:
        others.kill()
    assert len(ticks) > 3


def test_a_text_that_is_too_long_to_be_kept_stands_for_all_of_it():
    texts = [WORDS * 50, "word " * 2000, WORDS * 400]
    kept = sample(texts, 4000)
    assert sum(map(len, kept.texts)) <= 4000
    whole = sum(count(text) for text in texts)
    assert kept.tokens_counted() == pytest.approx(whole, rel=0.05)


def test_a_guess_counts_short_words_too():
    assert Sample(("a b c d e f",), 11).tokens_guessed() == 6
    assert Sample(("internationalisation",), 20).tokens_guessed() == 5
    assert Sample((), 0, 7).tokens_guessed() == 7


def test_very_many_texts_are_kept_as_one():
    kept = sample(["ab"] * 5000, 100_000)
    assert len(kept.texts) == 1
    assert kept.tokens_counted() == pytest.approx(5000, rel=0.4)


def test_texts_are_found_at_any_depth_and_names_and_data_are_none():
    deep: object = "deep"
    for _ in range(100_000):
        deep = [deep]
    told = {
        "role": "user",
        "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "data:"}}],
    }
    call = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": '{"a": 1}'}}
    assert list(texts_of([told, {"tool_calls": [call]}, deep])) == ["hi", "find", '{"a": 1}', "deep"]


@given(st.lists(st.text(max_size=40), max_size=20), st.integers(1, 100), st.integers(0, 5))
def test_a_sample_is_never_longer_than_its_texts_and_never_empty_of_something(texts, most, known):
    kept = sample(texts, most, known)
    assert kept.size == sum(map(len, texts))
    assert kept.tokens_guessed() >= known
    if kept.size:
        assert kept.tokens_guessed() > known
