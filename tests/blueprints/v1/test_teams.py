"""Teams on /v1: who pays for a team's key, what stops when and how soon, and that nobody spends more than there is.

All of it against a whole Portico with two workers: what the management API was told is what the gateway does.
"""

from __future__ import annotations

import html
import http.client
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import redis
import requests

from app import store
from app.metering import money
from app.web import formats
from tests.blueprints.v1.house import BYTES, COST, HOLD, WORDS, House, Person, numbers
from tests.services.portico import Portico
from tests.services.upstream import CHAT, Upstream, WhenReleased
from tests.services.waiting import PATIENCE_S, until, within

TAKEN = -(-BYTES // 4) + 3  # tokens that a call takes from a minute before its own are known
pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


class Reply:
    """A raw answer of /v1."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.json = json.loads(answer.read())

    @property
    def code(self) -> str | None:
        code: str | None = self.json["error"]["code"] if "error" in self.json else None
        return code

    @property
    def message(self) -> str:
        message: str = self.json["error"]["message"]
        return message


@dataclass
class Crew:
    """A team with an owner, a member, a key of each and a subscription."""

    id: str
    name: str
    owner: Person
    member: Person
    owners_key: dict[str, Any]
    members_key: dict[str, Any]
    subscription: str

    def scope(self, person: Person) -> str:
        """A member's budget in the management API."""
        return f"member/{self.id}:{person.username}"


class TeamHouse(House):
    """The house with crews in it, and connections to its workers."""

    def crew(self, **limits: Any) -> Crew:
        """A new team; `limits` as the API takes them."""
        owner, member = self.person(), self.person()
        made = owner("POST", "/api/teams", {"name": f"Team {next(numbers)}"})
        if limits:
            self.admin("PATCH", f"/api/teams/{made['id']}", limits)
        owner("PUT", f"/api/teams/{made['id']}/members/{member.username}", {"role": "member"})
        subscription = member.subscription(made["id"])
        return Crew(
            made["id"], made["name"], owner, member, owner.key(made["id"]), member.key(made["id"]), subscription
        )

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.portico.port, timeout=60)

    def ask(
        self,
        key: dict[str, Any],
        path: str = CHAT,
        connection: http.client.HTTPConnection | None = None,
    ) -> Reply:
        one = connection or self.connect()
        try:
            headers = {"Authorization": f"Bearer {key['key']}"}
            if path == CHAT:
                one.request("POST", path, json.dumps(WORDS), headers | {"Content-Type": "application/json"})
            else:
                one.request("GET", path, headers=headers)
            return Reply(one.getresponse())
        finally:
            if connection is None:
                one.close()

    def worker_of(self, connection: http.client.HTTPConnection) -> int:
        """The process at the other end of a connection."""
        port = connection.sock.getsockname()[1]
        for pid in self.portico.pids("gunicorn"):
            for found in psutil.Process(pid).net_connections("tcp"):
                if found.raddr and found.raddr.port == port:
                    return pid
        raise AssertionError("no worker has this connection")

    @contextmanager
    def lines(self) -> Iterator[dict[int, http.client.HTTPConnection]]:
        """A kept-alive connection to each of the two workers."""
        found: dict[int, http.client.HTTPConnection] = {}
        opened = []
        try:
            for _ in range(200):
                opened.append(self.connect())
                opened[-1].request("GET", "/healthz")
                opened[-1].getresponse().read()
                found.setdefault(self.worker_of(opened[-1]), opened[-1])
                if len(found) == 2:
                    break
            assert len(found) == 2, "one of the workers takes no connections"
            yield found
        finally:
            for one in opened:
                one.close()

    @cached_property
    def redis(self) -> redis.Redis:
        return redis.Redis.from_url(self.portico.redis_url, decode_responses=True)

    def counted(self, kind: str, id: str) -> tuple[int, int]:
        """Nano-units spent and held of a budget without periods."""
        spent, held = self.redis.hmget(store.spent(kind, id, "total"), "spent", "held")
        return int(spent or 0), int(held or 0)

    def books(self, team: str, calls: int) -> list[tuple[str, int, list[list[str]]]]:
        """The same, once so many calls are in."""
        until(
            lambda: len(self.booked(team)) >= calls,
            lambda: f"{len(self.booked(team))} of {calls} calls are booked:\n{self.portico.log()}",
        )
        return self.booked(team)


