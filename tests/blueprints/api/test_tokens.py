"""Signing in for programs."""

import redis
from flask import Flask

from app import current, store
from app.runtime.sealing import digest
from tests.house import PASSWORD, People, Program, sign_in


def _token(app: Flask, **form: str) -> dict[str, object]:
    given = {"username": "owner", "password": PASSWORD, **form}
    answer = app.test_client().post("/token", data=given)
    assert answer.status_code == 200, answer.text
    body: dict[str, object] = answer.get_json()
    return body


def test_a_token_says_what_it_is(app: Flask, people: People) -> None:
    given = _token(app)
    assert given["token_type"] == "bearer"
    assert given["expires_in"] == 1800
    assert given["scope"] == "inference portal"
    info = Program(app.test_client(), str(given["access_token"])).get("/token-info").get_json()
    assert (info["username"], info["role"], info["scope"]) == ("owner", "user", "inference portal")
    me = Program(app.test_client(), str(given["access_token"])).get("/users/me").get_json()
    assert {name: me[name] for name in ("username", "role", "scopes", "teams")} == {
        "username": "owner",
        "role": "user",
        "scopes": ["inference", "portal"],
        "teams": [],
    }


def test_a_refresh_token_rotates_and_its_reuse_revokes_the_family(app: Flask, people: People) -> None:
    client = app.test_client()
    first = _token(app)
    second = client.post("/refresh-token", json={"refresh_token": first["refresh_token"]})
    assert second.status_code == 200
    assert Program(client, str(first["access_token"])).get("/users/me").status_code == 401
    assert Program(client, second.get_json()["access_token"]).get("/users/me").status_code == 200
    assert client.post("/refresh-token", json={"refresh_token": first["refresh_token"]}).status_code == 401
    assert Program(client, second.get_json()["access_token"]).get("/users/me").status_code == 401
    third = client.post("/refresh-token", json={"refresh_token": second.get_json()["refresh_token"]})
    assert third.status_code == 401


def test_only_failed_attempts_count_and_the_eleventh_is_throttled(app: Flask, people: People) -> None:
    for _ in range(15):
        _token(app)
    client = app.test_client()
    wrong = {"username": "OWNER", "password": "not the password"}
    for _ in range(10):
        assert client.post("/token", data=wrong).status_code == 401
    answer = client.post("/token", data={"username": "owner", "password": PASSWORD})
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert client.post("/token", data={"username": "stranger", "password": PASSWORD}).status_code == 200


def test_unknown_and_known_names_are_refused_in_the_same_words(app: Flask, people: People) -> None:
    client = app.test_client()
    answers = [
        client.post("/token", data={"username": name, "password": "not the password"})
        for name in ("owner", "nobody", "nul\0", "x" * 150)
    ]
    assert [answer.status_code for answer in answers] == [401, 401, 422, 401]
    assert answers[0].data == answers[1].data == answers[3].data


def test_an_access_token_with_inference_stands_on_the_noticeboard_until_it_is_revoked(
    app: Flask, people: People, wire: redis.Redis
) -> None:
    admin = sign_in(app, "admin")
    made = admin.post("/admin/token/owner", json={})
    assert made.status_code == 201
    token = made.get_json()["access_token"]
    with app.app_context():
        name = store.caller(digest(current.secrets().key_pepper, token))
    assert '"kind":"token"' in str(wire.get(name))
    assert wire.ttl(name) > 170 * 24 * 3600
    assert Program(app.test_client(), token).get("/api/keys").status_code == 200
    assert admin.get("/admin/tokens").get_json()["data"][0]["username"] == "owner"
    assert admin.delete("/admin/token/owner/revoke").status_code == 204
    assert wire.get(name) is None
    assert Program(app.test_client(), token).get("/api/keys").status_code == 401
    narrow = _token(app, scope="portal")
    with app.app_context():
        name = store.caller(digest(current.secrets().key_pepper, str(narrow["access_token"])))
    assert wire.get(name) is None


def test_a_changed_password_ends_other_tokens_and_keeps_this_one(app: Flask, people: People) -> None:
    here, there = sign_in(app, "owner"), sign_in(app, "owner")
    wrong = here.post("/change-password", json={"current_password": "wrong", "new_password": "another long password"})
    assert wrong.status_code == 401
    short = here.post("/change-password", json={"current_password": PASSWORD, "new_password": "short"})
    assert (short.status_code, short.get_json()["error"]["field"]) == (422, "new_password")
    long = "ü" * 1000  # far above bcrypt's 72 bytes
    assert here.post("/change-password", json={"current_password": PASSWORD, "new_password": long}).status_code == 204
    assert here.get("/users/me").status_code == 200
    assert there.get("/users/me").status_code == 401
    assert app.test_client().post("/token", data={"username": "owner", "password": long}).status_code == 200
    wrong_end = app.test_client().post("/token", data={"username": "owner", "password": "ü" * 999 + "u"})
    assert wrong_end.status_code == 401


def test_a_disabled_person_is_refused_at_the_next_request(app: Flask, people: People) -> None:
    admin, owner = sign_in(app, "admin"), sign_in(app, "owner")
    assert admin.put("/admin/users/owner", json={"disabled": True}).status_code == 200
    assert owner.get("/users/me").status_code == 401
    assert app.test_client().post("/token", data={"username": "owner", "password": PASSWORD}).status_code == 401
