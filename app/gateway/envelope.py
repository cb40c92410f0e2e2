"""A JSON body taken apart once, at its top level only.

The gateway reads the members it knows and passes the rest on byte for byte; what it must change is put in place
of a member. What JSON leaves open and attackers like (duplicates, NaN, lone surrogates, depth) is refused here.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from app.gateway.errors import ApiError, bad_request
from app.runtime.jsonbody import count_parts

LARGE = 65_536  # bytes of a member that is neither copied nor compared
MOST_MEMBERS = 1_000  # at the top level
LONGEST_NAME = 256  # characters of such a member's name
# In a body of more than `COUNTED_FROM` bytes, so that decoding it takes neither long (nothing else runs meanwhile) nor
# many times its memory. A smaller one cannot hold enough to matter.
MOST_VALUES = 400_000  # of them, to spare memory and time:
MOST_NESTED = 100_000  # objects and lists; and members of objects
COUNTED_FROM = 2 << 20

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_any = msgspec.json.Decoder()
_KEY = re.compile(rb'[ \t\n\r]*+"((?:[^"\\]|\\.){0,%d}+)"[ \t\n\r]*+:[ \t\n\r]*+' % (2 * LONGEST_NAME * 6))
_NEXT = re.compile(rb"[ \t\n\r]*+([,}])")
_END = re.compile(rb"[ \t\n\r]*+\Z")


class Envelope(NamedTuple):
    """A body taken apart: its members as raw JSON, to be passed on, and as values, to be looked at. Large members are
    views of the body."""

    members: dict[str, bytes]
    values: dict[str, Any]


def open_envelope(body: bytes) -> Envelope:
    """The body's members. Raises `ApiError` 400 for what is not one object in valid JSON, or of too many parts."""
    if len(body) > COUNTED_FROM:
        _refuse_many_values(body)
    try:
        members = _members.decode(body)
        _refuse_odd_names(members)
        values = _any.decode(body)  # raw members are not looked into: this finds bad text and numbers out of range
        raw = {name: bytes(value) if len(value) < LARGE else value for name, value in members.items()}
        _refuse_duplicates(body, raw)
    except UnicodeDecodeError:
        raise bad_request("The request body is not valid UTF-8.") from None
    except msgspec.ValidationError as error:
        if "Number out of range" in str(error) or "Integer value out of range" in str(error):
            raise bad_request("The request body holds a number that is out of range.") from None
        raise bad_request("The request body must be a JSON object.") from None
    except RecursionError:
        raise bad_request("The request body is nested too deep.") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise bad_request(f"The request body is not valid JSON: {_short(error)}.") from None
    return Envelope(raw, values)


def _refuse_many_values(body: bytes) -> None:
    """Count what a decoder would make, before it does."""
    if body.count(b",") + body.count(b"[") + body.count(b"{") <= MOST_NESTED:  # those within texts counted too
        return
    parts = count_parts(body, 4 * MOST_VALUES)
    if parts is None or max(parts.nested, parts.members) > MOST_NESTED or parts.values > MOST_VALUES:
        raise _many_values()


def _many_values() -> ApiError:
    return bad_request(
        f"The request body has too many parts: at most {MOST_VALUES:,} values, and of objects and lists, or of members,"
        f" {MOST_NESTED:,}."
    )


def _refuse_odd_names(members: dict[str, msgspec.Raw]) -> None:
    if len(members) > MOST_MEMBERS:
        raise bad_request(f"The request body has {len(members)} members; at most {MOST_MEMBERS} are taken.")
    for name in members:
        if len(name) > LONGEST_NAME:
            raise bad_request(
                f"A member's name has {len(name)} characters; at most {LONGEST_NAME} are taken.", name[:100]
            )


def _refuse_duplicates(body: bytes, members: dict[str, bytes]) -> None:
    """Refuse a body in which a member comes twice: most are spelled just as their members would be."""
    if len(body) >= LARGE or body != _spelled(members, body.find(b'": ', 0, 300) >= 0):
        _walk(body, members)


def _spelled(members: dict[str, bytes], with_blanks: bool) -> bytes:
    """The members as JavaScript writes them, or with blanks as Python does; nothing if a name needs an escape."""
    names = "".join(members)
    if '"' in names or "\\" in names:
        return b""
    colon, comma = (b'": ', b', "') if with_blanks else (b'":', b',"')
    return b'{"%b}' % comma.join([name.encode() + colon + value for name, value in members.items()])


def _walk(body: bytes, members: dict[str, bytes]) -> None:
    """Walk the top level beside the decoded members: with a duplicate the two can't agree.

    The decoder keeps the last of two members of one name, so either the first one's text differs from it, or the
    name comes twice with the same text. Large members are not compared: where one is not at its place the walk does not
    end where the body does.
    """
    at = body.index(b"{") + 1
    seen: set[str] = set()
    while found := _KEY.match(body, at):
        name = found.group(1)
        key = name.decode() if b"\\" not in name else _any.decode(b'"' + name + b'"')
        value = members.get(key, b"")  # nothing where the walk lost its way in a large member
        end = found.end() + len(value)
        following = _NEXT.match(body, end)
        is_there = len(value) >= LARGE or body.startswith(value, found.end())
        if not value or key in seen or not is_there or following is None:
            raise bad_request(f"The request body names '{key[:100]}' twice.", key[:100])
        seen.add(key)
        at = following.end()
        if following.group(1) == b"}":
            break
    if len(seen) != len(members) or (seen and not _END.match(body, at)):
        raise bad_request("The request body names a member twice.")


def invalid(param: str, message: str) -> ApiError:
    """The refusal of a value, from the decoder's own words about the place `param`."""
    if message.startswith(_MISSING):
        param = f"{param}.{message[len(_MISSING) : -1]}".removeprefix(".")
        return bad_request(f"Missing required parameter: '{param}'.", param)
    return bad_request(f"Invalid '{param}': {message[:1].lower()}{message[1:]}.", param or None)


_MISSING = "Object missing required field `"


def decode_member(raw: bytes, type: Any, param: str) -> Any:
    """One member as `type`; raises `ApiError` 400 naming the very place that is wrong, such as `messages[0].role`."""
    try:
        return msgspec.json.decode(raw, type=type)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        param += path.rstrip("`").replace("[...]", "")
        raise invalid(param, message) from None
    except RecursionError:
        raise bad_request(f"'{param}' is nested too deep.", param) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"Invalid '{param}': {_short(error)}.", param) from None


def _short(error: Exception) -> str:
    return str(error).removeprefix("JSON is malformed: ")[:200]
