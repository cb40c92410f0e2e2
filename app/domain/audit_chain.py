"""The chain of the audit log: each entry carries an HMAC of itself and of the entry before, under a key that the database
does not have. What is edited, removed, swapped or cut off later is found by `verify`. Entries and head that were set back
together to an older state fit each other: only who kept a later head elsewhere (`digest_at`) can tell.

Entries get their place at the very end of their transaction: `audit_head`, the row that says where the chain ends, is locked
only while that transaction commits. So writers cannot fork the chain, and wait for each other no longer than a commit takes.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import combinations
from typing import Any, Literal

import msgspec
from sqlalchemy import String, Text, cast, event, func, select, type_coerce
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Mapped, Mapper, Session, mapped_column, object_session

from app import current
from app.clock import now
from app.domain.audit import AuditEntry
from app.extensions import Base, db

FIELDS = (
    "id", "at", "actor_id", "actor", "on_behalf_of", "action", "object_kind", "object_id", "object_name", "detail", "address",
)  # fmt: skip
HEAD = 1  # the id of the only row of `audit_head`
NEW = "audit_entries"  # in the session's info: the entries that the current transaction has inserted
ROWS_AT_ONCE = 2_000
MOST_SUSPECTS = 50  # rows that are tried as the other half of a swap

Reason = Literal["edited", "removed", "swapped", "cut_off"]


class AuditHead(Base):
    """Where the chain ends: the position and the MAC of the last entry, sealed with the chain's key."""

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(default=0)
    mac: Mapped[str] = mapped_column(String(64), default="")
    seal: Mapped[str] = mapped_column(String(64), default="")


class FirstBroken(msgspec.Struct, frozen=True, kw_only=True):
    """The first entry that does not fit. `id` is None if it is one that is missing at the end."""

    id: str | None
    position: int | None
    reason: Reason


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """`checked` is the number of entries that fit, from the first on."""

    result: Literal["intact", "broken"]
    checked: int
    first_broken: FirstBroken | None
    at: datetime


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """An entry as the chain sees it: its fields as JSON values, its place and its MAC."""

    values: Mapping[str, Any]
    position: int
    mac: str | None


def mac_of(key: bytes, position: int, previous: str, values: Mapping[str, Any]) -> str:
    """The MAC of the entry with these `FIELDS` at this position, after the entry whose MAC is `previous`; `at` is a text
    from `time_text`."""
    link = [position, previous, *(values[name] for name in FIELDS)]
    text = json.dumps(link, sort_keys=True, separators=(",", ":"), default=str)
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def seal_of(key: bytes, position: int, mac: str) -> str:
    """The seal of the chain's head."""
    return hmac.new(key, f"head {position} {mac}".encode(), hashlib.sha256).hexdigest()


def time_text(moment: datetime) -> str:
    """A time as the chain counts it: in UTC, to the microsecond."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


@event.listens_for(AuditEntry, "after_insert")
def _note(mapper: Mapper[AuditEntry], connection: Connection, entry: AuditEntry) -> None:
    session = object_session(entry)
    assert session is not None
    session.info.setdefault(NEW, []).append(entry)


@event.listens_for(db.session, "before_commit")
def _link_new_entries(session: Session) -> None:
    """Gives this transaction's entries their places, as the last thing before it commits."""
    if session.in_nested_transaction():
        return
    session.flush()
    new = [entry for entry in session.info.pop(NEW, ()) if entry in session and entry.mac is None]
    if not new:
        return
    key = current.secrets().audit_key
    head = _locked_head(session, key)
    for entry in new:
        position = head.position + 1
        values = {name: getattr(entry, name) for name in FIELDS}
        values |= {"at": time_text(entry.at), "detail": json.loads(json.dumps(entry.detail))}
        entry.position, entry.mac = position, mac_of(key, position, head.mac, values)
        head.position, head.mac = position, entry.mac
    head.seal = seal_of(key, head.position, head.mac)


def _locked_head(session: Session, key: bytes) -> AuditHead:
    head = session.get(AuditHead, HEAD, with_for_update=True, populate_existing=True)
    last = 0
    if head is None or not _is_sealed(head, key):
        last = session.scalar(select(func.max(AuditEntry.position))) or 0
    if head is None:
        head = AuditHead(id=HEAD, position=last, mac="")
        session.add(head)
    if last:  # somebody removed or changed the head: work goes on, and a gap is left for `verify` to find
        head.position = max(last, head.position) + 1
    return head


def _is_sealed(head: AuditHead, key: bytes) -> bool:
    """Whether the head is one that we wrote; that of an empty chain, which the migration makes, has no seal."""
    if head.position == 0:
        return True
    return hmac.compare_digest(head.seal, seal_of(key, head.position, head.mac))


