"""What SCIM clients write: filters, and PATCH in the shapes that Entra ID and Okta really send.

A resource is a dictionary with the members that Portico keeps, in SCIM's own spelling. Attributes that it does not keep are
ignored; a path that is none is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from app.domain.errors import DomainError

MOST_OPERATIONS = 1_000
_TERM = re.compile(r'\s*([A-Za-z$][\w.$:-]*)\s+eq\s+("(?:[^"\\]|\\.)*")\s*', re.IGNORECASE)
_AND = re.compile(r"and\s+", re.IGNORECASE)
_PATH = re.compile(r"(?:urn:[\w:.-]+:)?([A-Za-z$][\w$-]*)(?:\[([^\[\]]+)\])?(?:\.([A-Za-z$][\w$-]*))?", re.ASCII)
_CONDITION = re.compile(r'\s*(\w+)\s+eq\s+("(?:[^"\\]|\\.)*"|true|false)\s*', re.IGNORECASE)
SPELLINGS = {
    name.lower(): name for name in ("userName", "externalId", "displayName", "name", "emails", "active", "members")
}
TEXTS = ("userName", "externalId", "displayName")


class ScimError(DomainError):
    """A refusal with the word that SCIM has for it."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Path(NamedTuple):
    """`emails[type eq "work"].value` is emails, ("type", "work"), value."""

    attribute: str
    condition: tuple[str, Any] | None
    sub: str | None


def terms(text: str, known: Sequence[str]) -> list[tuple[str, str]]:
    """The attributes and values that a filter wants to be equal, all of them. Raises `ScimError`."""
    spelling = {name.lower(): name for name in known}
    found, rest = [], text
    while True:
        match = _TERM.match(rest)
        if match is None:
            break
        name = spelling.get(
            match[1].rpartition(":")[2].lower() if match[1].lower().startswith("urn:") else match[1].lower()
        )
        try:
            value = json.loads(match[2])
        except ValueError:
            break
        if name is None:
            break
        found.append((name, value))
        rest = rest[match.end() :]
        if not rest:
            return found
        joined = _AND.match(rest)
        if joined is None:
            break
        rest = rest[joined.end() :]
    raise ScimError("invalidFilter", f"Filter with eq on {', '.join(known)}, joined by and.")


def path_of(text: str) -> Path:
    """Raises `ScimError` for what is no path."""
    match = _PATH.fullmatch(text.strip())
    if match is None or len(text) > 1_000:
        raise ScimError("invalidPath", "This is not a path of an attribute.")
    attribute, condition, sub = match.groups()
    parsed = None
    if condition is not None:
        found = _CONDITION.fullmatch(condition)
        if found is None:
            raise ScimError("invalidPath", "Select values with eq only.")
        try:
            parsed = found[1], json.loads(found[2] if found[2].startswith('"') else found[2].lower())
        except ValueError:
            raise ScimError("invalidPath", "This is not a path of an attribute.") from None
    return Path(SPELLINGS.get(attribute.lower(), ""), parsed, sub)


def operations(document: Mapping[str, Any]) -> list[tuple[str, str | None, Any]]:
    """The operations of a PATCH: "add", "replace" or "remove", the path if there is one, and the value."""
    listed = next((value for name, value in document.items() if name.lower() == "operations"), None)
    if not isinstance(listed, list) or len(listed) > MOST_OPERATIONS:
        raise ScimError("invalidSyntax", "Send Operations, a list.")
    found = []
    for entry in listed:
        members = {name.lower(): value for name, value in entry.items()} if isinstance(entry, dict) else {}
        op, path = members.get("op"), members.get("path")
        if not isinstance(op, str) or op.lower() not in ("add", "replace", "remove"):
            raise ScimError("invalidSyntax", "An operation is add, replace or remove.")
        if path is not None and not isinstance(path, str):
            raise ScimError("invalidPath", "A path is a text.")
        found.append((op.lower(), path or None, members.get("value")))
    return found


