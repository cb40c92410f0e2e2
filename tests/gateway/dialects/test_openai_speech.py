"""A text to be spoken is charged by its characters, and bounded by the longest sound that it can be."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.gateway.call import Call
from app.gateway.endpoints import SPEECH
from app.gateway.errors import ApiError
from app.providers.openai_audio import SPOKEN_PER_BYTE
from tests.gateway.dialects.calls import MODEL, asked

SPEAKER = msgspec.structs.replace(MODEL, capabilities=("speech",))
SPEEDS = st.none() | st.floats(0.25, 4)


def spoken(text: str, **fields: Any) -> Call:
    return asked({"model": "small", "input": text, "voice": "alloy", **fields}, SPEAKER, SPEECH)


@given(st.text(max_size=80).map(lambda text: text * 50), SPEEDS)
@example("a" * 4096, 0.25)
def test_what_a_sound_is_guessed_to_be_is_within_what_is_held(text: str, speed: float | None) -> None:
    bound = spoken(text, speed=speed).bound
    assert bound.more == {"characters": len(text)}
    assert bound.output is not None and bound.output >= SPOKEN_PER_BYTE * len(text.encode()) / (speed or 1)


@given(st.text(min_size=1, max_size=50), st.floats(0.25, 4), st.floats(0.25, 4))
def test_a_slower_voice_is_never_shorter(text: str, one: float, other: float) -> None:
    slow, fast = (spoken(text, speed=speed).bound.output for speed in sorted((one, other)))
    assert slow is not None and fast is not None and slow >= fast


def test_a_models_own_limit_holds() -> None:
    model = msgspec.structs.replace(SPEAKER, max_output_tokens=7)
    assert asked({"model": "small", "input": "a" * 4096, "voice": {"id": "v"}}, model, SPEECH).bound.output == 7


def test_a_sound_goes_on_as_it_comes_though_nobody_asks_for_a_stream() -> None:
    assert spoken("a").request.stream and spoken("a", stream=False).request.stream


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": "x" * 4097}, "input"), ({"input": None}, "input"), ({"voice": ""}, "voice"), ({"voice": {}}, "voice.id"),
        ({"speed": 0.2}, "speed"), ({"speed": 4.1}, "speed"), ({"response_format": "midi"}, "response_format"),
    ],
)  # fmt: skip
def test_what_cannot_be_spoken_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        spoken(**{"text": "a", **fields})
    assert refused.value.status == 400 and str(refused.value.param).startswith(param.partition(".")[0])
