"""Budgets on /v1: what people are told near a limit, what happens there, and that asking for more helps.

All of it against a whole Portico with two workers, its drainer and its webhook.
"""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from app.metering import money
from tests.services.portico import Portico
from tests.services.receivers import Receiver
from tests.services.upstream import Upstream

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("budget-alerts"), pytest.mark.timeout(180)]

PASSWORD = "a long enough password"
HOLD = (13 + 16) * 1000 + 3 * 2000  # what "one two three" with max_tokens=3 may cost, in nano-units
COST = 3 * 1000 + 3 * 2000  # and what it does cost
_numbers = itertools.count(1)


@dataclass
class Person:
    """Somebody with an access token and a key."""

    url: str
    username: str
    token: str
    key: dict[str, Any] = field(default_factory=dict)

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        """What the management API answers; anything but success fails the test."""
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = requests.request(method, self.url + path, json=body, headers=headers, timeout=20)
        assert answer.ok, (method, path, answer.text)
        return answer.json() if answer.content else None

    def call(self) -> requests.Response:
        """One call of the model with the person's key."""
        return requests.post(
            f"{self.url}/v1/chat/completions",
            json={"model": "small", "max_tokens": 3, "messages": [{"role": "user", "content": "one two three"}]},
            headers={"Authorization": f"Bearer {self.key['key']}"},
            timeout=60,
        )


@dataclass
class House:
    """A Portico with two workers and a webhook, and the model `small` for everybody."""

    portico: Portico
    upstream: Upstream
    receiver: Receiver
    admin: Person = field(init=False)

    def furnish(self) -> House:
        form = {"username": self.portico.admin_username, "password": self.portico.admin_password}
        token = requests.post(f"{self.portico.url}/token", form, timeout=20).json()["access_token"]
        self.admin = Person(self.portico.url, self.portico.admin_username, token)
        provider = self.admin("POST", "/api/providers", {
            "type": "api", "name": "up", "provider": "vllm", "config": {"base_url": self.upstream.url, "timeout_s": 60},
        })  # fmt: skip
        self.admin("POST", "/api/models", {
            "name": "small", "capabilities": ["chat"], "max_output_tokens": 1000,
            "price": {"input_per_mtok": "1", "output_per_mtok": "2"},
            "deployments": [{"provider_id": provider["id"], "upstream_model": "small"}],
        })  # fmt: skip
        return self

    def person(self) -> Person:
        username = f"person-{next(_numbers)}"
        self.admin("POST", "/admin/users", {"username": username, "password": PASSWORD})
        token = self.admin("POST", f"/admin/token/{username}", {})["access_token"]
        made = Person(self.portico.url, username, token)
        made("POST", "/api/subscriptions", {"model": "small"})
        made.key = made("POST", "/api/keys", {"name": f"key of {username}"})
        return made

    def budget(self, scope: str, nano: int, **more: Any) -> None:
        self.admin("PUT", f"/api/budgets/{scope}", {"limit": money.text(nano), "period": "total", **more})

    def notices(self, person: Person, kind: str = "budget.alert") -> list[str]:
        """The titles of what a person was told."""
        query = (
            "SELECT title FROM notice JOIN person ON person.id = notice.person_id WHERE username = ? AND notice.kind = ?"
            " ORDER BY notice.id"
        )
        with sqlite3.connect(self.portico.data_dir / "portico.db", timeout=10) as database:
            return [title for (title,) in database.execute(query, (person.username, kind))]

    def hooks(self, scope: str, id: str) -> list[int]:
        """The thresholds that the webhook was told of."""
        events = [json.loads(body) for _, _, body in list(self.receiver.calls)]
        return [one["threshold"] for one in events if (one.get("scope"), one.get("scope_id")) == (scope, id)]

    def until(self, met: Callable[[], object], within_s: float = 20) -> None:
        deadline = time.monotonic() + within_s
        while not met():
            assert time.monotonic() < deadline, self.portico.log()
            time.sleep(0.1)


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    receiver, upstream = Receiver(), Upstream()
    portico = Portico({"CONFIG_SERVER_WORKERS": "2", "CONFIG_WEBHOOK_URL": receiver.url})
    try:
        yield House(portico.start(), upstream, receiver).furnish()
    finally:
        portico.close()
        upstream.stop()
        receiver.stop()


def test_fifty_calls_at_once_that_cross_every_threshold_are_told_of_once_each(house: House) -> None:
    person = house.person()
    house.budget(f"user/{person.username}", 40 * COST + HOLD)
    with ThreadPoolExecutor(50) as pool:
        statuses = Counter(reply.status_code for reply in pool.map(lambda _: person.call(), range(50)))
    assert set(statuses) <= {200, 429}
    for _ in range(50):  # what was held by calls under way is free now: use it up to the last call that fits
        if person.call().status_code == 429:
            break
    wanted = [f"Budget of {person.username}: {words}" for words in ("50% spent", "80% spent")]
    house.until(lambda: len(house.notices(person)) >= 3)
    house.until(lambda: len(house.hooks("user", person.username)) >= 3)
    assert person.call().status_code == 429
    time.sleep(2.5)  # the drainer looks again each second; it must find nothing new
    titles = house.notices(person)
    assert titles[:2] == wanted
    assert len(titles) == 3
    assert titles[2].startswith(f"Budget of {person.username}: ")
    assert sorted(house.hooks("user", person.username)) == [50, 80, 100]


