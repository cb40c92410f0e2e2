"""Portico's people, teams, members, keys and models as things that can be compared with LiteLLM's, and the verbs that write
there and here.

A write here goes through the verbs of the domain, so that it is checked, audited and published. Roles of people are never
written, and a secret is never read, kept or sent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import select

from app import current
from app.clock import now
from app.domain import budgets, catalog, identity, keys, providers, subscriptions, sync, teams
from app.domain.budgets import Budget
from app.domain.catalog import CAPABILITIES, DeploymentSpec, Model
from app.domain.errors import Conflict, Invalid
from app.domain.keys import ApiKey
from app.domain.person import Person
from app.domain.providers import Provider
from app.domain.teams import Membership, Team
from app.extensions import db
from app.litellm import shapes
from app.litellm.client import LiteLLM, quoted
from app.litellm.plan import Entity, Fields, Link, Step, Thing
from app.metering import money
from app.metering.scopes import member_id
from app.workflows import catalog_changes, offboarding

PROVIDER = "LiteLLM"  # the name of the provider that serves pulled models


# --- what is here ---


def users() -> list[Thing]:
    """The people, without the admin that Portico was started with."""
    limits = _budgets("user")
    first = current.config().auth.admin_username.lower()
    return [
        Thing(
            id=person.id,
            name=person.username,
            fields={
                "email": person.email,
                "budget": _budget(limits.get(person.id)),
                "rpm_limit": person.rpm,
                "tpm_limit": person.tpm,
            },
            matches=(*((f"email:{person.email.lower()}",) if person.email else ()), f"name:{person.username.lower()}"),
            stays=None if person.email and not person.disabled else "It has no e-mail address, or is deactivated.",
        )
        for person in db.session.scalars(select(Person))
        if person.username.lower() != first
    ]


def all_teams() -> list[Thing]:
    limits = _budgets("team")
    return [
        Thing(
            id=team.id,
            name=team.name,
            fields={
                "team_alias": team.name,
                "budget": _budget(limits.get(team.id)),
                "rpm_limit": team.rpm,
                "tpm_limit": team.tpm,
            },
            matches=(f"name:{team.name.lower()}",),
        )
        for team in db.session.scalars(select(Team))
    ]


def members(people: Mapping[str, str], of_teams: Mapping[str, str]) -> list[Thing]:
    """The members of teams; `people` and `of_teams` are the names of those that count, by id."""
    caps = _budgets("member")
    found = []
    for team_id, person_id, role in db.session.execute(
        select(Membership.team_id, Membership.person_id, Membership.role)
    ):
        if team_id in of_teams and person_id in people:
            cap = caps.get(member_id(team_id, person_id))
            found.append(
                Thing(
                    id=member_id(team_id, person_id),
                    name=f"{people[person_id]} in {of_teams[team_id]}",
                    fields={"role": role, "max_budget_in_team": money.text(cap.limit_nano) if cap else None},
                    matches=(shapes.member_match(people[person_id], of_teams[team_id]),),
                )
            )
    return found


def all_keys(people: Mapping[str, str], of_teams: Mapping[str, str]) -> list[Thing]:
    """The keys that are not revoked."""
    limits = _budgets("key")
    found = []
    for key in db.session.scalars(select(ApiKey).where(ApiKey.revoked_at.is_(None))):
        if key.person_id not in people or (key.team_id is not None and key.team_id not in of_teams):
            continue
        owner, team = people[key.person_id], of_teams[key.team_id] if key.team_id else None
        fields = {
            "key_alias": key.name,
            "owner": owner,
            "team": team,
            "models": sorted(key.models),
            "budget": _budget(limits.get(key.id)),
            "rpm_limit": key.rpm,
            "tpm_limit": key.tpm,
            "expires": shapes.moment(key.expires_at.isoformat()) if key.expires_at else None,
            "blocked": key.paused_at is not None,
        }
        match = shapes.key_match(key.name, owner, team)
        found.append(Thing(id=key.id, name=key.name, fields=fields, matches=(match,)))
    return found


def models() -> list[Thing]:
    found = []
    for model in db.session.scalars(select(Model)):
        price = model.price.decimals() if model.price else {}
        fields: Fields = {name: price.get(name) for name in shapes.PRICES}
        fields |= {"context_window": model.context_window, "max_output_tokens": model.max_output_tokens}
        if len(model.capabilities) == 1:
            fields["mode"] = model.capabilities[0]
        found.append(Thing(id=model.id, name=model.name, fields=fields, matches=(f"name:{model.name}",)))
    return found


def _budgets(kind: str) -> dict[str, Budget]:
    return {row.scope_id: row for row in db.session.scalars(select(Budget).where(Budget.scope_kind == kind))}


def _budget(row: Budget | None) -> dict[str, str] | None:
    return None if row is None else {"limit": money.text(row.limit_nano), "period": row.period}


# --- what is written here ---

Ids = Mapping[Entity, Mapping[str, str]]  # by kind: the ids of one side by those of the other


def write_here(step: Step, ids: Ids, *, by: Person) -> str | None:
    """Carry out one step here. `ids` are the ids here by those at LiteLLM. Returns the id of what was created. Raises
    `DomainError`."""
    if step.act == "delete":
        _delete(step.entity, step.portico_id or "", by)
        return None
    values = step.values()
    if step.act == "create":
        return _CREATE[step.entity](step, values, ids, by)
    _UPDATE[step.entity](step.portico_id or "", values, by)
    return None


def _create_user(step: Step, values: Fields, ids: Ids, by: Person) -> str:
    person = identity.create(
        by=by,
        username=step.name,
        password=None,
        email=values.get("email"),
        rpm=values.get("rpm_limit"),
        tpm=values.get("tpm_limit"),
    )
    _set_budget("user", person.id, values, by)
    return person.id


def _create_team(step: Step, values: Fields, ids: Ids, by: Person) -> str:
    # Without `by` nobody becomes its owner; the audit log names the admin all the same.
    team = teams.create(by=None, name=values["team_alias"], rpm=values.get("rpm_limit"), tpm=values.get("tpm_limit"))
    _set_budget("team", team.id, values, by)
    return team.id


def _create_member(step: Step, values: Fields, ids: Ids, by: Person) -> str:
    there, _, user = (step.litellm_id or "").partition("/")
    team, person = _team(ids["teams"].get(there)), _person(ids["users"].get(user))
    membership = teams.put_member(team, person, by=by, role=values["role"])
    _set_cap(membership.scope_id, values, by)
    return membership.scope_id


def _create_key(step: Step, values: Fields, ids: Ids, by: Person) -> str:
    person = identity.named(values["owner"])
    team = teams.called(values["team"]) if values["team"] else None
    if values["team"] and team is None:
        raise Conflict(f"The team {values['team']} is not here.")
    key, _ = keys.create(  # the secret is nobody's: the owner gets one by rotating the key
        person,
        by=by,
        name=values["key_alias"],
        team=team,
        expires_at=_time(values.get("expires")),
        models=_usable(values["models"], person, team, by),
        rpm=values.get("rpm_limit"),
        tpm=values.get("tpm_limit"),
        note="From LiteLLM. Rotate the key to get its secret.",
    )
    _set_budget("key", key.id, values, by)
    if values.get("blocked"):
        keys.pause(key, by=by)
    return key.id


def _create_model(step: Step, values: Fields, ids: Ids, by: Person) -> str:
    price = {name: values[name] for name in shapes.PRICES if values.get(name) is not None}
    model = catalog.create_model(
        by=by,
        name=step.name,
        restricted=True,
        capabilities=[values.get("mode") or CAPABILITIES[0]],
        context_window=values.get("context_window"),
        max_output_tokens=values.get("max_output_tokens"),
        price=price or None,
        deployments=[DeploymentSpec(provider_id=_provider(by).id, upstream_model=step.name)],
    )
    return model.id


def _provider(by: Person) -> Provider:
    """The provider of pulled models. It uses the connection's key until an admin gives it one of its own."""
    found = db.session.scalar(providers.search(search=PROVIDER, kind="litellm").limit(1))
    if found is not None:
        return found
    connection = sync.connection()
    if connection is None:
        raise Conflict("LiteLLM is not connected.")
    config = {"base_url": f"{connection.url.rstrip('/')}/v1", "api_key": connection.master_key}
    return providers.create(by=by, name=PROVIDER, kind="litellm", config=config)


