"""The neutral language has one word for each thing: whatever is said in it can be told apart again."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from app.providers.conversation import (
    Event,
    Finish,
    Media,
    Part,
    Reasoning,
    Silence,
    Text,
    ToolCall,
    ToolCallDelta,
    ToolResult,
)  # fmt: skip

PARTS: list[Part] = [
    Text("a"), Reasoning("a"), Reasoning("a", "s"), Media("image", url="a"), Media("audio", data="a"), ToolCall("i", "n", "{}"),
    ToolResult("i", (Text("a"), Media("image", url="a")), is_error=True),
]  # fmt: skip
EVENTS: list[Event] = [
    Text("a"),
    Reasoning("a"),
    ToolCallDelta(0, "i", "n"),
    ToolCallDelta(0, arguments="{"),
    Finish("stop"),
    Silence(),
]


@pytest.mark.parametrize(("union", "told"), [(Part, PARTS), (Event, EVENTS)])
def test_every_part_and_event_is_told_apart_from_the_others(union: object, told: list[object]) -> None:
    assert {type(one) for one in told} == set(get_args(union))
    assert msgspec.json.decode(msgspec.json.encode(told), type=list[union]) == told  # type: ignore[valid-type]
    assert len(set(told)) == len(told)