def verify() -> Verification:
    """Reads the whole chain and says whether it is as it was written.

    It reads in short transactions of its own, so that a long log holds up nobody: call it outside of a unit of work.
    """
    key = current.secrets().audit_key
    db.session.rollback()
    previous, position = "", 0
    for link in _links():
        if link.position != position + 1:
            return _broken(position, link, "removed")
        if not _fits(key, link, previous):
            swapped = any(_is_swapped(key, link, previous, other) for other in _suspects(key, link))
            return _broken(position, link, "swapped" if swapped else "edited")
        previous, position = str(link.mac), link.position
    if not _ends_at(position, key):
        return _verification(position, FirstBroken(id=None, position=position + 1, reason="cut_off"))
    stray = db.session.scalar(
        select(AuditEntry.id).where(AuditEntry.position.is_(None)).order_by(AuditEntry.id).limit(1)
    )
    db.session.rollback()
    if stray is not None:  # put in beside the chain
        return _verification(position, FirstBroken(id=stray, position=None, reason="edited"))
    return _verification(position, None)


def digest_at(position: int) -> str | None:
    """The MAC of the entry at a position, which stands for the whole chain up to it; None if there is no such entry."""
    return db.session.scalar(select(AuditEntry.mac).where(AuditEntry.position == position))


def _broken(checked: int, link: Link, reason: Reason) -> Verification:
    return _verification(checked, FirstBroken(id=str(link.values["id"]), position=checked + 1, reason=reason))


def _verification(checked: int, broken: FirstBroken | None) -> Verification:
    return Verification(result="broken" if broken else "intact", checked=checked, first_broken=broken, at=now())


def _ends_at(position: int, key: bytes) -> bool:
    """Whether the chain's head says that it ends there, or further on because somebody has just gone on writing."""
    written = select(func.max(AuditEntry.position)).scalar_subquery()
    query = select(AuditHead, written).where(AuditHead.id == HEAD).execution_options(populate_existing=True)
    found = db.session.execute(query).one_or_none()  # both as of one moment
    is_whole = found is not None and _is_sealed(found[0], key) and found[0].position == (found[1] or 0) >= position
    db.session.rollback()
    return is_whole


def _links(after: int | None = None) -> Iterator[Link]:
    """The entries that have a place, in the chain's order, from the first one or from a position on. Values that were
    made unreadable are given as texts, which fit no MAC."""
    is_sqlite = db.engine.dialect.name == "sqlite"
    columns = {name: getattr(AuditEntry, name) for name in FIELDS}
    columns["detail"] = cast(AuditEntry.detail, Text) if not is_sqlite else type_coerce(AuditEntry.detail, Text)
    if is_sqlite:
        columns["at"] = type_coerce(AuditEntry.at, Text)
    query = select(*columns.values(), AuditEntry.position, AuditEntry.mac).order_by(AuditEntry.position)
    query = query.where(AuditEntry.position.is_not(None))
    while True:
        rows = db.session.execute(
            (query if after is None else query.where(AuditEntry.position > after)).limit(ROWS_AT_ONCE)
        ).all()
        db.session.rollback()
        for *values, position, mac in rows:
            yield Link(values=_as_written(dict(zip(FIELDS, values, strict=True))), position=position, mac=mac)
        if len(rows) < ROWS_AT_ONCE:
            return
        after = rows[-1].position
        time.sleep(0)  # others of this process have their turn


def _as_written(values: dict[str, Any]) -> dict[str, Any]:
    at, detail = values["at"], values["detail"]
    values["at"] = time_text(at) if isinstance(at, datetime) else f"{str(at).replace(' ', 'T', 1)}+00:00"
    try:
        values["detail"] = json.loads(detail)
    except (TypeError, ValueError, RecursionError):
        values["detail"] = f"unreadable: {detail}"
    return values


def _fits(key: bytes, link: Link, previous: str) -> bool:
    return hmac.compare_digest(link.mac or "", mac_of(key, link.position, previous, link.values))


def _suspects(key: bytes, first: Link) -> Sequence[Link]:
    """The entries after `first` that do not fit either: one of them may have changed places with it."""
    found: list[Link] = []
    before = first
    for link in _links(first.position):
        if not _fits(key, link, before.mac or ""):
            found.append(link)
            if len(found) == MOST_SUSPECTS:
                break
        before = link
    return found


def _is_swapped(key: bytes, link: Link, previous: str, other: Link) -> bool:
    """Whether the place of `link` would fit with some values of `other`."""
    different = [name for name in FIELDS if link.values[name] != other.values[name]]
    for many in range(len(different), 0, -1):
        for names in combinations(different, many):
            values = {**link.values, **{name: other.values[name] for name in names}}
            if mac_of(key, link.position, previous, values) in (link.mac, other.mac):
                return True
    return False