def _update_user(id: str, values: Fields, by: Person) -> None:
    changes = _renamed(values, email="email", rpm_limit="rpm", tpm_limit="tpm")
    if changes:
        identity.update(_person(id), by=by, **changes)
    _set_budget("user", id, values, by)


def _update_team(id: str, values: Fields, by: Person) -> None:
    changes = _renamed(values, team_alias="name", rpm_limit="rpm", tpm_limit="tpm")
    if changes:
        teams.update(_team(id), by=by, **changes)
    _set_budget("team", id, values, by)


def _update_member(id: str, values: Fields, by: Person) -> None:
    team_id, _, person_id = id.partition(":")
    team, person = _team(team_id), _person(person_id)
    membership = teams.member(team, person)
    if "role" in values:
        membership = teams.put_member(team, person, by=by, role=values["role"])
    _set_cap(membership.scope_id, values, by)


def _update_key(id: str, values: Fields, by: Person) -> None:
    key = db.session.get(ApiKey, id)
    if key is None:
        raise Conflict("The key is gone.")
    if {"owner", "team"} & values.keys():
        raise Invalid("A key's owner and team can't be changed. Create the key again.", "owner")
    changes = _renamed(values, key_alias="name", rpm_limit="rpm", tpm_limit="tpm")
    if "models" in values:
        team = db.session.get(Team, key.team_id) if key.team_id else None
        changes["models"] = _usable(values["models"], key.person, team, by)
    if "expires" in values:
        changes["expires_at"] = _time(values["expires"])
    if changes:
        keys.update(key, by=by, **changes)
    _set_budget("key", id, values, by)
    if "blocked" in values:
        (keys.pause if values["blocked"] else keys.resume)(key, by=by)


