"""Forms with files: read as they come, however they are cut, within bounds, and written again as browsers write them."""

from __future__ import annotations

import io
from contextlib import closing
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.runtime import forms
from app.runtime.forms import BadForm, Form, Upload, parts_of, read_form

BOUNDARY = "b0undary"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"
names = st.text(
    st.characters(codec="utf-8", exclude_characters='"\r\n%\\', exclude_categories=("C",)), min_size=1, max_size=20
)
contents = st.binary(max_size=200).filter(lambda content: BOUNDARY.encode() not in content)


def sent(form: Form) -> bytes:
    return b"".join(b"".join(part.pieces()) if isinstance(part, Upload) else part for part in parts_of(form, BOUNDARY))


def opened(body: bytes, size: int = 65_536, content_type: str = TYPE) -> Form:
    return read_form(content_type, (body[at : at + size] for at in range(0, len(body), size)))


def told(form: Form) -> tuple[Any, ...]:
    files = [(file.name, file.filename, file.media_type, len(file), b"".join(file.pieces())) for file in form.files]
    return form.fields, files


def form_of(fields: list[tuple[str, str]], *files: tuple[str, str, bytes]) -> Form:
    made = Form()
    made.fields = fields
    for name, filename, content in files:
        file = Upload(name, filename, "audio/wav", io.BytesIO())
        file.add(content)
        made.files.append(file)
    return made


@given(
    st.lists(st.tuples(names, st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=50)), max_size=4),
    st.lists(st.tuples(names, names, contents), max_size=3), st.integers(1, 40),
)  # fmt: skip
def test_what_is_written_is_read_as_the_same_however_it_is_cut(
    fields: list[tuple[str, str]], files: list[tuple[str, str, bytes]], size: int
) -> None:
    form = form_of(fields, *files)
    assume(BOUNDARY not in str(fields))
    with closing(opened(sent(form), size)) as again:
        assert told(again) == told(form)


def test_a_file_can_be_read_again_and_large_ones_are_not_kept_in_memory() -> None:
    form = opened(sent(form_of([], ("file", "a.wav", b"x" * (2 * forms.IN_MEMORY)))))
    (file,) = form.files
    assert file.content._rolled  # type: ignore[attr-defined]
    assert len(b"".join(file.pieces())) == len(b"".join(file.pieces())) == len(file) == 2 * forms.IN_MEMORY
    form.close()
    assert file.content.closed


def test_names_can_not_add_to_a_form() -> None:
    form = form_of([('a"; filename="b\r\nX: y', "1")], ("file", 'f"\r\n.wav', b"x"))
    with closing(opened(sent(form))) as again:
        assert [name for name, _ in again.fields] == ["a%22; filename=%22b%0D%0AX: y"]
        assert [file.filename for file in again.files] == ["f%22%0D%0A.wav"]


@pytest.mark.parametrize(
    ("body", "content_type", "said"),
    [
        (b"{}", "application/json", "must be a form"), (b"x", "multipart/form-data", "must be a form"),
        (b"no form", TYPE, "whole form"), (sent(form_of([("a", "1")]))[:-8], TYPE, "whole form"),
        (sent(form_of([("a" * 300, "1")])), TYPE, "300 characters"),
        (sent(form_of([("a", "1")] * (forms.MOST_PARTS + 1))), TYPE, "too many parts"),
        (sent(form_of([("a", "x" * forms.MOST_FIELD_BYTES), ("b", "x")])), TYPE, "too long"),
        (sent(form_of([("a", "é")])).replace("é".encode(), b"\xff"), TYPE, "UTF-8"),
        (sent(form_of([("a", "1")])).replace(b'; name="a"', b""), TYPE, "no name"),
        (b"--b0undary\r\n" + b"X: y\r\n" * 300_000, TYPE, "header count"),
    ],
)  # fmt: skip
def test_what_is_no_whole_form_within_bounds_is_refused(body: bytes, content_type: str, said: str) -> None:
    with pytest.raises(BadForm, match=said):
        opened(body, content_type=content_type)
