"""What a call can have used at the most: by this an upstream's figures are judged."""

from __future__ import annotations

from typing import Any

import pytest

from app.directory import Model
from app.gateway.call import possible
from app.metering.pricing import TokenBound


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