@pytest.fixture(scope="module")
def furnished(shared_upstream: Upstream) -> Iterator[TeamHouse]:
    portico = Portico({"CONFIG_SERVER_WORKERS": "2", "CONFIG_DEMO_ENABLED": "false"})
    try:
        house = TeamHouse(portico.start(), shared_upstream)
        house.furnish()
        yield house
    finally:
        portico.close()


@pytest.fixture
def house(furnished: TeamHouse) -> House:
    furnished.upstream.reset()
    return furnished


# --- one budget for all ---


def test_of_100_calls_at_once_by_two_members_as_many_pass_as_their_team_s_budget_pays_for(house: TeamHouse) -> None:
    limit = 50 * HOLD + HOLD // 2
    crew = house.crew(budget={"limit": money.text(limit), "period": "total"})
    released, refused = threading.Event(), threading.Semaphore(0)
    house.upstream.always(CHAT, lambda body: WhenReleased(body, released))
    ready, highest = threading.Barrier(100), [0]

    def call(key: dict[str, Any]) -> Reply:
        ready.wait(60)
        answer = house.ask(key)
        if answer.status != 200:
            refused.release()
        return answer

    def watch() -> None:
        """Until all that fits is let in and all else is refused; then the calls may end."""
        waiting = 50
        deadline = time.monotonic() + 60
        while waiting and time.monotonic() < deadline:
            waiting -= refused.acquire(timeout=0.002)
            highest[0] = max(highest[0], sum(house.counted("team", crew.id)))
        released.set()

    watching = threading.Thread(target=watch)
    watching.start()
    with ThreadPoolExecutor(100) as crowd:
        answers = list(crowd.map(call, [crew.owners_key, crew.members_key] * 50))
    watching.join(60)
    assert Counter(answer.status for answer in answers) == {200: 50, 429: 50}
    assert all(f"budget of team {crew.name} " in answer.message for answer in answers if answer.status == 429)
    assert highest[0] == 50 * HOLD

    rows = house.books(crew.id, 50)
    assert {cost for _, cost, _ in rows} == {COST}
    assert house.counted("team", crew.id) == (50 * COST, 0)
    sums: Counter[tuple[str, str]] = Counter()
    for _, cost, scopes in rows:
        for kind, id, _ in scopes:
            sums[kind, id] += cost
    del sums["organisation", store.ORGANISATION]  # others spend of it too
    assert {scope: house.counted(*scope) for scope in sums} == {scope: (spent, 0) for scope, spent in sums.items()}
    assert Counter(kind for kind, _ in sums) == {"key": 2, "subscription": 1, "member": 2, "team": 1}
    assert sum(spent for (kind, _), spent in sums.items() if kind == "member") == 50 * COST
    assert {key for key, _, _ in rows} == {crew.owners_key["id"], crew.members_key["id"]}
    left = limit - 50 * COST
    told = crew.member("GET", f"/api/teams/{crew.id}")["budget"]
    assert (told["spent"], told["reserved"], told["remaining"]) == (money.text(50 * COST), "0", money.text(left))


@pytest.mark.parametrize(
    ("limits", "kind", "header"),
    [({"rpm": 3}, "requests", "3"), ({"tpm": 3 * TAKEN + 2}, "tokens", str(3 * TAKEN + 2))],
    ids=["requests a minute", "tokens a minute"],
)
def test_the_rates_of_a_team_are_shared_by_its_members(
    house: TeamHouse, limits: dict[str, int], kind: str, header: str
) -> None:
    """Three calls fit."""
    crew = house.crew(**limits)
    released = threading.Event()
    house.upstream.always(CHAT, lambda body: WhenReleased(body, released))
    with ThreadPoolExecutor(3) as three:
        served = [three.submit(house.ask, key) for key in (crew.owners_key, crew.members_key, crew.owners_key)]
        until(lambda: house.counted("team", crew.id) == (0, 3 * HOLD))
        refused = house.ask(crew.members_key)
        released.set()
        answers = [one.result(60) for one in served]
    assert (refused.status, refused.json["error"]["type"], refused.code) == (429, kind, "rate_limit_exceeded")
    assert refused.message.startswith(f"Rate limit of team {crew.name} reached: {header} {kind} a minute.")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert {answer.headers[f"x-ratelimit-limit-{kind}"] for answer in answers} == {header}
    assert len({answer.headers[f"x-ratelimit-remaining-{kind}"] for answer in answers}) == 3  # one bucket for all
    other = house.crew()
    assert house.ask(other.members_key).status == 200


