"""Single requests in the ledger, refused ones among them: lists, one request with all its entries, when keys were last used.

The reader is the permission, as in `planner`.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Iterator

import msgspec
from sqlalchemy import ColumnElement, func, literal, select, tuple_

from app.extensions import db
from app.ledger.entries import ENTRY, UsageEntry
from app.ledger.measures import values_from_json as listed_ids
from app.reports.planner import IS_LISTED, IS_REQUEST, NONE, Filters, Reader, access_conditions, conditions
from app.reports.usage import ReportError

COUNTED_UP_TO = 10_000  # entries of a list that are counted exactly
# One row value: the database steps to its place in the index, where two conditions would be checked row by row.
_place = tuple_(ENTRY.c.at_ms, ENTRY.c.id)
_OLDEST_FIRST = ENTRY.c.at_ms, ENTRY.c.id
_NEWEST_FIRST = ENTRY.c.at_ms.desc(), ENTRY.c.id.desc()
MOST_OF_TURN = 100
FEW, NEWEST = 100, 10_000  # how many of the newest requests it reads: first few, then many


class Page(msgspec.Struct, kw_only=True):
    """A page of entries, newest first; `next` is the cursor of older ones, `previous` of newer ones.

    `total` is None above `COUNTED_UP_TO`.
    """

    entries: list[UsageEntry]
    next: str | None
    total: int | None
    previous: str | None = None


def search(
    reader: Reader, *, filters: Filters = NONE, limit: int = 50, cursor: str | None = None, skip: int = 0
) -> Page:
    """A page of the requests that match `filters`, newest first: from `cursor` (of another page) or after `skip`.

    Raises `ReportError` for an invalid cursor.
    """
    where = _conditions(reader, filters)
    # counted in the order of the list, so that its index answers; other rows would be read from the heap
    counted = select(func.count()).select_from(
        select(literal(1)).select_from(ENTRY).where(*where).order_by(*_NEWEST_FIRST).limit(COUNTED_UP_TO + 1).subquery()
    )
    query = select(UsageEntry, counted.scalar_subquery()).where(*where).limit(limit + 1)
    newer = False
    if cursor is not None:
        newer, *given = _position(cursor)
        query = query.where(_place > tuple_(*given) if newer else _place < tuple_(*given))
    elif skip:
        query = query.offset(skip)
    query = query.order_by(*(_OLDEST_FIRST if newer else _NEWEST_FIRST))
    reached = cursor is not None or skip < COUNTED_UP_TO
    rows = db.session.execute(query).all() if reached else []
    total = rows[0][1] if rows else db.session.scalar(counted) if cursor is not None or skip else 0
    entries, more = [row[0] for row in rows[:limit]], len(rows) > limit
    if newer:
        entries.reverse()
        has_older, has_newer = bool(entries), more
    else:
        has_older, has_newer = more, cursor is not None and bool(entries)
    return Page(
        entries=entries,
        next=_cursor(entries[-1]) if has_older else None,
        previous=_cursor(entries[0], newer=True) if has_newer and entries else None,
        total=total if total is not None and total <= COUNTED_UP_TO else None,
    )


def newest(reader: Reader, *, filters: Filters, limit: int) -> list[UsageEntry]:
    """The newest `limit` requests that match `filters`, without a count."""
    return _newest(*_conditions(reader, filters), limit=limit)


def newest_served(reader: Reader, *, filters: Filters, limit: int) -> list[UsageEntry]:
    """The same without refused ones."""
    return _newest(IS_REQUEST, *_conditions(reader, filters), limit=limit)


def _newest(*where: ColumnElement[bool], limit: int) -> list[UsageEntry]:
    query = select(UsageEntry).where(*where)
    return list(db.session.scalars(query.order_by(*_NEWEST_FIRST).limit(limit)))


def all_in_chunks(reader: Reader, *, filters: Filters = NONE, piece: int = 500) -> Iterator[list[UsageEntry]]:
    """All requests that match `filters`, newest first, in lists of `piece`, so that memory stays bounded."""
    query = select(UsageEntry).where(*_conditions(reader, filters))
    query = query.order_by(*_NEWEST_FIRST).limit(piece)
    entries = list(db.session.scalars(query))
    while entries:
        last, whole = (entries[-1].at_ms, entries[-1].id), len(entries) == piece
        yield entries
        entries = list(db.session.scalars(query.where(_place < tuple_(*last)))) if whole else []


def entries_of(reader: Reader, request_id: str) -> list[UsageEntry]:
    """All entries of one request: the request itself, then later corrections; empty if the reader cannot see it.

    Repairs and credits have ids too, but are not requests.
    """
    moves = (ENTRY.c.kind == "repair") | ((ENTRY.c.kind == "credit") & (ENTRY.c.person_id == ""))
    query = select(UsageEntry).where(ENTRY.c.request_id == request_id, ~moves, *access_conditions(reader, ENTRY))
    return list(db.session.scalars(query.order_by(~IS_REQUEST, ENTRY.c.id)))


def turn_of(reader: Reader, entry: UsageEntry) -> list[UsageEntry]:
    """The requests of an entry's turn, newest first, at most `MOST_OF_TURN`: a client repeats a request that failed or was
    cut. Only the entry where its client tells no session."""
    if entry.turn_id is None:
        return [entry]
    whose = ENTRY.c.turn_id == entry.turn_id, ENTRY.c.person_id == entry.person_id
    query = select(UsageEntry).where(IS_LISTED, *whose, *access_conditions(reader, ENTRY))
    return list(db.session.scalars(query.order_by(*_NEWEST_FIRST).limit(MOST_OF_TURN)))


def _conditions(reader: Reader, filters: Filters) -> list[ColumnElement[bool]]:
    where = [IS_LISTED, *conditions(reader, filters, ENTRY)]
    if filters.from_ms is not None:
        where.append(ENTRY.c.at_ms >= filters.from_ms)
    if filters.to_ms is not None:
        where.append(ENTRY.c.at_ms < filters.to_ms)
    return where


def _cursor(entry: UsageEntry, *, newer: bool = False) -> str:
    spelled = f"{'n' if newer else ''}{entry.at_ms}.{entry.id}"
    return base64.urlsafe_b64encode(spelled.encode()).decode().rstrip("=")


def _position(cursor: str) -> tuple[bool, int, int]:
    """Read a cursor: whether it asks for newer entries, and the time in ms and id of the entry that it starts from.

    Raises `ReportError`.
    """
    try:
        spelled = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii")
        at_ms, id = (int(part) for part in spelled.removeprefix("n").split("."))
    except ValueError:
        raise ReportError("not a cursor of this list", "cursor") from None
    if not (0 <= at_ms < 2**63 and 0 <= id < 2**63):
        raise ReportError("not a cursor of this list", "cursor")
    return spelled.startswith("n"), at_ms, id


# --- when keys were used ---


def last_use(reader: Reader, key_ids: Iterable[str]) -> dict[str, int]:
    """When each key was last used, in Unix ms; unused keys are left out."""
    ids = sorted(set(key_ids))
    if not ids:
        return {}
    of = listed_ids(db.session.connection().dialect.name == "postgresql").subquery("of")
    last = (  # one step into the index for each key; GROUP BY would read all their entries
        select(ENTRY.c.at_ms)
        .where(ENTRY.c.key_id == of.c.id, IS_REQUEST, *access_conditions(reader, ENTRY, of_key=True))
        .order_by(*_NEWEST_FIRST)
        .limit(1)
        .scalar_subquery()
    )
    found = db.session.execute(select(of.c.id, last), {"ids": msgspec.json.encode(ids).decode()})
    return {str(key_id): int(at_ms) for key_id, at_ms in found if at_ms is not None}


def use_of_secrets(reader: Reader, key_id: str, secret_ids: Collection[str]) -> dict[str, int]:
    """When each of a key's secrets was last presented, in Unix ms, among the key's last 10,000 requests.

    A secret that none of these presented is left out. Usually the last few requests answer for all secrets.
    """
    found: dict[str, int] = {}
    for size in (FEW, NEWEST):
        found = _newest_use(reader, key_id, size)
        if found.keys() >= set(secret_ids):
            break
    return {id: at_ms for id, at_ms in found.items() if id in secret_ids}


def _newest_use(reader: Reader, key_id: str, size: int) -> dict[str, int]:
    newest = (
        select(ENTRY.c.secret_id, ENTRY.c.at_ms)
        .where(ENTRY.c.key_id == key_id, IS_REQUEST, *access_conditions(reader, ENTRY, of_key=True))
        .order_by(*_NEWEST_FIRST)
        .limit(size)
        .subquery("newest")
    )
    query = (
        select(newest.c.secret_id, func.max(newest.c.at_ms))
        .where(newest.c.secret_id.is_not(None))
        .group_by(newest.c.secret_id)
    )
    return {str(secret_id): int(at_ms) for secret_id, at_ms in db.session.execute(query)}
