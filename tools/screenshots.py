"""Takes pictures of every page, wide and narrow, light and dark, of a Portico with data as if people had used it."""

from __future__ import annotations

import argparse
import math
import random
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

import msgspec
import requests
from playwright.sync_api import Browser, Page, sync_playwright

from app import clock
from app.metering.usage import Attempt, Refusal, UsageEvent
from app.runtime.ids import new_id
from config import Config, load
from tests.services.chromium import find_chromium
from tests.services.portico import ADMIN_PASSWORD, Portico

SETTINGS = {
    "CONFIG_PORTAL_STATUS_PAGE": "true",
    "CONFIG_OIDC_ISSUER": "https://id.example.com",  # which nobody asks
    "CONFIG_OIDC_CLIENT_ID": "portico",
    "CONFIG_OIDC_NAME": "Example ID",
    "CONFIG_OIDC_ADMIN_GROUPS": "portico-admins",
    "CONFIG_OIDC_TEAM_GROUPS": "{ml: Machine learning, web: Web}",
}
WIDE, NARROW = {"width": 1360, "height": 900}, {"width": 390, "height": 844}
PERSON = ("ada", "a long enough password")
MODELS = [
    # name, display name, description, input, output, context, restricted, features
    ("gpt-4o", "GPT-4o", "A fast, general model for text and pictures.", "2.50", "10", 128_000, True, ["vision", "tools"]),
    ("gpt-4o-mini", "GPT-4o mini", "Small and cheap; good for everyday work.", "0.15", "0.60", 128_000, False, ["tools"]),
    ("llama-3.3-70b", "Llama 3.3 70B", "Runs on our own machines.", "0", "0", 131_072, False, ["tools"]),
    ("text-embedding-3-small", "Embeddings, small", "Vectors for search.", "0.02", "0", 8_191, False, []),
]  # fmt: skip
BANDS: dict[str, dict[str, Any]] = {
    "gpt-4o-mini": {
        "tiers": {
            "flex": {"input_per_mtok": "0.075", "output_per_mtok": "0.30"},
            "priority": {"input_per_mtok": "0.25", "cached_input_per_mtok": "0.125", "output_per_mtok": "1"},
        },
        "long_context": {"above_prompt_tokens": 100_000, "input_per_mtok": "0.30", "output_per_mtok": "0.90"},
    }
}
DOCS = {"models": "catalogue", "usage": "usage", "key": "key"}


