"""A person's own credentials: sealed for their row and for where they may go, one default for each provider."""

from __future__ import annotations

from typing import Any

import pytest

from app import current
from app.domain import audit, credentials, providers
from app.domain.credentials import Credential, PersonalCredentialsOff
from app.domain.errors import Conflict, Invalid, NotFound
from app.domain.providers import Provider
from app.extensions import db, transaction
from app.runtime.sealing import SealingError
from app.workflows import offboarding
from tests.house import People

SETTINGS = {"base_url": "https://up.example/v1", "api_key": "the-provider's-own-key", "personal_credentials": True}
TOKEN = "my-own-token-of-1234"


@pytest.fixture
def provider(people: People) -> Provider:
    return transaction(lambda: providers.create(by=None, name="Up", kind="openai", config=SETTINGS))


def store(people: People, **values: Any) -> Credential:
    given = {"by": people.owner, "provider": "Up", "name": "mine", "token": TOKEN} | values
    return transaction(lambda: credentials.create(**given))


def opened(credential: Credential) -> str:
    return current.sealer().open(credential.sealed, credential.place).decode()


def test_the_first_is_the_default_and_the_oldest_left_follows_it(people: People, provider: Provider) -> None:
    first, second = store(people), store(people, name="second", provider=provider.id)
    assert (first.is_default, second.is_default) == (True, False)
    transaction(credentials.make_default, second, by=people.owner)
    assert (first.is_default, second.is_default) == (False, True)
    told = credentials.defaults_of(db.session(), {people.owner.id, people.stranger.id})
    assert told.keys() == {people.owner.id}
    assert told[people.owner.id][provider.id].id == second.id
    transaction(credentials.delete, second, by=people.owner)
    assert first.is_default


def test_it_is_sealed_for_its_row_and_for_where_its_provider_is(people: People, provider: Provider) -> None:
    credential = store(people)
    assert (opened(credential), credential.hint) == (TOKEN, "••••1234")
    assert TOKEN not in credential.sealed
    other = store(people, name="other", token="another-token-of-5678")
    with pytest.raises(SealingError):
        current.sealer().open(other.sealed, credential.place)
    transaction(lambda: providers.update(provider, by=None, config={**SETTINGS, "base_url": "https://else.example/v1"}))
    assert not credential.is_sent
    transaction(credentials.update, credential, by=people.owner, token="for-the-new-place")
    assert credential.is_sent and opened(credential) == "for-the-new-place"


def test_it_is_audited_without_its_token(people: People, provider: Provider) -> None:
    credential = store(people)
    transaction(credentials.update, credential, by=people.owner, name="renamed", token="another-token-of-5678")
    transaction(credentials.delete, credential, by=people.owner)
    entries = list(db.session.scalars(audit.entries(action="credential.*")))
    assert [one.action for one in entries] == ["credential.delete", "credential.update", "credential.create"]
    assert {(one.object_id, one.actor) for one in entries} == {(credential.id, "owner")}
    told = repr([one.detail for one in entries])
    assert "renamed" in told and TOKEN not in told and "another-token" not in told


@pytest.mark.parametrize(
    ("values", "error", "field"),
    [
        ({"name": " "}, Invalid, "name"),
        ({"token": ""}, Invalid, "token"),
        ({"token": "two\r\nlines"}, Invalid, "token"),
        ({"token": "x" * 4097}, Invalid, "token"),
        ({"token": "ümlaut"}, Invalid, "token"),
        ({"provider": "nowhere"}, Invalid, "provider"),
        ({"provider": "Shut"}, PersonalCredentialsOff, "provider"),
        ({"provider": "Echo"}, PersonalCredentialsOff, "provider"),
        ({"name": "mine"}, Conflict, "name"),
    ],
)
def test_what_cannot_be_stored_is_refused(
    people: People, provider: Provider, values: dict[str, str], error: type[Exception], field: str
) -> None:
    closed = SETTINGS | {"personal_credentials": False}
    transaction(lambda: providers.create(by=None, name="Shut", kind="openai", config=closed))
    transaction(lambda: providers.create(by=None, name="Echo", kind="echo", config={"personal_credentials": True}))
    store(people)
    assert [one.name for one in credentials.offered()] == ["Up"]
    with pytest.raises(error) as refused:
        store(people, **{"name": "other", **values})
    assert refused.value.field == field  # type: ignore[attr-defined]


def test_a_person_has_so_many(people: People, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "MOST", 1)
    store(people)
    with pytest.raises(Conflict):
        store(people, name="more")
    store(people, by=people.stranger)


def test_nobody_finds_those_of_others_and_they_go_with_their_person_and_provider(
    people: People, provider: Provider
) -> None:
    credential = store(people)
    store(people, by=people.stranger)
    with pytest.raises(NotFound):
        credentials.get_own(people.admin, credential.id)
    transaction(offboarding.delete, people.stranger, by=people.admin)
    assert db.session.query(Credential).one() is credential
    transaction(offboarding.withdraw, provider, by=people.admin)
    assert db.session.query(Credential).count() == 0
