"""Teams over the management API: made, joined, bounded and left, with the keys and subscriptions they share."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from flask import Flask

from app import clock, store
from app.domain import teams
from app.domain.errors import NotFound
from app.extensions import transaction
from app.ledger.posting import post
from app.metering.scopes import member_id
from tests.house import People, Program, offer, sign_in
from tests.ledger.books import event, refused_event


@pytest.fixture
def owner(app: Flask, visitors: People) -> Program:
    return sign_in(app, "owner")


@pytest.fixture
def stranger(app: Flask, visitors: People) -> Program:
    return sign_in(app, "stranger")


@pytest.fixture
def admin(app: Flask, visitors: People) -> Program:
    return sign_in(app, "admin")


@pytest.fixture
def team(owner: Program) -> str:
    """The id of a team that `owner` owns."""
    made = owner.post("/api/teams", json={"name": "Research"})
    assert made.status_code == 201, made.text
    id: str = made.get_json()["id"]
    return id


def join(owner: Program, team: str, username: str = "stranger", **body: Any) -> None:
    answer = owner.put(f"/api/teams/{team}/members/{username}", json={"role": "member", **body})
    assert answer.status_code == 200, answer.text


def error(answer: Any) -> tuple[int, str, str | None]:
    told = answer.get_json()["error"]
    return answer.status_code, told["code"], told["field"]


def test_whoever_makes_a_team_owns_it(owner: Program, stranger: Program, admin: Program) -> None:
    made = owner.post("/api/teams", json={"name": "Research", "description": "Papers."}).get_json()
    assert (made["name"], made["description"], made["role"]) == ("Research", "Papers.", "owner")
    assert (made["budget"], made["rpm"], made["tpm"]) == (None, None, None)
    [member] = made["members"]
    assert (member["username"], member["role"], member["budget"]) == ("owner", "owner", None)
    assert owner.get(f"/api/teams/{made['id']}").get_json() == made
    assert owner.get("/api/teams").get_json()["data"] == [made]
    assert owner.get("/users/me").get_json()["teams"] == [made["id"]]
    assert stranger.get("/api/teams").get_json()["total"] == 0
    assert admin.get(f"/api/teams/{made['id']}").get_json()["role"] is None
    assert admin.get("/api/teams?search=sea").get_json()["total"] == 1
    assert admin.get("/api/teams?search=nothing").get_json()["total"] == 0


def test_the_limits_of_a_team_are_for_admins_to_give_and_to_take(owner: Program, admin: Program) -> None:
    for limit in ({"rpm": 5}, {"tpm": 5}, {"budget": {"limit": "5"}}):
        assert error(owner.post("/api/teams", json={"name": "Rich", **limit})) == (403, "forbidden", None)
    assert owner.get("/api/teams").get_json()["total"] == 0
    made = admin.post(
        "/api/teams", json={"name": "Rich", "rpm": 60, "tpm": 1000, "budget": {"limit": "5", "period": "day"}}
    ).get_json()
    assert (made["rpm"], made["tpm"]) == (60, 1000)
    told = made["budget"]
    assert [told[name] for name in ("limit", "period", "spent", "reserved", "remaining")] == ["5", "day", "0", "0", "5"]
    assert told["resets_at"]
    path = f"/api/teams/{made['id']}"
    join(admin, made["id"], "owner", role="owner")
    for limit in ({"rpm": 61}, {"tpm": None}, {"budget": None}, {"budget": {"limit": "6"}}):
        assert error(owner.patch(path, json=limit)) == (403, "forbidden", None)
    renamed = owner.patch(path, json={"name": "Richer", "rpm": 60}).get_json()
    assert (renamed["name"], renamed["rpm"], renamed["role"]) == ("Richer", 60, "owner")
    freed = admin.patch(path, json={"budget": None, "tpm": None}).get_json()
    assert (freed["budget"], freed["rpm"], freed["tpm"]) == (None, 60, None)


def test_a_team_of_others_is_not_there(owner: Program, stranger: Program, team: str) -> None:
    path = f"/api/teams/{team}"
    assert error(stranger.get(path)) == (404, "not_found", None)
    assert error(stranger.patch(path, json={"name": "Mine"})) == (404, "not_found", None)
    assert error(stranger.delete(path)) == (404, "not_found", None)
    assert error(stranger.put(f"{path}/members/stranger", json={"role": "owner"})) == (404, "not_found", None)
    assert error(stranger.delete(f"{path}/members/owner")) == (404, "not_found", None)
    for scope in (f"team/{team}", f"member/{team}:owner"):
        assert error(stranger.get(f"/api/budgets/{scope}")) == (404, "not_found", None)
        assert error(stranger.put(f"/api/budgets/{scope}", json={"limit": "5"})) == (404, "not_found", None)


def test_members_see_their_team_and_change_nothing_of_it(owner: Program, stranger: Program, team: str) -> None:
    join(owner, team)
    path = f"/api/teams/{team}"
    seen = stranger.get(path).get_json()
    assert (seen["role"], [one["username"] for one in seen["members"]]) == ("member", ["owner", "stranger"])
    assert error(stranger.patch(path, json={"name": "Mine"})) == (403, "forbidden", None)
    assert error(stranger.delete(path)) == (403, "forbidden", None)
    assert error(stranger.put(f"{path}/members/stranger", json={"role": "owner"})) == (403, "forbidden", None)
    assert error(stranger.delete(f"{path}/members/owner")) == (403, "forbidden", None)
    assert stranger.get(path).get_json() == seen


def test_a_read_only_admin_reads_every_team_and_changes_none(app: Flask, owner: Program, team: str) -> None:
    auditor, path = sign_in(app, "auditor"), f"/api/teams/{team}"
    assert auditor.get(path).status_code == auditor.get(f"/api/budgets/member/{team}:owner").status_code == 200
    assert auditor.get("/api/teams").get_json()["total"] == 1
    for answer in (
        auditor.patch(path, json={"name": "Mine"}),
        auditor.delete(path),
        auditor.put(f"{path}/members/auditor", json={"role": "owner"}),
        auditor.delete(f"{path}/members/owner"),
        auditor.put(f"/api/budgets/member/{team}:owner", json={"limit": "1"}),
        auditor.put(f"/api/budgets/team/{team}", json={"limit": "1"}),
    ):
        assert error(answer) == (403, "forbidden", None)


def test_a_member_s_role_and_cap_change_by_what_is_given(owner: Program, stranger: Program, team: str) -> None:
    path = f"/api/teams/{team}/members/stranger"
    capped = owner.put(path, json={"budget": {"limit": "2", "period": "total"}}).get_json()
    assert (capped["role"], capped["budget"]["limit"], capped["budget"]["remaining"]) == ("member", "2", "2")
    assert capped["joined_at"]
    raised = owner.put(path, json={"role": "owner"}).get_json()
    assert (raised["role"], raised["budget"]["limit"]) == ("owner", "2")
    assert owner.put(path, json={"budget": None}).get_json() == raised | {"budget": None}
    assert error(owner.put(path, json={"role": "emperor"})) == (422, "invalid_field", "role")
    assert error(owner.put(path, json={"budget": {"limit": "-2"}})) == (422, "invalid_field", "limit")
    assert error(owner.put(f"/api/teams/{team}/members/nobody", json={})) == (404, "not_found", None)


def test_members_leave_by_themselves_and_the_last_owner_stays(owner: Program, stranger: Program, team: str) -> None:
    join(owner, team)
    key = stranger.post("/api/keys", json={"name": "ours", "team_id": team}).get_json()
    assert stranger.delete(f"/api/teams/{team}/members/STRANGER").status_code == 204
    assert stranger.get(f"/api/teams/{team}").status_code == 404
    assert stranger.get("/users/me").get_json()["teams"] == []
    assert stranger.get(f"/api/keys/{key['id']}").get_json()["status"] == "revoked"
    assert error(owner.delete(f"/api/teams/{team}/members/stranger")) == (404, "not_found", None)
    assert error(owner.delete(f"/api/teams/{team}/members/owner")) == (409, "conflict", None)
    assert error(owner.put(f"/api/teams/{team}/members/owner", json={"role": "member"})) == (409, "conflict", None)


def test_an_owner_stands_for_what_a_member_who_left_had_asked_for(
    app: Flask, owner: Program, stranger: Program, team: str
) -> None:
    offer(app)
    join(owner, team)
    asked = stranger.post("/api/subscriptions", json={"model": "small", "team_id": team}).get_json()
    own = stranger.post("/api/subscriptions", json={"model": "small"}).get_json()
    assert owner.delete(f"/api/teams/{team}/members/stranger").status_code == 204
    kept = owner.get(f"/api/subscriptions/{asked['id']}").get_json()
    assert (kept["username"], kept["status"]) == ("owner", "active")
    [left] = stranger.get("/api/subscriptions").get_json()["data"]
    assert (left["id"], left["username"]) == (own["id"], "stranger")
    assert owner.delete(f"/api/subscriptions/{asked['id']}").status_code == 204


def test_of_two_owners_who_leave_at_one_instant_one_stays(app: Flask, visitors: People, team: str) -> None:
    """On PostgreSQL both transactions run at once."""
    with app.app_context():
        transaction(lambda: teams.put_member(teams.get_visible(visitors.owner, team), visitors.stranger, by=visitors.owner,
                                             role="owner"))  # fmt: skip
    ready = threading.Barrier(2)

    def leave(username: str) -> int:
        person = people[username]
        ready.wait(20)
        status: int = person.delete(f"/api/teams/{team}/members/{username}").status_code
        return status

    people = {name: sign_in(app, name) for name in ("owner", "stranger")}
    with ThreadPoolExecutor(2) as both:
        assert sorted(both.map(leave, people)) == [204, 409]


def test_an_old_invitation_lets_nobody_in_again(
    app: Flask, visitors: People, owner: Program, stranger: Program, team: str
) -> None:
    with app.app_context():
        by, to = visitors.owner, visitors.stranger
        asked = transaction(lambda: teams.invite(teams.get_visible(by, team), to, by=by).id)
    join(owner, team)
    assert owner.delete(f"/api/teams/{team}/members/stranger").status_code == 204
    with app.app_context():
        assert teams.invitations_to(to) == []
        with pytest.raises(NotFound, match="does not exist"):
            teams.reach_invitation(to, asked)


def test_a_team_s_keys_are_made_by_members_and_seen_by_who_made_them_and_the_owners(
    owner: Program, stranger: Program, admin: Program, team: str
) -> None:
    join(owner, team)
    mine = stranger.post("/api/keys", json={"name": "mine"}).get_json()
    ours = stranger.post("/api/keys", json={"name": "ours", "team_id": team}).get_json()
    theirs = owner.post("/api/keys", json={"name": "theirs", "team_id": team}).get_json()
    assert (mine["team_id"], ours["team_id"], ours["username"]) == (None, team, "stranger")

    def seen(by: Program, query: str = "") -> list[str]:
        return sorted(key["name"] for key in by.get(f"/api/keys{query}").get_json()["data"])

    assert seen(stranger) == ["mine", "ours"]
    assert seen(stranger, f"?team_id={team}") == ["ours"]
    assert seen(owner) == ["ours", "theirs"]
    assert seen(admin, f"?team_id={team}") == ["ours", "theirs"]
    assert stranger.get(f"/api/keys/{theirs['id']}").status_code == 404
    assert owner.get(f"/api/keys/{mine['id']}").status_code == 404
    assert owner.patch(f"/api/keys/{ours['id']}", json={"rpm": 5}).get_json()["rpm"] == 5
    assert owner.delete(f"/api/keys/{ours['id']}").status_code == 204


@pytest.mark.parametrize("path", ["/api/keys", "/api/subscriptions"])
def test_nothing_is_made_for_a_team_that_one_is_not_in(
    app: Flask, owner: Program, stranger: Program, admin: Program, team: str, path: str
) -> None:
    offer(app)
    body = {"team_id": team} | ({"name": "theirs"} if path == "/api/keys" else {"model": "small"})
    for foreign in (team, "nothing"):
        refused = stranger.post(path, json=body | {"team_id": foreign})
        assert error(refused) == (404, "not_found", None)
        assert refused.get_json()["error"]["message"] == "This team does not exist."
    assert error(admin.post(path, json=body)) == (422, "invalid_field", "team_id")
    assert admin.get(path).get_json()["total"] == 0


def test_a_team_has_one_subscription_to_a_model_which_its_members_share(
    app: Flask, owner: Program, stranger: Program, admin: Program, team: str
) -> None:
    offer(app)
    join(owner, team)
    made = stranger.post("/api/subscriptions", json={"model": "small", "team_id": team})
    assert (made.status_code, made.get_json()["team_id"], made.get_json()["status"]) == (201, team, "active")
    again = owner.post("/api/subscriptions", json={"model": "small", "team_id": team})
    assert (again.status_code, again.get_json()["id"]) == (200, made.get_json()["id"])
    own = owner.post("/api/subscriptions", json={"model": "small"})
    assert (own.status_code, own.get_json()["team_id"]) == (201, None)
    assert owner.get("/api/subscriptions").get_json()["total"] == 2
    for by in (owner, stranger, admin):
        told = by.get(f"/api/subscriptions?team_id={team}").get_json()
        assert [one["id"] for one in told["data"]] == [made.get_json()["id"]]


def test_budgets_of_a_team_are_read_by_its_members_and_changed_by_who_may(
    app: Flask, owner: Program, stranger: Program, admin: Program, team: str, visitors: People, wire: redis.Redis
) -> None:
    offer(app)
    join(owner, team)
    subscription = owner.post("/api/subscriptions", json={"model": "small", "team_id": team}).get_json()["id"]
    limit = {"limit": "3", "period": "total"}
    of_team, cap, of_subscription = (
        f"/api/budgets/{scope}" for scope in (f"team/{team}", f"member/{team}:Stranger", f"subscription/{subscription}")
    )
    assert error(owner.put(of_team, json=limit)) == (403, "forbidden", None)
    assert error(stranger.put(cap, json=limit)) == (403, "forbidden", None)
    assert error(owner.delete(of_team)) == (403, "forbidden", None)
    for by, path in ((admin, of_team), (owner, cap), (admin, of_subscription)):
        assert by.put(path, json=limit).status_code == 200
    scope = member_id(team, visitors.stranger.id)
    assert wire.hget(store.scope("member", scope), "limit") == "3000000000"
    wire.hset(store.spent("member", scope, "total"), mapping={"spent": 1_000_000_000, "held": 500_000_000})
    told = stranger.get(cap).get_json()
    assert (told["scope"], told["spent"], told["reserved"], told["remaining"]) == ("member", "1", "0.5", "1.5")
    team_told = stranger.get(f"/api/teams/{team}").get_json()
    assert {name: told[name] for name in team_told["budget"]} == team_told["members"][1]["budget"]
    for by in (owner, stranger):
        listed = by.get("/api/budgets").get_json()["data"]
        assert {(one["scope"], one["id"]) for one in listed} == {
            ("team", team), ("member", f"{team}:stranger"), ("subscription", subscription),
        }  # fmt: skip
    assert [one["id"] for one in admin.get("/api/budgets?scope=member").get_json()["data"]] == [f"{team}:stranger"]
    assert error(owner.get(f"/api/budgets/member/{team}:admin")) == (404, "not_found", None)
    assert error(owner.get(f"/api/budgets/member/{team}:nobody")) == (404, "not_found", None)
    assert owner.delete(cap).status_code == 204
    assert wire.hget(store.scope("member", scope), "limit") is None


def test_a_removed_team_takes_its_keys_subscriptions_and_budgets_along(
    app: Flask, owner: Program, stranger: Program, admin: Program, team: str
) -> None:
    offer(app)
    join(owner, team, budget={"limit": "1"})
    admin.put(f"/api/budgets/team/{team}", json={"limit": "5"})
    subscription = owner.post("/api/subscriptions", json={"model": "small", "team_id": team}).get_json()["id"]
    key = stranger.post("/api/keys", json={"name": "ours", "team_id": team}).get_json()["id"]
    assert owner.delete(f"/api/teams/{team}").status_code == 204
    assert error(owner.get(f"/api/teams/{team}")) == (404, "not_found", None)
    assert stranger.get(f"/api/keys/{key}").get_json()["status"] == "revoked"
    assert admin.get(f"/api/subscriptions/{subscription}").get_json()["status"] == "cancelled"
    assert admin.get("/api/budgets").get_json()["total"] == 0
    assert owner.post("/api/teams", json={"name": "research"}).status_code == 201  # its name is free again


def test_what_is_done_with_a_team_is_in_the_audit_log(app: Flask, owner: Program, admin: Program, team: str) -> None:
    offer(app)
    join(owner, team, budget={"limit": "1"})
    owner.delete(f"/api/teams/{team}/members/stranger")
    told = [row["action"] for row in admin.get(f"/api/audit?object={team}").get_json()["data"]]
    assert told == ["team.leave", "team.member", "team.create"]
    owner.post("/api/keys", json={"name": "ours", "team_id": team})
    owner.post("/api/subscriptions", json={"model": "small", "team_id": team})
    for action in ("key.create", "subscription.request"):
        [row] = admin.get(f"/api/audit?action={action}").get_json()["data"]
        assert row["detail"]["after"]["team"] == "Research"


def test_a_team_of_somebody_who_is_deleted_stays_for_admins_to_give_away(
    app: Flask, owner: Program, stranger: Program, admin: Program, team: str
) -> None:
    offer(app)
    asked = owner.post("/api/subscriptions", json={"model": "small", "team_id": team}).get_json()["id"]
    admin.put(f"/api/budgets/subscription/{asked}", json={"limit": "5"})
    assert admin.delete("/admin/users/owner").status_code == 204
    assert admin.get(f"/api/teams/{team}").get_json()["members"] == []
    assert admin.get("/api/budgets").get_json()["total"] == 0
    join(admin, team, role="owner")
    again = stranger.post("/api/subscriptions", json={"model": "small", "team_id": team})
    assert again.status_code == 201


def test_requests_of_a_team_are_told_to_its_owners_and_to_who_made_them(
    app: Flask, visitors: People, owner: Program, stranger: Program, admin: Program, team: str, wire: redis.Redis
) -> None:
    join(owner, team)
    key = stranger.post("/api/keys", json={"name": "ours", "team_id": team}).get_json()["id"]
    at_ms = clock.now_ms()
    ours = event(person_id=visitors.stranger.id, key_id=key, team_id=team, at_ms=at_ms)
    theirs = event(person_id=visitors.owner.id, key_id=None, team_id=team, at_ms=at_ms)
    personal = event(person_id=visitors.stranger.id, key_id=None, at_ms=at_ms)
    with app.app_context():
        post([ours, theirs, personal])
        post(
            [refused_event(request_id="refused", at_ms=at_ms, person_id=visitors.stranger.id, key_id=key, team_id=team)]
        )

    def seen(by: Program, query: str = "") -> set[str]:
        return {row["id"] for row in by.get(f"/api/requests{query}").get_json()["data"]}

    mine, all_of_it = f"?team={team}", {ours.request_id, theirs.request_id, "refused"}
    assert seen(owner, mine) == seen(admin, mine) == all_of_it
    assert seen(stranger, mine) == {ours.request_id, "refused"}
    assert seen(owner) == {theirs.request_id}
    assert seen(stranger) == {ours.request_id, personal.request_id, "refused"}
    counts = [sum(day["request_count"] for day in by.get(f"/api/requests/stats{mine}").get_json()["data"])
              for by in (owner, stranger)]  # fmt: skip
    assert counts == [2, 1]
    for id, status in ((ours.request_id, 200), ("refused", 200), (personal.request_id, 404)):
        assert owner.get(f"/api/requests/{id}").status_code == status
    assert stranger.get(f"/api/requests/{theirs.request_id}").status_code == 404
    assert owner.get(f"/api/keys/{key}").get_json()["last_used_at"] is not None
    owner.put(f"/api/teams/{team}/members/stranger", json={"role": "owner"})
    assert owner.delete(f"/api/teams/{team}/members/owner").status_code == 204
    assert seen(owner, mine) == {theirs.request_id}
    assert owner.get("/api/requests/refused").status_code == 404


def test_names_and_limits_of_teams_are_checked(owner: Program, admin: Program, team: str) -> None:
    assert error(owner.post("/api/teams", json={"name": " RESEARCH "})) == (409, "conflict", "name")
    assert error(owner.post("/api/teams", json={"name": " "})) == (422, "invalid_field", "name")
    assert error(owner.post("/api/teams", json={})) == (422, "invalid_field", "name")
    assert error(owner.patch(f"/api/teams/{team}", json={"description": "d" * 2001}))[::2] == (422, "description")
    assert error(admin.patch(f"/api/teams/{team}", json={"rpm": 0})) == (422, "invalid_field", "rpm")
    assert error(admin.post("/api/teams", json={"name": "A", "budget": {"limit": "1", "period": "era"}}))[2] == "period"
