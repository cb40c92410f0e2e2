"""A sound is bounded by its length, which is measured here, in a transcription and in a translation."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.call import Call
from app.gateway.endpoints import TRANSCRIPTIONS, TRANSLATIONS, Endpoint
from app.gateway.errors import ApiError
from app.runtime.forms import Form, Upload
from tests.gateway.dialects.calls import MODEL, asked
from tests.services.sounds import wav

LISTENER = msgspec.structs.replace(MODEL, capabilities=("transcription", "translation"))
BOTH = pytest.mark.parametrize("endpoint", [TRANSCRIPTIONS, TRANSLATIONS], ids=lambda endpoint: endpoint.id)


def heard(
    endpoint: Endpoint, *fields: tuple[str, str], files: tuple[str, ...] = ("file",), sound: bytes = wav(2.5)
) -> Call:
    form = Form()
    form.fields = [("model", "small"), *fields]
    for name in files:
        upload = Upload(name, "a.wav", "audio/wav", BytesIO())
        upload.add(sound)
        form.files.append(upload)
    return asked(form, LISTENER, endpoint)


@BOTH
@given(st.floats(0.05, 20))
def test_a_longer_sound_is_never_less(endpoint: Endpoint, seconds: float) -> None:
    shorter, longer = (heard(endpoint, sound=wav(length, 1000)).bound for length in (seconds, seconds + 1))
    assert longer.more["audio_ms"] >= shorter.more["audio_ms"] + 999
    assert longer.unseen > shorter.unseen and longer.input > shorter.input
    assert longer.output is not None and shorter.output is not None and longer.output > shorter.output


@BOTH
def test_what_is_charged_is_the_length_of_the_sound_in_the_file(endpoint: Endpoint) -> None:
    call = heard(endpoint)
    assert call.bound.more == {"audio_ms": 2500}
    assert call.request.form is not None and call.request.form.fields == [("model", "small")]


@BOTH
def test_a_sound_of_unknown_length_is_taken_for_the_longest_that_it_can_be(endpoint: Endpoint) -> None:
    assert heard(endpoint, sound=b"?" * 7_500).bound.more == {"audio_ms": 10_000}


@BOTH
@pytest.mark.parametrize("said", ["99", "-99", "[]"])
def test_nobody_says_how_long_a_sound_is(endpoint: Endpoint, said: str) -> None:
    assert heard(endpoint, ("[]", said), ("sound", said)).bound.more == {"audio_ms": 2500}


@BOTH
@pytest.mark.parametrize(
    ("files", "param"), [((), "file"), (("sound",), "sound"), (("file", "file"), "file"), (("file", "more"), "more")]
)
def test_a_form_has_one_sound_by_its_name(endpoint: Endpoint, files: tuple[str, ...], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        heard(endpoint, files=files)
    assert (refused.value.status, refused.value.param) == (400, param)


@BOTH
def test_an_empty_sound_is_none(endpoint: Endpoint) -> None:
    with pytest.raises(ApiError) as refused:
        heard(endpoint, sound=b"")
    assert refused.value.param == "file"


@pytest.mark.parametrize(
    ("endpoint", "field", "is_taken"),
    [
        (TRANSCRIPTIONS, ("response_format", "diarized_json"), True), (TRANSLATIONS, ("response_format", "diarized_json"), False),
        (TRANSCRIPTIONS, ("temperature", "0.5"), True), (TRANSLATIONS, ("temperature", "1.5"), False),
        (TRANSCRIPTIONS, ("timestamp_granularities[]", "word"), True),
        (TRANSCRIPTIONS, ("timestamp_granularities[]", "day"), False),
        (TRANSCRIPTIONS, ("stream", "true"), True), (TRANSCRIPTIONS, ("stream", "maybe"), False),
        (TRANSCRIPTIONS, ("of_tomorrow", "x"), True),
    ],
)  # fmt: skip
def test_each_takes_what_openai_says(endpoint: Endpoint, field: tuple[str, str], is_taken: bool) -> None:
    if is_taken:
        call: Any = heard(endpoint, field)
        assert field in call.request.form.fields
        assert call.request.stream is (field[0] == "stream")
    else:
        with pytest.raises(ApiError) as refused:
            heard(endpoint, field)
        assert str(refused.value.param).startswith(field[0].removesuffix("[]"))