def test_a_refusal_names_the_page_to_ask_at_and_a_grant_lets_the_call_pass(house: House) -> None:
    person = house.person()
    house.budget(f"user/{person.username}", HOLD)
    assert person.call().status_code == 200
    refused = person.call()
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
    link = f"http://localhost:{house.portico.port}/budgets/user/{person.username}"
    assert error["message"].endswith(f" Ask for more at {link}")
    assert requests.get(link, timeout=20, allow_redirects=False).status_code == 303  # to the sign-in, and back

    asked = person("POST", "/api/budget-requests", {
        "scope": "user", "id": person.username, "amount": money.text(2 * HOLD), "reason": "A report.",
    })  # fmt: skip
    decided = house.admin("POST", f"/api/budget-requests/{asked['id']}/decision", {"decision": "grant"})
    assert decided["status"] == "granted"
    assert person.call().status_code == 200
    assert house.notices(person, "budget.granted") == [
        f"{money.text(2 * HOLD)} USD more for {person.username}, this period"
    ]
    shown = person("GET", f"/api/budgets/user/{person.username}")
    told = requests.get(
        f"{house.portico.url}/v1/key", headers={"Authorization": f"Bearer {person.key['key']}"}, timeout=20
    ).json()
    (own,) = [one for one in told["budgets"] if one["scope"] == "user"]
    assert (own["spent"], own["remaining"]) == (shown["spent"], shown["remaining"])
    assert money.parse(shown["remaining"]) == HOLD - 2 * COST + 2 * HOLD


def test_a_lasting_grant_raises_the_limit(house: House) -> None:
    person = house.person()
    house.budget(f"key/{person.key['id']}", HOLD)
    assert (person.call().status_code, person.call().status_code) == (200, 429)
    asked = person("POST", "/api/budget-requests", {
        "scope": "key", "id": person.key["id"], "amount": money.text(HOLD), "reason": "Nightly.", "lasting": True,
    })  # fmt: skip
    house.admin("POST", f"/api/budget-requests/{asked['id']}/decision", {"decision": "grant"})
    house.until(lambda: person.call().status_code == 200, 1.5)
    assert person("GET", f"/api/budgets/key/{person.key['id']}")["limit"] == money.text(2 * HOLD)


def test_new_work_is_refused_from_the_percent_on_and_every_place_says_the_same(house: House) -> None:
    person = house.person()
    house.budget(f"user/{person.username}", 10 * HOLD, action="refuse", action_percent=12)
    assert person.call().status_code == 200
    refused = person.call()
    assert refused.status_code == 429
    limit = money.text(10 * HOLD * 12 // 100)
    assert f"limit {limit}," in refused.json()["error"]["message"]
    shown = person("GET", f"/api/budgets/user/{person.username}")
    assert (shown["limit"], shown["enforced_limit"]) == (money.text(10 * HOLD), limit)
    told = requests.get(
        f"{house.portico.url}/v1/key", headers={"Authorization": f"Bearer {person.key['key']}"}, timeout=20
    ).json()
    (own,) = [one for one in told["budgets"] if one["scope"] == "user"]
    assert (own["limit"], own["remaining"]) == (limit, shown["remaining"])


def test_a_key_is_paused_at_the_percent_and_works_again_when_somebody_resumes_it(house: House) -> None:
    person = house.person()
    house.budget(f"key/{person.key['id']}", 100 * HOLD, thresholds=[], action="suspend", action_percent=1)
    for _ in range(6):
        person.call()
    house.until(lambda: person.call().status_code == 401, 10)
    house.until(lambda: house.notices(person, "key.paused"), 5)
    page = Browser(house.portico.url, person.username)
    assert page.post(f"/keys/{person.key['id']}/resumption").status_code == 200
    house.until(lambda: person.call().status_code == 200, 2)
    time.sleep(2.5)
    assert person.call().status_code == 200


class Browser:
    """A signed-in browser without scripts."""

    def __init__(self, url: str, username: str) -> None:
        self.url, self.session = url, requests.Session()
        self.post("/sign-in", page="/sign-in", username=username, password=PASSWORD)

    def post(self, path: str, *, page: str = "/notices", **form: str) -> requests.Response:
        shown = self.session.get(self.url + page, timeout=20).text
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', shown)
        assert token, shown[:500]
        return self.session.post(self.url + path, data={"csrf_token": token[1], **form}, timeout=20)
