"""Whatever bytes an OpenAI-shaped upstream sends, they are an answer or the failure of an attempt, and nothing worse."""

from __future__ import annotations

import json
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.providers.base import UpstreamError, UpstreamRequest
from app.providers.http import Answer
from app.providers.openai import OpenAIExchange
from app.providers.sse import KEEP_ALIVE

words = st.sampled_from(
    ["", "stop", "error", "a", "\ud83d", 'x"model":"y', None, True, 5, 1.5, 10**30, -1, float("nan"), [], {}]
)
names = st.sampled_from(
    ["choices", "usage", "error", "data", "model", "index", "delta", "message", "finish_reason", "content", "role",
     "embedding", "detail", "prompt_tokens", "completion_tokens", "text", "id"]
)  # fmt: skip
values = st.recursive(
    words, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)
good = {"choices": [{"index": 0, "delta": {"content": "a"}, "message": {"content": "a"}, "finish_reason": None}]}
texts = st.one_of(
    st.dictionaries(names, values, max_size=4).map(json.dumps),
    st.dictionaries(names, values, max_size=2).map(lambda more: json.dumps(good | more)),
    st.sampled_from(
        ["[DONE]", "null", "[]", "ping", '{"a": NaN}', '{"choices": [{"index": 1e999}]}', "{", '{"a":' * 3000]
    ),
)
lines = st.tuples(st.sampled_from(["data: ", "data:", "event: error\ndata: ", ": ", "", "id: "]), texts,
                  st.sampled_from(["\n\n", "\n", "\r\n\r\n", "\r", ""])).map("".join)  # fmt: skip
streams = st.lists(lines.map(str.encode) | st.binary(max_size=8), max_size=5)


class Canned:
    """An answer whose pieces have all come."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]

    def read(self, until: float | None = None) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def read_stream(self, keep_alive_s: float, until: float | None) -> bytes:
        return self.read()

    def read_object(self, grace_s: float) -> bytes:
        return b"".join(self._pieces)

    def finish(self) -> None:
        """There is no connection."""


def exchange(pieces: list[bytes], capability: Any = "chat") -> OpenAIExchange:
    request = UpstreamRequest(
        capability=capability, dialect=f"openai_{capability}", model="ours", members={}, parsed=None, include_usage=True
    )
    return OpenAIExchange(cast("Answer", Canned(pieces)), request, None, 60.0)


def named(data: bytes) -> bool:
    return bool(json.loads(data.decode("utf-8", "replace"))["model"] == "ours")


@settings(deadline=None)  # the first that is counted loads the vocabulary
@given(streams)
def test_any_stream_is_chunks_of_ours_or_a_failure(pieces: list[bytes]) -> None:
    given_on: list[bytes] = []
    failure = None
    try:
        given_on += exchange(pieces).events()
    except UpstreamError as error:
        failure = error.message
    assert given_on if failure is None else 0 < len(failure) <= 500
    for event in b"".join(one for one in given_on if one != KEEP_ALIVE).split(b"\n\n")[:-1]:
        assert event.startswith(b"data: {") and named(event[6:])


@pytest.mark.parametrize("odd", ["NaN", "1e400", '"\\ud83d"', "1" * 40])
def test_a_stream_of_odd_json_ends_with_its_usage_all_the_same(odd: str) -> None:
    said = f'{{"id":{odd},"choices":[{{"index":0,"delta":{{"content":"a"}},"finish_reason":"stop"}}]}}'
    usage = f'{{"id":{odd},"choices":[],"usage":{{"prompt_tokens":"3","completion_tokens":1}}}}'
    for chunks in ([said], [said, usage]):
        *_, last = exchange([f"data: {chunk}\n\n".encode() for chunk in [*chunks, "[DONE]"]]).events()
        assert json.loads(last[6:])["usage"]["completion_tokens"] == 1


@settings(deadline=None)  # the first that is counted loads the vocabulary
@given(texts.map(str.encode) | st.binary(max_size=20), st.sampled_from(["chat", "embeddings"]))
def test_any_body_is_an_answer_of_ours_or_a_failure(body: bytes, capability: str) -> None:
    answer, failure = b"", None
    try:
        one = exchange([body], capability)
        one.receive()
        answer = one.body()
    except UpstreamError as error:
        failure = error.message
    assert named(answer) if failure is None else 0 < len(failure) <= 500
