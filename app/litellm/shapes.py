"""LiteLLM's users, teams, members, keys and models as things that can be compared with Portico's, and what it is told of them.

Its numbers are read as decimals, never as floats. Amounts are compared to nine places, which is what Portico holds. What
has no counterpart here (a budget of 3 hours) is left out, and is neither compared nor overwritten.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any, NamedTuple

from app.litellm.plan import Entity, Fields, Thing

Row = Mapping[str, Any]

# What each price is called there; here they are a million tokens'.
PRICES = {
    "input_per_mtok": "input_cost_per_token",
    "output_per_mtok": "output_cost_per_token",
    "cached_input_per_mtok": "cache_read_input_token_cost",
    "cache_write_per_mtok": "cache_creation_input_token_cost",
    "cache_write_1h_per_mtok": "cache_creation_input_token_cost_above_1hr",
}
MODES = {
    "chat": "chat",
    "completion": "completions",
    "embedding": "embeddings",
    "audio_transcription": "transcription",
    "audio_speech": "speech",
    "image_generation": "images",
    "rerank": "rerank",
}
MODES_THERE = {capability: mode for mode, capability in MODES.items()}
PERIODS = {None: "total", "1d": "day", "24h": "day", "7d": "week", "1w": "week", "30d": "month", "1mo": "month"}
DURATIONS = {"day": "1d", "week": "7d", "month": "1mo", "total": None}
ROLES = {"admin": "owner", "user": "member"}
ROLES_THERE = {role: there for there, role in ROLES.items()}
OWN_USER = "default_user_id"
ADMINS = ("proxy_admin", "proxy_admin_viewer")
OWN_TEAM = "litellm-dashboard"  # of the keys of its own pages
ALL_MODELS = ("all-team-models", "all-proxy-models", "*")

_MTOK = 1_000_000
_NANO = Decimal("0.000000001")
_LARGEST = 10**15
_USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


class Lists(NamedTuple):
    """Everything that was read from LiteLLM. `caps` are the memberships with their budgets, None if it does not list them."""

    models: list[Row] = []
    users: list[Row] = []
    teams: list[Row] = []
    caps: list[Row] | None = None
    keys: list[Row] = []


# --- amounts ---


def amount(value: Any) -> str | None:
    """An amount of money as a plain decimal to nine places; None for none. Raises `ValueError` for what is no amount."""
    if value is None:
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise ValueError("not an amount") from None
    if isinstance(value, bool) or not number.is_finite() or not 0 <= number < _LARGEST:
        raise ValueError("not an amount")
    return _plain(number.quantize(_NANO, ROUND_HALF_EVEN))


def per_million(value: Any) -> str | None:
    """A price of one token as that of a million."""
    return None if value is None else amount(Decimal(amount_text(value)) * _MTOK)


def per_token(value: str | None) -> Decimal | None:
    """A price of a million tokens as that of one, exactly."""
    return None if value is None else Decimal(value) / _MTOK


def amount_text(value: Any) -> str:
    """A number as it is written. Raises `ValueError`."""
    text = str(value)
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError("not an amount") from None
    if isinstance(value, bool) or not number.is_finite() or not 0 <= number < _LARGEST:
        raise ValueError("not an amount")
    return text


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def budget(row: Row) -> Fields:
    """The field `budget` of a row with `max_budget` and `budget_duration`; nothing if it can't be held here."""
    duration = row.get("budget_duration")
    try:
        limit = amount(row.get("max_budget"))
    except ValueError:
        return {}
    if limit is None:
        return {"budget": None}
    if duration is not None and not isinstance(duration, str) or duration not in PERIODS:
        return {}
    return {"budget": {"limit": limit, "period": PERIODS[duration]}}


def _limits(row: Row) -> Fields:
    found: Fields = {}
    for name in ("rpm_limit", "tpm_limit"):
        value = row.get(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1_000_000_000):
            found[name] = value
    return found


def _text(value: Any, most: int = 255) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= most else None


# --- what is read ---


def is_own_user(row: Row) -> bool:
    """Whether a user is LiteLLM's own, or an admin there: they are left alone."""
    return row.get("user_id") == OWN_USER or row.get("user_role") in ADMINS


def username_of(row: Row) -> str:
    """The name under which a user would be created here: the id, or the e-mail's local part if the id is a UUID."""
    id, email = str(row.get("user_id")), _text(row.get("user_email"))
    local = (email or "").partition("@")[0]
    if (_is_uuid(id) or not _USERNAME.fullmatch(id)) and _USERNAME.fullmatch(local):
        return local
    return id


def users(rows: Iterable[Row]) -> list[Thing]:
    found = []
    for row in rows:
        id, email = _text(row.get("user_id")), _text(row.get("user_email"))
        if id is None or is_own_user(row):
            continue
        matches = (f"name:{id.lower()}",)
        found.append(
            Thing(
                id=id,
                name=username_of(row),
                fields={"email": email, **budget(row), **_limits(row)},
                matches=(f"email:{email.lower()}", *matches) if email else matches,
            )
        )
    return found


def teams(rows: Iterable[Row]) -> list[Thing]:
    found = []
    for row in rows:
        id = _text(row.get("team_id"))
        if id is None or id == OWN_TEAM:
            continue
        name = _text(row.get("team_alias"), 100) or id
        fields = {"team_alias": name, **budget(row), **_limits(row)}
        found.append(Thing(id=id, name=name, fields=fields, matches=(f"name:{name.lower()}",)))
    return found


