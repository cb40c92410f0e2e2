"""LiteLLM's public REST API: lists read page by page, and single writes, within bounds of bytes, rows and time.

The key goes to the origin of the address alone: no redirect is followed. A read that fails is tried again after a pause, and
what asks for patience (429 with `Retry-After`) gets it. Writes are tried again only where LiteLLM has certainly not done
them. After `IN_A_ROW` failures nothing is asked for `OPEN_S` seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any, Literal
from urllib.parse import quote, urlencode

import msgspec

from app import clock
from app.litellm.plan import Entity
from app.litellm.shapes import Lists, Row
from app.providers.addresses import AddressPolicy
from app.providers.dial import Dial
from app.providers.errors import UpstreamError
from app.providers.http import Answer, Pool
from app.providers.settings import Deadlines

Verdict = Literal["ok", "auth_error", "connection_error", "timeout", "bad_response"]

IN_A_ROW, OPEN_S = 5, 30
ATTEMPTS = 3  # of a read that fails
REFUSALS = 10  # of one request, by 429
PAUSES_S = (0.2, 1.0)
LONGEST_PATIENCE_S = 60.0
PAGE = 100
MOST_ROWS = 200_000  # of one list
MOST_BYTES = 32 << 20  # of one answer
MOST_S = 900.0  # for all that one client asks
READS_OF_A_LIST = 3  # before it is given up because it changes

_decoder = msgspec.json.Decoder(float_hook=Decimal)
_encoder = msgspec.json.Encoder(decimal_format="number")


class LiteLLMFailed(Exception):
    """LiteLLM did not do what it was asked. The message is safe to show. `verdict` is the kind of failure; `status` that of its
    answer, None if there was none; with `refused` it judged this very request, and others may be well."""

    def __init__(self, message: str, verdict: Verdict = "bad_response", status: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.verdict = verdict
        self.status = status

    @property
    def refused(self) -> bool:
        return self.status is not None and 400 <= self.status < 500 and self.verdict == "bad_response"


class Breaker(msgspec.Struct):
    """Failures in a row, and until when nothing is asked, in milliseconds of the time of day."""

    failures: int = 0
    open_until_ms: int = 0

    @property
    def is_open(self) -> bool:
        return clock.now_ms() < self.open_until_ms

    def note(self, failed: bool) -> None:
        self.failures = self.failures + 1 if failed else 0
        self.open_until_ms = clock.now_ms() + OPEN_S * 1000 if self.failures >= IN_A_ROW else 0


class LiteLLM:
    """One LiteLLM, to be closed again. Raises `ValueError` for what is no address."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        policy: AddressPolicy,
        timeout_s: float,
        breaker: Breaker | None = None,
        sleep: Callable[[float], None] = time.sleep,
        attempts: int = ATTEMPTS,
    ) -> None:
        deadlines = Deadlines(timeout_s, timeout_s, timeout_s, 4 * timeout_s)
        self._pool = Pool(Dial(url.rstrip("/"), deadlines=deadlines, policy=policy))
        self._key = key
        self._breaker = breaker or Breaker()
        self._sleep = sleep
        self._attempts = attempts
        self._ends_at = time.monotonic() + MOST_S

    def close(self) -> None:
        self._pool.close()

    def __enter__(self) -> LiteLLM:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- reading ---

    def version(self) -> str | None:
        """Its version; the key is not looked at."""
        told = self._object("GET", "/health/readiness")
        found = told.get("litellm_version")
        return found[:64] if isinstance(found, str) else None

    def check_key(self) -> None:
        """Raises `LiteLLMFailed` unless the key may read users."""
        self._object("GET", _path("/user/list", page=1, page_size=1))

    def lists(self, entities: Iterable[Entity]) -> Lists:
        """What there is of these, and of what they refer to. Raises `LiteLLMFailed`."""
        wanted = set(entities)
        has_teams = bool(wanted & {"teams", "members", "keys"})
        return Lists(
            models=self.models() if "models" in wanted else [],
            users=self.users() if wanted & {"users", "members", "keys"} else [],
            teams=self.teams() if has_teams else [],
            caps=self.memberships() if "members" in wanted else None,
            keys=self.keys() if "keys" in wanted else [],
        )

    def models(self) -> list[Row]:
        return _rows(self._object("GET", "/model/info"), "data")

    def users(self) -> list[Row]:
        return self._pages("/user/list", "users", "user_id", "page_size", total="total", sort_by="created_at")

    def teams(self) -> list[Row]:
        try:
            return self._pages("/v2/team/list", "teams", "team_id", "page_size", total="total")
        except LiteLLMFailed as failed:
            if failed.status != 404:
                raise
        return self._all_teams()  # older ones have no pages

    def memberships(self) -> list[Row] | None:
        """The members of teams with their budgets, which only the list without pages tells; None if there is no such list."""
        try:
            teams = self._all_teams()
        except LiteLLMFailed as failed:
            if failed.status != 404:
                raise
            return None
        if not any("team_memberships" in team for team in teams):
            return None
        return [row for team in teams for row in team.get("team_memberships") or () if isinstance(row, dict)]

    def _all_teams(self) -> list[Row]:
        told = self.ask("GET", "/team/list")
        return _rows({"teams": told} if isinstance(told, list) else told, "teams")

    def keys(self) -> list[Row]:
        return self._pages(
            "/key/list", "keys", "token", "size", total="total_count",
            return_full_object="true", include_team_keys="true", sort_by="created_at", sort_order="asc",
        )  # fmt: skip

    def _pages(self, path: str, member: str, id: str, size: str, *, total: str, **query: str) -> list[Row]:
        """All rows of a list. While pages are read, rows may come and go: then it is read again."""
        for _ in range(READS_OF_A_LIST):
            found: dict[Any, Row] = {}
            totals = set()
            read = 0
            page = 1
            while True:
                told = self._object("GET", _path(path, **query, page=page, **{size: PAGE}))
                rows = _rows(told, member)
                totals.add(told.get(total))
                read += len(rows)
                found |= {row.get(id): row for row in rows}
                if len(found) > MOST_ROWS:
                    raise LiteLLMFailed(f"LiteLLM has more than {MOST_ROWS} {member}.")
                pages = told.get("total_pages")
                if not rows or (page >= pages if isinstance(pages, int) else len(rows) < PAGE):
                    break
                page += 1
            [first, *others] = totals
            if not others and (first is None or first == read == len(found)):
                return list(found.values())
        raise LiteLLMFailed(f"LiteLLM's {member} changed while they were read. Try again.")

    # --- writing and asking ---

    def write(self, path: str, body: Mapping[str, Any], *, method: str = "POST") -> dict[str, Any]:
        """Tell it something. Raises `LiteLLMFailed`."""
        told = self.ask(method, path, body)
        return told if isinstance(told, dict) else {}

    def _object(self, method: str, path: str) -> dict[str, Any]:
        told = self.ask(method, path)
        if not isinstance(told, dict):
            raise self._failed("LiteLLM's answer has another shape.")
        return told

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Its answer, decoded, with decimals. Raises `LiteLLMFailed`."""
        attempts, refusals = self._attempts if method == "GET" else 1, 0
        while True:
            if self._breaker.is_open:
                raise LiteLLMFailed(
                    "LiteLLM failed again and again, so it is left alone for a while.", "connection_error"
                )
            if time.monotonic() > self._ends_at:
                raise LiteLLMFailed("LiteLLM took too long.", "timeout")
            try:
                status, patience_s, text = self._once(method, path, body)
            except UpstreamError as error:
                attempts -= 1
                self._breaker.note(True)
                if attempts <= 0:
                    raise _said(error) from None
                self._sleep(PAUSES_S[min(self._attempts - attempts, len(PAUSES_S)) - 1])
                continue
            if status == 429 and refusals < REFUSALS:
                refusals += 1
                self._sleep(min(patience_s, LONGEST_PATIENCE_S))
                continue
            if status >= 500:
                attempts -= 1
                self._breaker.note(True)
                if attempts > 0:
                    self._sleep(PAUSES_S[min(self._attempts - attempts, len(PAUSES_S)) - 1])
                    continue
                raise LiteLLMFailed(f"LiteLLM failed with the status {status}.", status=status)
            self._breaker.note(False)
            return self._read(status, text)

    def _once(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, float, bytes]:
        headers = {"Authorization": f"Bearer {self._key}", "Accept": "application/json"}
        pieces = []
        if body is not None:
            headers["Content-Type"] = "application/json"
            pieces = [_encoder.encode(body)]
        answer = self._pool.request(method, path, headers, pieces)
        try:
            return answer.status, _patience(answer), answer.read_all(MOST_BYTES)
        finally:
            answer.close()

    def _read(self, status: int, text: bytes) -> Any:
        if status in (401, 403):
            raise LiteLLMFailed("LiteLLM does not accept the master key.", "auth_error", status)
        if 300 <= status < 400:
            raise LiteLLMFailed(
                "LiteLLM redirects, which is not followed. Enter the address that it leads to.", status=status
            )
        try:
            told = _decoder.decode(text)
        except (msgspec.DecodeError, RecursionError):
            if status >= 400:
                raise LiteLLMFailed(f"LiteLLM refused with the status {status}.", status=status) from None
            raise self._failed("LiteLLM's answer is not JSON.") from None
        if status >= 400:
            raise LiteLLMFailed(
                self._masked(_reason(told)) or f"LiteLLM refused with the status {status}.", status=status
            )
        return told

    def _failed(self, message: str) -> LiteLLMFailed:
        self._breaker.note(True)
        return LiteLLMFailed(message)

    def _masked(self, text: str) -> str:
        return text.replace(self._key, "••••") if self._key else text


def quoted(text: str) -> str:
    """A text as a part of a path."""
    return quote(text, safe="")


def _path(path: str, **query: Any) -> str:
    return f"{path}?{urlencode(query)}"


def _rows(told: Any, member: str) -> list[Row]:
    rows = told.get(member) if isinstance(told, dict) else None
    if not isinstance(rows, list):
        raise LiteLLMFailed(f"LiteLLM's answer has no list of {member}.")
    return [row for row in rows if isinstance(row, dict)]


def _patience(answer: Answer) -> float:
    try:
        return max(float(answer.header("retry-after") or 1.0), 0.0)
    except ValueError:
        return 1.0


def _reason(told: Any) -> str:
    """What LiteLLM says of a refusal, in one of its shapes."""
    for _ in range(4):
        if not isinstance(told, dict):
            break
        told = told.get("error") or told.get("detail") or told.get("message")
    return f"LiteLLM says: {' '.join(told.split())[:300]}" if isinstance(told, str) and told.isprintable() else ""


def _said(error: UpstreamError) -> LiteLLMFailed:
    verdict: Verdict = "timeout" if error.timed_out else "connection_error" if error.unconnected else "bad_response"
    return LiteLLMFailed(error.message.replace("The provider", "LiteLLM").replace("the provider", "LiteLLM"), verdict)