def _update_model(id: str, values: Fields, by: Person) -> None:
    model = catalog.model_by_id(id)
    changes: dict[str, Any] = {name: values[name] for name in ("context_window", "max_output_tokens") if name in values}
    if "mode" in values:
        changes["capabilities"] = [values["mode"]]
    rates = {name: values[name] for name in shapes.PRICES if name in values}
    if rates:
        changes["price"] = (model.price.decimals() if model.price else {}) | rates
    catalog_changes.change(model, by=by, **changes)


def _delete(entity: Entity, id: str, by: Person) -> None:
    match entity:
        case "users":
            offboarding.delete(_person(id), by=by)
        case "teams":
            offboarding.dissolve(_team(id), by=by)
        case "members":
            team_id, _, person_id = id.partition(":")
            offboarding.leave(_team(team_id), _person(person_id), by=by, ownerless=True)
        case "keys":
            key = db.session.get(ApiKey, id)
            if key is not None:
                keys.revoke(key, by=by)
        case "models":
            catalog_changes.delete(catalog.model_by_id(id), by=by)


_CREATE: dict[Entity, Callable[[Step, Fields, Ids, Person], str]] = {
    "models": _create_model,
    "users": _create_user,
    "teams": _create_team,
    "members": _create_member,
    "keys": _create_key,
}
_UPDATE: dict[Entity, Callable[[str, Fields, Person], None]] = {
    "models": _update_model,
    "users": _update_user,
    "teams": _update_team,
    "members": _update_member,
    "keys": _update_key,
}


def _usable(names: list[str], person: Person, team: Team | None, by: Person) -> list[str]:
    """Those of a key's models that are here, with the access that the key needs for them, which the admin gives by applying.
    Raises `Conflict` if none is here: an empty list would mean all models."""
    found = [model for name in names if (model := catalog.find_model(name))]
    if names and not found:
        raise Conflict("None of the key's models is here. Pull the models first.")
    for model in found:
        wanted, _ = subscriptions.request(person, model, by=by, team=team)
        if wanted.status == "pending":
            subscriptions.decide(wanted, "approve", by=by)
    return [model.name for model in found]


def _set_budget(kind: Any, id: str, values: Fields, by: Person) -> None:
    if "budget" not in values:
        return
    if values["budget"] is None:
        budgets.clear(kind, id, by=by)
    else:
        budgets.set_budget(kind, id, by=by, limit=values["budget"]["limit"], period=values["budget"]["period"])


def _set_cap(scope_id: str, values: Fields, by: Person) -> None:
    if "max_budget_in_team" not in values:
        return
    limit, present = values["max_budget_in_team"], budgets.find("member", scope_id)
    if limit is None:
        budgets.clear("member", scope_id, by=by)
    else:
        budgets.set_budget("member", scope_id, by=by, limit=limit, period=present.period if present else "total")


def _renamed(values: Fields, **names: str) -> dict[str, Any]:
    return {here: values[there] for there, here in names.items() if there in values}


def _person(id: str | None) -> Person:
    found = identity.by_id(id) if id else None
    if found is None:
        raise Conflict("The person is not here.")
    return found


def _team(id: str | None) -> Team:
    found = db.session.get(Team, id) if id else None
    if found is None:
        raise Conflict("The team is not here.")
    return found


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC) if text else None


# --- what is written there ---


