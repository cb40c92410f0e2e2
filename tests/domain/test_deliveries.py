"""Mails and webhooks leave after the commit, once, and what cannot leave is tried again, then given up visibly."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
from collections.abc import Iterator
from datetime import timedelta

import msgspec
import pytest
import redis
from flask import Flask
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from app import clock
from app import queue as queue_module
from app.clock import now
from app.domain import deliveries, identity, invitations, notices
from app.domain.deliveries import TRIES, Delivery, Undelivered
from app.domain.errors import Conflict
from app.extensions import db, transaction
from config import Config, Mail, Webhook
from tests.house import People
from tests.services.receivers import MailServer, Receiver
from tests.services.upstream import unused_port
from tests.services.waiting import until

SECRET, PASSWORD = "a webhook's secret", "a mail password"


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    server = MailServer()
    yield server
    server.stop()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.stop()


def configured(app: Flask, **sections: object) -> None:
    """Other settings for the application under test."""
    app.config["PORTICO"] = msgspec.structs.replace(app.config["PORTICO"], **sections)


@pytest.fixture
def mailing(inside: Flask, mail_server: MailServer) -> MailServer:
    mail = Mail(host="127.0.0.1", port=mail_server.port, security="none", sender="portico@example.org")
    configured(inside, mail=mail)
    return mail_server


@pytest.fixture
def hooked(inside: Flask, receiver: Receiver) -> Receiver:
    configured(inside, webhook=Webhook(url=receiver.url, secret=SECRET))
    return receiver


def tell(people: People, title: str = "Approved", **values: str) -> None:
    person = identity.by_id(people.owner.id)
    assert person is not None
    notices.notify(person, "subscription.approve", title, **values)


def with_address(people: People) -> None:
    transaction(identity.update, people.owner, by=people.admin, email="owner@example.org")


def only() -> Delivery:
    db.session.rollback()
    [found] = db.session.scalars(deliveries.search())
    return found


def letters(config: Config) -> list[str]:
    return [job.args[0] for job in queue_module.queue(queue_module.connect(config.redis_url)).jobs]


def work(config: Config) -> None:
    """What the worker does with the letters that wait, without its pauses."""
    connection = queue_module.connect(config.redis_url)
    box = queue_module.queue(connection)
    SimpleWorker([box], connection=connection, serializer=JSONSerializer).work(burst=True, logging_level="CRITICAL")


def test_a_notice_is_mailed_after_the_commit_to_who_wants_it(
    people: People, mailing: MailServer, config: Config
) -> None:
    with_address(people)
    transaction(tell, people, text="You may use small now.", href="/models/small")
    assert letters(config) == [only().id]
    work(config)
    [message] = mailing.messages
    assert (message["To"], message["From"]) == ("owner@example.org", "portico@example.org")
    assert message["Subject"] == "Portico: Approved"
    text = message.get_payload(decode=True)
    assert b"You may use small now." in text
    assert b"http://localhost:8000/models/small" in text
    assert (only().state, only().attempts, only().last_error) == ("sent", 1, None)
    transaction(lambda: notices.choose(identity.named("owner"), email=False))
    transaction(tell, people)
    assert only().state == "sent"  # no second one


@pytest.mark.parametrize(
    "title", ["x\r\nBcc: eve@example.org", "a\nb", "a\u2028b", "a\0b", "a\x85b", "a\ud800b", "ä" * 300]
)
def test_nothing_in_a_title_becomes_a_header(people: People, mailing: MailServer, config: Config, title: str) -> None:
    with_address(people)
    transaction(deliveries.mail, "owner@example.org", "test", f"Portico: {title}", "text")
    work(config)
    [message] = mailing.messages
    assert mailing.recipients == ["owner@example.org"]
    assert {name.lower() for name in message} == {
        "from", "to", "subject", "date", "message-id", "auto-submitted", "content-type", "content-transfer-encoding",
        "mime-version",
    }  # fmt: skip
    assert only().state == "sent"


@pytest.mark.parametrize(
    "address", ["owner@example.org,eve@example.org", "x <eve@example.org>", "a@b.c\r\nBcc: eve@b.c"]
)
def test_a_row_with_an_address_from_before_the_rule_reaches_nobody(
    people: People, mailing: MailServer, address: str
) -> None:
    made = Delivery(channel="email", target=address, kind="test", payload={"subject": "s", "text": "t"})
    transaction(db.session.add, made)
    with pytest.raises(Undelivered, match="e-mail address is invalid"):
        deliveries.send(made.id)
    assert mailing.messages == []


def test_nothing_leaves_without_a_commit_an_address_or_a_server(
    people: People, mailing: MailServer, config: Config
) -> None:
    transaction(tell, people)  # no address
    with_address(people)

    def refused() -> None:
        tell(people)
        raise Conflict("no")

    with pytest.raises(Conflict):
        transaction(refused)
    assert letters(config) == []
    assert db.session.scalars(deliveries.search()).all() == []
    assert db.session.scalar(notices.unread_count(people.owner)) == 1


def test_a_subject_cannot_smuggle_headers(people: People, mailing: MailServer, config: Config) -> None:
    with_address(people)
    transaction(tell, people, "Approved\r\nBcc: eve@example.org")
    work(config)
    [message] = mailing.messages
    assert message["Bcc"] is None
    assert message["Subject"] == "Portico: Approved Bcc: eve@example.org"


def test_the_mail_server_is_signed_in_to(people: People, mailing: MailServer, config: Config, inside: Flask) -> None:
    mail = msgspec.structs.replace(inside.config["PORTICO"].mail, username="portico", password=PASSWORD)
    configured(inside, mail=mail)
    with_address(people)
    transaction(tell, people)
    work(config)
    assert base64.b64decode(mailing.signed_in[0]).split(b"\0")[1:] == [b"portico", PASSWORD.encode()]
    assert only().state == "sent"


@pytest.mark.parametrize(
    ("refusals", "told"),
    [
        ({"RCPT": "550 no such user"}, "refused the recipient with code 550"),
        ({"MAIL": "451 try later"}, "answered with code 451"),
        ({"DATA": "554 no"}, "answered with code 554"),
        ({"EHLO": "421 busy", "HELO": "421 busy"}, "answered with code 421"),
    ],
)
def test_what_the_mail_server_refuses_is_shown_without_secrets(
    people: People, mailing: MailServer, refusals: dict[str, str], told: str
) -> None:
    with_address(people)
    transaction(tell, people)
    mailing.refusals = refusals
    with pytest.raises(Undelivered, match=told):
        deliveries.send(only().id)
    assert (only().state, only().attempts) == ("waiting", 1)
    assert told in str(only().last_error)


def test_a_server_without_starttls_is_not_sent_to_in_the_clear(
    people: People, mailing: MailServer, inside: Flask
) -> None:
    configured(inside, mail=msgspec.structs.replace(inside.config["PORTICO"].mail, security="starttls"))
    with_address(people)
    transaction(tell, people)
    with pytest.raises(Undelivered, match="does not support the setting"):
        deliveries.send(only().id)
    assert mailing.messages == []


def test_a_webhook_is_signed_and_tells_the_notice(people: People, hooked: Receiver, config: Config) -> None:
    transaction(tell, people, text="Welcome", href="/models/small")
    work(config)
    [(path, headers, body)] = hooked.calls
    assert path == "/hook/of-a-secret-path"
    told = json.loads(body)
    [notice] = db.session.scalars(notices.addressed_to(people.owner))
    assert set(told) == {"id", "kind", "at", "person", "title", "text", "href"}
    assert (told["id"], told["kind"], told["person"]) == (notice.id, "subscription.approve", "owner")
    assert (told["title"], told["text"]) == ("Approved", "Welcome")
    assert told["href"] == "http://localhost:8000/models/small"
    assert told["at"].endswith("Z")
    stamp, _, signed = headers["x-portico-signature"].partition(",")
    seconds = stamp.removeprefix("t=")
    right = hmac.new(SECRET.encode(), f"{seconds}.".encode() + body, hashlib.sha256).hexdigest()
    assert signed == f"v1={right}"
    assert abs(clock.now_s() - int(seconds)) < 60
    assert only().state == "sent"


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        ({"status": 500}, "answered with status 500"),
        ({"status": 302, "location": "http://127.0.0.1:1/elsewhere"}, "answered with status 302"),
        ({"delay_s": 10.0}, "did not answer in time"),
    ],
)
def test_a_receiver_that_misbehaves_is_tried_four_times_then_given_up(
    people: People,
    hooked: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    behaviour: dict[str, object],
    told: str,
) -> None:
    if "delay_s" in behaviour:
        monkeypatch.setattr(deliveries, "ANSWER_S", 0.2)
    for name, value in behaviour.items():
        setattr(hooked, name, value)
    transaction(tell, people)
    id = only().id
    with caplog.at_level(logging.INFO):
        for _ in range(TRIES - 1):
            with pytest.raises(Undelivered, match=told):
                deliveries.send(id)
            assert only().state == "waiting"
        deliveries.send(id)  # the last one raises nothing: there is no further try to ask for
    assert (only().state, only().attempts) == ("dead", TRIES)
    assert told in str(only().last_error)
    deliveries.send(id)
    until(lambda: len(hooked.calls) >= TRIES)  # whose last one may still be on its way in
    assert len(hooked.calls) == TRIES
    assert "failed for good" in caplog.text
    assert SECRET not in caplog.text
    assert "of-a-secret-path" not in caplog.text + str(only().last_error) + only().target


def test_a_receiver_that_is_not_there_is_told_so(people: People, inside: Flask) -> None:
    configured(inside, webhook=Webhook(url=f"http://127.0.0.1:{unused_port()}/secret", secret=SECRET))
    transaction(tell, people)
    with pytest.raises(Undelivered, match="could not be reached") as refused:
        deliveries.send(only().id)
    assert "secret" not in str(refused.value)


def test_the_worker_tries_again_by_itself(people: People, hooked: Receiver, config: Config) -> None:
    hooked.status = 503
    transaction(tell, people)
    work(config)
    assert only().state == "waiting"
    connection = queue_module.connect(config.redis_url)
    registry = queue_module.queue(connection).scheduled_job_registry
    [job_id] = registry.get_job_ids()
    assert 0 < registry.get_scheduled_time(job_id).timestamp() - clock.now_s() <= queue_module.RETRIES_S[0]
    hooked.status = 200
    deliveries.send(only().id)
    assert only().state == "sent"


def test_what_was_sent_is_never_sent_again(people: People, hooked: Receiver, wire: redis.Redis) -> None:
    transaction(tell, people)
    id = only().id
    deliveries.send(id)
    deliveries.send(id)
    assert len(hooked.calls) == 1
    with pytest.raises(Conflict):
        transaction(lambda: deliveries.send_again(deliveries.delivery(id), by=people.admin))


def test_two_workers_do_not_send_the_same_at_once(people: People, hooked: Receiver, wire: redis.Redis) -> None:
    from app import store

    transaction(tell, people)
    id = only().id
    wire.set(f"{store.TAG}:delivery:{id}", "1")
    deliveries.send(id)
    assert (hooked.calls, only().attempts) == ([], 0)


def test_a_dead_one_is_sent_again_when_asked(people: People, hooked: Receiver, config: Config) -> None:
    hooked.status = 500
    transaction(tell, people)
    id = only().id
    transaction(lambda: setattr(deliveries.delivery(id), "attempts", TRIES - 1))
    deliveries.send(id)
    assert only().state == "dead"
    work(config)
    hooked.status, hooked.calls = 200, []
    transaction(lambda: deliveries.send_again(deliveries.delivery(id), by=people.admin))
    work(config)
    assert (only().state, only().attempts, len(hooked.calls)) == ("sent", 1, 1)


def test_a_lost_letter_is_put_in_again_once(
    people: People, hooked: Receiver, config: Config, wire: redis.Redis
) -> None:
    transaction(tell, people)
    wire.flushall()  # Redis lost it
    assert transaction(deliveries.requeue_lost) == 0  # it may still be on its way
    id = only().id
    transaction(lambda: setattr(deliveries.delivery(id), "at", now() - timedelta(minutes=3)))
    assert [transaction(deliveries.requeue_lost) for _ in range(2)] == [1, 0]
    assert letters(config) == [id]
    work(config)
    assert (only().state, len(hooked.calls)) == ("sent", 1)
    wire.flushall()
    assert transaction(deliveries.requeue_lost) == 0


def test_one_between_its_tries_is_left_to_them(people: People, hooked: Receiver) -> None:
    transaction(tell, people)
    id = only().id

    def tried(minutes: int) -> None:
        found = deliveries.delivery(id)
        found.attempts, found.at = 2, now() - timedelta(minutes=minutes)

    transaction(tried, 5)
    assert transaction(deliveries.requeue_lost) == 0
    transaction(tried, 30)
    assert transaction(deliveries.requeue_lost) == 1


def test_an_invitations_mail_bears_its_link_which_is_kept_nowhere(
    people: People, mailing: MailServer, config: Config
) -> None:
    _, link = transaction(
        invitations.invite, by=people.admin, link="https://p.example/invitation/{token}", email="ada@example.org"
    )
    token = link.rpartition("/")[2]
    assert token not in str(only().payload)
    work(config)
    [message] = mailing.messages
    assert link.encode() in message.get_payload(decode=True)
    assert set(only().payload) == {"subject"}


def test_a_dead_mail_that_held_a_secret_is_not_sent_again(people: People, mailing: MailServer) -> None:
    mailing.refusals = {"RCPT": "550 no"}
    transaction(invitations.invite, by=people.admin, link="https://p.example/{token}", email="ada@example.org")
    id = only().id
    transaction(lambda: setattr(deliveries.delivery(id), "attempts", TRIES - 1))
    deliveries.send(id)
    assert (only().state, set(only().payload)) == ("dead", {"subject"})
    with pytest.raises(Conflict, match="Create a new invitation"):
        transaction(lambda: deliveries.send_again(deliveries.delivery(id), by=people.admin))
