"""What a call can have used at the most: by this an upstream's figures are judged."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from app import store
from app.directory import Model
from app.gateway.call import Call, possible
from app.metering.pricing import TokenBound
from app.metering.reservations import Hold, Output
from tests.gateway.dialects.calls import MODEL, asked, chat


def model(**fields: Any) -> Model:
    return Model(id="m", name="m", capabilities=("chat",), created=1, **fields)


@pytest.mark.parametrize(
    ("fields", "bound", "expected"),
    [
        ({"max_output_tokens": 1000}, TokenBound(200, 3), (200, 4296, 1000, 1)),
        ({"max_output_tokens": 1000}, TokenBound(200, 3000, 2), (200, 4296, 3000, 2)),  # asked for, and reserved
        ({"max_output_tokens": 1000}, TokenBound(200, 2**31), (200, 4296, 131_072, 1)),  # no model writes for ever
        ({"context_window": 8000}, TokenBound(200, None), (200, 4296, 8000, 1)),
        ({"context_window": 1000}, TokenBound(2000, 2**31), (1000, 1000, 1000, 1)),
        ({}, TokenBound(200, None), (200, 4296, 131_072, 1)),
        ({}, TokenBound(200, None, produces_output=False), (200, 4296, 0, 1)),
    ],
)
def test_no_model_reads_or_writes_more_than_it_can(fields, bound, expected):
    assert tuple(possible(model(**fields), bound)) == expected


def ended(completion: int, *, most: int = 1000, amount: int = 5, bounded: bool = True, **fields: Any) -> Call:
    """A call that ended well and used so much."""
    call = asked(chat(**fields), msgspec.structs.replace(MODEL, max_output_tokens=1000))
    call.hold = Hold("r", (), (), [], 0, amount, most, bounded)
    usage = SimpleNamespace(completion_tokens=completion)
    call.exchange = cast(Any, SimpleNamespace(usage=usage))
    return call


@pytest.mark.parametrize(
    ("call", "length"),
    [
        (ended(50), 50),
        (ended(100, n=3), 34),  # each of them
        (ended(50, most=51), 50),
        (ended(50, most=50), 100),  # cut: it would have been longer
        (ended(700, most=600), 1000),
        (ended(1000), 1000),
        (ended(0), None),
        (ended(50, max_tokens=100), None),  # which tells of its client, and not of the model
        (ended(50, bounded=False), None),
        (ended(50, amount=0), None),
    ],
)
def test_what_is_remembered_of_an_answer_without_a_limit_under_a_budget(call: Call, length: int | None) -> None:
    expected = None if length is None else Output(store.outputs("k", "small"), length)
    assert call.output() == expected
    call.failed("cancelled", 200)
    assert call.output() is None


def test_the_first_token_of_a_chat_is_not_its_empty_head() -> None:
    call = ended(0)
    call.came()
    assert call.first_token_at is None
    call.exchange = cast(Any, SimpleNamespace(usage=SimpleNamespace(completion_tokens=1)))
    call.came()
    assert call.first_token_at is not None


def test_what_is_no_text_begins_with_its_first_piece() -> None:
    call = ended(0)
    call.request.capability = "speech"
    call.came()
    assert call.first_token_at is not None
