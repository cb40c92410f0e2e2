"""The portal's name of a model stands where an upstream's stood, and everything else stays."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.model_name import ModelName

values = st.recursive(
    st.none()
    | st.integers(-9, 9)
    | st.sampled_from(["", "model", '"model": "x"', "a\\", "{", "é", "\ud83d", ', "model":1}']),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["model", "a", "b"]), inner, max_size=3)
    ),
    max_leaves=6,
)
objects = st.dictionaries(st.sampled_from(["model", "id", "choices", 'x "model', "z"]), values, max_size=4)


@given(st.lists(objects, min_size=1, max_size=4), st.sampled_from([(",", ":"), (", ", ": ")]), st.booleans())
def test_only_the_outermost_model_is_named(chunks: list[dict[str, Any]], separators: Any, escaped: bool) -> None:
    name = ModelName("ours")
    for chunk in chunks:
        sent = json.dumps(chunk, separators=separators, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
        got = json.loads(name.put(sent).decode("utf-8", "surrogatepass"))
        if b"\xed\xa0" in sent:  # a half of a character that is not even escaped
            continue
        assert got == chunk | {"model": "ours"}


def test_the_chunks_of_a_stream_stay_byte_for_byte() -> None:
    name = ModelName("ours")
    for text in ("a", "b", '\\"model\\":\\"up\\"'):
        chunk = '{"id": "x",  "model": "up", "choices": [{"delta": {"content": "%s"}, "model": "up"}], "t": 1.50}'
        before = (chunk % text).encode()
        assert name.put(before) == before.replace(b'"model": "up"', b'"model":"ours"', 1)


def test_a_model_behind_the_choices_stays_in_its_place() -> None:
    name = ModelName("ours")
    for text in ("a", "b", "c"):
        before = f'{{"choices":["{text}"],"created":1,"model":"up","object":"o"}}'.encode()
        assert name.put(before) == before.replace(b'"up"', b'"ours"')


@pytest.mark.parametrize("data", [b"", b"[]", b"text"])
def test_what_is_no_object_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        ModelName("ours").put(data)


HARD = {
    "many inner ones": lambda size: b'{"choices":[' + b'{"model":"a"},' * (size // 14) + b'{}],"model":"up"}',
    "none": lambda size: b'{"choices":["' + b"x" * size + b'"]}',
    "beginnings": lambda size: b'{"a":"' + b'\\"model\\"' * (size // 9) + b'"}',
    "blanks": lambda size: b'{"model"' + b" " * size + b':"a"}',
    "a long one": lambda size: b'{"model":"' + b"\\n" * (size // 2) + b'"}',
}


@pytest.mark.parametrize("case", sorted(HARD))
def test_eight_times_the_bytes_take_about_eight_times_the_time(case: str) -> None:
    def cost(size: int) -> float:
        data = HARD[case](size)
        times = []
        for _ in range(3):
            started = time.process_time()
            ModelName("ours").put(data)
            times.append(time.process_time() - started)
        return min(times)

    assert cost(800_000) < 8 * 4 * max(cost(100_000), 0.0005)
