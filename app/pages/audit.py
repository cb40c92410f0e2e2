"""Audit entries as pages show them: in words, with links to who acted and to what the action was about."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from sqlalchemy import Select, literal, select, union_all

from app.domain import payers
from app.domain.approval_rules import ApprovalRule
from app.domain.audit import AuditEntry
from app.domain.catalog import Model
from app.domain.keys import ApiKey
from app.domain.person import Person
from app.domain.providers import Provider
from app.domain.saved_configs import SavedConfig
from app.domain.search import one_of
from app.domain.subscriptions import Subscription
from app.domain.teams import Team
from app.extensions import db
from app.pages.history import KINDS, text_of, title_of
from app.web.links import url_if_served

# By the kind of an object: its id, what its page is called by, and that page.
PAGES: dict[str, tuple[Any, Any, str]] = {
    "approval_rule": (ApprovalRule.id, ApprovalRule.id, "admin.rules.detail"),
    "config": (SavedConfig.id, SavedConfig.id, "admin.configs.detail"),
    "key": (ApiKey.id, ApiKey.id, "portal.keys.detail"),
    "model": (Model.id, Model.id, "admin.models.detail"),
    "person": (Person.id, Person.username, "admin.people.detail"),
    "provider": (Provider.id, Provider.id, "admin.providers.detail"),
    "subscription": (Subscription.id, Subscription.id, "portal.subscriptions.detail"),
    "team": (Team.id, Team.id, "portal.teams.detail"),
}
LISTS = {  # kinds without pages of their own
    "announcement": "admin.announcement.index",
    "counter": "admin.status.index",
    "dead_letter": "admin.dead_letters.index",
    "delivery": "admin.deliveries.index",
    "encryption_key": "admin.encryption.index",
    "invitation": "admin.invitations.index",
    "job": "admin.jobs.index",
}
BUDGET = "budget."  # how the actions begin that are about the budget of an object

Object = tuple[str, str]  # kind, id


class Line(NamedTuple):
    """One entry: what was done in words, the kind and name of its object, and links, None where the object is gone."""

    entry: AuditEntry
    title: str
    text: str
    kind: str
    name: str
    object_href: str | None
    actor_href: str | None


def lines(entries: Collection[AuditEntry]) -> list[Line]:
    """Returns these entries in words, in the same order. Their number does not change the number of queries."""
    hrefs = _hrefs(
        {(entry.object_kind, entry.object_id) for entry in entries if not entry.action.startswith(BUDGET)}
        | {("person", entry.actor_id) for entry in entries if entry.actor_id}
    )
    budgets = payers.read(
        {(entry.object_kind, entry.object_id) for entry in entries if entry.action.startswith(BUDGET)}
    )
    found = []
    for entry in entries:
        object = entry.object_kind, entry.object_id
        payer = budgets.get(object) if entry.action.startswith(BUDGET) else None
        found.append(
            Line(
                entry,
                title_of(entry),
                text_of(entry),
                KINDS.get(entry.object_kind, entry.object_kind),
                entry.object_name or (payer.name if payer else entry.object_id),
                f"/admin{payer.path}" if payer else hrefs.get(object),
                hrefs.get(("person", entry.actor_id)) if entry.actor_id else None,
            )
        )
    return found


def _hrefs(objects: Iterable[Object]) -> dict[Object, str]:
    """The pages of those objects that still exist and whose door this process serves."""
    ids: dict[str, set[str]] = {}
    found: dict[Object, str | None] = {}
    for kind, id in objects:
        ids.setdefault(kind, set()).add(id)
        if kind in LISTS:
            found[kind, id] = url_if_served(LISTS[kind])
    queries: list[Select[Any]] = [
        select(literal(kind), id_of, name_of).where(one_of(id_of, ids[kind]))
        for kind, (id_of, name_of, _) in PAGES.items()
        if kind in ids
    ]
    for kind, id, name in db.session.execute(union_all(*queries)) if queries else ():
        endpoint = PAGES[kind][2]
        found[kind, id] = url_if_served(endpoint, **{"username" if kind == "person" else "id": name})
    return {object: href for object, href in found.items() if href}
