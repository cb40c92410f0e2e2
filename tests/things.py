"""One of everything that an address can name, all of it the owner's or the admins': for tests that walk every route."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from flask import Flask
from sqlalchemy import select

from app.domain import keys, subscriptions
from app.extensions import db, transaction
from app.ids import new_id
from app.ledger import posting
from app.metering.usage import UsageEvent
from tests.house import People, make_model


@dataclass
class Things:
    """The ids of what there is, by the noun that addresses it."""

    ids: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, noun: str) -> str:
        return self.ids[noun]


def make_things(app: Flask, people: People) -> Things:
    """Makes them in `app`; people are named, and not used, so that they may come from another context."""
    with app.app_context():
        admin, owner = (db.session.merge(person, load=True) for person in (people.admin, people.owner))
        small = transaction(make_model, admin, "small")
        guarded = transaction(make_model, admin, "lab/guarded", restricted=True)
        active, _ = transaction(subscriptions.request, owner, small, by=owner)
        pending, _ = transaction(subscriptions.request, owner, guarded, by=owner, justification="Research.")
        key, _ = transaction(keys.create, owner, by=owner, name="app")
        deployment = small.deployments[0]
        event = UsageEvent(
            request_id=new_id(),
            attempt=1,
            at_ms=int(time.time() * 1000),
            person_id=owner.id,
            key_id=key.id,
            model="small",
            endpoint="/v1/chat/completions",
            api_type="chat",
            provider_id=deployment.provider_id,
            deployment_id=deployment.id,
            outcome="ok",
            status=200,
            prompt_tokens=10,
            completion_tokens=5,
            cost_nano=20_000,
            duration_ms=400,
        )
        posting.post([event])
        posting.bury("stream 7-0", b"nonsense", "not JSON")
        db.session.rollback()
        made = {
            "person": owner.id,
            "username": owner.username,
            "model": small.name,
            "model_id": small.id,
            "guarded": guarded.name,
            "guarded_id": guarded.id,
            "provider": deployment.provider_id,
            "deployment": deployment.id,
            "subscription": active.id,
            "pending": pending.id,
            "key": key.id,
            "request": event.request_id,
            "dead_letter": str(db.session.scalar(select(posting.DeadLetter.id))),
        }
        return Things(made)
