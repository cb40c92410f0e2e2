"""Settings that admins store: they act at once, on both sides, and never over what the file or the environment decides."""

from __future__ import annotations

import logging
import re
import time
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import requests
from flask import Flask, g
from sqlalchemy.exc import OperationalError

from app import current
from app.clock import now
from app.directory import Directory
from app.domain import keys, settings
from app.domain.audit import AuditEntry
from app.domain.errors import Invalid
from app.domain.settings import SetElsewhere
from app.extensions import db, transaction
from app.runtime import logs
from app.store import DIRECTORY
from app.workflows import publication
from config import Log
from tests.house import (  # noqa: F401
    People,
    app,
    config,
    database_url,
    home,
    inside,
    migrated,
    people,
    quick_hashes,
    wire,
)


def put(people: People, **changes: Any) -> None:  # noqa: F811
    transaction(settings.update, {settings.KEYS[name]: value for name, value in changes.items()}, by=people.admin)


def shown(key: str) -> settings.Shown:
    return next(one for one in settings.all_() if one.key == key)


def test_a_stored_setting_is_in_force_and_null_goes_back_to_the_default(people: People) -> None:  # noqa: F811
    assert (shown("portal.name").value, shown("portal.name").source) == ("Portico", "default")
    put(people, portal_name="  Models of Éire ")
    assert current.config().portal.name == "Models of Éire"
    assert (shown("portal.name").source, shown("portal.name").editable) == ("stored", True)
    put(people, portal_name=None)
    assert current.config().portal.name == "Portico"
    entries = db.session.query(AuditEntry).filter_by(action="setting.update").order_by(AuditEntry.id).all()
    assert [(entry.object_id, entry.detail["after"]) for entry in entries] == [
        ("portal.name", {"portal.name": "Models of Éire"}), ("portal.name", {"portal.name": None}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("portal_name", ""), ("portal_name", "a\nb"), ("portal_banner", "a\nb"), ("portal_name", "x" * 101),
        ("portal_banner", "x" * 201), ("keys_max_lifetime_days", -1),
        ("keys_default_lifetime_days", 4000), ("gateway_budget_stop_status", 403), ("gateway_default_model", "nothing"),
        ("log_level", "loud"), ("log_levels", {"gateway": "loud"}), ("log_levels", {"nothing": "info"}),
        ("log_levels", ["gateway"]), ("log_retention_days", 0),
    ],
)  # fmt: skip
def test_a_bad_value_is_named_by_its_key_and_changes_nothing(people: People, name: str, value: Any) -> None:  # noqa: F811
    with pytest.raises(Invalid) as refused:
        put(people, **{"portal_banner": "before", name: value})
    assert refused.value.field == settings.KEYS[name]
    assert settings.stored() == {}


def test_a_setting_that_cannot_be_stored_is_refused(people: People) -> None:  # noqa: F811
    with pytest.raises(Invalid) as refused:
        transaction(settings.update, {"server.port": 1}, by=people.admin)
    assert refused.value.field == "server.port"


def test_what_the_file_decides_stays_even_if_it_was_stored_before(
    people: People,
    inside: Flask,
    monkeypatch: pytest.MonkeyPatch,  # noqa: F811
) -> None:
    put(people, portal_name="Stored", portal_banner="Internal")
    decided = msgspec.structs.replace(inside.config["PORTICO"], decided={"portal.name": "file"})
    monkeypatch.setitem(inside.config, "PORTICO", decided)
    g.pop(settings.LAST, None)
    assert (current.config().portal.name, current.config().portal.banner) == ("Portico", "Internal")
    assert (shown("portal.name").source, shown("portal.name").editable) == ("file", False)
    with pytest.raises(SetElsewhere) as refused:
        put(people, portal_name="Mine")
    assert (refused.value.field, refused.value.status, refused.value.code) == ("portal.name", 409, "set_elsewhere")


