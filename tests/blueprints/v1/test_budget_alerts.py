"""Budgets on /v1: what people are told near a limit, what happens there, and that asking for more helps.

All of it against a whole Portico with two workers, its drainer and its webhook.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from app.metering import money
from tests.blueprints.v1.house import COST, HOLD, PASSWORD, WORDS, House, Person
from tests.services.portico import Portico
from tests.services.receivers import Receiver
from tests.services.upstream import CHAT, Greedy, Upstream
from tests.services.waiting import PATIENCE_S, until, within

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@dataclass
class Caller:
    """A person with a key."""

    person: Person
    key: dict[str, Any]

    @property
    def name(self) -> str:
        return self.person.username

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key['key']}"}

    def call(self) -> requests.Response:
        """One call of the model with the key."""
        return requests.post(f"{self.person.url}{CHAT}", json=WORDS, headers=self.bearer, timeout=PATIENCE_S)


@dataclass
class AlertHouse(House):
    """The house with a webhook."""

    receiver: Receiver

    def caller(self) -> Caller:
        person = self.person()
        person.subscription()
        return Caller(person, person.key())

    def notices(self, username: str, kind: str = "budget.alert") -> list[str]:
        """The titles of what a person was told."""
        query = (
            "SELECT title FROM notice JOIN person ON person.id = notice.person_id WHERE username = ? AND notice.kind = ?"
            " ORDER BY notice.id"
        )
        return [title for (title,) in self.rows(query, username, kind)]

    def hooks(self, scope: str, id: str) -> list[int]:
        """The thresholds that the webhook was told of."""
        events = [json.loads(body) for _, _, body in list(self.receiver.calls)]
        return [one["threshold"] for one in events if (one.get("scope"), one.get("scope_id")) == (scope, id)]


@pytest.fixture(scope="module")
def house() -> Iterator[AlertHouse]:
    receiver, upstream = Receiver(), Upstream()
    portico = Portico({"CONFIG_SERVER_WORKERS": "2", "CONFIG_WEBHOOK_URL": receiver.url})
    try:
        made = AlertHouse(portico.start(), upstream, receiver)
        made.furnish()
        yield made
    finally:
        portico.close()
        upstream.stop()
        receiver.stop()


def test_fifty_calls_at_once_that_cross_every_threshold_are_told_of_each_once(house: AlertHouse) -> None:
    caller = house.caller()
    house.upstream.always(CHAT, Greedy())  # a call costs nearly what is held for it
    house.budget(f"user/{caller.name}", 40 * HOLD)
    with ThreadPoolExecutor(50) as pool:
        statuses = Counter(reply.status_code for reply in pool.map(lambda _: caller.call(), range(50)))
    assert set(statuses) <= {200, 429}
    for _ in range(50):  # what was held by calls under way is free now: use it up to the last call that fits
        if caller.call().status_code == 429:
            break
    house.upstream.reset()
    until(lambda: 100 in house.hooks("user", caller.name), house.portico.log)
    assert caller.call().status_code == 429
    time.sleep(2.5)  # the drainer looks again each second; it must find nothing new
    told = house.hooks("user", caller.name)
    assert told in ([100], [50, 100], [80, 100], [50, 80, 100]), "of several crossed at once the highest is told"
    titles = house.notices(caller.name)
    assert titles[:-1] == [f"Budget for {caller.name}: {threshold}% spent" for threshold in told[:-1]]
    assert titles[-1].startswith(f"Budget for {caller.name}: ")


def test_a_refusal_names_the_page_to_ask_at_and_a_grant_lets_the_call_pass(house: AlertHouse) -> None:
    caller = house.caller()
    house.budget(f"user/{caller.name}", HOLD)
    assert caller.call().status_code == 200
    refused = caller.call()
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
    link = f"{house.portico.url}/budgets/user/{caller.name}"
    assert error["message"].endswith(f" Ask for more at {link}")
    assert requests.get(link, timeout=PATIENCE_S, allow_redirects=False).status_code == 303  # to the sign-in, and back

    asked = caller.person("POST", "/api/budget-requests", {
        "scope": "user", "id": caller.name, "amount": money.text(2 * HOLD), "reason": "A report.",
    })  # fmt: skip
    decided = house.admin("POST", f"/api/budget-requests/{asked['id']}/decision", {"decision": "grant"})
    assert decided["status"] == "granted"
    assert caller.call().status_code == 200
    assert house.notices(caller.name, "budget.granted") == [
        f"{money.text(2 * HOLD)} USD more for {caller.name}, this period"
    ]
    shown = caller.person("GET", f"/api/budgets/user/{caller.name}")
    told = requests.get(f"{house.portico.url}/v1/key", headers=caller.bearer, timeout=PATIENCE_S).json()
    (own,) = [one for one in told["budgets"] if one["scope"] == "user"]
    assert (own["spent"], own["remaining"]) == (shown["spent"], shown["remaining"])
    bearer = {"Authorization": f"Bearer {caller.person.token}"}  # of the person, who has no key's budget
    told = requests.get(f"{house.portico.url}/v1/key", headers=bearer, timeout=PATIENCE_S).json()
    assert told["budgets"][0] == own
    assert told["budget"]["spent"] == own["spent"]
    assert money.parse(shown["remaining"]) == HOLD - 2 * COST + 2 * HOLD


def test_a_lasting_grant_raises_the_limit(house: AlertHouse) -> None:
    caller = house.caller()
    house.budget(f"key/{caller.key['id']}", HOLD)
    assert (caller.call().status_code, caller.call().status_code) == (200, 429)
    asked = caller.person("POST", "/api/budget-requests", {
        "scope": "key", "id": caller.key["id"], "amount": money.text(HOLD), "reason": "Nightly.", "lasting": True,
    })  # fmt: skip
    house.admin("POST", f"/api/budget-requests/{asked['id']}/decision", {"decision": "grant"})
    within(1, lambda: caller.call().status_code == 200)
    assert caller.person("GET", f"/api/budgets/key/{caller.key['id']}")["limit"] == money.text(2 * HOLD)


def test_new_work_is_refused_from_the_percent_on_and_every_place_says_the_same(house: AlertHouse) -> None:
    caller = house.caller()
    house.budget(f"user/{caller.name}", 10 * HOLD, action="refuse", action_percent=10)
    assert caller.call().status_code == 200
    refused = caller.call()
    assert refused.status_code == 429
    limit = money.text(HOLD)
    assert f"limit {limit}," in refused.json()["error"]["message"]
    shown = caller.person("GET", f"/api/budgets/user/{caller.name}")
    assert (shown["limit"], shown["enforced_limit"]) == (money.text(10 * HOLD), limit)
    told = requests.get(f"{house.portico.url}/v1/key", headers=caller.bearer, timeout=PATIENCE_S).json()
    (own,) = [one for one in told["budgets"] if one["scope"] == "user"]
    assert (own["limit"], own["remaining"]) == (limit, shown["remaining"])


def test_a_key_is_paused_at_the_percent_and_works_again_when_somebody_resumes_it(house: AlertHouse) -> None:
    caller = house.caller()
    house.budget(f"key/{caller.key['id']}", 100 * HOLD, thresholds=[], action="suspend", action_percent=1)
    for _ in range(6):
        caller.call()
    until(lambda: caller.call().status_code == 401, house.portico.log)
    until(lambda: house.notices(caller.name, "key.paused"), house.portico.log)
    page = Browser(house.portico.url, caller.name)
    assert page.post(f"/keys/{caller.key['id']}/resumption").status_code == 200
    within(1, lambda: caller.call().status_code == 200)
    time.sleep(2.5)
    assert caller.call().status_code == 200


class Browser:
    """A signed-in browser without scripts."""

    def __init__(self, url: str, username: str) -> None:
        self.url, self.session = url, requests.Session()
        self.post("/sign-in", page="/sign-in", username=username, password=PASSWORD)

    def post(self, path: str, *, page: str = "/notices", **form: str) -> requests.Response:
        shown = self.session.get(self.url + page, timeout=PATIENCE_S).text
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', shown)
        assert token, shown[:500]
        return self.session.post(self.url + path, data={"csrf_token": token[1], **form}, timeout=PATIENCE_S)
