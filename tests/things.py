"""One of everything that an address can name, for tests that walk every route: the owner's or the admins', and a team's,
which `lead` owns and `member` is in."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from flask import Flask
from sqlalchemy import select

from app import clock, current, store
from app.domain import (
    announcements,
    approval_rules,
    budgets,
    credentials,
    inferences,
    invitations,
    keys,
    notices,
    payers,
    prompts,
    providers,
    saved_views,
    sessions,
    subscriptions,
    teams,
    tokens,
)
from app.domain.audit import AuditEntry
from app.domain.deliveries import Delivery
from app.domain.providers import Endpoint
from app.extensions import db, transaction
from app.ledger import entries, posting
from app.ledger.recount import server_run
from app.metering.scopes import member_id
from app.metering.usage import UsageEvent
from app.runtime.ids import new_id
from app.workflows import budget_requests, config_changes
from tests.house import People, make_model, make_team


@dataclass
class Things:
    """The ids of what there is, by the noun that addresses it."""

    ids: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, noun: str) -> str:
        return self.ids[noun]


@pytest.fixture
def things(app: Flask, visitors: People) -> Things:
    """One of everything, as `app` has found it in its world of that name."""
    return Things(dict(app.config["THINGS"].ids))


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
            at_ms=clock.now_ms(),
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
        text = transaction(keys.rotate, key, by=owner, overlap_s=3600)
        notice = transaction(notices.notify, owner, "key.expiring", "A key ends soon")
        announcement = transaction(announcements.put_up, by=admin, level="info", text="Updates tonight.")
        invitation, link = transaction(
            invitations.invite, by=admin, link="/invitation/{token}", email=None, role="user", groups=[], days=7
        )
        delivery = transaction(_give_up)
        paused, _ = transaction(keys.create, owner, by=owner, name="paused")
        transaction(keys.pause, paused, by=owner)
        denied_model = transaction(make_model, admin, "denied", restricted=True)
        denied, _ = transaction(subscriptions.request, owner, denied_model, by=owner, justification="Curiosity.")
        transaction(subscriptions.decide, denied, "deny", by=admin, reason="No.")
        rule = transaction(approval_rules.create, by=admin, name="Cheap ones", most_input_per_mtok="0.01")
        endpoint = db.session.scalar(select(Endpoint.id).where(Endpoint.path == "/v1/embeddings"))
        team = transaction(make_team)
        lead, member = (one.person for one in db.session.scalars(teams.members_of(team)))
        team_subscription, _ = transaction(subscriptions.request, lead, small, by=lead, team=team)
        lead_key, _ = transaction(keys.create, lead, by=lead, name="lead's", team=team)
        team_key, _ = transaction(keys.create, member, by=member, name="ours", team=team)
        team_invitation = transaction(teams.invite, team, owner, by=lead)
        refresh_token = transaction(tokens.grant, owner).refresh_token
        token = transaction(tokens.issue, owner, by=owner, name="a program").token
        for kind, id in (("user", owner.id), ("key", paused.id)):
            transaction(budgets.set_budget, kind, id, by=admin, limit="5", period="month")  # type: ignore[arg-type]
        current.redis().hset(store.METER, mapping={"epoch": "1", "run_id": server_run(current.redis())})
        budget_request = transaction(
            budget_requests.ask,
            payers.named("key", paused.id),
            by=owner,
            amount="2",
            lasting=True,
            reason="More calls.",
        )
        view = transaction(saved_views.save, owner, path="/activity", name="Failed", query="status=error")
        prompt = transaction(prompts.create, by=owner, name="Translate", template="{{text}}")
        transaction(
            inferences.keep, owner.id, id=event.request_id, model="small", prompt_tokens=10, completion_tokens=5,
            cost_nano=20_000, status=200,
        )  # fmt: skip
        for kind, id in (("team", team.id), ("member", member_id(team.id, member.id))):
            transaction(budgets.set_budget, kind, id, by=admin, limit="5", period="month")  # type: ignore[arg-type]
        cap = payers.named("member", f"{team.id}:member")
        cap_request = transaction(budget_requests.ask, cap, by=member, amount="1", lasting=False, reason="A sprint.")
        transaction(config_changes.ensure_first)
        saved = transaction(config_changes.save, by=admin, name="Saved")
        upstream = {"base_url": "http://127.0.0.1:9/v1", "api_key": "sk-upstream", "personal_credentials": True}
        own = transaction(lambda: providers.create(by=admin, name="Personal", kind="openai", config=upstream))
        credential = transaction(lambda: credentials.create(by=owner, provider=own.id, name="mine", token="sk-mine"))
        sessions.begin(owner.id, address="127.0.0.1", agent="a browser")
        made = {
            "budget_request": budget_request.id,
            "cap_request": cap_request.id,
            "saved_config": saved.id,
            "person": owner.id,
            "username": owner.username,
            "model": small.name,
            "model_id": small.id,
            "guarded": guarded.name,
            "guarded_id": guarded.id,
            "provider": deployment.provider_id,
            "personal_provider": own.id,
            "credential": credential.id,
            "first": deployment.id,
            "second": guarded.deployments[0].id,
            "third": denied_model.deployments[0].id,
            "subscription": active.id,
            "pending": pending.id,
            "key": key.id,
            "request": event.request_id,
            "prompt": prompt.id,
            "view": view.id,
            "secret": key.secrets[-1].id,
            "secret_text": text,
            "notice": notice.id,
            "announcement": announcement.id,
            "invitation": invitation.id,
            "invitation_token": link.rpartition("/")[2],
            "delivery": delivery.id,
            "session": sessions.owned_by(owner.id)[0].reference,
            "token": token.id,
            "paused": paused.id,
            "denied": denied.id,
            "rule": rule.id,
            "team": team.id,
            "team_subscription": team_subscription.id,
            "team_key": team_key.id,  # the member's
            "lead_key": lead_key.id,
            "team_invitation": team_invitation.id,
            "endpoint": str(endpoint),
            "refresh_token": str(refresh_token),
            "audit_entry": str(db.session.scalar(select(AuditEntry.id).limit(1))),
            "job": new_id(),
            "dead_letter": str(db.session.scalar(select(entries.DeadLetter.id))),
        }
        return Things(made)


def _give_up() -> Delivery:
    """A mail that could not be sent."""
    made = Delivery(channel="email", target="ada@example.org", kind="notice", payload={}, state="dead", attempts=8)
    db.session.add(made)
    db.session.flush()
    return made