# --- who pays ---


@dataclass
class Payer:
    """A key with the budgets that its calls must fit: as the API addresses them, and as a refusal names them; and its
    owner's browser."""

    browser: requests.Session
    key: dict[str, Any]
    budgets: dict[str, str]
    named: dict[str, str]


@pytest.fixture(scope="module")
def payers(furnished: TeamHouse) -> Iterator[dict[str, Payer]]:
    """One person with a key of their own and a key of their team."""
    crew = furnished.crew()
    person, key = crew.member, crew.member.key()
    own = person.subscription()
    organisation = {"organisation": "organisation/default"}
    browser = person.browser()
    yield {
        "personal": Payer(
            browser,
            key,
            {"key": f"key/{key['id']}", "subscription": f"subscription/{own}", "user": f"user/{person.username}"}
            | organisation,
            {"key": key["id"], "subscription": own, "user": person.username, "organisation": "default"},
        ),
        "team": Payer(
            browser,
            crew.members_key,
            {
                "key": f"key/{crew.members_key['id']}",
                "subscription": f"subscription/{crew.subscription}",
                "member": crew.scope(person),
                "team": f"team/{crew.id}",
            }
            | organisation,
            {
                "key": crew.members_key["id"],
                "subscription": crew.subscription,
                "member": f"{crew.name}/{person.username}",
                "team": crew.name,
                "organisation": "default",
            },
        ),
    }
    furnished.admin("DELETE", "/api/budgets/organisation/default")


PAIRS = [
    *(("personal", kind) for kind in ("key", "subscription", "user", "organisation")),
    *(("team", kind) for kind in ("key", "subscription", "member", "team", "organisation")),
]


