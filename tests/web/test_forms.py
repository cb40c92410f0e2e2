"""Forms that edit what is there, in two tabs: the later one is shown both values, and overwrites only knowingly."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import NamedTuple

import pytest
from flask import Flask
from flask_wtf import FlaskForm
from werkzeug.datastructures import MultiDict
from werkzeug.test import TestResponse
from wtforms import BooleanField, IntegerField, PasswordField, SelectField, StringField, TextAreaField
from wtforms.fields.choices import SelectChoice  # type: ignore[attr-defined]  # the stubs are older

from app import blueprints
from app.domain import announcements, approval_rules, catalog, fields, keys, providers, teams
from app.domain.audit import AuditEntry
from app.domain.person import PersonFields
from app.extensions import db, transaction
from app.web.forms import EditConflict, EditForm
from tests.blueprints.portal.conftest import Browser, config, signed_in  # noqa: F401
from tests.house import (  # noqa: F401
    People,
    app,
    database_url,
    home,
    inside,
    make_model,
    make_team,
    migrated,
    people,
    quick_hashes,
    valkey_url,
    wire,
)
from tests.page import Alert, Page, read


class Case(NamedTuple):
    """A form on a page, and what its first and its second tab enter. `theirs` and `mine` are field, value, and how a
    person reads the value."""

    page: str
    theirs: tuple[str, str, str]
    mine: tuple[str, str, str]
    action: str | None = None  # None: the page's own address


CASES = [
    Case("/keys/{key}/settings", ("note", "In the vault.", "In the vault."), ("rpm", "7", "7")),
    Case("/keys/{key}/settings", ("lifetime", "30", "As it is now ("), ("routing", "fixed", "Locked: requests that")),
    Case("/admin/budgets/key/{key}", ("limit", "5", "5"), ("limit", "7", "7")),
    Case(
        "/teams/{team}?tab=settings", ("name", "Theirs", "Theirs"), ("name", "Mine", "Mine"), "/teams/{team}/settings"
    ),
    Case("/teams/{team}?tab=settings", ("rpm", "5", "5"), ("limit", "7", "7"), "/teams/{team}/limits"),
    Case("/teams/{team}/members/member", ("role", "owner", "Owner: also"), ("limit", "7", "7")),
    Case("/admin/people/owner", ("groups", "lab", "lab"), ("role", "admin-readonly", "Administrator, read only")),
    Case("/admin/people/owner", ("limit", "5", "5"), ("period", "day", "a day"), "/admin/people/owner/budget"),
    Case("/admin/providers/{provider}", ("status", "disabled", "Disabled"), ("name", "Mine", "Mine")),
    Case(
        "/admin/providers/{provider}",
        ("{deployment}-priority", "5", "Priority 5, weight 1"),
        ("{deployment}-weight", "9", "Priority 0, weight 9"),
        "/admin/providers/{provider}/deployments",
    ),
    Case("/admin/models/{model}", ("context_window", "500", "500"), ("description", "Mine.", "Mine.")),
    Case("/admin/models/{model}", ("price_input_per_mtok", "3", "3"), ("restricted", "y", "Yes")),
    Case(
        "/admin/models/{model}",
        ("deployments-0-weight", "4", "echo at Echo, priority 0, weight 4"),
        ("deployments-0-upstream_model", "other", "other at Echo, priority 0, weight 1"),
    ),
    Case("/admin/rules/{rule}", ("role", "admin", "Administrators"), ("days", "7", "7")),
    Case("/admin/announcement", ("text", "Theirs.", "Theirs."), ("text", "Mine.", "Mine.")),
]
# What makes something new, decides, asks or signs in: nothing is there that somebody else could have changed.
OTHER_FORMS = {
    *("public.sign_in.SignInForm", "public.password.PasswordForm", "public.invitation.AccountForm"),
    *("public.oidc.LinkForm", "admin.people.LinkForm", "admin.single_sign_on.ClaimsForm"),
    *(
        "admin.configs.ImportForm",
        "admin.litellm.ConnectionForm",
    ),  # the one connection is entered, never changed in part
    *("portal.catalog.AccessForm", "portal.budgets.AskForm", "portal.budget_requests.DecisionForm"),
    *("portal.subscriptions.RenewalForm", "portal.subscriptions.ReviewForm", "portal.key_forms.RotationForm"),
    *("portal.team_forms.InvitationForm", "portal.team_forms.ModelForm", "portal.account.TokenForm"),
    "portal.account.CredentialForm",
    "portal.account.PreferencesForm",  # one's own, where the last choice is the one that is wanted
    *("admin.approvals.DecisionForm", "admin.credits.CreditForm", "admin.dead_letters.DismissalForm"),
    *(
        "admin.invitations.InvitationForm",
        "admin.models.ModelTrialForm",
        "admin.providers.TensorsForm",
        "admin.providers.TrialForm",
    ),
}
every_form = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.action or case.page} {case.theirs[0]}")

SignedIn = Callable[[str], Browser]


@pytest.fixture
def ids(people: People) -> dict[str, str]:  # noqa: F811
    def make() -> dict[str, str]:
        model = make_model(people.admin, description="As it was.")
        key, _ = keys.create(people.admin, by=people.admin, name="app")
        rule = approval_rules.create(by=people.admin, name="Cheap ones", most_input_per_mtok="0.01")
        announcements.put_up(by=people.admin, level="info", text="Updates tonight.")
        deployment = model.deployments[0]
        return {
            "model": model.id,
            "key": key.id,
            "rule": rule.id,
            "team": make_team().id,
            "provider": deployment.provider_id,
            "deployment": deployment.id,
        }

    return transaction(make)


@pytest.mark.parametrize(
    ("page", "kind", "elsewhere"),
    [
        ("/admin/models/{model}", catalog.ModelFields, {"name"}),  # which cannot be changed
        ("/admin/models/new", catalog.ModelFields, set()),
        ("/keys/{key}/settings", keys.KeyFields, {"models"}),  # which a person without subscriptions cannot tick
        ("/admin/providers/{provider}", providers.ProviderFields, {"type"}),
        ("/admin/people/owner", PersonFields, {"scopes", "disabled"}),
        ("/teams/{team}?tab=settings", teams.TeamFields, set()),
    ],
)
def test_a_page_shows_an_input_for_each_field_that_its_noun_declares(
    page: str, kind: fields.Fields, elsewhere: set[str], ids: dict[str, str], signed_in: Callable[[str], Browser]  # noqa: F811
) -> None:  # fmt: skip
    shown = signed_in("admin").get(page.format(**ids)).text
    declared = {field.name for field in fields.fields_of(kind)}
    assert {name for name in declared if f' name="{name}"' in shown} == declared - elsewhere


class Tab:
    """One of the tabs in which the case's form is open."""

    def __init__(self, browser: Browser, case: Case, ids: dict[str, str]) -> None:
        self.browser, self.action = browser, (case.action or case.page).format(**ids)
        page = browser.get(case.page.format(**ids))
        assert page.status_code == 200
        self.form = read(page).form(self.action).sends

    def save(self, name: str, value: str) -> TestResponse:
        self.form[name] = value
        return self.browser._ask(self.browser.client.post, self.action, data=self.form)