def write_there(step: Step, ids: Ids, groups: Mapping[str, list[str]], litellm: LiteLLM) -> tuple[str | None, Fields]:
    """Carry out one step at LiteLLM. `ids` are its ids by those here, `groups` the ids of each model's deployments. Returns the
    id of what was created, and fields that LiteLLM holds differently from what it was told. Raises `LiteLLMFailed` or
    `Conflict`."""
    values = step.values()
    body = shapes.told(step.entity, values)
    id = step.litellm_id or ""
    match step.entity, step.act:
        case "users", "create":
            made = {"user_id": step.name, "auto_create_key": False, "user_role": "internal_user"}
            litellm.write("/user/new", made | body)
            return step.name, {}
        case "users", "update":
            litellm.write("/user/update", {"user_id": id} | body)
        case "users", "delete":
            litellm.write("/user/delete", {"user_ids": [id]})
        case "teams", "create":
            litellm.write("/team/new", {"team_id": step.portico_id} | body)  # a second try can't create another
            return step.portico_id, {}
        case "teams", "update":
            litellm.write("/team/update", {"team_id": id} | body)
        case "teams", "delete":
            litellm.write("/team/delete", {"team_ids": [id]})
        case "members", "create":
            team_id, _, person_id = (step.portico_id or "").partition(":")
            team, user = _there(ids, "teams", team_id), _there(ids, "users", person_id)
            member = {"role": body.pop("role"), "user_id": user}
            litellm.write("/team/member_add", {"team_id": team, "member": member} | body)
            return shapes.member_id(team, user), {}
        case "members", _:
            team, _, user = id.partition("/")
            verb = "member_update" if step.act == "update" else "member_delete"
            litellm.write(f"/team/{verb}", {"team_id": team, "user_id": user} | body)
        case "keys", "create":
            return _generate(step, values, body, ids, litellm)
        case "keys", "update":
            if {"owner", "team"} & values.keys():
                raise Conflict("A key's owner and team can't be changed. Create the key again.")
            told = litellm.write("/key/update", {"key": id} | body | _duration(values))
            return None, _held(values, told)
        case "keys", "delete":
            litellm.write("/key/delete", {"keys": [id]})
        case "models", "update":
            for deployment in groups.get(id, [id]):
                litellm.write(f"/model/{quoted(deployment)}/update", body, method="PATCH")
        case "models", "delete":
            for deployment in groups.get(id, [id]):
                litellm.write("/model/delete", {"id": deployment})
        case _:
            raise Conflict("This can't be done at LiteLLM.")
    return None, {}


def _generate(
    step: Step, values: Fields, body: dict[str, Any], ids: Ids, litellm: LiteLLM
) -> tuple[str | None, Fields]:
    """Let LiteLLM make a key, and forget its secret."""
    person, team = identity.named(values["owner"]), teams.called(values["team"]) if values["team"] else None
    whose = {"user_id": _there(ids, "users", person.id)}
    if team is not None:
        whose["team_id"] = _there(ids, "teams", team.id)
    lifetime = _duration(values) if values.get("expires") else {}
    told = litellm.write("/key/generate", whose | body | lifetime)
    hashed, secret = told.get("token_id"), told.get("key")
    if not isinstance(hashed, str):
        if not isinstance(secret, str):
            raise Conflict("LiteLLM did not tell which key it made.")
        hashed = hashlib.sha256(secret.encode()).hexdigest()  # by which it calls a key
    return hashed, _held(values, told)


def _duration(values: Fields) -> dict[str, str]:
    """LiteLLM is told how long a key still lives, and never when it ends."""
    if "expires" not in values:
        return {}
    at = _time(values["expires"])
    if at is None:
        return {"duration": "-1"}  # for ever
    seconds = round((at - now()).total_seconds())
    if seconds <= 0:
        raise Conflict("The key has expired.")
    return {"duration": f"{seconds}s"}


def _held(values: Fields, told: Mapping[str, Any]) -> Fields:
    return {"expires": shapes.moment(told["expires"])} if values.get("expires") and told.get("expires") else {}


def _there(ids: Ids, entity: Entity, id: str) -> str:
    found = ids[entity].get(id)
    if found is None:
        raise Conflict("Its owner, member or team is not at LiteLLM yet.")
    return found


def after(step: Step, link: Link | None, created: str | None, held: Fields) -> Link:
    """The link of two things once a step was carried out."""
    before = link or Link(portico_id=step.portico_id or created or "", litellm_id=step.litellm_id or created or "")
    values = step.values()
    there = values | held if step.side == "litellm" else values
    return msgspec.structs.replace(before, portico=before.portico | values, litellm=before.litellm | there)
