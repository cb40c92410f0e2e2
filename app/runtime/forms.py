"""Bodies that are forms with files (`multipart/form-data`), read as they come.

Small files stay in memory, larger ones go to a temporary file; nothing is held twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from tempfile import SpooledTemporaryFile
from typing import IO

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

MULTIPART = "multipart/form-data"
MOST_PARTS = 1_000
MOST_FIELD_BYTES = 1 << 20  # all fields that are no files
IN_MEMORY = 1 << 20  # bytes of a file
_LONGEST_NAME = 256
_LONGEST_BOUNDARY = 70  # RFC 2046, section 5.1.1
_PIECE = 1 << 16
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(?:; ?[\w.+-]+=[\w.+-]+)*", re.ASCII)


class BadForm(Exception):
    """A body that is no form, or one that is cut, or of too many parts."""


class Upload:
    """A file of a form: `name` is its field's. Its length is its size in bytes."""

    def __init__(self, name: str, filename: str, media_type: str, content: IO[bytes]) -> None:
        self.name = name
        self.filename = filename
        self.media_type = media_type
        self.content = content
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, piece: bytes) -> None:
        self.content.write(piece)
        self._size += len(piece)

    def pieces(self) -> Iterator[bytes]:
        """The content from its beginning, again and again if need be."""
        self.content.seek(0)
        while piece := self.content.read(_PIECE):
            yield piece


class Form:
    """Fields and files in the order in which they came."""

    def __init__(self) -> None:
        self.fields: list[tuple[str, str]] = []
        self.files: list[Upload] = []

    def close(self) -> None:
        """Give back temporary files."""
        for file in self.files:
            file.content.close()


def read_form(content_type: str, pieces: Iterable[bytes]) -> Form:
    """The form in a body. Raises `BadForm`, and whatever `pieces` raises."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind.lower() != MULTIPART.encode() or not 0 < len(boundary) <= _LONGEST_BOUNDARY:
        raise BadForm(f"The request body must be a form: {MULTIPART} with a boundary.")
    form = Form()
    reader = _Reader(form, boundary)
    try:
        for piece in pieces:
            reader.take(piece)
        if not reader.is_whole:
            raise BadForm("The request body is not a whole form.")
    except BaseException:
        form.close()
        raise
    return form


class _Reader:
    """Fills a form from the events of the parser."""

    def __init__(self, form: Form, boundary: bytes) -> None:
        self.is_whole = False
        self._form = form
        self._left = MOST_FIELD_BYTES
        self._parts = 0
        self._name = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._field: str | None = None
        self._text = bytearray()
        self._upload: Upload | None = None
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin, "on_header_field": self._header_name, "on_header_value": self._header_value,
                "on_header_end": self._header_end, "on_headers_finished": self._head_end, "on_part_data": self._data,
                "on_part_end": self._end, "on_end": self._whole,
            },
        )  # fmt: skip

    def take(self, piece: bytes) -> None:
        try:
            self._parser.write(piece)
        except MultipartParseError as error:
            raise BadForm(f"The request body is not a whole form: {str(error)[:200]}.") from None
        except UnicodeDecodeError:
            raise BadForm("A field of the form is not valid UTF-8.") from None

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise BadForm(f"The form has too many parts; at most {MOST_PARTS:,} are taken.")
        self._headers = {}

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _head_end(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name, filename = options.get(b"name", b"").decode(), options.get(b"filename")
        if not name:
            raise BadForm("A part of the form has no name.")
        if len(name) > _LONGEST_NAME:
            raise BadForm(f"A field's name has {len(name)} characters; at most {_LONGEST_NAME} are taken.")
        if filename is None:
            self._field, self._text = name, bytearray()
            return
        media_type = self._headers.get(b"content-type", b"").decode("latin-1")
        content = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - closed with the form
        self._upload = Upload(name, filename.decode("utf-8", "replace"), media_type, content)
        self._form.files.append(self._upload)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._upload is not None:
            self._upload.add(data[start:end])
            return
        self._left -= end - start
        if self._left < 0:
            raise BadForm(f"The fields of the form are too long; at most {MOST_FIELD_BYTES:,} bytes are taken.")
        self._text += data[start:end]

    def _end(self) -> None:
        if self._field is not None:
            self._form.fields.append((self._field, self._text.decode()))
        self._field = self._upload = None

    def _whole(self) -> None:
        self.is_whole = True


def parts_of(form: Form, boundary: str) -> list[bytes | Upload]:
    """The form as it is sent with this boundary, which must not occur in it, in pieces."""
    parts: list[bytes | Upload] = []
    for name, text in form.fields:
        parts.append(_head(boundary, name) + b"\r\n" + text.encode() + b"\r\n")
    for file in form.files:
        media_type = file.media_type if _MEDIA_TYPE.fullmatch(file.media_type) else "application/octet-stream"
        head = _head(boundary, file.name, file.filename)
        parts += (head + f"Content-Type: {media_type}\r\n\r\n".encode(), file, b"\r\n")
    return [*parts, f"--{boundary}--\r\n".encode()]


def _head(boundary: str, name: str, filename: str | None = None) -> bytes:
    told = f'; filename="{_quoted(filename)}"' if filename is not None else ""
    return f'--{boundary}\r\nContent-Disposition: form-data; name="{_quoted(name)}"{told}\r\n'.encode()


def _quoted(text: str) -> str:
    """As browsers write names (WHATWG, multipart/form-data encoding algorithm)."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
