"""Pictures are bounded by their number and size, whether a text asks for them or a form with pictures does."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway.call import Call
from app.gateway.dialects.openai_images import LARGEST_USUAL, READ_MOST, GenerationRequest
from app.gateway.endpoints import IMAGE_EDITS, IMAGES
from app.gateway.errors import ApiError
from app.runtime.forms import Form, Upload
from tests.gateway.dialects.calls import MODEL, asked

PAINTER = msgspec.structs.replace(MODEL, capabilities=("images",))
SIDES = st.integers(10, 9_999)
QUALITIES = st.sampled_from([None, "low", "medium", "high", "auto", "hd"])


def picture(**fields: Any) -> Call:
    return asked({"model": "small", "prompt": "A boat", **fields}, PAINTER, IMAGES)


def edit(*names: str, empty: bool = False, **fields: str) -> Call:
    form = Form()
    form.fields = [("model", "small"), ("prompt", "A boat"), *fields.items()]
    for name in names:
        upload = Upload(name, "a.png", "image/png", BytesIO())
        upload.add(b"" if empty else b"PNG")
        form.files.append(upload)
    return asked(form, PAINTER, IMAGE_EDITS)


@given(SIDES, SIDES, QUALITIES, st.integers(0, 3))
def test_a_larger_or_better_picture_is_never_less(width: int, height: int, quality: Any, partial: int) -> None:
    def tokens(**fields: Any) -> int:
        asked_for = {"model": "m", "size": f"{width}x{height}", "quality": quality, "partial_images": partial} | fields
        made: GenerationRequest = msgspec.convert(asked_for, GenerationRequest)
        return made.tokens_of_one

    least = tokens()
    assert 0 < least <= tokens(size=f"{width}x{height + 1000}"[:9]) or height + 1000 > 9_999
    assert least <= tokens(quality="high")
    assert tokens(partial_images=3) - tokens(partial_images=0) == 300
    if width * height >= LARGEST_USUAL:
        assert least >= tokens(size="auto")


@given(st.integers(1, 10), st.booleans())
def test_every_picture_is_counted_and_bounded(n: int, is_edit: bool) -> None:
    bound = (edit("image", n=str(n)) if is_edit else picture(n=n)).bound
    assert (bound.answers, bound.more) == (n, {"images": n})
    assert bound.output is not None and bound.output > 0


def test_pictures_that_are_read_count_each() -> None:
    one, three = edit("image").bound, edit("image[]", "image[]", "mask").bound
    assert three.input - one.input == three.unseen - one.unseen == 2 * READ_MOST


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"size": "9x100"}, "size"), ({"size": "100x100\n"}, "size"), ({"size": "-10x10"}, "size"), ({"n": 0}, "n"),
        ({"n": 11}, "n"), ({"quality": "finest"}, "quality"), ({"partial_images": 4}, "partial_images"),
        ({"prompt": "x" * 32_001}, "prompt"), ({"prompt": None}, "prompt"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        picture(**fields)
    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize(
    ("names", "param"),
    [
        ([], "image"), (["mask"], "image"), (["file"], "file"), (["image"] * 17, "image"), (["image", "mask", "mask"], "mask"),
    ],
)  # fmt: skip
def test_a_form_has_pictures_by_their_names(names: list[str], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        edit(*names)
    assert (refused.value.status, refused.value.param) == (400, param)


def test_an_empty_picture_is_none() -> None:
    with pytest.raises(ApiError) as refused:
        edit("image", empty=True)
    assert refused.value.param == "image"


@given(st.sampled_from(["", "read_tokens", "pictures"]), st.integers(-(10**12), 10**12))
def test_nobody_says_what_the_pictures_of_a_form_may_be(name: str, tokens: int) -> None:
    bound = picture(**{name: tokens}).bound
    assert bound.unseen == 0 and bound.input >= len(f'{{"{name}": {tokens}}}')