class Seed:
    """Creates what the pictures show: through the management API and, for past days, in the ledger itself."""

    def __init__(self, portico: Portico) -> None:
        self.portico = portico
        self.admin = self._signed_in("admin", ADMIN_PASSWORD)

    def _signed_in(self, username: str, password: str) -> requests.Session:
        session = requests.Session()
        answer = session.post(f"{self.portico.url}/token", {"username": username, "password": password}, timeout=10)
        session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return session

    def _post(self, by: requests.Session, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = by.post(self.portico.url + path, json=body, timeout=10)
        assert answer.ok, f"{path}: {answer.status_code} {answer.text}"
        created: dict[str, Any] = answer.json()
        return created

    def run(self) -> dict[str, str]:
        """Creates everything. Returns the paths that contain an id, by name."""
        username, password = PERSON
        user = self._post(
            self.admin, "/admin/users", {"username": username, "password": password, "email": "ada@example.org"}
        )
        echo = self.admin.get(f"{self.portico.url}/api/providers", timeout=10).json()["data"][0]["id"]
        cloud = self._post(
            self.admin, "/api/providers",
            {"type": "api", "name": "OpenAI", "provider": "openai",
             "config": {"api_key": "sk-not-a-real-one-1234", "personal_credentials": True}},
        )["id"]  # fmt: skip
        for name, title, text, price_in, price_out, context, restricted, features in MODELS:
            embeds = name.startswith("text-embedding")
            self._post(
                self.admin, "/api/models",
                {
                    "name": name, "display_name": title, "description": text, "context_window": context,
                    "max_output_tokens": None if embeds else 16_384, "restricted": restricted, "features": features,
                    "capabilities": ["embeddings"] if embeds else ["chat"],
                    "price": {"input_per_mtok": price_in, "output_per_mtok": price_out, **BANDS.get(name, {})},
                    "deployments": [{"provider_id": echo if name.startswith("llama") else cloud, "upstream_model": name}],
                },
            )  # fmt: skip
        ada = self._signed_in(username, password)
        for name in ("my own project", "the lab's project"):
            self._post(
                ada, "/api/tokens", {"provider": cloud, "name": name, "token": f"sk-not-a-real-one-{len(name)}00"}
            )
        for name in ("gpt-4o-mini", "llama-3.3-70b", "text-embedding-3-small", "echo-1"):
            self._post(ada, "/api/subscriptions", {"model": name})
        pending = self._post(
            ada,
            "/api/subscriptions",
            {"model": "gpt-4o", "justification": "Reading scanned delivery notes, 2,000 a day."},
        )["id"]
        denied = self._post(ada, "/api/subscriptions", {"model": "echo-restricted", "justification": "Curiosity."})[
            "id"
        ]
        self._post(
            self.admin,
            f"/api/subscriptions/{denied}/decision",
            {"decision": "deny", "reason": "Use echo-1, it is open."},
        )
        renewal = self._ask_for_renewal()
        keys = [
            self._post(
                ada, "/api/keys", {"name": "delivery-notes", "budget": {"limit": "25", "period": "month"}, "rpm": 120}
            ),
            self._post(ada, "/api/keys", {"name": "notebook", "models": ["gpt-4o-mini"], "tpm": 50_000}),
        ]
        self._change_keys(ada, keys[1]["id"])
        for text in ("Hello, Portico!", "How is the weather?"):
            requests.post(
                f"{self.portico.url}/v1/chat/completions",
                json={"model": "echo-1", "messages": [{"role": "user", "content": text}]},
                headers={"Authorization": f"Bearer {keys[0]['key']}", "User-Agent": "curl/8.5.0"}, timeout=10,
            ).raise_for_status()  # fmt: skip
        requests.post(
            f"{self.portico.url}/v1/chat/completions",
            json={"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello!"}]},
            headers={"Authorization": f"Bearer {keys[0]['key']}", "User-Agent": "codex_cli_rs/0.171.0"}, timeout=10,
        )  # fmt: skip
        prompt = self._prompt(ada)
        config = load(self.portico.env)
        team, team_key = self._team(ada)
        model = self.admin.get(f"{self.portico.url}/api/models/gpt-4o-mini", timeout=10).json()["id"]
        saved = self.admin.get(f"{self.portico.url}/api/configs", timeout=10).json()["data"][0]["id"]
        last = _post_past(config, user["id"], [key["id"] for key in keys], cloud)
        _post_of_team(config, user["id"], team, team_key, cloud)
        refused, counted = _post_refused(config, user["id"], keys[0]["id"])
        request_id = self._budgets(ada, keys[0]["id"], team)
        return {
            "connect": f"key={keys[0]['id']}", "key": f"/keys/{keys[0]['id']}", "key-rotated": f"/keys/{keys[1]['id']}",
            "decision": f"/admin/subscriptions/{pending}/decision",
            "subscription": f"/subscriptions/{denied}", "renewal": f"/admin/subscriptions/{renewal}/decision",
            "decisions": f"/admin/approvals/decisions?ids={pending}&ids={renewal}", "rule": f"/admin/rules/{_rules(config)}",
            "config": f"/admin/configs/{saved}",
            "invitation": _people(config), "provider": f"/admin/providers/{cloud}", "model": f"/admin/models/{model}",
            "request": f"/activity/{last}", "refused": f"/activity/{refused}", "counted": f"/activity/{counted}",
            "prompt": f"/prompts/{prompt}",
            "team": f"/teams/{team}", "budget_request": f"/budget-requests/{request_id}",
        }  # fmt: skip

    def _prompt(self, ada: requests.Session) -> str:
        """Creates a prompt with two versions and a call by it that is kept. Returns the prompt's id."""
        template = "Translate the text below into {{language}}.\n\n{{text}}"
        body = {"name": "Translate letters", "description": "For mail from abroad.", "template": template}
        id = self._post(ada, "/api/prompts", body)["id"]
        change = {"template": template.replace("below", "below, politely,")}
        ada.patch(f"{self.portico.url}/api/prompts/{id}", json=change, timeout=10).raise_for_status()
        variables = {"language": "English", "text": "Sehr geehrte Damen und Herren"}
        run = {"model": "echo-1", "prompt_id": id, "variables": variables, "store": True}
        self._post(ada, "/api/inference/run", run)
        return str(id)

    def _change_keys(self, ada: requests.Session, id: str) -> None:
        """Creates a rotated key that expires soon, a paused key, and an admin's key."""
        soon = clock.now() + timedelta(days=5)
        path = f"{self.portico.url}/api/keys/{id}"
        change = {"note": "Jupyter on the shared machine; ask Grace.", "expires_at": soon.isoformat()}
        ada.patch(path, json=change, timeout=10).raise_for_status()
        ada.post(f"{path}/rotation", json={"overlap_s": 86_400}, timeout=10).raise_for_status()
        resting = self._post(ada, "/api/keys", {"name": "batch-at-night", "rpm": 10, "max_parallel": 2})["id"]
        ada.patch(f"{self.portico.url}/api/keys/{resting}", json={"paused": True}, timeout=10).raise_for_status()
        self._post(self.admin, "/api/keys", {"name": "monitoring"})

    def _team(self, ada: requests.Session) -> tuple[str, str]:
        """Creates ada's team with a capped member, models and keys, and an invitation to her. Returns its id and a key's."""
        team = self._post(
            ada, "/api/teams", {"name": "Delivery notes", "description": "Reads scanned delivery notes for the depot."}
        )["id"]
        path = f"{self.portico.url}/api/teams/{team}"
        limits = {"budget": {"limit": "40", "period": "month"}, "rpm": 600}
        self.admin.patch(path, json=limits, timeout=10).raise_for_status()
        cap = {"role": "member", "budget": {"limit": "0.05", "period": "day"}}
        ada.put(f"{path}/members/ben", json=cap, timeout=10).raise_for_status()
        for name in ("gpt-4o-mini", "llama-3.3-70b"):
            self._post(ada, "/api/subscriptions", {"model": name, "team_id": team})
        self._post(ada, "/api/subscriptions", {"model": "gpt-4o", "team_id": team, "justification": "Bad scans."})
        key = self._post(ada, "/api/keys", {"name": "depot-scanner", "team_id": team, "rpm": 300})["id"]
        self._post(self._signed_in("ben", PERSON[1]), "/api/keys", {"name": "ben-tests", "team_id": team})
        return str(team), str(key)

    def _budgets(self, ada: requests.Session, key: str, team: str) -> str:
        """Creates budgets that are nearly or fully spent, a credit and two requests for an increase. Returns the id of one."""
        for scope, limit, action in (
            ("user/ada", "0.5", "notify"), ("organisation/default", "3", "refuse"), ("user/ben", "0.000001", "notify"),
        ):  # fmt: skip
            body = {"limit": limit, "period": "month", "action": action, "action_percent": 90}
            path = f"{self.portico.url}/api/budgets/{scope}"
            self.admin.put(path, json=body, timeout=10).raise_for_status()
        self._post(self.admin, f"/api/budgets/key/{key}/credits", {"amount": "1.5", "reason": "The outage of Monday."})
        increase: dict[str, Any] = {
            "scope": "user",
            "id": "ada",
            "amount": "5",
            "reason": "The inventory at the end of the year.",
        }
        request_id = self._post(ada, "/api/budget-requests", increase)["id"]
        increase = {"scope": "team", "id": team, "amount": "20", "reason": "A second depot.", "lasting": True}
        other = self._post(ada, "/api/budget-requests", increase)["id"]
        answer = {"decision": "deny", "reason": "Let us see how January goes."}
        self._post(self.admin, f"/api/budget-requests/{other}/decision", answer)
        return str(request_id)

    def _ask_for_renewal(self) -> str:
        """Creates somebody else's access that ends soon, with a request to renew it. Returns its id."""
        self._post(self.admin, "/admin/users", {"username": "ben", "password": PERSON[1], "email": "ben@example.org"})
        ben = self._signed_in("ben", PERSON[1])
        subscription_id = self._post(
            ben, "/api/subscriptions", {"model": "gpt-4o", "justification": "Summaries of meetings."}
        )["id"]
        end = (clock.now() + timedelta(days=5)).isoformat()
        self._post(
            self.admin, f"/api/subscriptions/{subscription_id}/decision",
            {"decision": "approve", "reason": "Until the trial ends.", "expires_at": end,
             "budget": {"limit": "20", "period": "month"}},
        )  # fmt: skip
        self._post(ben, f"/api/subscriptions/{subscription_id}/renewal", {"reason": "The trial goes on until March."})
        return str(subscription_id)


