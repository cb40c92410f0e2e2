"""What is asked for: every list and chart page, the fragments that htmx loads into it, and the API's lists and sums.

Addresses that name a thing take it from the seeded database.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import psycopg

from app import clock
from bench.portal.sizes import ADMIN, HEAVY, OWNER

PART = {"HX-Request": "true", "HX-Request-Type": "partial"}  # how htmx asks for a fragment


class Visit(NamedTuple):
    """One request. `kind` is page, part (a fragment for htmx) or api."""

    who: str
    path: str
    kind: str = "page"

    @property
    def name(self) -> str:
        return f"{self.who} {self.path}"


Found = dict[str, str]

# Where a list of the API has come to when four fifths of it were told, as its cursors are spelled.
FAR = (
    "SELECT rtrim(translate(encode(convert_to(json_build_array(id)::text, 'UTF8'), 'base64'), '+/', '-_'), '=')"
    " FROM {table} ORDER BY id DESC LIMIT 1 OFFSET (SELECT count(*) * 4 / 5 FROM {table})"
)

THINGS = {
    "person": "SELECT username FROM person WHERE username = 'heavy'",
    "person_id": "SELECT id FROM person WHERE username = 'heavy'",
    "key": "SELECT key_id FROM usage_hourly WHERE person_id = (SELECT id FROM person WHERE username = 'heavy')"
    " AND team_id = '' GROUP BY key_id ORDER BY sum(requests) DESC LIMIT 1",
    "team": "SELECT id FROM team WHERE name = 'Team 1'",
    "model": "SELECT model FROM usage_rollup WHERE kind = 'month' GROUP BY model ORDER BY sum(requests) DESC LIMIT 1",
    "other_model": "SELECT model FROM usage_rollup WHERE kind = 'month' GROUP BY model ORDER BY sum(requests) DESC LIMIT 1"
    " OFFSET 1",
    "model_id": "SELECT id FROM model WHERE name = (SELECT model FROM usage_rollup WHERE kind = 'month' GROUP BY model"
    " ORDER BY sum(requests) DESC LIMIT 1)",
    "provider": "SELECT id FROM provider ORDER BY id LIMIT 1",
    "subscription": "SELECT id FROM subscription WHERE status = 'pending' ORDER BY id LIMIT 1",
    "request": "SELECT request_id FROM usage_entry WHERE person_id = (SELECT id FROM person WHERE username = 'heavy')"
    " ORDER BY at_ms DESC LIMIT 1",
    "audit_cursor": FAR.format(table="audit_entry"),
    "keys_cursor": FAR.format(table="api_key"),
    "budget_request": "SELECT id FROM budget_request WHERE status = 'pending' ORDER BY id LIMIT 1",
}


def things(conninfo: str) -> Found:
    """Ids and names that addresses need; of the heaviest, where that matters."""
    with psycopg.connect(conninfo) as connection:
        return {name: str(_only(connection, query)) for name, query in THINGS.items()}


def _only(connection: psycopg.Connection[Any], query: str) -> Any:
    found = connection.execute(query.encode()).fetchone()
    assert found is not None, f"nothing is found by: {query}"
    return found[0]


def without_ids(path: str) -> str:
    """An address as documentation tells it."""
    path = re.sub(r"cursor=[\w-]+", "cursor=<far>", path)
    return re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}", "<id>", path)


def visits(known: Found) -> list[Visit]:
    return [visit for part in (_portal, _team, _admin, _api) for visit in part(known)]


def _portal(known: Found) -> Iterator[Visit]:
    """What the person sees who uses most."""
    pages = (
        "/home", "/models", "/models?page=30", "/models?sort=-created", "/models?view=table&sort=latency",
        f"/models/{known['model']}", f"/models/{known['model']}?tab=performance&span=30d",
        f"/models/compare?model={known['model']}&model={known['other_model']}", "/subscriptions",
        "/keys", "/keys?sort=-used", "/keys/new", f"/keys/{known['key']}", "/teams", "/budgets", "/usage",
        "/usage?range=90", "/usage?range=1", "/usage?group=key&metric=cost", f"/usage?model={known['model']}",
        "/activity", "/activity?range=90&status=error", f"/activity/{known['request']}", "/notices",
    )  # fmt: skip
    parts = (
        "/models?q=llama", "/keys?q=batch&status=active", "/subscriptions?status=active&page=2",
        f"/activity?key={known['key']}", "/notices?page=5",
    )  # fmt: skip
    yield from (Visit(HEAVY, path) for path in pages)
    yield from (Visit(HEAVY, path, "part") for path in parts)


def _team(known: Found) -> Iterator[Visit]:
    """What an owner of the largest team sees of it."""
    team = known["team"]
    tabs = ("overview", "members", "models", "keys", "usage", "settings")
    yield from (Visit(OWNER, f"/teams/{team}?tab={tab}") for tab in tabs)
    yield Visit(OWNER, f"/usage?team={team}&group=user")
    yield Visit(OWNER, f"/activity?team={team}")
    yield Visit(OWNER, f"/budgets/team/{team}")
    yield Visit(OWNER, f"/teams/{team}?tab=members&page=3", "part")
    yield Visit(OWNER, f"/teams/{team}?tab=keys&page=3", "part")


def _admin(known: Found) -> Iterator[Visit]:
    day = (clock.now() - timedelta(days=40)).date()
    pages = (
        "/home", "/admin/usage", "/admin/usage?range=1", "/admin/usage?range=7", "/admin/usage?range=90",
        f"/admin/usage?from={day - timedelta(days=20)}&to={day}", "/admin/usage?group=user&metric=cost",
        "/admin/usage?group=key", "/admin/usage?group=team&metric=requests", "/admin/usage?group=provider",
        f"/admin/usage?user={known['person']}", f"/admin/usage?model={known['model']}",
        f"/admin/usage?team={known['team']}&range=90", f"/admin/usage?provider={known['provider']}",
        f"/admin/usage?key={known['key']}",
        "/admin/activity", "/admin/activity?range=90&status=error", f"/admin/activity?model={known['model']}",
        f"/admin/activity/{known['request']}", "/admin/chargeback", "/admin/people", "/admin/people?sort=-keys",
        "/admin/people?page=400", f"/admin/people/{known['person']}", f"/admin/people/{known['person']}?section=keys",
        f"/admin/people/{known['person']}?section=subscriptions", f"/admin/people/{known['person']}?section=history",
        "/admin/models", "/admin/models?sort=name&page=20", f"/admin/models/{known['model_id']}", "/admin/models/new",
        "/admin/providers", f"/admin/providers/{known['provider']}", "/admin/keys", "/admin/keys?page=500",
        "/admin/keys?sort=-used", "/admin/keys?sort=name", "/admin/teams", "/admin/teams?sort=-members",
        "/admin/budgets", "/admin/budgets?sort=-share&near=1", f"/admin/budgets/user/{known['person']}",
        "/admin/credits", "/admin/approvals", "/admin/approvals?status=all&page=20",
        f"/admin/subscriptions/{known['subscription']}/decision", "/admin/rules", "/admin/budget-requests",
        "/admin/budget-requests?status=all", f"/budget-requests/{known['budget_request']}", "/admin/invitations",
        "/admin/deliveries", "/admin/deliveries?state=dead", "/admin/dead-letters", "/admin/status",
    )  # fmt: skip
    parts = (
        "/admin/people?q=ada", "/admin/people?role=user&status=deactivated", "/admin/people?group=group-3",
        "/admin/keys?q=batch", "/admin/keys?status=expired", "/admin/keys?q=ada", f"/admin/keys?model={known['model']}",
        "/admin/keys?page=2&size=100", "/admin/models?q=llama", "/admin/teams?q=Team+4", "/admin/approvals?q=llama",
        "/admin/budget-requests?q=ada", "/admin/deliveries?q=ada", "/admin/dead-letters?state=all&q=calls",
        "/admin/chargeback?q=ada", "/admin/budgets?q=Team",
    )  # fmt: skip
    yield from (Visit(ADMIN, path) for path in pages)
    yield from (Visit(ADMIN, path, "part") for path in parts)


def _api(known: Found) -> Iterator[Visit]:
    of_admins = (
        "/admin/users", "/admin/users?search=ada&page=3", "/admin/tokens", "/api/audit",
        f"/api/audit?cursor={known['audit_cursor']}", "/api/audit?actor=heavy", f"/api/audit?object={known['key']}",
        "/api/budgets", "/api/budgets?page=20", "/api/budget-requests", "/api/endpoints", "/api/keys",
        f"/api/keys?cursor={known['keys_cursor']}&limit=100", f"/api/keys?user={known['person']}",
        f"/api/keys/{known['key']}", "/api/models", "/api/models?search=llama", "/api/providers",
        "/api/requests", f"/api/requests?model={known['model']}", "/api/requests?status=error",
        "/api/requests/stats", "/api/requests/stats?groupBy=hour", "/api/requests/stats?groupBy=week",
        "/api/requests/stats?groupBy=month", "/api/status", "/api/subscriptions", "/api/subscriptions?status=pending",
        f"/api/teams/{known['team']}", "/api/teams", "/usage/admin/all/day", "/usage/admin/all/week",
        "/usage/admin/all/month", "/usage/admin/recent", "/usage/admin/summary",
        f"/usage/admin/user/{known['person']}/day", f"/usage/admin/user/{known['person']}/month",
    )  # fmt: skip
    own = (
        "/api/keys", "/api/models?page=5", "/api/requests", "/api/requests/stats", "/api/subscriptions", "/api/teams",
        "/api/budgets", "/api/budget-requests", "/usage/me/day", "/usage/me/week", "/usage/me/month", "/users/me",
    )  # fmt: skip
    yield from (Visit(ADMIN, path, "api") for path in of_admins)
    yield from (Visit(HEAVY, path, "api") for path in own)