def read(document: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a whole resource that Portico keeps. Raises `ScimError` for values of another type."""
    resource: dict[str, Any] = {}
    for name, value in document.items():
        attribute = SPELLINGS.get(name.lower())
        if attribute is not None:
            _set(resource, Path(attribute, None, None), "replace", value)
    return resource


def patch(resource: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """The resource after the operations of a PATCH; all of them, or a `ScimError`."""
    changed: dict[str, Any] = json.loads(json.dumps(resource))
    for op, path, value in operations(document):
        if path is not None:
            _apply(changed, op, path_of(path), value)
        elif op == "remove":
            raise ScimError("noTarget", "Say by a path what to remove.")
        elif isinstance(value, dict):
            for name, inner in value.items():  # names of attributes, or whole paths
                _apply(changed, op, path_of(name), inner)
        else:
            raise ScimError("invalidValue", "Without a path the value is an object.")
    return changed


def _apply(resource: dict[str, Any], op: str, path: Path, value: Any) -> None:
    if not path.attribute:
        return
    if op == "remove":
        _remove(resource, path, value)
    else:
        _set(resource, path, op, value)


def _set(resource: dict[str, Any], path: Path, op: str, value: Any) -> None:
    match path.attribute:
        case "active":
            resource["active"] = _boolean(_alone(value))
        case "name":
            given = {path.sub: _alone(value)} if path.sub else value
            if not isinstance(given, dict):
                raise ScimError("invalidValue", "A name is an object.")
            kept = resource.get("name") or {} if op == "add" or path.sub else {}
            texts = {name: inner for name, inner in given.items() if isinstance(inner, str) and len(inner) <= 255}
            resource["name"] = kept | texts
        case "emails":
            _set_emails(resource, path, op, value)
        case "members":
            _set_members(resource, path, op, value)
        case attribute:
            value = _alone(value)
            if value is not None and (not isinstance(value, str) or len(value) > 255):
                raise ScimError("invalidValue", f"{attribute} is a text of at most 255 characters.")
            resource[attribute] = value or None


def _remove(resource: dict[str, Any], path: Path, value: Any) -> None:
    match path.attribute:
        case "userName" | "active":
            raise ScimError("mutability", f"{path.attribute} can't be removed.")
        case "name" if path.sub:
            (resource.get("name") or {}).pop(path.sub, None)
        case "emails" if path.condition:
            resource["emails"] = [one for one in resource.get("emails") or [] if not _fits(one, path.condition)]
        case "members":
            gone = {member["value"] for member in _members(value)} if value is not None else None
            if path.condition:
                gone = {path.condition[1]} if path.condition[0].lower() == "value" else set()
            members = resource.get("members") or []
            resource["members"] = [] if gone is None else [one for one in members if one["value"] not in gone]
        case attribute:
            resource[attribute] = [] if attribute == "emails" else None


def _set_emails(resource: dict[str, Any], path: Path, op: str, value: Any) -> None:
    emails: list[dict[str, Any]] = list(resource.get("emails") or [])
    if path.condition is None and path.sub is None:
        given = value if isinstance(value, list) else [value]
        read = [_email(one) for one in given if one is not None]
        resource["emails"] = [*emails, *(one for one in read if one not in emails)] if op == "add" else read
        return
    change = {path.sub: _alone(value)} if path.sub else value
    if not isinstance(change, dict):
        raise ScimError("invalidValue", "An e-mail address is an object.")
    chosen = [one for one in emails if path.condition is None or _fits(one, path.condition)]
    if not chosen:
        chosen = [dict([path.condition]) if path.condition else {}]
        emails += chosen
    for one in chosen:
        one.update(change)
    resource["emails"] = [_email(one) for one in emails if one.get("value")]


def _set_members(resource: dict[str, Any], path: Path, op: str, value: Any) -> None:
    given = _members(value)
    if path.condition and path.condition[0].lower() == "value":
        given = _members([{"value": path.condition[1]}])
    kept = resource.get("members") or [] if op == "add" else []
    resource["members"] = list({one["value"]: one for one in (*kept, *given)}.values())


def _members(value: Any) -> list[dict[str, str]]:
    given = value if isinstance(value, list) else [] if value is None else [value]
    found = []
    for one in given:
        id = one.get("value") if isinstance(one, dict) else one
        if not isinstance(id, str) or not 0 < len(id) <= 64:
            raise ScimError("invalidValue", "A member is an object with the value of a user's id.")
        found.append({"value": id})
    return found


def _email(value: Any) -> dict[str, Any]:
    entry = {"value": value} if isinstance(value, str) else value
    if not isinstance(entry, dict) or not isinstance(entry.get("value"), str) or len(entry["value"]) > 255:
        raise ScimError("invalidValue", "An e-mail address is an object with a value.")
    kept: dict[str, Any] = {"value": entry["value"]}
    if isinstance(entry.get("type"), str):
        kept["type"] = entry["type"][:64]
    if entry.get("primary") is not None:
        kept["primary"] = _boolean(entry["primary"])
    return kept


def _fits(entry: Mapping[str, Any], condition: tuple[str, Any]) -> bool:
    name, wanted = condition
    value = next((inner for key, inner in entry.items() if key.lower() == name.lower()), None)
    same_text = isinstance(value, str) and isinstance(wanted, str) and value.lower() == wanted.lower()
    return same_text or (value is not None and value == wanted)


def _alone(value: Any) -> Any:
    """The one value of a list or object that stands for it: `[{"value": "False"}]` is "False"."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value.get("value") if isinstance(value, dict) else value


def _boolean(value: Any) -> bool:
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise ScimError("invalidValue", "Expected true or false.")
    return value