def conflict_in(page: Page) -> Alert:
    """What the page says of a conflict; the announcement above it is another message."""
    [found] = [one for one in page.alerts if one.heading == "Somebody else has changed this since you opened it"]
    return found


def acts() -> int:
    db.session.rollback()
    return db.session.query(AuditEntry).count()


@every_form
def test_the_later_of_two_tabs_is_shown_both_values_and_overwrites_only_knowingly(
    case: Case, ids: dict[str, str], signed_in: SignedIn  # noqa: F811
) -> None:  # fmt: skip
    (their_field, their_value, their_words), (my_field, my_value, my_words) = (
        (name.format(**ids), value, words) for name, value, words in (case.theirs, case.mine)
    )
    admin = signed_in("admin")
    theirs, mine = Tab(admin, case, ids), Tab(admin, case, ids)
    saved = theirs.save(their_field, their_value)
    assert saved.status_code == 303, saved.text
    done = acts()

    conflict = mine.save(my_field, my_value)
    assert (conflict.status_code, acts()) == (409, done)
    page = read(conflict)
    differing = conflict_in(page).table("Values that differ")
    assert any(my_words in cell for cell in differing.column("Yours"))
    if case.theirs[0] != "lifetime":  # a new end is kept unless another is chosen
        assert any(their_words in cell for cell in differing.column("Saved by somebody else"))
    kept = page.form(mine.action).sends
    assert kept[my_field] == my_value
    assert kept["version"] not in ("", mine.form["version"])

    mine.form = kept
    assert mine.save(my_field, my_value).status_code == 303
    assert acts() > done


@every_form
def test_a_form_that_nobody_overtook_is_saved_and_can_be_saved_again(
    case: Case, ids: dict[str, str], signed_in: SignedIn  # noqa: F811
) -> None:  # fmt: skip
    admin = signed_in("admin")
    for name, value, _ in (case.theirs, case.mine):
        assert Tab(admin, case, ids).save(name.format(**ids), value).status_code == 303


