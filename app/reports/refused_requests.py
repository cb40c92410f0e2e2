"""Refused requests: for one day after it, people can look up why a request was refused, by the request's id.

The gateway writes the records; the people concerned and admins can read them.
"""

from __future__ import annotations

import msgspec
from redis import RedisError

from app import current, store
from app.domain import teams
from app.domain.keys import ApiKey
from app.domain.person import Person
from app.extensions import db
from app.metering.usage import Refusal

_decode = msgspec.json.Decoder(Refusal).decode


def find(person: Person, request_id: str) -> Refusal | None:
    """Why a request was refused, if `person` made it, owns its key or team, or sees everything.

    None if there is no record, it is another person's, or Redis does not answer.
    """
    try:
        raw = current.redis().get(store.refusal(request_id))
    except RedisError:
        return None
    if raw is None:
        return None
    try:
        found = _decode(raw)
    except msgspec.MsgspecError:
        return None
    return found if _concerns(found, person) else None


def _concerns(found: Refusal, person: Person) -> bool:
    if person.sees_everything or found.person_id == person.id:
        return True
    if found.team_id is not None and teams.role_in(person, found.team_id) == "owner":
        return True
    key = db.session.get(ApiKey, found.key_id) if found.key_id else None
    return key is not None and key.person_id == person.id
