"""Deliveries: mails and webhooks that leave after the transaction that asked for them, and how each went.

A row waits, then is sent or, after the last try, dead; a queued job makes a worker try it. Rows whose
letter was lost are put in again by the minute job. A row that was sent is never sent again.

A webhook is a POST of JSON with the header `X-Portico-Signature: t=<Unix seconds>,v1=<hex>`, where v1 is the
HMAC-SHA256 of "<t>.<body>" under `webhook.secret`. Redirects are not followed; any answer of 2xx means received.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import smtplib
import ssl
from datetime import datetime, timedelta
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid, parseaddr
from typing import Any
from urllib.parse import urlsplit

import msgspec
import requests
from redis import RedisError
from sqlalchemy import Index, Select, String, Text, or_, select
from sqlalchemy.orm import Mapped, mapped_column

from app import clock, current, store
from app.clock import now
from app.domain import audit, names
from app.domain.errors import Conflict, NotFound
from app.domain.person import Person
from app.domain.search import contains
from app.extensions import Base, db, transaction
from app.queue import RETRIES_S, enqueue_after_commit
from app.runtime.ids import new_id

log = logging.getLogger(__name__)

JOB = "app.jobs.deliveries.send"  # by name: the jobs know the domain, not the other way round
STATES = ("waiting", "sent", "dead")
CHANNELS = ("email", "webhook")
TRIES = 1 + len(RETRIES_S)
CONNECT_S, ANSWER_S, MAIL_S = 5, 10, 20
LEASE_S = 120  # one worker at a time tries a row; longer than a try can last
LOST_AFTER = timedelta(minutes=2)
SPENT_AFTER = timedelta(seconds=sum(RETRIES_S) + 5 * 60)  # by then the retries of a letter are over


class Delivery(Base):
    """One mail or webhook and how it went: waiting, sent or dead. `target` is an address of e-mail, or the origin of
    the webhook, whose whole address may be a secret."""

    __tablename__ = "delivery"
    __table_args__ = (Index(None, "state", "at"), Index(None, "channel", "id"))

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=new_id)
    channel: Mapped[str] = mapped_column(String(8))  # email, webhook
    target: Mapped[str] = mapped_column(String(500))
    kind: Mapped[str] = mapped_column(String(64))
    payload: Mapped[dict[str, Any]] = mapped_column(default=dict)
    state: Mapped[str] = mapped_column(String(8), default="waiting")
    attempts: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[str | None] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(default=now)
    done_at: Mapped[datetime | None]


class Undelivered(Exception):
    """A try failed; the message is safe to show. The worker tries again when it is raised."""


def search(*, state: str | None = None, channel: str | None = None, search: str | None = None) -> Select[Delivery]:
    """All deliveries, newest first, narrowed to a state, a channel, and a part of the target or the kind."""
    query = select(Delivery).order_by(Delivery.id.desc())
    if state:
        query = query.where(Delivery.state == state)
    if channel:
        query = query.where(Delivery.channel == channel)
    if search:
        query = query.where(contains(search, Delivery.target, Delivery.kind))
    return query


def delivery(id: str) -> Delivery:
    delivery = db.session.get(Delivery, id)
    if delivery is None:
        raise NotFound("There is no such delivery.")
    return delivery


def mails() -> bool:
    """Whether e-mail leaves at all: a mail server is set."""
    return current.config().mail.host is not None


def mail(address: str, kind: str, subject: str, text: str, *, secret: bool = False) -> None:
    """Queues a mail, if a mail server is set. The text of a `secret` one is sealed, and forgotten when it is over."""
    if not mails():
        return
    payload = {"subject": _one_line(subject)}
    payload |= {"sealed": current.sealer().seal(text.encode())} if secret else {"text": text}
    _queue(Delivery(id=new_id(), channel="email", target=address, kind=kind, payload=payload))


def webhook(event: dict[str, Any]) -> None:
    """Queues a call of the webhook with `event`, which bears its `kind`, if one is set."""
    url = current.config().webhook.url
    if url:
        _queue(Delivery(id=new_id(), channel="webhook", target=_origin(url), kind=event["kind"], payload=event))


def send(id: str) -> None:
    """Tries one delivery. Raises `Undelivered` when another try may help; after the last one the row is dead."""
    redis, lease = current.redis(), f"{store.TAG}:delivery:{id}"
    if not redis.set(lease, "1", nx=True, ex=LEASE_S):
        return  # somebody is at it now
    try:
        told = transaction(_begin, id)
        if told is None:
            return
        channel, target, kind, payload = told
        fault = None
        try:
            (_post if channel == "webhook" else _mail)(target, payload, id)
        except Undelivered as error:
            fault = str(error)
        if transaction(_finish, id, fault) == "waiting":
            raise Undelivered(f"{channel} {id} ({kind}): {fault}")
    finally:
        redis.delete(lease)


def send_again(delivery: Delivery, *, by: Person) -> None:
    """Queue a dead delivery again. Raises `Conflict` for any other."""
    db.session.refresh(delivery, with_for_update=True)
    if delivery.state != "dead":
        raise Conflict(f"This delivery is {delivery.state}.")
    if delivery.channel == "email" and "text" not in delivery.payload:
        raise Conflict("Its text held a secret and is not kept. Make a new invitation instead.")
    delivery.state, delivery.attempts, delivery.at, delivery.done_at = "waiting", 0, now(), None
    audit.record(by, "delivery.send_again", "delivery", delivery.id, name=delivery.kind)
    enqueue_after_commit(JOB, delivery.id)


def requeue_lost(limit: int = 200) -> int:
    """Queue rows again whose job must have been lost, each at most once in ten minutes; return how many."""
    moment = now()
    lost = select(Delivery.id).where(
        Delivery.state == "waiting",
        or_(
            (Delivery.attempts == 0) & (Delivery.at < moment - LOST_AFTER),
            Delivery.at < moment - SPENT_AFTER,
        ),
    )
    redis, found = current.redis(), 0
    for id in db.session.scalars(lost.order_by(Delivery.at).limit(limit)):
        try:
            if redis.set(f"{store.TAG}:delivery:{id}:again", "1", nx=True, ex=600):
                enqueue_after_commit(JOB, id)
                found += 1
        except RedisError:
            break
    return found


def _queue(delivery: Delivery) -> None:
    db.session.add(delivery)
    enqueue_after_commit(JOB, delivery.id)


def _begin(id: str) -> tuple[str, str, str, dict[str, Any]] | None:
    """What is to be sent; None when it is over. The try counts from now on, also if the process dies in it."""
    delivery = db.session.get(Delivery, id, with_for_update=True, populate_existing=True)
    if delivery is None or delivery.state != "waiting":
        return None
    delivery.attempts += 1
    return delivery.channel, delivery.target, delivery.kind, dict(delivery.payload)


def _finish(id: str, fault: str | None) -> str:
    """Writes down how a try went; the state it leads to."""
    delivery = db.session.get(Delivery, id, with_for_update=True, populate_existing=True)
    if delivery is None:
        return "dead"
    delivery.last_error = fault
    if fault is None or delivery.attempts >= TRIES:
        delivery.state, delivery.done_at = "sent" if fault is None else "dead", now()
        delivery.payload = {name: value for name, value in delivery.payload.items() if name != "sealed"}
        if fault is not None:
            log.error("a delivery is given up: %s %s (%s): %s", delivery.channel, delivery.id, delivery.kind, fault)
    return delivery.state


def _post(target: str, event: dict[str, Any], id: str) -> None:
    settings = current.config().webhook
    if not settings.url:
        raise Undelivered("No webhook is set any more.")
    body = msgspec.json.encode(event)
    headers = {"Content-Type": "application/json", "User-Agent": "Portico", "X-Portico-Delivery": id}
    if settings.secret:
        headers["X-Portico-Signature"] = signature(settings.secret, clock.now_s(), body)
    try:
        with requests.post(
            settings.url,
            data=body,
            headers=headers,
            timeout=(CONNECT_S, ANSWER_S),
            allow_redirects=False,
            stream=True,  # what it says beside the status is not our business
        ) as answer:
            if not 200 <= answer.status_code < 300:
                raise Undelivered(f"The webhook answered with status {answer.status_code}.")
    except requests.Timeout:
        raise Undelivered("The webhook did not answer in time.") from None
    except requests.exceptions.SSLError:
        raise Undelivered("The webhook's certificate could not be verified.") from None
    except requests.ConnectionError:
        raise Undelivered("The webhook could not be reached.") from None
    except requests.RequestException as error:  # its text may hold the address, which may hold a secret
        raise Undelivered(f"The webhook could not be called ({type(error).__name__}).") from None


def signature(secret: str, at_s: int, body: bytes) -> str:
    """The value of `X-Portico-Signature`."""
    signed = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={signed}"


def _mail(target: str, payload: dict[str, Any], id: str) -> None:
    settings = current.config().mail
    if settings.host is None:
        raise Undelivered("No mail server is set any more.")
    if not names.is_email(target):  # a row from before addresses were checked so
        raise Undelivered("The address is not one that a mail can be sent to. Correct it in the person's profile.")
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = settings.sender, target, payload["subject"]
    message["Date"] = format_datetime(now())
    domain = parseaddr(settings.sender)[1].rpartition("@")[2]
    message["Message-ID"] = make_msgid(idstring=id, domain=domain or "localhost")
    message["Auto-Submitted"] = "auto-generated"
    sealed = payload.get("sealed")
    message.set_content(current.sealer().open(sealed).decode() if sealed else payload["text"])
    try:
        with _server() as server:
            server.send_message(message)
    except TimeoutError:
        raise Undelivered("The mail server did not answer in time.") from None
    except smtplib.SMTPRecipientsRefused as error:
        code = next(iter(error.recipients.values()), (0, b""))[0]
        raise Undelivered(f"The mail server refused the recipient with code {code}.") from None
    except smtplib.SMTPAuthenticationError as error:
        raise Undelivered(f"The mail server refused our name or password with code {error.smtp_code}.") from None
    except smtplib.SMTPResponseException as error:
        raise Undelivered(f"The mail server answered with code {error.smtp_code}.") from None
    except smtplib.SMTPNotSupportedError:
        raise Undelivered("The mail server does not offer what mail.security asks for.") from None
    except smtplib.SMTPException as error:
        raise Undelivered(f"The mail server broke off ({type(error).__name__}).") from None
    except ssl.SSLError:
        raise Undelivered("The mail server's certificate could not be verified.") from None
    except OSError:
        raise Undelivered("The mail server could not be reached.") from None


def _server() -> smtplib.SMTP:
    """A connection to the mail server, secured and signed in as the settings say."""
    settings = current.config().mail
    host = settings.host or ""
    if settings.security == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(
            host, settings.port, timeout=MAIL_S, context=ssl.create_default_context()
        )
    else:
        server = smtplib.SMTP(host, settings.port, timeout=MAIL_S)
    try:
        if settings.security == "starttls":
            server.starttls(context=ssl.create_default_context())
        if settings.username:
            server.login(settings.username, settings.password or "")
    except BaseException:
        server.close()
        raise
    return server


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"


def _one_line(text: str) -> str:
    """The text as a header may bear it: without line ends, control characters and halves of characters."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
