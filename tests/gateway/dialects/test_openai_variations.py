"""A variation is made of a picture alone: it is bounded as an edit is, without words."""

from __future__ import annotations

from io import BytesIO

import msgspec
import pytest

from app.gateway.call import Call
from app.gateway.dialects.openai_images import READ_MOST
from app.gateway.endpoints import IMAGE_VARIATIONS
from app.gateway.errors import ApiError
from app.runtime.forms import Form, Upload
from tests.gateway.dialects.calls import MODEL, asked

PAINTER = msgspec.structs.replace(MODEL, capabilities=("images",))


def vary(*names: str, **fields: str) -> Call:
    form = Form()
    form.fields = [("model", "small"), *fields.items()]
    for name in names:
        form.files.append(Upload(name, "a.png", "image/png", BytesIO()))
        form.files[-1].add(b"PNG")
    return asked(form, PAINTER, IMAGE_VARIATIONS)


def test_it_needs_no_prompt_and_is_bounded_by_its_picture_and_its_number() -> None:
    bound = vary("image", n="3", size="256x256").bound
    assert (bound.answers, bound.more, bound.unseen) == (3, {"images": 3}, READ_MOST)


@pytest.mark.parametrize(("fields", "param"), [({}, "image"), ({"n": "11"}, "n"), ({"size": "large"}, "size")])
def test_what_is_wrong_with_it_is_told(fields: dict[str, str], param: str) -> None:
    with pytest.raises(ApiError) as refused:
        vary(*(["image"] if fields else []), **fields)
    assert (refused.value.status, refused.value.param) == (400, param)