def test_no_secret_is_shown(people: People) -> None:  # noqa: F811
    secrets = {one.key for one in settings.all_() if one.secret}
    assert secrets == {
        "database.url", "redis.url", "auth.admin_password", "oidc.client_secret", "scim.token", "security.session_secret",
        "security.key_pepper", "security.encryption_keys", "mail.password", "webhook.url", "webhook.secret",
        "litellm.master_key",
    }  # fmt: skip
    assert [one.key for one in settings.all_() if one.secret and (one.value, one.default) != (None, None)] == []
    shown_names = [one.key for one in settings.all_() if not one.secret]
    assert [key for key in shown_names if re.search("secret|password|token$|pepper|api_key", key)] == []


def test_while_the_database_is_away_what_was_known_last_holds(
    people: People,
    monkeypatch: pytest.MonkeyPatch,  # noqa: F811
) -> None:
    put(people, portal_name="Known")
    assert current.config().portal.name == "Known"

    def away() -> dict[str, Any]:
        raise OperationalError("SELECT", None, Exception("away"))

    monkeypatch.setattr(settings, "stored", away)
    g.pop(settings.LAST, None)
    assert current.config().portal.name == "Known"


def test_the_gateway_hears_of_them_through_the_directory(people: People, wire: Any) -> None:  # noqa: F811
    publication.publish_all()
    put(people, gateway_budget_stop_status=402)
    document = msgspec.json.decode(wire.get(DIRECTORY), type=Directory)
    assert document.settings == {"gateway.budget_stop_status": 402}


def test_the_log_level_acts_on_this_process(people: People, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    before = logging.getLogger().level
    monkeypatch.setattr(logs, "_in_use", logs.Levels(Log(), "web"))
    try:
        put(people, log_level="error")
        current.config()
        assert logging.getLogger().level == logging.ERROR
    finally:
        logging.getLogger().setLevel(before)


def test_a_component_logs_by_its_own_level_and_lines_are_kept_for_as_long_as_is_set(people: People) -> None:  # noqa: F811
    put(people, log_levels={"gateway": "debug", "api": "error"}, log_retention_days=7)
    kept = current.config().log
    assert (kept.levels, kept.retention_days) == ({"gateway": "debug", "api": "error"}, 7)
    put(people, log_levels=None, log_retention_days=None)
    assert (current.config().log.levels, current.config().log.retention_days) == ({}, 30)


def test_a_maximum_bounds_the_end_of_new_keys_and_of_ends_that_change(people: People) -> None:  # noqa: F811

    old, _ = transaction(keys.create, people.owner, by=people.owner, name="old")
    assert keys.default_lifetime_days() == 90
    put(people, keys_max_lifetime_days=30)
    assert keys.default_lifetime_days() == 30
    for end in (None, now() + timedelta(days=31)):
        with pytest.raises(Invalid) as refused:
            transaction(keys.create, people.owner, by=people.owner, name="new", expires_at=end)
        assert refused.value.field == "expires_at"
    transaction(keys.create, people.owner, by=people.owner, name="new", expires_at=keys.default_end())
    transaction(keys.update, old, by=people.owner, name="renamed")
    with pytest.raises(Invalid):
        transaction(keys.update, old, by=people.owner, expires_at=now() + timedelta(days=40))
    put(people, keys_default_lifetime_days=0, keys_max_lifetime_days=0)
    assert keys.default_end() is None


@pytest.mark.slow
def test_a_running_portico_follows_within_two_seconds(start_portico: Any) -> None:
    portico = start_portico()
    granted = requests.post(
        f"{portico.url}/token", data={"username": "admin", "password": portico.admin_password}, timeout=10
    )
    program = requests.Session()
    program.headers["Authorization"] = f"Bearer {granted.json()['access_token']}"
    program.post(f"{portico.url}/api/subscriptions", json={"model": "echo-1"}, timeout=10)
    key = program.post(f"{portico.url}/api/keys", json={"name": "app"}, timeout=10).json()["key"]
    question = {"model": "no-such-model", "messages": [{"role": "user", "content": "hi"}]}

    def call() -> int:
        return requests.post(
            f"{portico.url}/v1/chat/completions", json=question, headers={"Authorization": f"Bearer {key}"}, timeout=10
        ).status_code

    assert call() == 404
    changed = program.patch(f"{portico.url}/api/settings", json={"gateway.default_model": "echo-1"}, timeout=10)
    assert changed.status_code == 200
    deadline = time.monotonic() + 2
    while (status := call()) != 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert status == 200
