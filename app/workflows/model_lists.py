"""The models each provider lists, and the result of the last request for the list. Cached in Redis, which may lose it.

Asking is free: it is never an inference. A list belongs to the settings it was asked with; when they change, it is
asked again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import gevent
import msgspec
import structlog
from gevent.pool import Pool
from redis import RedisError

from app import clock, current, store
from app.domain import providers
from app.domain.errors import DomainError
from app.domain.providers import Provider
from app.extensions import db
from app.providers.base import Adapter, UpstreamError
from app.providers.model_list import ListedModel

FRESH_MS = 3_600_000  # an older list is asked anew before it is shown
PATIENCE_S = 20.0  # for connecting, for the head and for the list
LONGEST_S = 30.0  # for all of it
AT_ONCE = 8

log = structlog.get_logger(__name__)


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """The last answer. `reason` says why the last try failed, "" if it did not; `models` are those of the last that did
    not. `has_list` is False for a provider that answers but lists nothing."""

    version: int  # of the settings that it was asked with
    at_ms: int
    since_ms: int  # since when it has been as it is: good, or failing
    reason: str = ""
    failures: int = 0  # in a row
    has_list: bool = True
    models: tuple[ListedModel, ...] = ()
    listed_at_ms: int | None = None


class Question(NamedTuple):
    """A provider to ask, independent of the database and the application."""

    name: str
    version: int
    before: ModelList | None
    adapter: Adapter | None
    refusal: str = ""  # of its settings, without an adapter


_list = msgspec.json.Decoder(ModelList)


def known(items: Sequence[Provider]) -> dict[str, ModelList]:
    """Returns the cached lists of these providers by id. Empty while Redis does not answer."""
    if not items:
        return {}
    try:
        found = cast("list[str | None]", current.redis().hmget(store.MODEL_LISTS, [item.id for item in items]))
    except RedisError as error:
        log.warning("lists of models could not be read", reason=str(error))
        return {}
    read = {item.id: _read(text, version_of(item)) for item, text in zip(items, found, strict=True)}
    return {id: one for id, one in read.items() if one is not None}


def of(item: Provider, *, anew: bool = False) -> ModelList:
    """The provider's list: what is known of it, or, if that is old, or `anew`, what it answers now.

    To wait for the network it ends the session's transaction.
    """
    before, id = known([item]).get(item.id), item.id
    if before is not None and not anew and clock.now_ms() - before.at_ms < FRESH_MS:
        return before
    question = _question(item, before)
    db.session.rollback()
    answer = _ask(question)
    _keep({id: answer})
    return answer


def refresh(*, every_s: int) -> int:
    """Asks each active provider that was last asked at least `every_s` ago. Returns how many. Drops deleted providers."""
    items = list(db.session.scalars(providers.search()))
    before = known(items)
    now_ms = clock.now_ms()
    due = {
        item.id: _question(item, before.get(item.id))
        for item in items
        if item.status == "active" and (item.id not in before or before[item.id].at_ms <= now_ms - every_s * 1000)
    }
    there = {item.id for item in items}
    db.session.rollback()
    _keep(dict(zip(due, Pool(AT_ONCE).imap(_ask, due.values()), strict=True)))
    _forget_all_but(there)
    return len(due)


def version_of(item: Provider) -> int:
    return int(item.updated_at.timestamp() * 1000)


def _question(item: Provider, before: ModelList | None) -> Question:
    adapter, refusal = None, ""
    try:
        adapter = providers.connected(item, most_s=PATIENCE_S)
    except DomainError as error:
        refusal = error.message
    return Question(item.name, version_of(item), before, adapter, refusal)


def _ask(question: Question) -> ModelList:
    """Asks the provider. Never raises: a failure is part of the result."""
    before, now_ms = question.before, clock.now_ms()
    try:
        if question.adapter is None:
            raise UpstreamError(question.refusal)
        with gevent.Timeout(LONGEST_S, UpstreamError("The provider did not answer in time.", timed_out=True)):
            models = question.adapter.list_models()
    except UpstreamError as error:
        reason = error.message
    else:
        return ModelList(
            version=question.version,
            at_ms=now_ms,
            since_ms=before.since_ms if before and not before.failures else now_ms,
            has_list=models is not None,
            models=models or (),
            listed_at_ms=now_ms,
        )
    finally:
        if question.adapter is not None:
            question.adapter.close()
    log.warning("a provider's models could not be listed", provider=question.name, reason=reason)
    return ModelList(
        version=question.version,
        at_ms=now_ms,
        since_ms=before.since_ms if before and before.failures else now_ms,
        reason=reason,
        failures=1 + (before.failures if before else 0),
        models=before.models if before else (),
        listed_at_ms=before.listed_at_ms if before else None,
    )


def _read(text: str | None, version: int) -> ModelList | None:
    if text is None:
        return None
    try:
        found = _list.decode(text)
    except msgspec.DecodeError:  # another version of Portico wrote it
        return None
    return found if found.version == version else None


def _keep(lists: dict[str, ModelList]) -> None:
    if lists:
        mapping: Any = {id: msgspec.json.encode(one).decode() for id, one in lists.items()}
        try:
            current.redis().hset(store.MODEL_LISTS, mapping=mapping)
        except RedisError as error:
            log.warning("lists of models could not be kept", reason=str(error))


def _forget_all_but(ids: Iterable[str]) -> None:
    try:
        gone = set(current.redis().hkeys(store.MODEL_LISTS)) - set(ids)
        if gone:
            current.redis().hdel(store.MODEL_LISTS, *gone)
    except RedisError as error:
        log.warning("lists of models could not be read", reason=str(error))
