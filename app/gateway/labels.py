"""Whose call it is in the client's own words: its session, its program, a subagent, tags, and the turn that it may repeat.

They are for finding and adding up, never authority. What is no plain id, such as a local path, is kept as a digest, so that
its calls still belong together; the words themselves are forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from app.runtime.agents import LONGEST, agent_of

LONGEST_TAG = 64  # characters
MOST_TAGS = 10  # of one request
PROGRAMS = 1_000  # values of User-Agent that a process remembers

# Where clients name their conversation; the first that says something counts. gunicorn takes no name with an underscore.
SESSION_HEADERS = ("X-CLAUDE-CODE-SESSION-ID", "SESSION-ID", "X-SESSION-ID", "X-SESSION-AFFINITY")
LONGEST_SESSION = 1_000  # characters of such a name that count
TAGS_HEADER = "X-PORTICO-TAGS"
SUBAGENT_HEADER = "X-CLAUDE-CODE-AGENT-ID"
HEADERS = frozenset((*SESSION_HEADERS, TAGS_HEADER, SUBAGENT_HEADER))  # all that are read here beside User-Agent

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+=-]{0,127}")
_TAG = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:=-]{{0,{LONGEST_TAG - 1}}}")
_PROGRAM = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_ASKED = ("messages", "input", "contents", "prompt")  # members of a body that hold what is asked
_READ = 8_192  # bytes of a member that is read for its names; a longer one holds something else
_TAIL = 1_024  # bytes of the end of what is asked, which every further step of a conversation changes

_text_in = msgspec.json.Decoder(str).decode
_object_in = msgspec.json.Decoder(dict[str, Any]).decode


class Labels(NamedTuple):
    """What a client says of a call. `agent` is the client's program, `subagent_id` one of several that it runs in a session;
    `turn_id` is the same for requests of a session that ask the same."""

    session_id: str | None = None
    agent: str | None = None
    subagent_id: str | None = None
    tags: tuple[str, ...] = ()
    turn_id: str | None = None


NO_LABELS = Labels()


def session_in(header: Callable[[str], str | None]) -> str:
    """What a request's headers call its conversation, "" if they say nothing."""
    for name in SESSION_HEADERS:
        if value := header(name):
            return value[:LONGEST_SESSION]
    return ""


def labels_in(header: Callable[[str], str | None], user_agent: str) -> Labels:
    """What a request's headers say; `header` takes the names of `HEADERS`."""
    session, subagent, tags = session_in(header), header(SUBAGENT_HEADER), header(TAGS_HEADER)
    return Labels(
        plain_id(session) if session else None,
        program_in(user_agent),
        plain_id(subagent) if subagent else None,
        tags_in(tags.split(",", 4 * MOST_TAGS)) if tags else (),
    )


def plain_id(text: str) -> str | None:
    """An id as it may be stored: as it is, or the digest of what is no plain id; None for nothing."""
    text = text.strip()
    if _PLAIN.fullmatch(text):
        return text
    return f"~{blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=12).hexdigest()}" if text else None


def program_in(user_agent: str) -> str | None:
    """The client that a User-Agent names, such as "claude-code": one of `runtime.agents`, else the first word without its
    version; None where it names none."""
    return of_program(user_agent).agent


def of_program(user_agent: str) -> Labels:
    """The labels of a request of which nothing but its program is told."""
    return _of_program(user_agent[:LONGEST])


@lru_cache(PROGRAMS)
def _of_program(user_agent: str) -> Labels:
    found = _PROGRAM.match(user_agent.strip())
    return Labels(agent=agent_of(user_agent) or (found[0].lower() if found else None))


def is_tag(text: str) -> bool:
    """Whether this can be a tag."""
    return _TAG.fullmatch(text) is not None


def tags_in(words: Collection[object]) -> tuple[str, ...]:
    """The tags among words, each once, at most `MOST_TAGS`. What can be none is dropped."""
    found = dict.fromkeys(word.strip() for word in words if isinstance(word, str))
    return tuple([word for word in found if is_tag(word)][:MOST_TAGS])


def completed(labels: Labels, members: Mapping[str, bytes], caller_id: str, allowed: Collection[str] | None) -> Labels:
    """The labels with what the body's `members` say besides, and only with tags that are `allowed` (None: with any).

    A header comes before the body. `members` are raw JSON; what they say wrongly is not heard.
    """
    session, tags = labels.session_id, labels.tags
    if session is None and "session_id" in members:
        session = _id_in(members["session_id"])
    if "metadata" in members and (session is None or not tags):
        told, words = _in_metadata(members["metadata"])
        session, tags = session or told, tags or words
    if session is None and "prompt_cache_key" in members:
        session = _id_in(members["prompt_cache_key"])
    if allowed is not None:
        tags = tuple([tag for tag in tags if tag in allowed])
    turn = None
    if session is not None:
        turn = _turn_of(f"{caller_id}\n{session}\n{labels.subagent_id}\n", members)
    return Labels(session, labels.agent, labels.subagent_id, tags, turn)


def _id_in(raw: bytes) -> str | None:
    if len(raw) > _READ:
        return None
    try:
        return plain_id(_text_in(raw))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _in_metadata(raw: bytes) -> tuple[str | None, tuple[str, ...]]:
    """The session and the tags that `metadata` tells: Claude Code's `user_id` holds a session, as JSON or after `_session_`;
    `tags` are a list, or a text with commas."""
    if len(raw) > _READ:
        return None, ()
    try:
        told = _object_in(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None, ()
    session, user, tags = told.get("session_id"), told.get("user_id"), told.get("tags")
    if not isinstance(session, str) and isinstance(user, str):
        session = _session_of_user(user)
    words = tags.split(",", 4 * MOST_TAGS) if isinstance(tags, str) else tags if isinstance(tags, list) else ()
    return plain_id(session) if isinstance(session, str) else None, tags_in(words)


def _session_of_user(user: str) -> Any:
    if not user.startswith("{"):
        return user.rpartition("_session_")[2] if "_session_" in user else None
    try:
        return _object_in(user.encode("utf-8", "surrogatepass")).get("session_id")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _turn_of(whose: str, members: Mapping[str, bytes]) -> str | None:
    """A name for what is asked, told by its length and its end: a digest of all of it would cost more than all else that the
    door does with a long conversation. None where nothing is asked in words, as in forms."""
    for name in _ASKED:
        if name in members:
            raw = memoryview(members[name])
            digest = blake2b(f"{whose}{len(raw)}\n".encode(), digest_size=12)
            digest.update(raw[-_TAIL:])
            return digest.hexdigest()
    return None
