"""Signing in with an identity provider: the way there and back, what is refused, what a sign-in gives, and signing out."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

from app import clock
from app.domain import identities, identity, invitations, keys, teams
from app.domain.audit import AuditEntry
from app.extensions import db, transaction
from app.oidc import provider as provider_module
from app.oidc.tokens import LOGOUT_EVENT
from config import Config, load
from tests.house import PASSWORD, People
from tests.page import read
from tests.services.issuer import CLIENT, SECRET, Issuer


@pytest.fixture(scope="module")
def running() -> Iterator[Issuer]:
    server = Issuer()
    yield server
    server.stop()


@pytest.fixture
def issuer(running: Issuer) -> Issuer:
    running.reset()
    provider_module._known.clear()
    return running


@pytest.fixture
def config(home: Path, redis_url: str, database_url: str, issuer: Issuer) -> Config:
    return load(settings(home, redis_url, database_url, issuer))


def settings(home: Path, redis_url: str, database_url: str, issuer: Issuer, **more: str) -> dict[str, str]:
    return {
        "CONFIG_STORAGE_DATA_DIR": str(home),
        "CONFIG_DATABASE_URL": database_url,
        "CONFIG_REDIS_URL": redis_url,
        "CONFIG_SERVER_DOORS": "api,public",
        "CONFIG_OIDC_ISSUER": issuer.url,
        "CONFIG_OIDC_CLIENT_ID": CLIENT,
        "CONFIG_OIDC_CLIENT_SECRET": SECRET,
        "CONFIG_OIDC_NAME": "Example ID",
        "CONFIG_OIDC_ADMIN_GROUPS": "portico-admins",
        "CONFIG_OIDC_READONLY_GROUPS": "portico-auditors",
        "CONFIG_OIDC_TEAM_GROUPS": "{ml: Machine learning, web: Web}",
        **more,
    }


def begin(client: FlaskClient, issuer: Issuer, path: str = "/oidc/login") -> dict[str, str]:
    answer = client.get(path)
    assert answer.status_code == 302, answer.text
    return issuer.led(answer.headers["Location"])


def end(client: FlaskClient, state: str, **query: str) -> TestResponse:
    return client.get("/oidc/callback?" + urlencode({"code": "a-code", "state": state, **query}))


def sign_in(client: FlaskClient, issuer: Issuer, path: str = "/oidc/login") -> TestResponse:
    return end(client, begin(client, issuer, path)["state"])


def who(client: FlaskClient) -> dict[str, Any] | None:
    answer = client.get("/api/auth/me")
    return answer.get_json() if answer.status_code == 200 else None


def csrf_of(answer: TestResponse) -> str:
    found = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', answer.text)
    assert found
    return found.group(1)


def refusals(app: Flask) -> list[tuple[str, str]]:
    with app.app_context():
        found = db.session.scalars(
            select(AuditEntry).where(AuditEntry.action == "sign_in.refuse").order_by(AuditEntry.id)
        )
        return [(entry.detail["method"], entry.detail["reason"]) for entry in found]


def actions(app: Flask, *names: str) -> list[str]:
    with app.app_context():
        return list(
            db.session.scalars(select(AuditEntry.action).where(AuditEntry.action.in_(names)).order_by(AuditEntry.id))
        )


# --- the way there and back ---


def test_a_new_person_is_led_to_the_provider_and_back_to_the_page(app: Flask, visitors: People, issuer: Issuer) -> None:
    client = app.test_client()
    asked = begin(client, issuer, "/oidc/login?next=/api/auth/me")
    assert {
        name: asked[name] for name in ("response_type", "client_id", "scope", "redirect_uri", "code_challenge_method")
    } == {
        "response_type": "code",
        "client_id": CLIENT,
        "scope": "openid profile email",
        "redirect_uri": "http://localhost/oidc/callback",
        "code_challenge_method": "S256",
    }
    answer = end(client, asked["state"])
    assert (answer.status_code, answer.headers["Location"]) == (303, "/api/auth/me")
    me = who(client)
    assert me is not None
    assert (me["username"], me["email"], me["role"]) == ("ada", "ada@example.org", "user")
    _, form, authorization = next(one for one in issuer.asked if one[0] == "/token")
    hashed = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
    assert hashed == asked["code_challenge"]
    assert form["redirect_uri"] == asked["redirect_uri"]
    assert authorization.startswith("Basic ")
    assert actions(app, "sign_in.accept", "identity.link", "person.create")[-3:] == [
        "person.create", "identity.link", "sign_in.accept",
    ]  # fmt: skip


def test_next_leads_only_to_this_site(app: Flask, visitors: People, issuer: Issuer) -> None:
    for target in ("https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", ""):
        answer = sign_in(app.test_client(), issuer, "/oidc/login?" + urlencode({"next": target}))
        assert (answer.status_code, answer.headers["Location"]) == (303, "/"), target


def test_the_same_subject_is_the_same_person_whatever_they_are_called(
    app: Flask, visitors: People, issuer: Issuer
) -> None:
    first, second = app.test_client(), app.test_client()
    sign_in(first, issuer)
    issuer.person |= {"preferred_username": "lovelace", "email": "lovelace@example.org"}
    sign_in(second, issuer)
    one, other = who(first), who(second)
    assert one is not None
    assert other is not None
    assert one["id"] == other["id"]
    assert other["username"] == "ada"


def test_the_sign_in_page_offers_the_provider_first(app: Flask, visitors: People, issuer: Issuer) -> None:
    answer = app.test_client().get("/sign-in?next=/home")
    page = read(answer)
    assert answer.text.index("Sign in with Example ID") < answer.text.index('name="password"')
    assert page.link("Sign in with Example ID").href == "/oidc/login?next=/home"


def test_a_provider_that_is_away_gives_a_page_and_the_portal_goes_on(
    app: Flask, visitors: People, issuer: Issuer
) -> None:
    issuer.answers["/.well-known/openid-configuration"] = (500, "{}")
    client = app.test_client()
    assert client.get("/oidc/login").status_code == 502
    assert client.get("/sign-in").status_code == 200


def test_the_name_comes_from_the_claim_else_the_e_mail_else_the_subject(
    app: Flask, visitors: People, issuer: Issuer
) -> None:
    for claims, expected in (
        ({"sub": "s1", "preferred_username": "Grace Hopper"}, "Grace-Hopper"),
        ({"sub": "s2", "email": "alan@example.org"}, "alan"),
        ({"sub": "s3"}, "s3"),
    ):
        issuer.person = claims
        client = app.test_client()
        assert sign_in(client, issuer).status_code == 303
        me = who(client)
        assert me is not None
        assert me["username"] == expected


# --- bad tokens and replays ---

Change = Callable[[Issuer, dict[str, Any]], Any]


def changed(**values: Any) -> Change:
    return lambda issuer, claims: issuer.sign(claims | values)


def without(*names: str) -> Change:
    return lambda issuer, claims: issuer.sign({name: claims[name] for name in claims if name not in names})


def _tampered(issuer: Issuer, claims: dict[str, Any]) -> str:
    head, _, tail = issuer.sign(claims).split(".")
    return f"{head}.{_part(claims | {'sub': 'sub-root'})}.{tail}"


def _unsigned(issuer: Issuer, claims: dict[str, Any]) -> str:
    return f"{_part({'alg': 'none'})}.{_part(claims)}."


def _part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _confused(issuer: Issuer, claims: dict[str, Any]) -> str:
    """HS256 with the public key as the shared secret."""
    signed = f"{_part({'alg': 'HS256', 'kid': 'one'})}.{_part(claims)}"
    mac = hmac.new(issuer.key.as_pem(private=False), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def _own_key(issuer: Issuer, claims: dict[str, Any]) -> str:
    return issuer.sign(claims, issuer.other_key, kid="two", jwk=issuer.other_key.as_dict(private=False))


BAD: dict[str, tuple[Change, str]] = {
    "no token": (lambda issuer, claims: None, "no_id_token"),
    "not a token": (lambda issuer, claims: "not.a.token", "malformed"),
    "unsigned": (_unsigned, "algorithm"),
    "signed with the public key": (_confused, "algorithm"),
    "another algorithm than allowed": (lambda issuer, claims: issuer.sign(claims, alg="PS256"), "algorithm"),
    "another key": (lambda issuer, claims: issuer.sign(claims, issuer.other_key), "signature"),
    "a key that it brings along": (_own_key, "signature"),
    "tampered with": (_tampered, "signature"),
    "an unknown critical header": (lambda issuer, claims: issuer.sign(claims, crit=["magic"], magic=1), "signature"),
    "another issuer": (changed(iss="https://evil.example"), "issuer"),
    "another audience": (changed(aud="another"), "audience"),
    "two audiences without azp": (changed(aud=[CLIENT, "another"]), "audience"),
    "issued to another": (changed(azp="another"), "azp"),
    "expired": (changed(exp=1), "expired"),
    "no expiry": (without("exp"), "claims"),
    "an expiry that is no number": (changed(exp="tomorrow"), "claims"),
    "issued long ago": (lambda issuer, claims: issuer.sign(claims | {"iat": claims["iat"] - 3600}), "issued_at"),
    "issued in the future": (lambda issuer, claims: issuer.sign(claims | {"iat": claims["iat"] + 3600}), "issued_at"),
    "another nonce": (changed(nonce="another"), "nonce"),
    "no nonce": (without("nonce"), "nonce"),
    "no subject": (without("sub"), "subject"),
    "an empty subject": (changed(sub=""), "subject"),
    "a subject that is no text": (changed(sub={"$ne": None}), "subject"),
    "of another access token": (changed(at_hash="AAAAAAAAAAAAAAAAAAAAAA"), "at_hash"),
}


def test_a_bad_token_gives_a_page_an_entry_and_no_session(app: Flask, visitors: People, issuer: Issuer) -> None:
    wrong, before = [], 0
    for bad, (make, reason) in BAD.items():
        issuer.id_token = partial(make, issuer)
        client = app.test_client()
        answer = sign_in(client, issuer)
        found = refusals(app)[before:]
        before += len(found)
        if (answer.status_code, found, who(client)) != (400, [("oidc", reason)], None):
            wrong.append((bad, answer.status_code, found))
        assert read(answer).heading == "You are not signed in", bad
    assert wrong == []
    with app.app_context():
        assert identity.find("ada") is None


def test_a_state_works_once(app: Flask, visitors: People, issuer: Issuer) -> None:
    client = app.test_client()
    state = begin(client, issuer)["state"]
    cookie = client.get_cookie("portico_session")
    assert cookie is not None
    assert end(client, state).status_code == 303
    again = app.test_client()
    again.set_cookie("portico_session", cookie.value)  # as the browser was before the sign-in
    assert end(again, state).status_code == 400
    assert who(again) is None
    assert refusals(app) == [("oidc", "state")]


def test_a_state_works_in_its_own_browser_only(app: Flask, visitors: People, issuer: Issuer) -> None:
    state = begin(app.test_client(), issuer)["state"]
    victim = app.test_client()
    begin(victim, issuer)
    assert end(victim, state).status_code == 400
    assert who(victim) is None
    assert refusals(app) == [("oidc", "browser")]


def test_a_state_works_for_ten_minutes(app: Flask, visitors: People, issuer: Issuer, wire: redis.Redis) -> None:
    client = app.test_client()
    state = begin(client, issuer)["state"]
    (name,) = wire.keys("handoff:*")
    assert 0 < wire.ttl(name) <= 600
    assert state not in name
    wire.delete(name)
    assert end(client, state).status_code == 400


def test_a_made_up_state_is_refused(app: Flask, visitors: People, issuer: Issuer) -> None:
    for state in ("", "made-up", "x" * 5000, "ö", "\0"):
        assert end(app.test_client(), state).status_code == 400
    assert not [one for one in issuer.asked if one[0] == "/token"]


def test_a_code_that_was_used_is_refused(app: Flask, visitors: People, issuer: Issuer) -> None:
    issuer.answers["/token"] = (400, '{"error": "invalid_grant"}')
    assert sign_in(app.test_client(), issuer).status_code == 400
    assert refusals(app) == [("oidc", "code")]


@pytest.mark.parametrize("answer", [(500, "{}"), (200, "not JSON"), (200, "[]"), (400, '{"error": "invalid_client"}')])
def test_a_provider_that_answers_badly_is_a_bad_gateway(
    app: Flask, visitors: People, issuer: Issuer, answer: tuple[int, str]
) -> None:
    issuer.answers["/token"] = answer
    client = app.test_client()
    assert sign_in(client, issuer).status_code == 502
    assert who(client) is None
    assert len(refusals(app)) == 1


def test_what_the_provider_refuses_is_told(app: Flask, visitors: People, issuer: Issuer) -> None:
    client = app.test_client()
    state = begin(client, issuer)["state"]
    answer = client.get(f"/oidc/callback?error=access_denied&error_description=<script>&state={state}")
    assert answer.status_code == 400
    assert "<script>" not in answer.text
    assert refusals(app) == [("oidc", "access_denied")]


def test_an_answer_of_another_provider_is_refused(app: Flask, visitors: People, issuer: Issuer) -> None:
    client = app.test_client()
    assert end(client, begin(client, issuer)["state"], iss="https://evil.example").status_code == 400
    assert refusals(app) == [("oidc", "issuer")]


def test_userinfo_of_somebody_else_is_refused(app: Flask, visitors: People, issuer: Issuer) -> None:
    issuer.userinfo = {"sub": "sub-root", "groups": ["portico-admins"]}
    client = app.test_client()
    assert sign_in(client, issuer).status_code == 400
    assert who(client) is None
    assert refusals(app) == [("oidc", "userinfo")]


def test_a_provider_that_claims_another_issuer_is_refused(app: Flask, visitors: People, issuer: Issuer) -> None:
    issuer.answers["/.well-known/openid-configuration"] = (
        200,
        '{"issuer": "https://evil.example", "authorization_endpoint": "https://e/a", "token_endpoint": "https://e/t"}',
    )
    assert app.test_client().get("/oidc/login").status_code == 502


def test_a_new_key_of_the_provider_is_found_at_its_first_use(
    app: Flask, visitors: People, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_module, "KEYS_ANEW_S", 0)
    assert sign_in(app.test_client(), issuer).status_code == 303
    new = issuer.other_key.as_dict(private=True) | {"kid": "new"}
    key = type(issuer.key).import_key(new)
    issuer.keys = [key]
    issuer.id_token = lambda claims: issuer.sign(claims, key, kid="new")
    assert sign_in(app.test_client(), issuer).status_code == 303


def test_a_deactivated_person_is_refused(app: Flask, visitors: People, issuer: Issuer) -> None:
    sign_in(app.test_client(), issuer)
    with app.app_context():
        transaction(lambda: identity.update(identity.named("ada"), by=None, disabled=True))
    client = app.test_client()
    assert sign_in(client, issuer).status_code == 403
    assert who(client) is None
    assert refusals(app) == [("oidc", "disabled")]


def test_callbacks_are_throttled(app: Flask, visitors: People, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.domain.throttles.AN_ADDRESS", 2)
    client = app.test_client()
    assert [end(client, "made-up").status_code for _ in range(3)] == [400, 400, 429]


# --- what a sign-in gives ---


@pytest.mark.parametrize("place", ["id token", "userinfo", "access token"])
def test_groups_come_from_the_id_token_else_userinfo_else_the_access_token(
    app: Flask, visitors: People, issuer: Issuer, place: str
) -> None:
    told = {"groups": ["portico-auditors", "ml"]}
    if place == "id token":
        issuer.person |= told
        issuer.userinfo = {"sub": "sub-ada", "groups": ["portico-admins"]}
    elif place == "userinfo":
        issuer.userinfo = {"sub": "sub-ada", **told}
    else:
        issuer.access_claims = {"iss": issuer.url, "sub": "sub-ada", **told}
    client = app.test_client()
    sign_in(client, issuer)
    me = who(client)
    assert me is not None
    assert me["role"] == "admin-readonly"
    assert len(me["teams"]) == 1


def test_an_access_token_that_another_signed_gives_nothing(app: Flask, visitors: People, issuer: Issuer) -> None:
    issuer.access_claims = {"iss": "https://evil.example", "groups": ["portico-admins"]}
    client = app.test_client()
    assert sign_in(client, issuer).status_code == 303
    me = who(client)
    assert me is not None
    assert me["role"] == "user"


def test_what_the_provider_gave_goes_when_it_gives_it_no_more(app: Flask, visitors: People, issuer: Issuer) -> None:
    def joined() -> dict[str, str | None]:
        with app.app_context():
            return {one.team.name: one.given_by for one in teams.memberships_of(identity.named("ada"))}

    issuer.person["groups"] = ["portico-admins", "ml", "web"]
    sign_in(app.test_client(), issuer)
    assert joined() == {"Machine learning": "oidc", "Web": "oidc"}
    with app.app_context():
        assert (identity.named("ada").role, identity.named("ada").groups) == ("admin", ["portico-admins", "ml", "web"])

        def by_hand() -> None:
            person = identity.named("ada")
            teams.put_member(teams.create(by=None, name="By hand"), person, by=None)
            identity.update(person, by=None, groups=[*person.groups, "local"])

        transaction(by_hand)
    issuer.person["groups"] = ["web"]
    sign_in(app.test_client(), issuer)
    assert joined() == {"Web": "oidc", "By hand": None}
    with app.app_context():
        assert (identity.named("ada").role, identity.named("ada").groups) == ("user", ["local", "web"])


def test_the_last_admin_keeps_the_role(app: Flask, visitors: People, issuer: Issuer) -> None:
    issuer.person["groups"] = ["portico-admins"]
    sign_in(app.test_client(), issuer)
    with app.app_context():
        transaction(lambda: identity.update(identity.named("admin"), by=None, role="user"))
    issuer.person["groups"] = []
    client = app.test_client()
    assert sign_in(client, issuer).status_code == 303
    me = who(client)
    assert me is not None
    assert me["role"] == "admin"


# --- linking ---


def test_an_account_of_the_same_name_is_linked_by_its_password(app: Flask, visitors: People, issuer: Issuer) -> None:
    issuer.person |= {"preferred_username": "owner", "groups": ["ml"]}
    client = app.test_client()
    answer = sign_in(client, issuer, "/oidc/login?next=/api/auth/me")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/oidc/link")
    assert who(client) is None
    form = {"csrf_token": csrf_of(client.get("/oidc/link"))}
    assert client.post("/oidc/link", data=form | {"password": "a wrong password"}).status_code == 422
    assert who(client) is None
    linked = client.post("/oidc/link", data=form | {"password": PASSWORD})
    assert (linked.status_code, linked.headers["Location"]) == (303, "/api/auth/me")
    me = who(client)
    assert me is not None
    assert me["username"] == "owner"
    assert len(me["teams"]) == 1
    again = app.test_client()
    assert sign_in(again, issuer).headers["Location"] == "/"
    assert "identity.link" in actions(app, "identity.link")


def test_an_account_is_not_linked_by_an_e_mail_alone(app: Flask, visitors: People, issuer: Issuer) -> None:
    with app.app_context():
        transaction(lambda: identity.update(identity.named("owner"), by=None, email="Ada@example.org"))
    client = app.test_client()
    assert sign_in(client, issuer).headers["Location"] == "/oidc/link"
    assert "Create another account" not in read(client.get("/oidc/link")).buttons
    assert who(client) is None


def test_somebody_whose_name_is_taken_gets_another(app: Flask, visitors: People, issuer: Issuer) -> None:
    issuer.person["preferred_username"] = "owner"
    client = app.test_client()
    sign_in(client, issuer)
    form = {"csrf_token": csrf_of(client.get("/oidc/link"))}
    assert client.post("/oidc/account", data=form).status_code == 303
    me = who(client)
    assert me is not None
    assert me["username"] == "owner-2"
    assert client.post("/oidc/account", data={"csrf_token": csrf_of(client.get("/password"))}).status_code == 400


def test_wrong_passwords_of_a_link_are_throttled(app: Flask, visitors: People, issuer: Issuer) -> None:
    issuer.person["preferred_username"] = "owner"
    client = app.test_client()
    sign_in(client, issuer)
    form = {"csrf_token": csrf_of(client.get("/oidc/link")), "password": "a wrong password"}
    assert [client.post("/oidc/link", data=form).status_code for _ in range(11)] == [422] * 10 + [429]


def test_without_a_sign_in_that_waits_there_is_nothing_to_link(app: Flask, visitors: People, issuer: Issuer) -> None:
    client = app.test_client()
    form = {"csrf_token": csrf_of(client.get("/sign-in")), "password": PASSWORD}
    assert client.get("/oidc/link").status_code == 400
    assert client.post("/oidc/link", data=form).status_code == 400
    assert client.post("/oidc/account", data=form).status_code == 400


def test_an_account_without_a_password_is_linked_by_an_admin(app: Flask, visitors: People, issuer: Issuer) -> None:
    with app.app_context():
        transaction(lambda: identity.create(by=None, username="ada", password=None))
    client = app.test_client()
    sign_in(client, issuer)
    assert "Ask an administrator" in client.get("/oidc/link").text
    with app.app_context():
        transaction(lambda: identities.link(identity.named("ada"), issuer=issuer.url, subject="sub-ada", by=None))
    assert sign_in(client, issuer).headers["Location"] == "/"


# --- signing out ---


def test_signing_out_leads_to_the_provider_s_own_end(app: Flask, visitors: People, issuer: Issuer) -> None:
    client = app.test_client()
    sign_in(client, issuer)
    page = client.get("/password")
    assert f"form-action 'self' {issuer.url};" in page.headers["Content-Security-Policy"]
    answer = client.post("/sign-out", data={"csrf_token": csrf_of(page)})
    place = urlsplit(answer.headers["Location"])
    query = {name: values[0] for name, values in parse_qs(place.query).items()}
    assert (answer.status_code, f"{place.scheme}://{place.netloc}{place.path}") == (303, f"{issuer.url}/end")
    assert query["post_logout_redirect_uri"] == "http://localhost/sign-in"
    assert query["client_id"] == CLIENT
    assert query["id_token_hint"].count(".") == 2
    assert who(client) is None


def logout_token(issuer: Issuer, **values: Any) -> str:
    issuer.nonce = None
    claims = {
        "iss": issuer.url, "aud": CLIENT, "iat": clock.now_s(), "jti": "first", "sub": "sub-ada", "events": {LOGOUT_EVENT: {}},
    }  # fmt: skip
    return issuer.sign({name: value for name, value in (claims | values).items() if value is not None})


@pytest.mark.parametrize("names", [{"sub": "sub-ada"}, {"sub": None, "sid": "s1"}, {"sub": "sub-ada", "sid": "s1"}])
def test_the_provider_ends_a_session_behind_the_scenes(
    app: Flask, visitors: People, issuer: Issuer, names: dict[str, Any]
) -> None:
    issuer.person["sid"] = "s1"
    client, provider = app.test_client(), app.test_client(use_cookies=False)
    sign_in(client, issuer)
    assert who(client)
    sent = {"logout_token": logout_token(issuer, **names)}
    assert provider.post("/oidc/backchannel-logout", data=sent).status_code == 200
    assert who(client) is None
    assert provider.post("/oidc/backchannel-logout", data=sent).status_code == 400  # it was seen


BAD_LOGOUTS: list[dict[str, Any]] = [
    {"iss": "https://evil.example"}, {"aud": "another"}, {"iat": 1}, {"events": None}, {"events": {"x": {}}},
    {"nonce": "n"}, {"jti": None}, {"sub": None}, {"exp": 1}, {"iat": None},
]  # fmt: skip


def test_a_bad_logout_token_ends_nothing(app: Flask, visitors: People, issuer: Issuer) -> None:
    client = app.test_client()
    sign_in(client, issuer)
    for text in ("", "no token", *(logout_token(issuer, **values) for values in BAD_LOGOUTS)):
        assert client.post("/oidc/backchannel-logout", data={"logout_token": text}).status_code == 400, text
    assert who(client)


def test_the_provider_ends_a_session_in_a_frame(app: Flask, visitors: People, issuer: Issuer) -> None:
    issuer.person["sid"] = "s1"
    client, frame = app.test_client(), app.test_client()
    sign_in(client, issuer)
    assert (
        frame.get("/oidc/frontchannel-logout?" + urlencode({"iss": "https://evil.example", "sid": "s1"})).status_code
        == 400
    )
    assert frame.get("/oidc/frontchannel-logout?" + urlencode({"iss": issuer.url, "sid": "another"})).status_code == 200
    assert who(client)
    assert frame.get("/oidc/frontchannel-logout?" + urlencode({"iss": issuer.url, "sid": "s1"})).status_code == 200
    assert who(client) is None


# --- other settings ---


@pytest.fixture
def local_off(home: Path, redis_url: str, database_url: str, issuer: Issuer) -> Config:
    return load(settings(home, redis_url, database_url, issuer, CONFIG_AUTH_LOCAL="false"))


class TestWithoutPasswords:
    @pytest.fixture
    def config(self, local_off: Config) -> Config:
        return local_off

    def test_nobody_signs_in_with_one(self, app: Flask, visitors: People, issuer: Issuer) -> None:
        client = app.test_client()
        page = client.get("/sign-in")
        assert 'type="password"' not in page.text
        token = client.post("/token", data={"username": "owner", "password": PASSWORD})
        assert (token.status_code, token.get_json()["error"]["code"]) == (403, "local_sign_in_off")
        login = client.post("/api/auth/login", json={"username": "owner", "password": PASSWORD})
        assert (login.status_code, login.get_json()["error"]["code"]) == (403, "local_sign_in_off")
        assert sign_in(client, issuer).status_code == 303

    def test_an_invitation_is_accepted_after_signing_in(self, app: Flask, visitors: People, issuer: Issuer) -> None:
        with app.app_context():
            by = identity.named("admin")
            _, link = transaction(invitations.invite, by=by, link="/invitation/{token}", groups=["guests"])
        client = app.test_client()
        page = client.get(link)
        assert 'type="password"' not in page.text
        way = read(page).link("Sign in with Example ID").href
        assert sign_in(client, issuer, way).headers["Location"] == link
        accepted = client.post(link, data={"csrf_token": csrf_of(client.get(link))})
        assert (accepted.status_code, accepted.headers["Location"]) == (303, "/")
        assert client.get(link).status_code == 404
        with app.app_context():
            assert identity.named("ada").groups == ["guests"]


class TestAPublicClient:
    @pytest.fixture
    def config(self, home: Path, redis_url: str, database_url: str, issuer: Issuer) -> Config:
        environ = settings(home, redis_url, database_url, issuer)
        return load({name: value for name, value in environ.items() if name != "CONFIG_OIDC_CLIENT_SECRET"})

    def test_it_names_itself_and_proves_by_pkce_alone(self, app: Flask, visitors: People, issuer: Issuer) -> None:
        assert sign_in(app.test_client(), issuer).status_code == 303
        _, form, authorization = next(one for one in issuer.asked if one[0] == "/token")
        assert (form["client_id"], authorization) == (CLIENT, "")
        assert len(form["code_verifier"]) >= 43


class TestOpenShift:
    @pytest.fixture
    def config(self, home: Path, redis_url: str, database_url: str, issuer: Issuer) -> Config:
        more = {"CONFIG_OIDC_PRESET": "openshift", "CONFIG_OIDC_API_URL": issuer.url}
        return load(settings(home, redis_url, database_url, issuer, **more))

    def test_a_person_of_the_cluster_signs_in(self, app: Flask, visitors: People, issuer: Issuer) -> None:
        issuer.id_token = lambda claims: None
        issuer.openshift_user = {
            "kind": "User",
            "metadata": {"name": "kube:ada", "uid": "b2f1"},
            "fullName": "Ada",
            "groups": ["ml", "portico-auditors"],
        }
        client = app.test_client()
        asked = begin(client, issuer)
        assert (asked["scope"], asked["code_challenge_method"], "nonce" in asked) == ("user:full", "S256", False)
        assert end(client, asked["state"]).status_code == 303
        me = who(client)
        assert me is not None
        assert (me["username"], me["role"], len(me["teams"])) == ("kube-ada", "admin-readonly", 1)
        assert ("Bearer opaque") in [
            authorization for path, _, authorization in issuer.asked if path.startswith("/apis")
        ]

    def test_nobody_signs_in_when_the_cluster_says_nothing(self, app: Flask, visitors: People, issuer: Issuer) -> None:
        issuer.openshift_user = {"kind": "Status"}
        assert sign_in(app.test_client(), issuer).status_code == 502


def test_keys_of_a_team_that_one_leaves_by_the_provider_are_revoked(
    app: Flask, visitors: People, issuer: Issuer
) -> None:
    issuer.person["groups"] = ["ml"]
    sign_in(app.test_client(), issuer)
    with app.app_context():

        def work() -> str:
            person = identity.named("ada")
            (membership,) = teams.memberships_of(person)
            return keys.create(person, by=person, name="ours", team=membership.team)[0].id

        key_id = transaction(work)
    issuer.person["groups"] = []
    sign_in(app.test_client(), issuer)
    with app.app_context():
        key = db.session.get(keys.ApiKey, key_id)
        assert key is not None
        assert key.revoked_at is not None