@pytest.mark.parametrize(("whose", "tight"), PAIRS, ids=[f"{whose} key, {kind}" for whose, kind in PAIRS])
def test_a_refusal_names_exactly_the_tightest_budget_of_the_chain(
    house: TeamHouse, payers: dict[str, Payer], whose: str, tight: str
) -> None:
    payer = payers[whose]
    for scope in payer.budgets.values():
        house.budget(scope, money.NANO, "month")
    assert house.ask(payer.key).status == 200
    house.budget(payer.budgets[tight], COST + HOLD // 2, "month")
    answer = house.ask(payer.key)
    assert (answer.status, answer.json["error"]["type"], answer.code) == (
        429, "insufficient_quota", "insufficient_quota",
    )  # fmt: skip
    assert answer.headers["x-should-retry"] == "false"
    told = re.match(r"The budget of (\w+) (.+) can't pay for this request: limit (\S+), spent (\S+),", answer.message)
    assert told is not None, answer.message
    assert told.groups()[:3] == (tight, payer.named[tight], money.text(COST + HOLD // 2))
    assert "It resets at " in answer.message
    link = re.search(r"Ask for more at (\S+)$", answer.message)
    assert link is not None
    assert payer.browser.get(house.portico.url + urlsplit(link[1]).path, timeout=PATIENCE_S).ok
    explained = house.admin.found(f"/api/requests/{answer.headers['x-request-id']}")["refusal"]
    assert (explained["reason"], explained["scope"], explained["name"]) == ("budget", tight, payer.named[tight])
    assert explained["spent"] == told[4]
    house.budget(payer.budgets[tight], money.NANO, "month")
    assert house.ask(payer.key).status == 200


def test_the_budgets_of_the_other_chain_play_no_part(house: TeamHouse, payers: dict[str, Payer]) -> None:
    for one, other in (("personal", "team"), ("team", "personal")):
        for kind, scope in payers[one].budgets.items():
            house.budget(scope, money.NANO if kind == "organisation" else 0)
        for scope in payers[other].budgets.values():
            house.budget(scope, money.NANO)
        assert house.ask(payers[one].key).code == "insufficient_quota"
        assert house.ask(payers[other].key).status == 200


def test_a_team_key_calls_only_what_its_team_is_subscribed_to(house: TeamHouse) -> None:
    crew = house.crew()
    crew.member.subscription()
    assert house.ask(crew.members_key).status == 200
    crew.owner("DELETE", f"/api/subscriptions/{crew.subscription}")
    mine = crew.member.key()
    assert house.ask(mine).status == 200
    within(1, lambda: house.ask(crew.members_key).status != 200)
    answer = house.ask(crew.members_key)
    assert (answer.status, answer.code) == (404, "model_not_found")


# --- what stops when ---


def remove_member(house: TeamHouse, crew: Crew) -> None:
    crew.owner("DELETE", f"/api/teams/{crew.id}/members/{crew.member.username}")


def leave(house: TeamHouse, crew: Crew) -> None:
    crew.member("DELETE", f"/api/teams/{crew.id}/members/{crew.member.username}")


def disable_person(house: TeamHouse, crew: Crew) -> None:
    house.admin("PUT", f"/admin/users/{crew.member.username}", {"disabled": True})


def delete_person(house: TeamHouse, crew: Crew) -> None:
    house.admin("DELETE", f"/admin/users/{crew.member.username}")


def suspend_subscription(house: TeamHouse, crew: Crew) -> None:
    house.admin("POST", f"/api/subscriptions/{crew.subscription}/decision", {"decision": "suspend"})


def lower_limit(house: TeamHouse, crew: Crew) -> None:
    house.admin("PATCH", f"/api/teams/{crew.id}", {"budget": {"limit": money.text(HOLD // 2), "period": "total"}})


def lower_rate(house: TeamHouse, crew: Crew) -> None:
    house.admin("PATCH", f"/api/teams/{crew.id}", {"tpm": 1})


def set_cap(house: TeamHouse, crew: Crew) -> None:
    cap = {"limit": "0", "period": "day", "timezone": "Asia/Tokyo"}
    crew.owner("PUT", f"/api/teams/{crew.id}/members/{crew.member.username}", {"budget": cap})


def pause_key(house: TeamHouse, crew: Crew) -> None:
    crew.owner("PATCH", f"/api/keys/{crew.members_key['id']}", {"paused": True})


def delete_team(house: TeamHouse, crew: Crew) -> None:
    crew.owner("DELETE", f"/api/teams/{crew.id}")


GONE, NO_MODEL, BROKE = (401, "invalid_api_key"), (404, "model_not_found"), (429, "insufficient_quota")
STOPS: list[
    tuple[Callable[[TeamHouse, Crew], None], tuple[int, str], bool]
] = [  # what is done, answered, to the owner too
    (remove_member, GONE, False),
    (leave, GONE, False),
    (disable_person, GONE, False),
    (delete_person, GONE, False),
    (pause_key, GONE, False),
    (set_cap, BROKE, False),
    (suspend_subscription, NO_MODEL, True),
    (lower_limit, BROKE, True),
    (lower_rate, (429, "rate_limit_exceeded"), True),
    (delete_team, GONE, True),
]


@pytest.mark.parametrize(("act", "answered", "for_all"), STOPS, ids=[act.__name__ for act, _, _ in STOPS])
def test_it_stops_on_both_workers_within_a_second(
    house: TeamHouse, act: Callable[[TeamHouse, Crew], None], answered: tuple[int, str], for_all: bool
) -> None:
    crew = house.crew(budget={"limit": "1", "period": "total"})
    with house.lines() as lines:
        for line in lines.values():  # both have heard of the keys, and believe what they heard
            assert house.ask(crew.members_key, connection=line).status == 200
            assert house.ask(crew.owners_key, connection=line).status == 200
        act(house, crew)
        stopping = [crew.members_key, crew.owners_key] if for_all else [crew.members_key]
        going = [(line, key) for line in lines.values() for key in stopping]

        def stopped() -> bool:
            answers = [house.ask(key, connection=line) for line, key in going]
            assert {(one.status, one.code) for one in answers if one.status != 200} <= {answered}
            going[:] = [pair for pair, one in zip(going, answers, strict=True) if one.status == 200]
            return not going

        within(1, stopped)
        for line in lines.values():  # and it does not come back
            refused, other = (house.ask(key, connection=line) for key in (crew.members_key, crew.owners_key))
            assert (refused.status, refused.code) == answered
            assert (other.status, other.code) == (answered if for_all else (200, None))


def test_a_call_that_is_under_way_ends_as_it_began_and_is_charged(house: TeamHouse) -> None:
    crew = house.crew(budget={"limit": "1", "period": "total"})
    released = threading.Event()
    house.upstream.always(CHAT, lambda body: WhenReleased(body, released))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(house.ask, crew.members_key)
        try:
            until(lambda: house.counted("team", crew.id) == (0, HOLD))
            delete_team(house, crew)
        finally:
            released.set()
        assert call.result(60).status == 200
    [(key, cost, scopes)] = house.books(crew.id, 1)
    assert (key, cost) == (crew.members_key["id"], COST)
    assert ["team", crew.id, "total"] in scopes
    assert house.counted("team", crew.id) == (COST, 0)


def test_an_owner_sees_when_a_member_s_key_was_last_used(house: TeamHouse) -> None:
    crew = house.crew()
    assert house.ask(crew.members_key).status == 200
    house.books(crew.id, 1)
    path = f"/api/keys/{crew.members_key['id']}"
    told = crew.owner("GET", path)
    assert told["last_used_at"] == told["secrets"][0]["last_used_at"] == crew.member("GET", path)["last_used_at"]
    assert told["last_used_at"] is not None


# --- one source ---


def told_by_v1(house: TeamHouse, key: dict[str, Any]) -> list[dict[str, Any]]:
    answer = house.ask(key, "/v1/key")
    assert answer.status == 200
    assert answer.json["budget"] == {name: answer.json["budgets"][0][name] for name in answer.json["budget"]}
    told: list[dict[str, Any]] = answer.json["budgets"]
    return told


def test_v1_the_api_and_the_pages_tell_the_numbers_that_enforcement_uses(house: TeamHouse) -> None:
    crew = house.crew(budget={"limit": "0.5", "period": "week", "timezone": "Europe/Berlin"})
    key, member = crew.members_key, crew.member
    budgets = [
        ("key", key["id"]), ("subscription", crew.subscription), ("member", f"{crew.id}:{member.username}"),
        ("team", crew.id), ("organisation", "default"),
    ]  # fmt: skip
    for number, (kind, id) in enumerate(budgets, 1):
        if kind != "team":
            house.budget(f"{kind}/{id}", number * money.NANO, "month")
    browser = member.browser()

    def look(path: str) -> str:
        answer = browser.get(house.portico.url + path, timeout=PATIENCE_S)
        assert answer.ok, path
        return html.unescape(answer.text)

    def compare() -> list[dict[str, Any]]:
        told = told_by_v1(house, key)
        assert [(one["scope"], one["id"]) for one in told] == budgets
        for one in told:
            listed = (house.admin if one["scope"] == "organisation" else member)(
                "GET", f"/api/budgets/{one['scope']}/{one['id']}"
            )
            assert {name: listed[name] for name in one} == one
        team = member("GET", f"/api/teams/{crew.id}")
        cap = next(one["budget"] for one in team["members"] if one["username"] == member.username)
        shown = {"key": member("GET", f"/api/keys/{key['id']}")["budget"], "member": cap, "team": team["budget"]}
        for one in told:
            if one["scope"] in shown:
                assert shown[one["scope"]] == {name: one.get(name, shown[one["scope"]][name]) for name in shown["key"]}
        standing = look(f"/keys/{key['id']}")
        standing = standing[standing.index('id="budgets"') : standing.index('id="requests"')]
        assert "Your cap in the team" in standing
        assert f"The team {crew.name}" in standing
        of_team = look(f"/teams/{crew.id}")
        for one in told:
            page = look(f"/budgets/{one['scope']}/{one['id']}")
            for name in ("spent", "reserved", "remaining"):
                shown_as = f'title="{formats.money_exact(money.parse(one[name]))}"'
                if one["scope"] != "organisation":  # what everybody spends is for those who see everything
                    assert shown_as in standing, (one, name)
                    assert shown_as in page, (one, name)
                if name == "spent" and one["scope"] in ("member", "team"):
                    assert shown_as in of_team, one
        return told

    assert house.ask(key).status == 200
    assert {one["spent"] for one in compare() if one["scope"] != "organisation"} == {money.text(COST)}
    released = threading.Event()
    house.upstream.always(CHAT, lambda body: WhenReleased(body, released))
    try:
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(house.ask, key)
            try:
                until(lambda: told_by_v1(house, key)[0]["reserved"] != "0")
                during = compare()
            finally:
                released.set()
            assert call.result(60).status == 200
        assert {one["reserved"] for one in during} == {money.text(HOLD)}
        assert {one["remaining"] for one in during if one["scope"] == "member"} == {
            money.text(3 * money.NANO - COST - HOLD)
        }
        after = compare()
        assert {one["reserved"] for one in after} == {"0"}
        assert {one["spent"] for one in after if one["scope"] != "organisation"} == {money.text(2 * COST)}
    finally:
        house.admin("DELETE", "/api/budgets/organisation/default")
