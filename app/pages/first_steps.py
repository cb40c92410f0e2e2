"""The first steps of a new Portico: a provider, a test of it, a model, its price, and people. Admins see them until a model
with a price is served."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import exists, func, select

from app.clock import now
from app.domain import catalog, providers
from app.domain.catalog import Model
from app.domain.invitations import Invitation
from app.domain.person import Person
from app.domain.prices import Price
from app.domain.providers import Provider
from app.extensions import db
from app.workflows import provider_health

MOST_JUDGED = 20  # providers of which one must be well


class Step(NamedTuple):
    """One step. `note` says what it is for, `action` is the text of the link to `href`."""

    title: str
    note: str
    action: str
    href: str
    icon: str
    done: bool


def first_steps() -> list[Step]:
    """The steps, with what is done; none once a model with a price is served."""
    served = select(Model.id).where(Model.status.in_(catalog.OFFERED), catalog.is_served())
    has_provider, has_model, has_price, has_people = db.session.execute(
        select(
            exists(select(Provider.id)),
            exists(served),
            exists(served.where(exists().where(Price.model_id == Model.id, Price.from_at <= now()).correlate(Model))),
            exists(select(Invitation.id)) | (select(func.count()).select_from(Person).scalar_subquery() > 1),
        )
    ).one()
    if has_price:
        return []
    known = list(db.session.scalars(providers.search().limit(MOST_JUDGED))) if has_provider else []
    is_well = any(one.state == "ok" for one in provider_health.by_provider(known).values())
    only = f"/admin/providers/{known[0].id}#test" if len(known) == 1 else "/admin/providers"
    return [
        Step(
            "Add a provider",
            "An upstream that answers calls: OpenAI, a vLLM server of your own, Ollama, …",
            "Add a provider",
            "/admin/providers/new",
            "plug",
            has_provider,
        ),
        Step(
            "Test the provider",
            "Portico connects to it and lists its models; that costs nothing.",
            "Test it",
            only,
            "zap",
            is_well,
        ),
        Step(
            "Add a model",
            "The name that applications call, and the provider that serves it.",
            "Add a model",
            "/admin/models/new",
            "boxes",
            has_model,
        ),
        Step(
            "Set its price",
            "Without a price it can’t be called under a budget; 0 makes it free.",
            "Set a price",
            "/admin/models",
            "coins",
            False,
        ),
        Step(
            "Invite people",
            "They choose a model, create a key and make their first call.",
            "Invite people",
            "/admin/invitations/new",
            "users",
            has_people,
        ),
    ]