def _people(config: Config) -> str:
    """Creates groups, an invitation, and sent and failed mails. Returns the path of the invitation's link."""
    from app import create_app
    from app.clock import now
    from app.domain import identity, invitations
    from app.domain.deliveries import Delivery
    from app.extensions import db, transaction

    app = create_app(config, ())
    with app.app_context():

        def make() -> str:
            admin, ada = identity.named("admin"), identity.named(PERSON[0])
            identity.update(ada, by=admin, groups=["research", "physics"], rpm=600)
            subject = {"subject": "Portico: You may use gpt-4o", "text": "Welcome."}
            fault = "The mail server could not be reached."
            for state, tries, error in (("sent", 1, None), ("waiting", 2, fault), ("dead", 4, fault)):
                delivery = Delivery(id=new_id(), channel="email", target="ada@example.org", kind="subscription.approve")
                delivery.payload, delivery.state, delivery.attempts, delivery.last_error = subject, state, tries, error
                delivery.done_at = None if state == "waiting" else now()
                db.session.add(delivery)
            _, link = invitations.invite(by=admin, link="/invitation/{token}", email="grace@example.org")
            return link

        return transaction(make)


def _post_of_team(config: Config, person_id: str, team_id: str, key_id: str, provider_id: str) -> None:
    """Creates a team's usage of the last days, an invitation to it, and another team's invitation to its owner."""
    from app import create_app
    from app.domain import identity, teams
    from app.extensions import db, transaction
    from app.ledger import posting

    app = create_app(config, ())
    with app.app_context():

        def make() -> str:
            admin, ada, ben = (identity.named(name) for name in ("admin", PERSON[0], "ben"))
            teams.invite(db.session.get_one(teams.Team, team_id), admin, by=ada)
            other = teams.create(by=admin, name="Physics", description="Simulations and papers.")
            teams.invite(other, ada, by=admin, role="owner")
            return ben.id

        ben_id = transaction(make)
        now_ms = clock.now_ms()
        posting.post(
            [
                UsageEvent(
                    request_id=new_id(), attempt=1, at_ms=now_ms - number * 7_000_000, team_id=team_id, key_id=key_id,
                    person_id=ben_id if number % 3 == 0 else person_id, model="gpt-4o-mini", provider_id=provider_id,
                    endpoint="/v1/chat/completions", api_type="chat", outcome="ok", status=200, stream=True,
                    prompt_tokens=4000 + number * 10, completion_tokens=400, cost_nano=(4000 + number * 10) * 150 + 240_000,
                    duration_ms=1200, ttft_ms=200,
                )
                for number in range(240)
            ]
        )  # fmt: skip


