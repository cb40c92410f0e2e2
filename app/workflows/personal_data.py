"""What Portico stores about one person, for that person to take along: no secret, and nothing of other people.

Their requests and the history of the playground are not in it: Activity and History export them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select

from app.clock import now
from app.domain import (
    audit,
    credentials,
    fields,
    identities,
    keys,
    notices,
    prompts,
    saved_views,
    sessions,
    subscriptions,
    teams,
    tokens,
)
from app.domain.keys import KeyFields
from app.domain.person import Person, PersonFields
from app.extensions import db
from app.workflows import budget_requests
from app.workflows.budget_requests import BudgetRequest

MOST = 5_000  # rows of each kind, the newest


def export(person: Person) -> dict[str, Any]:
    """Returns everything about a person as texts, numbers, times, lists and dictionaries of these."""
    return {
        "exported_at": now(),
        "profile": {
            "id": person.id,
            "username": person.username,
            **fields.told(PersonFields, person),
            **_values(person, "created_at", "last_seen_at", "email_notices", "timezone", "theme"),
            **_values(person, "external_id", "scim"),
        },
        "identities": [
            _values(one, "issuer", "subject", "groups", "created_at", "last_used_at")
            for one in _newest(identities.of(person))
        ],
        "teams": [
            {"id": one.team_id, "name": one.team.name, **_values(one, "role", "joined_at")}
            for one in teams.memberships_of(person)
        ],
        "api_keys": [
            {
                **_values(key, "id", "status", "prefix", "last4", "created_at", "expires_at", "team_id"),
                **fields.told(KeyFields, key),
            }
            for key in _newest(keys.owned_by(person))
        ],
        "subscriptions": [
            _values(one, "id", "model_name", "status", "justification", "created_at", "decided_at", "expires_at")
            for one in _newest(subscriptions.owned_by(person))
        ],
        "prompts": [
            _values(one, "id", "name", "description", "template", "model", "version", "created_at", "updated_at")
            for one in _newest(prompts.visible_to(person).where(prompts.Prompt.owner == person.username))
        ],
        "saved_views": [_values(one, "name", "href", "created_at") for one in _newest(saved_views.owned_by(person))],
        "budget_requests": [
            _values(one, "id", "scope_kind", "scope_id", "reason", "status", "created_at")
            for one in _newest(budget_requests.visible_to(person).where(BudgetRequest.person_id == person.id))
        ],
        "provider_credentials": [
            _values(one, "id", "provider_id", "name", "is_default", "created_at")
            for one in _newest(credentials.of(person))
        ],
        "access_tokens": [
            _values(one, "id", "name", "scopes", "created_at", "expires_at") for one in _newest(tokens.live_of(person))
        ],
        "sessions": [_values(one, "address", "agent", "created_at", "seen_at") for one in sessions.owned_by(person.id)],
        "notifications": [
            _values(one, "id", "kind", "title", "text", "at", "read_at")
            for one in _newest(notices.addressed_to(person))
        ],
        "audit": [
            _values(one, "id", "at", "action", "object_kind", "object_id", "object_name", "address")
            for one in _newest(audit.entries(actor=person.username))
        ],
    }


def _newest(query: Select[Any]) -> list[Any]:
    return list(db.session.scalars(query.limit(MOST)).unique())


def _values(one: object, *names: str) -> dict[str, Any]:
    return {name: getattr(one, name) for name in names}
