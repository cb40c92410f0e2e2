"""Teams in the portal: who sees them, who changes what, and what a team's keys, models and usage look like there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
import redis

from app import clock, store
from app.blueprints.portal.teams import FOR_OWNERS, READ_ONLY
from app.clock import now
from app.domain import budgets, identity, keys, subscriptions, teams
from app.domain.catalog import Model
from app.domain.notices import Notice
from app.domain.person import Person
from app.domain.teams import Team
from app.extensions import db, transaction
from app.metering.scopes import member_id
from app.workflows import catalog_changes
from tests.blueprints.portal.conftest import Browser, make_key, subscribe, use
from tests.blueprints.portal.test_activity import listed
from tests.house import People, make_person
from tests.page import read

SignedIn = Callable[[str], Browser]


@pytest.fixture
def team(people: People) -> str:
    """A team that `owner` owns and `member` is in; its id."""

    def make() -> str:
        made = teams.create(by=people.owner, name="Research", description="Papers and <proofs>.")
        teams.put_member(made, make_person("member"), by=people.owner, role="member")
        return made.id

    found: str = transaction(make)
    return found


def present(id: str) -> Team:
    db.session.rollback()
    found = db.session.get(Team, id)
    assert found is not None
    return found


def person(username: str) -> Person:
    return identity.named(username)


def now_ms() -> int:
    return clock.now_ms()


def test_a_person_makes_a_team_and_owns_it(people: People, signed_in: SignedIn) -> None:
    owner = signed_in("owner")
    assert "No teams yet" in owner.page("/teams").headings
    answer = owner.post("/teams", page="/teams/new", name="Physics", description="Quarks.")
    assert answer.status_code == 303
    page = owner.page(answer.headers["Location"])
    assert "Team Physics created" in page.toast
    assert page.table("Members of Physics").row("owner").cell("Role") == "Owner"
    again = owner.post("/teams", page="/teams/new", name="PHYSICS")
    assert again.status_code == 422
    assert read(again).field("Name").error == "The name PHYSICS is taken."
    assert owner.post("/teams", page="/teams/new", name="").status_code == 422


def test_a_person_cannot_give_their_own_new_team_a_budget(people: People, signed_in: SignedIn) -> None:
    signed_in("owner").post("/teams", page="/teams/new", name="Rich", limit="1000", period="day", rpm="5")
    made = db.session.query(Team).filter_by(name="Rich").one()
    assert (made.rpm, budgets.find("team", made.id)) == (None, None)


def test_the_list_shows_one_s_own_teams_searched_sorted_and_exported(
    people: People, team: str, small: Model, signed_in: SignedIn, wire: redis.Redis
) -> None:
    for name in ("Alpha", "Zeta"):
        transaction(teams.create, by=people.owner, name=name)
    transaction(teams.create, by=people.stranger, name="Hidden")
    transaction(teams.update, present(team), by=people.admin, budget={"limit": "2", "period": "total"})
    wire.hset(store.spent("team", team, "total"), mapping={"spent": 1_700_000_000})
    use(person("member"), small, now_ms(), team_id=team, cost_nano=1_700_000_000)
    owner = signed_in("owner")

    def names(address: str) -> list[str]:
        return owner.page(address).table("Your teams").row_names

    assert names("/teams") == ["Alpha", "Research", "Zeta"]
    assert names("/teams?sort=-members") == ["Research", "Alpha", "Zeta"]
    assert names("/teams?q=ze") == ["Zeta"]
    assert "No team of yours fits this search." in owner.page("/teams?q=nothing").texts
    row = owner.page("/teams").row("Research")
    assert row.cell("Spent this month") == "$1.70"
    assert row.cell("Budget") == "$1.70 of $2.00 Running low, 85%"
    [told] = owner.get("/teams?format=json&q=resea", buffered=True).get_json()["data"]
    assert (told["my_role"], told["members"], told["budget"], told["spent"]) == ("owner", 2, "2", "1.7")
    assert told["spent_this_month"] == "1.7"
    # An admin's own list is of the teams they are in, too.
    assert "No teams yet" in signed_in("admin").page("/teams").headings


@pytest.mark.parametrize("tab", ["overview", "members", "models", "keys", "usage", "settings"])
def test_everybody_in_it_sees_every_tab_and_strangers_none(
    people: People, team: str, small: Model, signed_in: SignedIn, tab: str
) -> None:
    make_key(people.owner, name="of the owner", team=present(team))
    transaction(subscriptions.request, people.owner, small, by=people.owner, team=present(team))
    use(people.owner, small, now_ms(), team_id=team)
    for who in ("owner", "member", "admin", "auditor"):
        page = signed_in(who).page(f"/teams/{team}?tab={tab}")
        assert page.heading == "Research", who
        assert page.section("About this team").link(tab.capitalize()).is_current
    assert signed_in("stranger").get(f"/teams/{team}?tab={tab}").status_code == 404
    assert not signed_in("owner").page(f"/teams/{team}?tab={tab}", fragment=True).is_whole


@pytest.mark.parametrize(("who", "reason"), [("member", FOR_OWNERS), ("auditor", READ_ONLY)])
def test_who_only_reads_finds_every_control_disabled_with_its_reason(
    people: People, team: str, signed_in: SignedIn, who: str, reason: str
) -> None:
    browser = signed_in(who)
    for tab in ("members", "settings"):
        page = browser.page(f"/teams/{team}?tab={tab}")
        assert reason in [button.reason for button in page.buttons]
        sent = [form for form in page.forms if form.method == "post"]
        assert sent
        for control in [control for form in sent for control in form.fields + form.buttons]:
            assert control.disabled, control
    for path, form in (
        (f"/teams/{team}/invitations", {"whom": "stranger", "role": "owner"}),
        (f"/teams/{team}/settings", {"name": "Mine"}),
        (f"/teams/{team}/limits", {"rpm": "5"}),
        (f"/teams/{team}/members/owner", {"role": "member"}),
        (f"/teams/{team}/members/owner/removal", {"confirm": "owner"}),
        (f"/teams/{team}/deletion", {"confirm": "Research"}),
    ):
        assert browser.post(path, **form).status_code == 403, path
    assert present(team).name == "Research"


def test_an_owner_invites_by_name_or_address_and_the_person_answers(
    people: People, team: str, signed_in: SignedIn
) -> None:
    def give_address() -> None:
        db.session.merge(people.stranger).email = "Strange@Example.org"

    transaction(give_address)
    owner, stranger = signed_in("owner"), signed_in("stranger")
    members = f"/teams/{team}?tab=members"
    for whom, words in (
        ("nobody", "No person has the username or e-mail address"),
        ("nobody@example.org", "No person has the username or e-mail address"),
        ("member", "member is already in this team."),
        ("", "Say whom."),
    ):
        answer = owner.post(f"/teams/{team}/invitations", page=members, whom=whom, role="member")
        assert answer.status_code == 422, whom
        assert words in (read(answer).field("Username or e-mail").error or ""), whom
    answer = owner.post(f"/teams/{team}/invitations", page=members, whom=" strange@example.ORG ", role="member")
    assert answer.status_code == 303
    assert owner.page(members).section("Invited").row("stranger").cell("As") == "Member"
    [form] = stranger.page("/teams").section("You are invited").row("Research").forms
    assert owner.post(form.action, answer="accept").status_code == 403
    assert signed_in("member").post(form.action, answer="accept").status_code == 404
    assert stranger.post(form.action, answer="accept").headers["Location"] == f"/teams/{team}"
    assert stranger.get(f"/teams/{team}").status_code == 200
    assert stranger.post(form.action, answer="accept").status_code == 404
    told = db.session.query(Notice).filter_by(person_id=people.owner.id, kind="team.answer").one()
    assert "stranger has accepted" in told.title


def test_an_invitation_is_declined_or_withdrawn(people: People, team: str, signed_in: SignedIn) -> None:
    owner, stranger = signed_in("owner"), signed_in("stranger")
    first = transaction(teams.invite, present(team), people.stranger, by=people.owner).id
    stranger.post(f"/teams/invitations/{first}/answer", answer="decline")
    assert teams.role_in(people.stranger, team) is None
    second = transaction(teams.invite, present(team), people.stranger, by=people.owner).id
    assert signed_in("member").post(f"/teams/{team}/invitations/{second}/withdrawal").status_code == 403
    assert owner.post(f"/teams/{team}/invitations/{second}/withdrawal").status_code == 303
    assert stranger.post(f"/teams/invitations/{second}/answer", answer="accept").status_code == 404
    other = transaction(teams.create, by=people.stranger, name="Other").id
    third = transaction(teams.invite, present(other), people.owner, by=people.stranger).id
    assert owner.post(f"/teams/{team}/invitations/{third}/withdrawal").status_code == 404


def test_an_owner_caps_a_member_and_gives_them_another_role(
    people: People, team: str, signed_in: SignedIn, wire: redis.Redis
) -> None:
    owner = signed_in("owner")
    page = f"/teams/{team}/members/member"
    form = {"role": "member", "limit": "1.50", "period": "day", "timezone": "Europe/Berlin"}
    assert owner.post(page, page=page, **form).status_code == 303
    scope = member_id(team, person("member").id)
    assert wire.hgetall(store.scope("member", scope))["limit"] == "1500000000"
    cap = owner.page(f"/teams/{team}?tab=members").row("member").cell("Cap")
    assert cap == "$0.00 of $1.50 0%"
    assert owner.page(page).field("Cap").value == "1.5"
    for wrong in ({"limit": "much"}, {"timezone": "Mars"}, {"role": "king"}):
        assert owner.post(page, page=page, **{**form, **wrong}).status_code == 422, wrong
    assert owner.post(page, page=page, role="owner", limit="", period="day").status_code == 303
    db.session.rollback()
    assert budgets.find("member", scope) is None
    assert teams.role_in(person("member"), team) == "owner"
    alone = f"/teams/{team}/members/owner"
    owner.post(alone, page=alone, role="member", period="month")
    answer = owner.post(page, page=f"/teams/{team}?tab=overview", role="owner")
    assert answer.status_code == 403  # who is a member now


def test_the_last_owner_stays(people: People, team: str, signed_in: SignedIn) -> None:
    owner = signed_in("owner")
    page = f"/teams/{team}/members/owner"
    answer = owner.post(page, page=page, role="member", period="month")
    assert answer.status_code == 422
    assert "A team needs an owner" in (read(answer).field("Role").error or "")
    detail, leaving = owner.page(f"/teams/{team}"), owner.page(f"/teams/{team}/leaving")
    assert "Leave" not in detail.ways and detail.link("Hand over").href == f"/teams/{team}/leaving"
    assert leaving.link("Change the role of member").href == f"/teams/{team}/members/member"
    owner.post(f"/teams/{team}/leaving", page="/teams")
    assert "A team needs an owner" in owner.page("/teams").toast
    assert teams.role_in(people.owner, team) == "owner"


def test_removing_a_member_asks_for_the_name_and_stops_their_keys(
    people: People, team: str, signed_in: SignedIn
) -> None:
    id, _ = make_key(person("member"), name="theirs", team=present(team))
    owner = signed_in("owner")
    page = f"/teams/{team}/members/member/removal"
    assert "the key of this team that member made stops" in owner.page(page).form(page)
    assert owner.post(page, page=page, confirm="Member").status_code == 422
    assert teams.role_in(person("member"), team) == "member"
    assert owner.post(page, page=page, confirm="member").status_code == 303
    db.session.rollback()
    assert teams.role_in(person("member"), team) is None
    assert db.session.get_one(keys.ApiKey, id).status == "revoked"
    assert signed_in("member").get(f"/teams/{team}").status_code == 404


def test_a_member_leaves(people: People, team: str, signed_in: SignedIn) -> None:
    id, _ = make_key(person("member"), name="theirs", team=present(team))
    member = signed_in("member")
    assert "the key of it that you made stops" in member.page(f"/teams/{team}/leaving").form(f"/teams/{team}/leaving")
    assert member.post(f"/teams/{team}/leaving").headers["Location"] == "/teams"
    db.session.rollback()
    assert db.session.get_one(keys.ApiKey, id).status == "revoked"
    assert signed_in("admin").post(f"/teams/{team}/leaving").status_code == 403


def test_owners_set_name_and_purpose_admins_the_limits(
    people: People, team: str, signed_in: SignedIn, wire: redis.Redis
) -> None:
    settings = f"/teams/{team}?tab=settings"
    owner, admin = signed_in("owner"), signed_in("admin")
    assert "set by administrators" in owner.page(settings).section("Limits and budget")
    assert owner.post(f"/teams/{team}/limits", page=settings, rpm="9", period="month").status_code == 403
    assert owner.post(f"/teams/{team}/settings", page=settings, name="Lab", description="x").status_code == 303
    assert owner.post(f"/teams/{team}/settings", page=settings, name="", description="").status_code == 422
    form = {"rpm": "9", "tpm": "", "limit": "30", "period": "month", "timezone": "UTC"}
    assert admin.post(f"/teams/{team}/limits", page=settings, **form).status_code == 303
    found = present(team)
    assert (found.name, found.rpm, found.tpm) == ("Lab", 9, None)
    told = wire.hgetall(store.scope("team", team))
    assert (told["rpm"], told["limit"]) == ("9", "30000000000")
    assert "limit: 30" in admin.page(f"/teams/{team}").section("What changed").items[0]
    bad = admin.post(f"/teams/{team}/limits", page=settings, **{**form, "limit": "a lot"})
    assert bad.status_code == 422
    assert "The limit is invalid" in (read(bad).field("Budget").error or "")


def test_deleting_asks_for_the_name_and_ends_keys_and_subscriptions(
    people: People, team: str, small: Model, signed_in: SignedIn
) -> None:
    id, _ = make_key(person("member"), name="theirs", team=present(team))
    made, _ = transaction(subscriptions.request, people.owner, small, by=people.owner, team=present(team))
    owner = signed_in("owner")
    page = f"/teams/{team}/deletion"
    assert "1 key stops; 1 subscription is cancelled, and 2 people leave." in owner.page(page).form(page)
    assert owner.post(page, page=page, confirm="research").status_code == 422
    assert owner.post(page, page=page, confirm="Research").headers["Location"] == "/teams"
    db.session.rollback()
    assert db.session.get(Team, team) is None
    assert db.session.get_one(keys.ApiKey, id).status == "revoked"
    assert db.session.get_one(subscriptions.Subscription, made.id).status == "cancelled"


def test_a_member_asks_for_a_model_and_only_who_may_ends_it(
    people: People, team: str, small: Model, guarded: Model, signed_in: SignedIn
) -> None:
    member, owner = signed_in("member"), signed_in("owner")
    models = f"/teams/{team}?tab=models"
    assert member.post(f"/teams/{team}/subscriptions", page=models, model="small").status_code == 303
    assert "Research may call small now." in member.page(models).toasts
    answer = member.post(f"/teams/{team}/subscriptions", page=models, model="lab/guarded")
    assert answer.status_code == 422
    assert "what the team needs this model for" in (read(answer).field("What does the team need it for?").error or "")
    member.post(f"/teams/{team}/subscriptions", page=models, model="lab/guarded", justification="Proofs.")
    rows = owner.page(models).table("Models of Research")
    assert (rows.row("small").cell("Status"), rows.row("lab/guarded").cell("Status")) == ("Active", "Pending")
    assert member.post(f"/teams/{team}/subscriptions", page=models, model="none").status_code == 422
    assert signed_in("admin").post(f"/teams/{team}/subscriptions", page=models, model="small").status_code == 403
    pending = subscriptions.live(people.owner, guarded, present(team))
    assert pending is not None
    page = f"/subscriptions/{pending.id}"
    assert "A subscription of the team Research, asked for by member" in owner.page(page).texts
    assert owner.post(f"{page}/cancellation").headers["Location"] == f"/teams/{team}?tab=models"
    transaction(subscriptions.request, people.owner, guarded, by=people.owner, team=present(team), justification="Why.")
    newer = subscriptions.live(people.owner, guarded, present(team))
    assert newer is not None
    assert member.post(f"/subscriptions/{newer.id}/cancellation").status_code == 403
    row = owner.page(models).table("Models of Research").rows[0]
    assert row.link("Withdraw lab/guarded").href == f"/subscriptions/{newer.id}/cancellation"
    [barred] = member.page(models).table("Models of Research").rows[0].buttons
    assert barred.reason == FOR_OWNERS


def test_the_catalogue_asks_for_oneself_or_for_a_team(
    people: People, team: str, small: Model, signed_in: SignedIn
) -> None:
    member = signed_in("member")
    assert member.page("/models/small?tab=access").field("For whom").choices == ["For me", "For the team Research"]
    assert "For whom" not in signed_in("stranger").page("/models/small?tab=access").fields
    page = f"/models/small?tab=access&team={team}"
    assert "Access of Research" in member.page(page).headings
    assert member.post("/models/small/subscription", page=page, team=team).status_code == 303
    assert "Keys of Research have access" in member.page(page).section("Access of Research")
    assert "Keys of Research" not in member.page("/models/small?tab=access")
    assert subscriptions.live(person("member"), small) is None
    assert catalog_changes.access(person("member")) == {}, "the team's is not the member's own"
    mine = member.page("/models/small?tab=access")
    assert "Access of Research" not in mine.headings
    assert mine.form("/models/small/subscription")
    [listed] = member.get("/models?format=json", buffered=True).get_json()["data"]
    assert listed["my_access"] is None
    stranger = signed_in("stranger")
    assert stranger.get(page).status_code == 404
    assert stranger.post("/models/small/subscription", team=team).status_code == 404
    assert signed_in("admin").post("/models/small/subscription", team=team).status_code == 404
    assert member.page("/subscriptions").row("small").cell("Team").link("Research").href == f"/teams/{team}?tab=models"
    assert "No subscription fits these filters." in member.page("/subscriptions?team=mine").texts
    [told] = member.get(f"/subscriptions?team={team}&format=json", buffered=True).get_json()["data"]
    assert (told["model"], told["team"]) == ("small", "Research")


def test_a_key_is_made_for_a_team_with_the_team_s_models(
    people: People, team: str, small: Model, guarded: Model, signed_in: SignedIn
) -> None:
    member = signed_in("member")
    page = f"/keys/new?team={team}"
    assert "The team has no model yet" in member.page(page).headings
    subscribe(person("member"), guarded)
    transaction(subscriptions.request, people.owner, small, by=people.owner, team=present(team))
    form = {"name": "ours", "reach": "some", "lifetime": "never", "period": "month", "team": team}
    answer = member.post("/keys", page=page, models="lab/guarded", **form)
    assert answer.status_code == 422
    assert "There is no subscription to lab/guarded" in (read(answer).field("Which models").error or "")
    assert read(answer).form("/keys").sends["team"] == team
    assert member.post("/keys", page=page, models="small", **form).status_code == 303
    db.session.rollback()
    made = db.session.query(keys.ApiKey).filter_by(name="ours").one()
    assert (made.team_id, made.models) == (team, ["small"])
    transaction(teams.update, present(team), by=people.admin, budget={"limit": "9", "period": "month"})
    page = member.page(f"/keys/{made.id}")
    assert page.link("Research").href == f"/teams/{team}"
    assert page.table("Budgets that bound this key").row("The team Research")
    assert member.page("/keys").table("Your API keys").row("ours").cell("Team") == "Research"
    for who in ("stranger", "admin"):
        assert signed_in(who).get(f"/keys/new?team={team}").status_code == 404
        assert signed_in(who).post("/keys", **{**form, "reach": "all"}).status_code == 404


def test_owners_open_and_stop_any_key_of_the_team_members_their_own(
    people: People, team: str, signed_in: SignedIn
) -> None:
    theirs, _ = make_key(person("member"), name="theirs", team=present(team))
    owners, _ = make_key(people.owner, name="owner’s", team=present(team))
    member, owner = signed_in("member"), signed_in("owner")
    page = member.page(f"/teams/{team}?tab=keys")
    assert page.row("owner’s").hrefs == []
    assert page.row("theirs").link("theirs").href == f"/keys/{theirs}"
    assert member.get(f"/keys/{owners}").status_code == 404
    assert owner.page(f"/teams/{team}?tab=keys").row("theirs").link("theirs").href == f"/keys/{theirs}"
    assert not [button for button in owner.page(f"/keys/{theirs}").buttons if button.disabled]
    assert owner.post(f"/keys/{theirs}/pause").status_code == 303
    db.session.rollback()
    assert db.session.get_one(keys.ApiKey, theirs).status == "paused"


def test_usage_and_activity_of_a_team_are_whole_for_owners_and_one_s_own_for_members(
    people: People, team: str, small: Model, signed_in: SignedIn
) -> None:
    member = person("member")
    theirs = use(member, small, now_ms(), team_id=team, cost_nano=3_000_000_000)
    own = use(people.owner, small, now_ms(), team_id=team, cost_nano=5_000_000_000)
    personal = use(member, small, now_ms(), cost_nano=70_000_000_000)
    foreign = use(people.stranger, small, now_ms(), team_id="another", cost_nano=900_000_000_000)
    owner, of_member = signed_in("owner"), signed_in("member")

    def requests(browser: Browser, address: str) -> set[str]:
        return set(listed(browser.page(address)))

    assert owner.page(f"/usage?team={team}").definition("Cost") == "$8.00"
    assert requests(owner, f"/activity?team={team}") == {theirs, own}
    assert requests(owner, "/activity") == {own}
    assert requests(owner, f"/activity?team={team}&user=member") == {theirs}
    assert requests(of_member, f"/activity?team={team}") == {theirs}
    assert requests(of_member, f"/activity?team={team}&user=owner") == {theirs}
    assert requests(of_member, "/activity") == {theirs, personal}
    assert of_member.page(f"/usage?team={team}").definition("Cost") == "$3.00"
    assert owner.get(f"/activity/{theirs}").status_code == 200
    assert of_member.get(f"/activity/{own}").status_code == 404
    for hidden in (personal, foreign):
        assert owner.get(f"/activity/{hidden}").status_code == 404
    for page in (f"/usage?team={team}&group=user", f"/teams/{team}", f"/teams/{team}?tab=usage"):
        assert "$70" not in owner.get(page).text
        assert "$900" not in owner.get(page).text
    assert "member" in owner.page(f"/usage?team={team}&group=user&range=7").section("By user").row_names
    assert requests(signed_in("stranger"), f"/activity?team={team}") == set()
    assert requests(signed_in("stranger"), "/activity?team=another") == {foreign}
    lines = owner.get(f"/activity?team={team}&format=json", buffered=True).get_json()["data"]
    assert {(line["id"], line["team"], line["user"]) for line in lines} == {
        (theirs, "Research", "member"),
        (own, "Research", "owner"),
    }


def test_who_owned_a_team_and_left_reads_it_no_more(
    people: People, team: str, small: Model, signed_in: SignedIn
) -> None:
    theirs = use(person("member"), small, now_ms(), team_id=team)
    transaction(teams.put_member, present(team), person("member"), by=people.owner, role="owner")
    transaction(teams.remove_member, present(team), people.owner, by=people.owner)
    owner = signed_in("owner")
    assert owner.get(f"/activity/{theirs}").status_code == 404
    assert theirs not in owner.get(f"/activity?team={team}").text


@pytest.mark.parametrize(("who", "status"), [("second", 303), ("member", 403)])
def test_any_owner_asks_for_a_teams_subscription_to_be_renewed(
    people: People, team: str, small: Model, signed_in: SignedIn, who: str, status: int
) -> None:
    def asked() -> str:
        found = present(team)
        teams.put_member(found, make_person("second"), by=people.owner, role="owner")
        made, _ = subscriptions.request(people.owner, small, by=people.owner, team=found)
        made.expires_at = now() + timedelta(days=3)
        return made.id

    id: str = transaction(asked)
    browser = signed_in(who)
    assert ("Renew" in browser.page(f"/subscriptions/{id}").headings) == (status == 303)
    assert browser.post(f"/subscriptions/{id}/renewal", reason="The paper is late").status_code == status
    told = browser.page(f"/subscriptions/{id}").section("Timeline").texts
    assert ("The paper is late" in told) == (status == 303)


def test_lists_of_a_team_take_no_more_queries_for_more_members(
    people: People, team: str, small: Model, signed_in: SignedIn, count_queries: Callable[[], int]
) -> None:
    owner = signed_in("owner")
    address = f"/teams/{team}?tab=members"
    owner.get(address)
    count_queries()
    owner.get(address)
    few = count_queries()
    for number in range(8):
        transaction(teams.put_member, present(team), transaction(make_person, f"p{number}"), by=people.owner)
    count_queries()
    owner.get(address)
    assert count_queries() <= few + 1