def _post_refused(config: Config, person_id: str, key_id: str) -> tuple[str, str]:
    """Writes refused calls of the last days. Returns the ids of one that a budget refused, and of many that are counted."""
    from app import create_app
    from app.ledger import posting

    now_ms, nano = clock.now_ms(), 1_000_000_000

    def refused(ago_s: int, status: int, code: str | None, message: str, refusal: Refusal, **more: Any) -> UsageEvent:
        base: dict[str, Any] = {"person_id": person_id, "key_id": key_id, "model": "gpt-4o-mini", "refused": 1}
        return UsageEvent(
            request_id=new_id(), attempt=1, kind="refusal", at_ms=now_ms - ago_s * 1000, outcome="refused", status=status,
            endpoint="/v1/chat/completions", api_type="chat", error_code=code, error_message=message, refusal=refusal,
            **base | more,
        )  # fmt: skip

    budget = refused(
        90, 429, "insufficient_quota", "The budget of key delivery-notes can't pay for this request: limit 25, spent 24.91, "
        "reserved 0.05, remaining 0.04; the request may cost 0.0905.",
        Refusal(reason="budget", scope_kind="key", scope_id=key_id, scope_shown="delivery-notes", limit=25 * nano,
                spent=24_910_000_000, held=50_000_000, amount=90_500_000, affordable_tokens=612, resets_ms=now_ms + 10**9),
    )  # fmt: skip
    too_many = "Rate limit of key delivery-notes reached: 120 requests a minute. Try again in 1 s."
    many = refused(
        240, 429, "rate_limit_exceeded", too_many, Refusal(reason="requests", counted=True), refused=134
    )  # fmt: skip
    others = [
        refused(3600, 404, "model_not_found", "The model 'gpt-9' does not exist or this key may not use it.",
                Refusal(reason="model", asked="gpt-9"), model=""),
        refused(7200, 400, None, "'temperature' must be a number from 0 to 2.", Refusal(reason="other"), model=""),
        refused(300, 401, "invalid_api_key", "This API key is not valid.", Refusal(reason="other", counted=True), refused=41,
                person_id="", key_id=None, model=""),
    ]  # fmt: skip
    app = create_app(config, ())
    with app.app_context():
        posting.post([budget, many, *others])
    return budget.request_id, many.request_id


