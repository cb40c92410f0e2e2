"""What a client says of its calls is heard where it says it, bounded in length and letters, and never a path."""

from __future__ import annotations

import json
import string
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.labels import (
    LONGEST_SESSION,
    LONGEST_TAG,
    MOST_TAGS,
    NO_LABELS,
    SESSION_HEADERS,
    Labels,
    completed,
    is_tag,
    labels_in,
    of_program,
    plain_id,
    program_in,
    session_in,
    tags_in,
)

PLAIN = set(string.ascii_letters + string.digits + "._:+=-~")
SESSION = "0b7d1c1e-1111-4222-8333-444455556666"


def raw(body: dict[str, Any]) -> dict[str, bytes]:
    return {name: msgspec.Raw(json.dumps(value).encode()) for name, value in body.items()}


def told(body: dict[str, Any], labels: Labels = NO_LABELS, caller: str = "c", allowed: Any = None) -> Labels:
    return completed(labels, raw(body), caller, allowed)


@given(st.dictionaries(st.sampled_from(SESSION_HEADERS), st.text(max_size=20)))
def test_the_first_header_that_names_a_conversation_counts(headers: dict[str, str]) -> None:
    named = [headers[name] for name in SESSION_HEADERS if headers.get(name)]
    assert session_in(headers.get) == (named[0] if named else "")


def test_a_name_of_a_conversation_counts_no_further_than_it_may_be_long() -> None:
    long = "x" * 5_000
    assert session_in({"SESSION-ID": long}.get) == long[:LONGEST_SESSION]


def test_the_headers_of_an_agent_name_its_session_its_program_its_subagent_and_its_tags() -> None:
    headers = {
        "X-CLAUDE-CODE-SESSION-ID": SESSION, "X-CLAUDE-CODE-AGENT-ID": "a1", "X-PORTICO-TAGS": "alpha, beta,alpha,, b/d",
    }  # fmt: skip
    told = labels_in(headers.get, "claude-cli/2.1.197 (external, cli)")
    assert told == Labels(SESSION, "claude-code", "a1", ("alpha", "beta"))
    assert labels_in({}.get, "") == of_program("") == NO_LABELS
    assert labels_in({}.get, "mine/1") == of_program("mine/1") == Labels(agent="mine")


@pytest.mark.parametrize(
    ("user_agent", "program"),
    [
        ("codex_cli_rs/0.171.0 (Linux)", "codex"), ("OpenAI/Python 3.3.1", "openai-python"), ("opencode/1.18", "opencode"),
        ("/home/ada/bin/x", None), ("  ", None), ("(none)", None), ("a" * 500, "a" * 64),
    ],
)  # fmt: skip
def test_a_program_is_a_known_client_or_the_first_word_of_its_user_agent(user_agent: str, program: str | None) -> None:
    assert program_in(user_agent) == program


@given(
    st.text(max_size=300) | st.sampled_from(["/home/ada/secret", "C:\\Users\\ada", "~/x", "a" * 129, "a b", "\udcff"])
)
def test_what_is_stored_of_an_id_is_plain_and_short_and_tells_ids_apart(text: str) -> None:
    stored = plain_id(text)
    assert (stored is None) == (not text.strip())
    if stored is not None:
        assert len(stored) <= 128 and set(stored) <= PLAIN
        assert stored == text.strip() or stored.startswith("~")
        assert plain_id(text) == stored != plain_id(f"{text}x")


@given(st.lists(st.text(max_size=LONGEST_TAG + 2) | st.integers() | st.none(), max_size=30))
def test_tags_are_few_plain_and_each_once(words: list[Any]) -> None:
    tags = tags_in(words)
    assert len(tags) == len(set(tags)) <= MOST_TAGS
    assert all(is_tag(tag) and len(tag) <= LONGEST_TAG and set(tag) <= PLAIN for tag in tags)


@pytest.mark.parametrize(
    ("body", "session"),
    [
        ({"session_id": "s1", "prompt_cache_key": "k"}, "s1"),
        ({"prompt_cache_key": "k"}, "k"),
        ({"metadata": {"session_id": "s2"}}, "s2"),
        ({"metadata": {"user_id": json.dumps({"device_id": "d", "session_id": SESSION})}}, SESSION),
        ({"metadata": {"user_id": f"user_x_account_y_session_{SESSION}"}}, SESSION),
        ({"metadata": {"user_id": "ada"}}, None), ({"metadata": {"user_id": "{broken"}}, None), ({"metadata": []}, None),
        ({"metadata": {"user_id": '{"session_id": 7}'}}, None), ({"session_id": 7}, None), ({"session_id": "x" * 9_000}, None),
        ({"metadata": {"session_id": "s", "more": "x" * 9_000}}, None), ({"prompt_cache_key": None}, None),
    ],
)  # fmt: skip
def test_a_body_names_its_session_where_no_header_does(body: dict[str, Any], session: str | None) -> None:
    assert told(body).session_id == session
    assert told(body, Labels(session_id="header")).session_id == "header"


@pytest.mark.parametrize("tags", [["a", "b", 7], "a, b"])
def test_tags_stand_in_a_body_too_and_those_of_a_header_come_first(tags: Any) -> None:
    assert told({"metadata": {"tags": tags}}).tags == ("a", "b")
    assert told({"metadata": {"tags": tags}}, Labels(session_id="s")).tags == ("a", "b")
    assert told({"metadata": {"tags": tags}}, Labels(tags=("c",))).tags == ("c",)


@given(
    st.dictionaries(
        st.sampled_from(["session_id", "metadata", "prompt_cache_key", "messages", "input"]), st.binary(max_size=60)
    )
)
def test_no_bytes_of_a_body_are_an_error(members: dict[str, bytes]) -> None:
    found = completed(NO_LABELS, members, "c", None)
    assert found.session_id is None or set(found.session_id) <= PLAIN


def test_a_list_of_allowed_tags_drops_all_others() -> None:
    labels = Labels(tags=("a", "b"))
    assert [told({}, labels, allowed=allowed).tags for allowed in (None, ("b", "c"), ())] == [("a", "b"), ("b",), ()]


def test_requests_of_a_session_that_ask_the_same_are_one_turn() -> None:
    asked = {"messages": [{"role": "user", "content": "hello"}]}
    more = {"messages": [*asked["messages"], {"role": "assistant", "content": "hi"}]}
    one = Labels(session_id="s")
    turn = told(asked, one).turn_id
    assert turn == told(asked | {"stream": True, "tools": []}, one).turn_id
    others = [
        told(more, one), told(asked, Labels(session_id="t")), told(asked, one, caller="d"),
        told(asked, Labels(session_id="s", subagent_id="a")), told({"input": "hello"}, one),
    ]  # fmt: skip
    assert len({turn, *(other.turn_id for other in others)}) == 6
    assert told(asked).turn_id is told({"model": "x"}, one).turn_id is None


@given(st.text(min_size=1, max_size=20), st.integers(0, 3_000))
def test_a_longer_conversation_is_another_turn_however_long_it_is(words: str, size: int) -> None:
    before = {"messages": ["x" * size]}
    after = {"messages": ["x" * size, words]}
    assert told(before, Labels(session_id="s")).turn_id != told(after, Labels(session_id="s")).turn_id
