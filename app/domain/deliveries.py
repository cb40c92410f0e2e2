"""Deliveries: e-mails and webhook calls, sent by the worker after the transaction that created them, and their results.

A row is waiting, then sent or, after the last attempt, dead; a queued job makes the worker attempt it. The job
`quotas` queues rows again whose job was lost. A row that was sent is never sent again.

A webhook is a POST of JSON with the header `X-Portico-Signature: t=<Unix seconds>,v1=<hex>`, where v1 is the
HMAC-SHA256 of "<t>.<body>" under `webhook.secret`. Redirects are not followed; any 2xx response means received.
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
from app.runtime.sealing import SealingError, key_id_of
from config import Mail

log = logging.getLogger(__name__)

JOB = "app.jobs.deliveries.send"  # by name: jobs import the domain, not the other way round
STATES = ("waiting", "sent", "dead")
CHANNELS = ("email", "webhook")
TRIES = 1 + len(RETRIES_S)
CONNECT_S, ANSWER_S, MAIL_S = 5, 10, 20
LEASE_S = 120  # one worker at a time attempts a row; longer than an attempt can last
LOST_AFTER = timedelta(minutes=2)
SPENT_AFTER = timedelta(seconds=sum(RETRIES_S) + 5 * 60)  # by then the retries of a job are over


class Delivery(Base):
    """One e-mail or webhook call and its state: waiting, sent or dead. `target` is an e-mail address, or the origin of the
    webhook's URL: the rest of the URL may be secret."""

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
    """An attempt failed. The message is safe to show. The worker retries when a job raises it."""


def search(*, state: str | None = None, channel: str | None = None, search: str | None = None) -> Select[Delivery]:
    """A query of deliveries, newest first, filtered by state, channel, and a part of the target or the kind."""
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
        raise NotFound("This delivery does not exist.")
    return delivery


def mails() -> bool:
    """Whether e-mail can be sent: a mail server is configured."""
    return current.config().mail.host is not None


def mail(address: str, kind: str, subject: str, text: str, *, secret: bool = False) -> None:
    """Queue an e-mail if a mail server is configured. The text of a `secret` one is encrypted, and deleted afterwards."""
    if not mails():
        return
    payload = {"subject": _one_line(subject)}
    id = new_id()
    payload |= {"sealed": current.sealer().seal(text.encode(), place_of(id))} if secret else {"text": text}
    _queue(Delivery(id=id, channel="email", target=address, kind=kind, payload=payload))


def webhook(event: dict[str, Any]) -> None:
    """Queue a webhook call with `event`, which has a `kind`, if a webhook is configured."""
    url = current.config().webhook.url
    if url:
        _queue(Delivery(id=new_id(), channel="webhook", target=_origin(url), kind=event["kind"], payload=event))


def send(id: str) -> None:
    """Attempt one delivery. Raises `Undelivered` if it can be retried; after the last attempt the row is dead."""
    redis, lease = current.redis(), f"{store.TAG}:delivery:{id}"
    if not redis.set(lease, "1", nx=True, ex=LEASE_S):
        return  # another worker attempts it now
    try:
        pending = transaction(_begin, id)
        if pending is None:
            return
        channel, target, kind, payload = pending
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
        raise Conflict("Its text held a secret and is not stored. Create a new invitation instead.")
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


def place_of(id: str) -> str:
    """The place that a delivery's text is sealed for."""
    return f"delivery:{id}"


def seal_anew(delivery: Delivery, key: str) -> None:
    """Seal the text of a pending e-mail with the active encryption key, whose id is `key`, unless it is already. A text that no
    kept key opens stays as it is; its delivery fails."""
    sealed = delivery.payload.get("sealed")
    if not sealed or key_id_of(sealed) == key:
        return
    place = place_of(delivery.id)
    try:
        text = current.sealer().open(sealed, place)
    except SealingError as error:
        log.warning("the text of delivery %s cannot be opened: %s", delivery.id, error)
        return
    delivery.payload = delivery.payload | {"sealed": current.sealer().seal(text, place)}


def _queue(delivery: Delivery) -> None:
    db.session.add(delivery)
    enqueue_after_commit(JOB, delivery.id)