def _rules(config: Config) -> str:
    """Creates two approval rules, which the management API cannot create. Returns the id of the first."""
    from app import create_app
    from app.domain import approval_rules, identity
    from app.extensions import transaction

    app = create_app(config, ())
    with app.app_context():

        def make() -> str:
            admin = identity.named("admin")
            first = approval_rules.create(
                by=admin, name="Cheap models for research", group="research", most_input_per_mtok="1",
                most_output_per_mtok="4", budget_limit="10", budget_period="month", days=90,
            )  # fmt: skip
            approval_rules.create(by=admin, name="Administrators", role="admin")
            return first.id

        return transaction(make)


def _post_past(config: Config, person_id: str, key_ids: list[str], provider_id: str) -> str:
    """Writes thirty days of somebody's usage directly into the ledger. Returns the id of one of the requests."""
    from app import create_app
    from app.ledger import posting

    chance = random.Random(7)
    now_ms = clock.now_ms()
    events = []
    for hour in range(24 * 30):
        at_ms = now_ms - hour * 3_600_000 - 60_000
        day = 1 + math.sin(hour / 24) / 2
        for _ in range(chance.randint(0, int(6 * day))):
            model, price = chance.choice([("gpt-4o-mini", (150, 600)), ("gpt-4o-mini", (150, 600)),
                                          ("llama-3.3-70b", (0, 0)), ("text-embedding-3-small", (20, 0))])  # fmt: skip
            embeds = model.startswith("text")
            read, wrote = chance.randint(200, 9000), 0 if embeds else chance.randint(20, 1500)
            failed = chance.random() < 0.03
            events.append(
                UsageEvent(
                    request_id=new_id(),
                    attempt=1,
                    at_ms=at_ms - chance.randint(0, 3_000_000),
                    person_id=person_id,
                    key_id=chance.choice(key_ids),
                    model=model,
                    provider_id=provider_id,
                    stream=not embeds,
                    endpoint="/v1/embeddings" if embeds else "/v1/chat/completions",
                    api_type="embeddings" if embeds else "chat",
                    outcome="error" if failed else "ok",
                    status=502 if failed else 200,
                    error_code="upstream_error" if failed else None,
                    error_message="The provider answered with status 503." if failed else None,
                    finish_reason=None if failed or embeds else "stop",
                    prompt_tokens=0 if failed else read,
                    completion_tokens=0 if failed else wrote,
                    cost_nano=0 if failed else read * price[0] + wrote * price[1],
                    duration_ms=chance.randint(300, 9000),
                    ttft_ms=None if failed else chance.randint(120, 900),
                    attempts=(Attempt(deployment_id="d", provider_id=provider_id, duration_ms=400),),
                    session_id=None if embeds else f"{hour // 8:08x}-4f1c-4c55-9f0e-a1b2c3d4e5f6",
                    agent=chance.choice(["claude-code", "codex", "opencode"]),
                    tags=tuple(chance.sample(["billing", "docs", "migration"], chance.randint(0, 2))),
                    unpriced={"web_search_requests": chance.randint(1, 3)} if chance.random() < 0.02 else None,
                )
            )
    events += _repeated(events[0])
    app = create_app(config, ())
    with app.app_context():
        for start in range(0, len(events), 500):
            posting.post(events[start : start + 500])
    return events[0].request_id


def _repeated(last: UsageEvent) -> list[UsageEvent]:
    """Makes `last` the third request of a turn, and returns the two that failed before it."""
    last.turn_id, last.subagent_id, last.unpriced = "5d1c9a7e40b2", "agent-7", {"web_search_requests": 2}
    last.outcome, last.status, last.error_code, last.error_message = "ok", 200, None, None
    cut: dict[str, Any] = {"outcome": "error", "status": 200, "error_code": "upstream_cut",
                           "error_message": "The provider broke off.", "unpriced": None}  # fmt: skip
    return [
        msgspec.structs.replace(last, request_id=new_id(), at_ms=last.at_ms - 9_000 * back, **cut) for back in (1, 2)
    ]


