"""A completion's prompts, texts or tokens, are bounded each; an echo may be charged as output, and no limit means sixteen."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.call import Call
from app.gateway.endpoints import COMPLETIONS
from app.gateway.errors import ApiError
from tests.gateway.dialects.calls import MODEL, asked, charged, names, sent_up, values

COMPLETING = msgspec.structs.replace(MODEL, capabilities=("completions",))
TEXTS = st.text(max_size=30) | st.lists(st.text(max_size=30), min_size=1, max_size=5)


def completion(prompt: Any, **fields: Any) -> Call:
    return asked({"model": "small", "prompt": prompt, **fields}, COMPLETING, COMPLETIONS)


@given(TEXTS, st.dictionaries(names.filter(lambda name: name not in ("user", "n", "stop", "seed")), values, max_size=3))
def test_prompts_are_bounded_by_their_bytes(prompt: Any, others: dict[str, Any]) -> None:
    call = completion(prompt, **others)
    assert call.bound.input >= charged(sent_up(call, "max_tokens"))


@given(TEXTS, st.integers(1, 128), st.integers(1, 20))
def test_every_prompt_is_answered_so_many_times_as_the_upstream_tries(prompt: Any, n: int, best_of: int) -> None:
    prompts = len(prompt) if isinstance(prompt, list) else 1
    if best_of < n:
        with pytest.raises(ApiError) as refused:
            completion(prompt, n=n, best_of=best_of)
        assert refused.value.param == "best_of"
    else:
        bound = completion(prompt, n=n, best_of=best_of).bound
        assert (bound.answers, bound.prompts) == (prompts * best_of, prompts)
    assert completion(prompt, n=n).bound.answers == prompts * n


@pytest.mark.parametrize(("fields", "output"), [({}, 16), ({"max_tokens": 0}, 0), ({"max_tokens": 500}, 500)])
def test_a_completion_is_of_sixteen_tokens_unless_it_says_otherwise(fields: dict[str, int], output: int) -> None:
    call = completion("a", **fields)
    assert call.bound.output == call.request.max_output == output
    assert "max_tokens" not in call.request.members


@given(st.lists(st.text(max_size=30), min_size=1, max_size=5))
def test_prompts_that_are_echoed_may_all_be_charged_as_output(prompt: list[str]) -> None:
    plain, echoed = completion(prompt).bound, completion(prompt, echo=True).bound
    assert plain.predicted == 0
    assert echoed.predicted * echoed.answers >= echoed.input


@pytest.mark.parametrize("prompt", [[], [[]], ["a", [1]], [1, "a"], [1.5], [True], [-1, 2], {}, 5, ["a"] * 2049])
def test_what_is_no_prompt_is_refused_by_its_place(prompt: Any) -> None:
    with pytest.raises(ApiError) as refused:
        completion(prompt)
    assert refused.value.status == 400 and str(refused.value.param).startswith("prompt")


def test_of_tokens_each_is_one_however_long_it_is_written() -> None:
    assert completion([123456] * 500).bound.input == completion([1]).bound.input + 499
