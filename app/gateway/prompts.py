"""`prompt: {id, version, variables}` in a request: the text of a kept prompt takes its place.

Only a request that names one asks Redis for it. A prompt of a person is for that person's keys and tokens, one of a team for
that team's keys; to all others it is not there.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from app import store
from app.directory import CallerRecord, PromptOwner, PromptText
from app.gateway.endpoints import CHAT, COMPLETIONS, Endpoint
from app.gateway.envelope import open_envelope
from app.gateway.errors import INVALID, ApiError, bad_request, unavailable
from app.gateway.redis_wire import RedisAway, RedisWire
from app.runtime.templates import Value, WrongVariable, fill_in

_owner = msgspec.json.Decoder(PromptOwner)
_text = msgspec.json.Decoder(PromptText)


class PromptRef(msgspec.Struct, forbid_unknown_fields=True):
    """The member as clients send it; without a version the newest is meant."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]
    version: Annotated[int, Meta(ge=1, le=2**31)] | None = None
    variables: dict[str, Value] = {}


class Expanded(NamedTuple):
    """A body with a prompt's text in place of its name, and the tags by which usage tells the prompt."""

    body: bytes
    tags: tuple[str, ...]


def tags_of(id: str, version: int) -> tuple[str, str]:
    """The tags of calls that were asked by a prompt: those of all versions bear the first, those of this one the second."""
    return f"prompt:{id}", f"prompt:{id}:{version}"


def expand(wire: RedisWire, caller: CallerRecord, endpoint: Endpoint, body: bytes) -> Expanded | None:
    """The body as it is meant, None if it names no prompt. Raises `ApiError`: 404 for a prompt that is not there for
    this caller, 400 for a member or a variable that is wrong.

    Beside `messages` the text is a system message before them, without them the user's. In a completion it is the prompt.
    """
    if endpoint not in (CHAT, COMPLETIONS) or b'"prompt"' not in body:
        return None
    members = open_envelope(body).members
    raw = members.get("prompt", b"")
    if raw[:1] != b"{":
        return None
    try:
        asked = msgspec.json.decode(raw, type=PromptRef)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"The member 'prompt' can't be read: {error}.", "prompt") from None
    text = _found(wire, caller, asked)
    try:
        filled = fill_in(text.template, asked.variables)
    except WrongVariable as error:
        raise bad_request(str(error), f"prompt.variables.{error.name}") from None
    changed = dict(members)
    if endpoint is COMPLETIONS:
        changed["prompt"] = msgspec.json.encode(filled)
    else:
        del changed["prompt"]
        role = "system" if "messages" in members else "user"
        changed["messages"] = _before(msgspec.json.encode({"role": role, "content": filled}), members.get("messages"))
    if text.model is not None and "model" not in members:
        changed["model"] = msgspec.json.encode(text.model)
    pieces = [msgspec.json.encode(name) + b":" + bytes(value) for name, value in changed.items()]
    return Expanded(b"{" + b",".join(pieces) + b"}", tags_of(asked.id, text.version))


def _found(wire: RedisWire, caller: CallerRecord, asked: PromptRef) -> PromptText:
    field = "latest" if asked.version is None else str(asked.version)
    try:
        owner, text = wire.call("HMGET", store.prompt(asked.id), "owner", field)
    except RedisAway:
        raise unavailable("The prompts") from None
    if owner is None or not _may_use(caller, _owner.decode(owner)):
        raise ApiError(404, INVALID, "prompt_not_found", f"The prompt '{asked.id}' does not exist.", param="prompt.id")
    if text is None:
        raise ApiError(
            404, INVALID, "prompt_not_found", f"The prompt '{asked.id}' has no version {field}.", param="prompt.version"
        )
    return _text.decode(text)


def _may_use(caller: CallerRecord, owner: PromptOwner) -> bool:
    if owner.team_id is not None:
        return caller.team_id == owner.team_id
    return caller.team_id is None and caller.person_id == owner.person_id


def _before(message: bytes, messages: bytes | None) -> bytes:
    """A list of messages with one more at its beginning; what is no list is left to the check of the request."""
    rest = bytes(messages or b"[]").strip()
    if not rest.startswith(b"["):
        return rest
    inner = rest[1:].lstrip()
    return b"[" + message + (b"]" if inner == b"]" else b"," + inner)