def _begin(id: str) -> tuple[str, str, str, dict[str, Any]] | None:
    """What to send: channel, kind, target and payload; None if it is sent or dead. The attempt counts even if the process
    dies during it."""
    delivery = db.session.get(Delivery, id, with_for_update=True, populate_existing=True)
    if delivery is None or delivery.state != "waiting":
        return None
    delivery.attempts += 1
    return delivery.channel, delivery.target, delivery.kind, dict(delivery.payload)


def _finish(id: str, fault: str | None) -> str:
    """Record the result of an attempt; return the new state."""
    delivery = db.session.get(Delivery, id, with_for_update=True, populate_existing=True)
    if delivery is None:
        return "dead"
    delivery.last_error = fault
    if fault is None or delivery.attempts >= TRIES:
        delivery.state, delivery.done_at = "sent" if fault is None else "dead", now()
        delivery.payload = {name: value for name, value in delivery.payload.items() if name != "sealed"}
        if fault is not None:
            log.error("a delivery failed for good: %s %s (%s): %s", delivery.channel, delivery.id, delivery.kind, fault)
    return delivery.state


def _post(target: str, event: dict[str, Any], id: str) -> None:
    settings = current.config().webhook
    if not settings.url:
        raise Undelivered("The webhook is no longer configured.")
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
            stream=True,  # only the status matters
        ) as answer:
            if not 200 <= answer.status_code < 300:
                raise Undelivered(f"The webhook answered with status {answer.status_code}.")
    except requests.Timeout:
        raise Undelivered("The webhook did not answer in time.") from None
    except requests.exceptions.SSLError:
        raise Undelivered("The webhook's certificate could not be verified.") from None
    except requests.ConnectionError:
        raise Undelivered("The webhook could not be reached.") from None
    except requests.RequestException as error:  # its text may contain the URL, which may contain a secret
        raise Undelivered(f"The webhook could not be called ({type(error).__name__}).") from None


def signature(secret: str, at_s: int, body: bytes) -> str:
    """The value of `X-Portico-Signature`."""
    signed = hmac.new(secret.encode(), f"{at_s}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={signed}"


def _mail(target: str, payload: dict[str, Any], id: str) -> None:
    settings = current.config().mail
    if settings.host is None:
        raise Undelivered("The mail server is no longer configured.")
    if not names.is_email(target):  # a row that is older than the check
        raise Undelivered("The e-mail address is invalid. Correct it in the person's profile.")
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = settings.sender, target, payload["subject"]
    message["Date"] = format_datetime(now())
    domain = parseaddr(settings.sender)[1].rpartition("@")[2]
    message["Message-ID"] = make_msgid(idstring=id, domain=domain or "localhost")
    message["Auto-Submitted"] = "auto-generated"
    sealed = payload.get("sealed")
    text = current.sealer().open(sealed, place_of(id)).decode() if sealed else payload["text"]
    message.set_content(text)
    try:
        with mail_server(settings) as server:
            server.send_message(message)
    except TimeoutError:
        raise Undelivered("The mail server did not answer in time.") from None
    except smtplib.SMTPRecipientsRefused as error:
        code = next(iter(error.recipients.values()), (0, b""))[0]
        raise Undelivered(f"The mail server refused the recipient with code {code}.") from None
    except smtplib.SMTPAuthenticationError as error:
        raise Undelivered(f"The mail server refused the username or password with code {error.smtp_code}.") from None
    except smtplib.SMTPResponseException as error:
        raise Undelivered(f"The mail server answered with code {error.smtp_code}.") from None
    except smtplib.SMTPNotSupportedError:
        raise Undelivered("The mail server does not support the setting mail.security.") from None
    except smtplib.SMTPException as error:
        raise Undelivered(f"The connection to the mail server broke ({type(error).__name__}).") from None
    except ssl.SSLError:
        raise Undelivered("The mail server's certificate could not be verified.") from None
    except OSError:
        raise Undelivered("The mail server could not be reached.") from None


def send_test(target: str) -> None:
    """Sends a mail immediately, to try the mail server. Raises `Undelivered` with a sentence that says why not."""
    name = _one_line(current.config().portal.name)
    text = f"This is a test e-mail of {name}. Its mail server works."
    _mail(target, {"subject": f"{name}: test e-mail", "text": text}, new_id())


def mail_server(settings: Mail) -> smtplib.SMTP:
    """A connection to the mail server, encrypted and authenticated as configured. Raises `smtplib.SMTPException` and
    `OSError`."""
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
    """The text made safe for a header: without line breaks, control characters and lone surrogates."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