def pages(seeded: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """Every page: its name, who looks at it, and its path."""
    yield "sign-in", "nobody", "/sign-in"
    yield "public-status", "nobody", "/status"
    yield "home", "person", "/home"
    yield "models", "person", "/models"
    yield "models-table", "person", "/models?view=table&most=5"
    yield "model", "person", "/models/gpt-4o-mini"
    yield "model-quickstart", "person", "/models/gpt-4o-mini?tab=quickstart"
    yield "model-performance", "person", "/models/gpt-4o-mini?tab=performance&span=7d"
    yield "model-access", "person", "/models/gpt-4o-mini?tab=access"
    yield "model-restricted", "person", "/models/gpt-4o"
    yield "model-denied", "person", "/models/echo-restricted?tab=access"
    yield "model-compare", "person", "/models/compare?model=gpt-4o-mini&model=llama-3.3-70b&model=gpt-4o"
    yield "playground", "person", "/playground"
    yield "playground-compare", "person", "/playground/compare"
    yield "playground-embeddings", "person", "/playground/embeddings"
    yield "playground-speech", "person", "/playground/speech"
    yield "playground-history", "person", "/playground/history"
    yield "prompts", "person", "/prompts"
    yield "prompt", "person", seeded["prompt"]
    yield "playground-prompt", "person", f"/playground?prompt={seeded['prompt'].rpartition('/')[2]}"
    yield "subscriptions", "person", "/subscriptions"
    yield "subscription", "person", seeded["subscription"]
    yield "keys", "person", "/keys"
    yield "key-new", "person", "/keys/new"
    yield "key", "person", seeded["key"]
    yield "key-rotated", "person", seeded["key-rotated"]
    yield "key-settings", "person", f"{seeded['key-rotated']}/settings"
    yield "key-rotation", "person", f"{seeded['key-rotated']}/rotation"
    yield "connect", "person", f"/connect?client=claude-code&{seeded['connect']}"
    yield (
        "connect-file",
        "person",
        f"/connect?client=opencode&{seeded['connect']}&model=llama-3.3-70b&small=gpt-4o-mini",
    )
    yield "connect-arrived", "person", f"/connect?client=curl&{seeded['connect']}"
    yield "connect-refused", "person", f"/connect?client=codex&{seeded['connect']}&model=gpt-4o"
    yield "connect-unsuited", "person", f"/connect?client=cline&{seeded['connect']}&model=text-embedding-3-small"
    yield "usage", "person", "/usage"
    yield "usage-by-key", "person", "/usage?range=7&by=hour&group=key&metric=cost"
    yield "usage-failed", "person", "/usage?status=error"
    yield "usage-by-session", "person", "/usage?range=7&group=session"
    yield "usage-by-tag", "person", "/usage?range=7&group=tag&tag=docs"
    yield "usage-dates", "person", "/usage?range=custom&from=2026-01-01&to=2026-01-02"
    yield "activity", "person", "/activity"
    yield "activity-live", "person", "/activity?live=1"
    yield "activity-errors", "person", "/activity?status=error&range=7"
    yield "activity-refused", "person", "/activity?status=refused"
    yield "request", "person", seeded["request"]
    yield "refused", "person", seeded["refused"]
    yield "refused-counted", "person", seeded["counted"]
    yield "teams", "person", "/teams"
    yield "team-new", "person", "/teams/new"
    yield "team", "person", seeded["team"]
    for tab in ("members", "models", "keys", "usage", "settings"):
        yield f"team-{tab}", "person", f"{seeded['team']}?tab={tab}"
    yield "team-member", "person", f"{seeded['team']}/members/ben"
    yield "team-removal", "person", f"{seeded['team']}/members/ben/removal"
    yield "team-leaving", "person", f"{seeded['team']}/leaving"
    yield "team-deletion", "person", f"{seeded['team']}/deletion"
    yield "team-key-new", "person", f"/keys/new?team={seeded['team'].rpartition('/')[2]}"
    yield "team-model", "person", f"/models/gpt-4o-mini?tab=access&team={seeded['team'].rpartition('/')[2]}"
    yield "team-spend", "person", f"/usage?team={seeded['team'].rpartition('/')[2]}&group=user"
    yield "team-activity", "person", f"/activity?team={seeded['team'].rpartition('/')[2]}"
    yield "budgets", "person", "/budgets"
    yield "budget", "person", "/budgets/user/ada"
    yield "budget-team", "person", f"/budgets/team/{seeded['team'].rpartition('/')[2]}"
    yield "reference", "person", "/reference"
    yield "reference-objects", "person", "/reference/objects"
    yield "search", "person", "/search?q=gpt"
    yield "search-nothing", "person", "/search?q=no+such+thing"
    yield "account", "person", "/account"
    for section in ("preferences", "sessions", "tokens", "credentials"):
        yield f"account-{section}", "person", f"/account?section={section}"
    yield "password", "person", "/password"
    yield "not-found", "person", "/keys/nowhere"
    yield "admin-approvals", "admin", "/admin/approvals"
    yield "admin-approvals-all", "admin", "/admin/approvals?status=all"
    yield "admin-decision", "admin", seeded["decision"]
    yield "admin-renewal", "admin", seeded["renewal"]
    yield "admin-decisions", "admin", seeded["decisions"]
    yield "admin-rules", "admin", "/admin/rules"
    yield "admin-rule", "admin", seeded["rule"]
    yield "invitation", "nobody", seeded["invitation"]
    yield "notices", "person", "/notices"
    yield "admin-search", "admin", "/search?q=ad"
    yield "admin-people", "admin", "/admin/people"
    yield "admin-people-selection", "admin", f"/admin/people-selection?names={PERSON[0]}&names=ben"
    for section in ("profile", "keys", "subscriptions", "sessions", "history"):
        yield f"admin-person-{section}", "admin", f"/admin/people/{PERSON[0]}?section={section}"
    yield "admin-person-deactivation", "admin", f"/admin/people/{PERSON[0]}/deactivation"
    yield "admin-person-deletion", "admin", f"/admin/people/{PERSON[0]}/deletion"
    yield "admin-person-password", "admin", f"/admin/people/{PERSON[0]}/password"
    yield "admin-invitations", "admin", "/admin/invitations"
    yield "admin-invitation-new", "admin", "/admin/invitations/new"
    yield "admin-litellm", "admin", "/admin/litellm"
    yield "admin-announcement", "admin", "/admin/announcement"
    yield "admin-settings", "admin", "/admin/settings"
    yield "admin-configs", "admin", "/admin/configs"
    yield "admin-config-new", "admin", "/admin/configs/new"
    yield "admin-config-import", "admin", "/admin/configs/import"
    yield "admin-config", "admin", seeded["config"]
    yield "admin-config-activation", "admin", f"{seeded['config']}/activation"
    yield "admin-deliveries", "admin", "/admin/deliveries"
    yield "admin-audit", "admin", "/admin/audit"
    yield "admin-audit-key", "admin", "/admin/audit?kind=key"
    yield "admin-audit-verification", "admin", "/admin/audit/verification"
    yield "admin-audit-digest", "admin", "/admin/audit/digest"
    yield "admin-audit-none", "admin", "/admin/audit?q=nothing+of+this+name"
    yield "admin-single-sign-on", "admin", "/admin/single-sign-on"
    yield "admin-jobs", "admin", "/admin/jobs"
    yield "admin-logs", "admin", "/admin/logs"
    yield "admin-encryption", "admin", "/admin/encryption"
    yield "admin-budget-requests", "admin", "/admin/budget-requests"
    yield "admin-budget-request", "admin", seeded["budget_request"]
    yield "admin-budgets", "admin", "/admin/budgets"
    yield "admin-budget", "admin", "/admin/budgets/organisation/default"
    yield "admin-credits", "admin", "/admin/credits"
    yield "admin-credit-new", "admin", "/admin/credits/new?scope=user/ada"
    yield "admin-teams", "admin", "/admin/teams"
    yield "admin-chargeback", "admin", "/admin/chargeback"
    yield "admin-unpriced", "admin", "/admin/unpriced?state=all"
    yield "admin-providers", "admin", "/admin/providers"
    yield "admin-provider", "admin", seeded["provider"]
    yield "admin-provider-new", "admin", "/admin/providers/new?kind=openai"
    yield "admin-models", "admin", "/admin/models"
    yield "admin-model", "admin", seeded["model"]
    yield "admin-model-new", "admin", "/admin/models/new"
    yield "admin-keys", "admin", "/admin/keys"
    yield "admin-usage", "admin", "/admin/usage"
    yield "admin-activity", "admin", "/admin/activity"
    yield "admin-status", "admin", "/admin/status"
    yield "admin-dead-letters", "admin", "/admin/dead-letters"


def sign_in(page: Page, url: str, username: str, password: str) -> None:
    page.goto(f"{url}/sign-in")
    page.locator("[name=username]").fill(username)
    page.locator("[name=password]").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(lambda address: "/sign-in" not in address)


class Look(NamedTuple):
    """How to take a picture: a name for the files, the window size and the theme."""

    name: str
    size: dict[str, int]
    scheme: str


LOOKS = [
    Look(f"{name}-{scheme}", size, scheme)
    for name, size in (("wide", WIDE), ("narrow", NARROW))
    for scheme in ("light", "dark")
]
TOUR_LOOK = Look("wide", WIDE, "light")
HIDDEN = "(() => { const m = document.getElementById('main'); return m ? m.scrollHeight - m.clientHeight : 0 })()"
TALLEST = 2400  # pixels of a picture of a whole page


def photograph(
    browser: Browser, portico: Portico, selected: list[tuple[str, str, str]], look: Look, target: Callable[[str], Path],
    *, whole: bool, quality: int | None = None,
) -> None:  # fmt: skip
    """Takes pictures of the `selected` pages (name, person, path) in one look; with `whole` also of what is below the window."""
    opened = {}
    for who, sign in (("nobody", None), ("person", PERSON), ("admin", ("admin", ADMIN_PASSWORD))):
        context = browser.new_context(viewport=look.size, color_scheme=look.scheme)  # type: ignore[arg-type]
        opened[who] = context.new_page()
        if sign is not None:
            sign_in(opened[who], portico.url, *sign)
    for name, who, path in selected:
        page = opened[who]
        page.set_viewport_size(look.size)  # type: ignore[arg-type]
        page.goto(portico.url + path)
        if whole:  # not the page but its main part scrolls
            hidden = page.evaluate(HIDDEN)
            height = min(TALLEST, look.size["height"] + hidden)
            page.set_viewport_size({"width": look.size["width"], "height": height})
        page.wait_for_timeout(700)  # charts draw themselves
        file = target(name)
        page.screenshot(path=file, type="jpeg" if quality else "png", quality=quality)
        print(file)


def write_tour(browser: Browser, portico: Portico, seeded: dict[str, str]) -> None:
    """Writes `docs/tour.md`: every page in the order of the menu, with its picture."""
    folder = ROOT / "docs" / "pictures" / "tour"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    selected = list(pages(seeded))
    photograph(browser, portico, selected, TOUR_LOOK, lambda name: folder / f"{name}.jpg", whole=True, quality=60)
    lines = [
        "# A tour of the portal",
        "",
        "Every page, as `make tour` photographs it from a Portico that looks as if people had used it.",
    ]
    for who, title in TOUR_PARTS.items():
        lines += ["", f"## {title}", ""]
        for name, looks, path in selected:
            if looks == who:
                words = name.removeprefix("admin-").replace("-", " ").capitalize()
                lines += [f"### {words}", "", f"`{without_ids(path)}`", "", f"![{words}](pictures/tour/{name}.jpg)", ""]
    (ROOT / "docs" / "tour.md").write_text("\n".join(lines).rstrip() + "\n")


TOUR_PARTS = {"nobody": "Before signing in", "person": "What everybody sees", "admin": "What administrators see"}


def without_ids(path: str) -> str:
    """Returns a path with its ids replaced, as documentation shows it."""
    path = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}", "<id>", path)
    return re.sub(r"(/invitation/).+", r"\1<token>", path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", default=str(ROOT / "test-results" / "screenshots"))
    parser.add_argument("--only", default="", help="pages whose name holds this")
    parser.add_argument("--docs", action="store_true", help="the pictures of the README")
    parser.add_argument("--tour", action="store_true", help="docs/tour.md with a picture of every page")
    arguments = parser.parse_args()
    folder = ROOT / "docs" / "pictures" if arguments.docs else Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    portico = Portico(SETTINGS).start()
    try:
        seeded = Seed(portico).run()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(**find_chromium().launch_options())  # type: ignore[arg-type]
            if arguments.tour:
                write_tour(browser, portico, seeded)
            elif arguments.docs:
                selected = [(name, who, path) for name, who, path in pages(seeded) if name in DOCS]
                photograph(
                    browser, portico, selected, TOUR_LOOK, lambda name: folder / f"{DOCS[name]}.png", whole=False
                )
            else:
                selected = [(name, who, path) for name, who, path in pages(seeded) if arguments.only in name]
                for look in LOOKS:
                    photograph(browser, portico, selected, look, partial(named, folder, look), whole=True)
            browser.close()
    finally:
        portico.close()


def named(folder: Path, look: Look, name: str) -> Path:
    return folder / f"{name}-{look.name}.png"


if __name__ == "__main__":
    main()
