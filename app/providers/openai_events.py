"""Streams of typed events, which OpenAI has where an answer is no chat: the object of each event has a `type`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from app.providers.http import Answer
from app.providers.http_errors import error_of
from app.providers.lenient_json import members_of, read_json
from app.providers.sse import COMMENT, KEEP_ALIVE, EventReader

UNREADABLE = "The provider's answer can't be read."
CUT = "The provider's stream ended before it was complete."
NULL = b"null"
EVENTS = "text/event-stream"
SILENCE = ""  # the kind of what is no event
_KEPT = 65_536  # bytes of what was no event


class TypedEvent(NamedTuple):
    """An event: its type, its members as raw JSON, and its bytes as they are passed on."""

    kind: str
    members: dict[str, bytes]
    sent: bytes


def typed_events(answer: Answer, secret: str | None, keep_alive_s: float) -> Iterator[TypedEvent]:
    """The events as they come, and from the first on a sign of life after each `keep_alive_s` of silence, of the kind
    `SILENCE`. Whoever knows the last of them asks for no more. Raises `UpstreamError` for one that tells a failure, and
    where there are no more."""
    said = b""
    has_begun = False
    for name, data in EventReader(lambda: answer.read_within(keep_alive_s), comments=True):
        if name == COMMENT:
            if has_begun:
                yield TypedEvent(SILENCE, {}, KEEP_ALIVE)
            continue
        if data.strip() == b"[DONE]":
            break
        try:
            members = members_of(data)
        except ValueError:
            said = said or data[:_KEPT]
            continue
        kind = read_json(members.get("type", NULL))
        if name == b"error" or kind == "error" or read_json(members.get("error", NULL)):
            raise error_of(502, data, secret, otherwise=UNREADABLE)
        if isinstance(kind, str):
            has_begun = True
            named = b"" if name is None else b"event: %b\n" % name
            yield TypedEvent(kind, members, b"%bdata: %b\n\n" % (named, data.replace(b"\n", b" ")))
        else:
            said = said or data[:_KEPT]
    raise error_of(502, said, secret, otherwise=CUT)


def media_type_of(answer: Answer) -> str:
    """The media type that an answer says to be, without parameters, in lower case; "" if it says none."""
    return (answer.header("content-type") or "").partition(";")[0].strip().lower()
