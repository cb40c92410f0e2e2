"""Providers are kept by what their settings are, whatever these are called: an adapter with odd names is found, and every
promise about addresses and secrets holds for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select

from app import current
from app.directory import place_of
from app.domain import providers
from app.domain.audit import AuditEntry
from app.domain.errors import Invalid
from app.domain.providers import Provider
from app.extensions import db
from app.workflows import publication
from tests.house import People
from tests.providers.more_kinds import more_kinds

TICKET = "ticket/of the odd one 0123456789"
PLACE = "grpc://127.0.0.1:9"


@pytest.fixture(autouse=True)
def odd_kinds() -> Iterator[None]:
    with more_kinds():
        yield


def make(**config: Any) -> Provider:
    made = providers.create(by=None, name="Odd", kind="line", config={"url": PLACE, "token": TICKET, **config})
    db.session.commit()
    return made


def refused(item: Provider | None, **config: Any) -> str | None:
    """The field that is refused when these are set."""
    with pytest.raises(Invalid) as raised:
        make(**config) if item is None else providers.update(item, by=None, config=config)
    db.session.rollback()
    assert TICKET not in raised.value.message
    return raised.value.field


def test_a_secret_is_sealed_and_masked_whatever_it_is_called(people: People) -> None:
    made = make()
    assert made.config == {"url": PLACE, "token": "••••6789"}
    kept = (made.settings, made.hints, made.sealed, publication.provider_record(made))
    assert TICKET not in str(kept)
    assert TICKET.encode() in current.sealer().open(str(made.sealed), place_of(made.id))
    assert providers.opened(made).token == TICKET
    providers.update(made, by=None, name="Odder", config={"token": TICKET[::-1], "url": PLACE})
    db.session.commit()
    history = str([entry.detail for entry in db.session.scalars(select(AuditEntry))])
    assert "Odder" in history and TICKET not in history and TICKET[::-1] not in history


@pytest.mark.parametrize("address", ["grpc://127.0.0.1:10", "grpc://127.0.0.2:9", None])
@pytest.mark.parametrize("secret", [{}, {"token": "••••6789"}])
def test_a_secret_is_asked_for_again_when_an_address_of_any_name_moves(
    people: People, address: str | None, secret: dict[str, str]
) -> None:
    made = make()
    moved = {"url": address} if address else {}  # to the default
    assert refused(made, **moved, **secret) == "config.token"
    providers.update(made, by=None, config={**moved, "token": TICKET})
    assert providers.opened(made).token == TICKET


def test_a_secret_stays_while_the_address_does(people: People) -> None:
    made = make()
    for config in ({"url": PLACE}, {"url": "grpc://127.0.0.1:9/"}, {"url": PLACE, "token": "••••6789"}):
        providers.update(made, by=None, config=config)
        assert providers.opened(made).token == TICKET


def test_the_variable_of_a_secret_is_known_by_its_role(people: People) -> None:
    made = make(token=None, variable="SOME_KEY")
    providers.update(made, by=None, config={"url": PLACE})
    assert made.settings["variable"] == "SOME_KEY"
    assert refused(made, url="grpc://127.0.0.1:10") == "config.variable"
    assert refused(made, url=PLACE, variable="HOME") == "config.variable"
    assert refused(made, url=PLACE, variable="SOME_KEY", token=TICKET) == "config.variable"
    providers.update(made, by=None, config={"url": PLACE, "token": TICKET})
    assert made.config == {"url": PLACE, "token": "••••6789"}
    providers.update(made, by=None, config={"url": PLACE, "variable": "SOME_KEY"})
    assert made.config == {"url": PLACE, "variable": "SOME_KEY"}
    providers.update(made, by=None, config={"url": PLACE, "variable": None})
    assert made.config == {"url": PLACE}


@pytest.mark.parametrize(
    "address",
    ["grpc://169.254.169.254:80", "grpc://metadata.google.internal:80", "grpc://[64:ff9b::a9fe:a9fe]:80", "grpc://0.0.0.0:80",
     "grpc://127.0.0.1", "grpc://user:pw@127.0.0.1:9", "http://127.0.0.1:9", "127.0.0.1:9", "grpc://a b:9"],
)  # fmt: skip
def test_an_address_is_judged_whatever_it_is_called(people: People, address: str) -> None:
    assert refused(None, url=address) == "config.url"


def test_the_own_port_is_refused_to_every_adapter(people: People) -> None:
    assert refused(None, url=f"grpc://localhost:{current.config().server.port}") == "config.url"


def test_another_kind_takes_no_secret_and_no_variable_along(people: People) -> None:
    for secret in ({"token": TICKET}, {"token": None, "variable": "SOME_KEY"}):
        made = make(**secret)
        providers.update(made, by=None, kind="openai", config={})
        assert (made.config, made.sealed) == ({}, None)
        providers.remove(made, by=None)
        db.session.commit()
