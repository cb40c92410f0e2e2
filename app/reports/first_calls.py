"""Whether a key works in a client: the first call that a model answered, else why the last one was refused.

The gateway notes both by client for a month (`app.gateway.last_calls`). The ledger tells how an answer ended, and knows of
older calls, but not of refused ones and not which client made them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

import msgspec
from redis import RedisError

from app import clock, current, store
from app.metering.usage import LastCall
from app.reports import requests
from app.reports.planner import Filters, Reader
from app.runtime.agents import Agent

LATELY_MS = 3_600_000  # how long a refusal after the first answer is shown
LOOKED_AT = 50  # of a key's newest requests

_decode = msgspec.json.Decoder(LastCall).decode


class FirstCall(msgspec.Struct, frozen=True, kw_only=True):
    """`ok` tells of the first call that was answered, `failed` of the last one that was not. `reason` is what the client was
    told, `has_page` whether people can look the request up."""

    state: Literal["waiting", "ok", "failed"]
    request_id: str | None = None
    at_ms: int | None = None
    agent: Agent | None = None
    status: int | None = None
    code: str | None = None
    reason: str | None = None
    has_page: bool = False


class Progress(NamedTuple):
    """`refused` is a call that failed lately although another was answered. `others` are the other clients in which the key
    works, None for one that is not recognised."""

    first: FirstCall
    refused: FirstCall | None = None
    others: tuple[Agent | None, ...] = ()


WAITING = FirstCall(state="waiting")


def progress(reader: Reader, key_id: str, among: Collection[Agent | None] | None = None) -> Progress:
    """How far a key has come in a client that calls itself one of `among`: None stands for what is not recognised, and no
    collection for any client."""
    noted = _noted(key_id)
    counted = [call for call in noted if among is None or call.agent in among]
    others = tuple(call.agent for call in noted if call.status == 200 and call not in counted)
    calls = [_answered(reader, call) if call.status == 200 else _refused(reader, call) for call in counted]
    if not any(call.state == "ok" for call in calls):
        in_ledger = _in_ledger(reader, key_id)
        broke_off = any(call.status == 200 for call in calls)
        if broke_off or (not others and (among is None or None in among)):
            calls += in_ledger
        elif not others and any(call.state == "ok" for call in in_ledger):
            others = (None,)
    calls.sort(key=lambda call: call.at_ms or 0)
    first = next((call for call in calls if call.state == "ok"), None)
    last_failed = next((call for call in reversed(calls) if call.state == "failed"), None)
    if first is None:
        return Progress(last_failed or WAITING, None, others)
    is_late = last_failed is not None and (last_failed.at_ms or 0) > clock.now_ms() - LATELY_MS
    return Progress(first, last_failed if is_late else None, others)


def _noted(key_id: str) -> list[LastCall]:
    """What the gateway noted; nothing while Redis does not answer: the page then tells what the ledger knows."""
    try:
        found = current.redis().hgetall(store.last_calls(key_id))
    except RedisError:
        return []
    calls = []
    for raw in found.values():
        try:
            calls.append(_decode(raw))
        except msgspec.MsgspecError:  # of a later version, beside which this one still runs
            continue
    return calls


def _answered(reader: Reader, call: LastCall) -> FirstCall:
    """A call whose answer began; the ledger may say meanwhile that it broke off."""
    entries = requests.entries_of(reader, call.request_id)
    broke_off = entries[0] if entries and entries[0].outcome == "error" else None
    return FirstCall(
        state="failed" if broke_off else "ok",
        request_id=call.request_id,
        at_ms=call.at_ms,
        agent=call.agent,
        status=call.status,
        code=broke_off.error_code if broke_off else None,
        reason=broke_off.error_message if broke_off else None,
        has_page=bool(entries),
    )


def _refused(reader: Reader, call: LastCall) -> FirstCall:
    has_page = bool(requests.entries_of(reader, call.request_id))
    return FirstCall(
        state="failed", request_id=call.request_id, at_ms=call.at_ms, agent=call.agent, status=call.status, code=call.code,
        reason=call.message, has_page=has_page,
    )  # fmt: skip


def _in_ledger(reader: Reader, key_id: str) -> list[FirstCall]:
    """The key's newest requests that went well or failed."""
    return [
        FirstCall(
            state="ok" if entry.outcome == "ok" else "failed", request_id=entry.request_id, at_ms=entry.at_ms,
            status=entry.status, code=entry.error_code, reason=entry.error_message, has_page=True,
        )
        for entry in requests.newest_served(reader, filters=Filters(key_id=key_id), limit=LOOKED_AT)
        if entry.outcome != "cancelled"
    ]  # fmt: skip