def test_every_form_that_edits_something_is_tried_here(app: Flask) -> None:  # noqa: F811
    forms: set[type[FlaskForm]] = set()
    for door in ("admin", "portal", "public"):
        package = importlib.import_module(f"{blueprints.__name__}.{door}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            found = vars(importlib.import_module(module.name)).values()
            forms |= {one for one in found if isinstance(one, type) and issubclass(one, FlaskForm)}
    names = {
        f"{one.__module__.removeprefix('app.blueprints.')}.{one.__name__}" for one in forms - {FlaskForm, EditForm}
    }
    editing = {
        f"{one.__module__.removeprefix('app.blueprints.')}.{one.__name__}" for one in forms if issubclass(one, EditForm)
    }
    assert names - editing == OTHER_FORMS, "make it an EditForm, or say above why it is none"


def test_a_secret_replaced_behind_its_mask_is_a_conflict_that_tells_nothing_of_it(
    ids: dict[str, str], signed_in: SignedIn, people: People  # noqa: F811
) -> None:  # fmt: skip
    settings = {"base_url": "http://127.0.0.1:9", "api_key": "sk-first-same"}
    made = transaction(providers.create, by=people.admin, name="Other", kind="openai", config=settings)
    case, here = Case("/admin/providers/{other}", ("", "", ""), ("", "", "")), {**ids, "other": made.id}
    admin = signed_in("admin")
    mine, theirs = Tab(admin, case, here), Tab(admin, case, here)
    assert theirs.save("config_api_key", "sk-second-same").status_code == 303
    conflict = mine.save("name", "Other")
    assert conflict.status_code == 409
    assert "what a form does not show, such as a secret" in conflict_in(read(conflict))
    mine.form = read(conflict).form(mine.action).sends
    conflict = Tab(admin, case, here).save("config_api_key", "sk-third-same")
    assert conflict.status_code == 303
    shown = mine.save("config_api_key", "sk-fourth-same")
    assert shown.status_code == 409
    assert conflict_in(read(shown)).row("API key").cell("Yours") == "A new one: enter it again"
    assert "sk-fourth" not in shown.text


def test_a_form_sent_without_a_version_edits_any(ids: dict[str, str], signed_in: SignedIn) -> None:  # noqa: F811
    tab = Tab(signed_in("admin"), CASES[0], ids)
    del tab.form["version"]
    assert tab.save("name", "Mine").status_code == 303


class Sample(EditForm):
    text = StringField("Text")
    lines = TextAreaField("Lines")
    number = IntegerField("Number")
    tick = BooleanField("Tick")
    kind = SelectField("Kind", choices=[SelectChoice("a", "First"), SelectChoice("b", "Second")])
    secret = PasswordField("Secret")


def test_what_is_kept_and_what_is_typed_compare_alike_and_differences_are_in_plain_words(inside: Flask) -> None:  # noqa: F811
    def now() -> EditForm:
        return Sample(
            formdata=None, data={"text": None, "lines": "one\ntwo", "number": 5, "tick": False, "kind": "a"}
        ).as_opened()

    with inside.test_request_context():
        version = now().version.data
        same = MultiDict({"text": " ", "lines": "one\r\ntwo", "number": "5", "kind": "a", "version": version})
        assert Sample(formdata=same).save(now, lambda: "saved") == "saved"
        typed = {"text": "x", "lines": "one\r\ntwo", "number": "6", "tick": "y", "kind": "b", "secret": "s"}
        mine = Sample(formdata=MultiDict({**typed, "version": "opened long ago"}))
        with pytest.raises(EditConflict):
            mine.save(now, lambda: pytest.fail("nothing may be saved"))
        assert [tuple(one) for one in mine.differences] == [
            ("Text", "", "x"),
            ("Number", "5", "6"),
            ("Tick", "No", "Yes"),
            ("Kind", "First", "Second"),
            ("Secret", "As it is", "A new one: enter it again"),
        ]
        assert mine.version.data == version
        assert mine.save(now, lambda: "saved") == "saved"


def test_one_field_of_a_form_is_checked_without_anything_being_done(
    people: People,  # noqa: F811
    signed_in: Callable[[str], Browser],  # noqa: F811
) -> None:
    owner = signed_in("owner")
    form = {"csrf_token": owner._token, "name": "x" * 101, "reach": "all", "lifetime": "30", "timezone": "Mars/Olympus"}
    told = {}
    for name in ("name", "timezone", "note", "no-field"):
        answer = owner._ask(owner.client.post, "/keys", data=form, headers={"X-Check-Field": name})
        told[name] = (answer.status_code, answer.get_json()["errors"])
    assert told["timezone"] == (200, ["Enter a time zone such as Europe/Berlin."])
    assert [told["note"], told["no-field"]] == [(200, []), (200, [])]
    assert told["name"][1] == ["Use at most 100 characters."]
    assert owner.page("/keys").rows == []


def test_all_that_is_wrong_is_named_by_one_answer_and_the_form_warns_before_it_is_left(
    people: People,  # noqa: F811
    signed_in: Callable[[str], Browser],  # noqa: F811
) -> None:
    admin = signed_in("admin")
    form = {"limit": "much", "period": "month", "timezone": "Mars/Olympus", "thresholds": "0", "action": "notify"}
    refused = admin.post("/admin/budgets/user/owner", **form)
    assert refused.status_code == 422
    assert set(read(refused).errors) == {"Budget", "Time zone of the period", "Alert at"}
    assert 'data-changed="yes"' in refused.text
    assert "data-changed" not in admin.get("/admin/budgets/user/owner").text