def members(
    rows: Iterable[Row], caps: Iterable[Row] | None, people: Mapping[str, str], teams: Mapping[str, str]
) -> list[Thing]:
    """The members of teams. `people` and `teams` are the names here of those that are known, by id there."""
    known = None if caps is None else {(row.get("team_id"), row.get("user_id")): row for row in caps}
    found = []
    for row in rows:
        team = str(row.get("team_id"))
        for member in row.get("members_with_roles") or ():
            if not isinstance(member, dict):
                continue
            person = str(member.get("user_id"))
            if team not in teams or person not in people or member.get("role") not in ROLES:
                continue
            fields: Fields = {"role": ROLES[member["role"]]}
            if known is not None:
                table = (known.get((team, person)) or {}).get("litellm_budget_table") or {}
                try:
                    fields["max_budget_in_team"] = amount(table.get("max_budget"))
                except ValueError:
                    pass  # it is no amount, and so not compared
            found.append(
                Thing(
                    id=member_id(team, person),
                    name=f"{people[person]} in {teams[team]}",
                    fields=fields,
                    matches=(member_match(people[person], teams[team]),),
                )
            )
    return found


def member_id(team: str, person: str) -> str:
    return f"{team}/{person}"


def member_match(person: str, team: str) -> str:
    return f"{team.lower()}\n{person.lower()}"


def keys(rows: Iterable[Row], people: Mapping[str, str], teams: Mapping[str, str]) -> list[Thing]:
    """The keys of people who are known, by the hash that LiteLLM calls them by."""
    found = []
    for row in rows:
        id, person, team = _text(row.get("token")), str(row.get("user_id")), row.get("team_id")
        if id is None or person not in people or (team is not None and team not in teams):
            continue
        name = _text(row.get("key_alias"), 100) or _text(row.get("key_name"), 100) or id[:12]
        owner, of_team = people[person], teams[team] if team else None
        fields = {
            "key_alias": name,
            "owner": owner,
            "team": of_team,
            "models": key_models(row.get("models")),
            **budget(row),
            **_limits(row),
            "expires": moment(row.get("expires")),
            "blocked": row.get("blocked") is True,
        }
        found.append(Thing(id=id, name=name, fields=fields, matches=(key_match(name, owner, of_team),)))
    return found


def key_match(name: str, owner: str, team: str | None) -> str:
    return "\n".join((owner.lower(), (team or "").lower(), name.lower()))


def key_models(value: Any) -> list[str]:
    """The models of a key, sorted; an empty list means all of them."""
    names = [name for name in value or () if isinstance(name, str)]
    return [] if any(name in ALL_MODELS for name in names) else sorted(set(names))


def moment(value: Any) -> str | None:
    """A time as RFC 3339 in UTC, to the second; LiteLLM writes several ways."""
    if not isinstance(value, str):
        return None
    try:
        at = datetime.fromisoformat(value.replace("Z", "+00:00"))
    except ValueError:
        return None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return at.replace(microsecond=0).isoformat().replace("+00:00", "Z")


def models(rows: Iterable[Row]) -> list[Thing]:
    """The models by name. Several deployments of one are one model, told by the first; one of a configuration file can't be
    changed."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        name = _text(row.get("model_name"), 200)
        if name is not None and "*" not in name and ids_of([row]):
            groups.setdefault(name, []).append(row)
    return [_model(name, sorted(group, key=lambda row: ids_of([row]))) for name, group in groups.items()]


def ids_of(rows: Iterable[Row]) -> list[str]:
    """LiteLLM's ids of these deployments."""
    return [id for row in rows if (id := _text((row.get("model_info") or {}).get("id")))]


def _model(name: str, group: list[Row]) -> Thing:
    info: Row = group[0].get("model_info") or {}
    params: Row = group[0].get("litellm_params") or {}
    fields: Fields = {}
    for here, there in PRICES.items():
        value = info.get(there)
        try:
            fields[here] = per_million(params.get(there) if value is None else value)
        except ValueError:
            continue  # it is no price, and so not compared
    for here, there in (("context_window", "max_input_tokens"), ("max_output_tokens", "max_output_tokens")):
        value = info.get(there)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1_000_000_000):
            fields[here] = value
    mode = info.get("mode")
    if mode is None or (isinstance(mode, str) and mode in MODES):
        fields["mode"] = MODES[mode or "chat"]
    return Thing(
        id=ids_of(group)[0],
        name=name,
        fields=fields,
        matches=(f"name:{name}",),
        fixed=info.get("db_model") is False,
    )


# --- what is written ---


def told(entity: Entity, fields: Fields) -> dict[str, Any]:
    """The members by which LiteLLM is told these fields. Owners, teams and times of keys are the caller's business."""
    body: dict[str, Any] = {}
    for name, value in fields.items():
        match name:
            case "budget":
                body["max_budget"] = None if value is None else Decimal(value["limit"])
                body["budget_duration"] = None if value is None else DURATIONS[value["period"]]
            case "max_budget_in_team":
                body[name] = None if value is None else Decimal(value)
            case "email":
                body["user_email"] = value
            case "role":
                body["role"] = ROLES_THERE[value]
            case "mode":
                body["mode"] = MODES_THERE.get(value)
            case "context_window":
                body["max_input_tokens"] = value
            case "owner" | "team" | "expires":
                continue
            case _ if name in PRICES:
                body[PRICES[name]] = per_token(value)
            case _:
                body[name] = value
    return {"model_info": body} if entity == "models" else body


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
