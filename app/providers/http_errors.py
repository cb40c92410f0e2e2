"""What an upstream says of a failure, in whatever shape, as words that are safe to show.

Everything here comes from outside: it is cut before it is searched, and each pattern reads a text once.
"""

from __future__ import annotations

import ipaddress
import math
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

from app import clock
from app.providers.base import UpstreamError
from app.providers.lenient_json import read_json
from app.runtime.logs import KEY_STARTS

SEARCHED_CHARACTERS = 4096
SHOWN_CHARACTERS = 500
LONGEST_WAIT_S = 3600.0

_REASONS = ("message", "detail", "msg", "error_message", "error_msg", "errorMessage", "Message", "reason", "title",
            "error", "errors")  # fmt: skip
_DEEPEST = 4

# Each starts where a word starts, and goes over a character once.
_ADDRESS = re.compile(
    r"\b[a-z][a-z0-9+.-]{0,30}+://[^\s\"'<>)]++"
    r"|(?<!\S)[^\s:@/]++:[^\s@/]++@\S++"  # user and password before a host
    r"|\[[0-9a-f]{0,4}:[0-9a-f:.]{1,45}(?:%\w{1,15})?\](?::\d{1,5})?"
    r"|(?<![\w.-])\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5}|/\d{1,2})?(?![\w-])"
    r"|(?<![\w.-])(?=[\d.-]*[^\W\d])[\w.-]++:\d{2,5}(?!\w)"  # a host and a port
    r"|\blocalhost\b",
    re.IGNORECASE,
)
_IPV6 = re.compile(r"(?<![\w:.%])([0-9a-f:.]{2,45}+)(?:%\w{1,15})?(?!\w)", re.IGNORECASE)
_HOST = re.compile(r"(?<![\w.-])[\w-]++(?:\.[\w-]++)++")
_INTERNAL = frozenset(
    ("arpa", "cluster", "consul", "corp", "home", "internal", "intra", "intranet", "lan", "local", "localdomain",
     "localhost", "localnet", "private", "svc")
)  # fmt: skip
_SECRET = re.compile(
    rf"\b(?:sk|{KEY_STARTS}|key|pk|rk)[-_][\w*•.…-]{{4,}}+"
    r"|\bAIza[\w*•.…-]{6,}+|\bAKIA[A-Z0-9]{12,}+|\bya29\.[\w.-]{8,}+"
    r"|\beyJ[\w-]{8,}+(?:\.[\w-]*+){0,4}+"  # a JSON web token
    r"|\bBearer\s++\S++|\bBasic\s++(?=[a-z]*[0-9+/=])[a-z0-9+/_-]{8,}+=*+"
    r"|(?:api[_ -]?key|passw(?:or)?d|passphrase|\bpwd|secret|(?:access|refresh|id|auth)[_-]?token)[\"']?\s?[=:]\s?[\"']?"
    r"[^\s\"'&,;}]++"
    r"|(?<![\w*•-])[\w-]*+[*•]{3,}+[\w*•-]*+"  # masked in part by somebody else
    r"|(?<![\w.…-])[\w-]{2,}+(?:\.{3,}+|…)[\w-]{2,}+",
    re.IGNORECASE,
)
# Pages of vendors' own, to which their errors lead.
_PAGES = re.compile(r"https?://(?:[\w-]+\.)*(?:anthropic|claude|openai)\.com(?![\w.-])[^\s\"'<>)]*")
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,99}")
_PARAM = re.compile(r"[A-Za-z0-9_.$\[\]/:-]{1,200}")


def error_of(
    status: int, body: bytes, *secrets: str | None, retry_after_s: float | None = None, otherwise: str | None = None
) -> UpstreamError:
    """An upstream's error answer, in whatever shape it came; `otherwise` is said if it gives no reason."""
    said = read_json(body)
    inner = (said.get("error") or said) if isinstance(said, dict) else said
    param = code = None
    if isinstance(inner, dict):
        param = _plain(_PARAM, inner.get("param"), *secrets)
        code = _plain(_CODE, inner.get("code"), *secrets)
    return UpstreamError(
        safe_to_show(reason_in(said), *secrets) or otherwise or f"The provider answered with status {status}.",
        status=status,
        refused=status in (400, 413, 422),
        retry_after_s=retry_after_s,
        param=param,
        code=code,
    )


def reason_in(said: Any, depth: int = 0) -> str:
    """The sentence in an error of any shape; "" when there is none."""
    if isinstance(said, str):
        return said
    if isinstance(said, list):
        return reason_in(said[0], depth + 1) if said and depth < _DEEPEST else ""
    if not isinstance(said, dict) or depth >= _DEEPEST:
        return ""
    if reason := reason_in(said.get("error"), depth + 1):
        return reason
    for name in _REASONS:
        if reason := reason_in(said.get(name), depth + 1):
            return reason
    return ""


def safe_to_show(text: str, *secrets: str | None) -> str:
    """An upstream's own words without addresses and secrets, at most 500 characters."""
    is_cut = len(text) > SEARCHED_CHARACTERS
    text = text[:SEARCHED_CHARACTERS]
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[removed]")
    if is_cut:  # the last word may be a part of something that a pattern knows by its whole
        text = text[: -max((len(secret) for secret in secrets if secret), default=1)]
        text = text.rpartition(" ")[0] or text
    text = _SECRET.sub("[removed]", text)
    text = _IPV6.sub(_without_ipv6, _ADDRESS.sub("[address]", text))
    text = _HOST.sub(_without_internal, text)
    return _shortened(text)


def is_safe(text: str, *secrets: str | None) -> bool:
    """Whether an upstream's own words can be shown as they are, whole."""
    return len(text) <= SEARCHED_CHARACTERS and safe_to_show(text, *secrets) == _shortened(text)


def as_it_came(dialect: str, said: bytes, *secrets: str | None) -> tuple[str, bytes] | None:
    """An error as the upstream wrote it in a dialect, see `UpstreamError.original`; None where it is not safe to show."""
    try:
        text = said.decode()
    except UnicodeDecodeError:
        return None
    return (dialect, said) if is_safe(_PAGES.sub("", text), *secrets) else None


def _shortened(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:SHOWN_CHARACTERS].strip()


def _without_ipv6(found: re.Match[str]) -> str:
    text = found[1]
    if text.count(":") < 2:
        return found[0]
    for address in (text, text.rstrip(".:")):
        try:
            ipaddress.IPv6Address(address)
        except ValueError:
            continue
        return found[0] if address == "::" else "[address]"
    return found[0]


def _without_internal(found: re.Match[str]) -> str:
    return found[0] if _INTERNAL.isdisjoint(found[0].lower().split(".")[1:]) else "[address]"


def _plain(pattern: re.Pattern[str], value: Any, *secrets: str | None) -> str | None:
    """A name that may be passed on as it is, else None."""
    if not isinstance(value, str) or not pattern.fullmatch(value) or safe_to_show(value, *secrets) != value:
        return None
    return value


def seconds_in(text: str | None) -> float | None:
    """`Retry-After` in seconds, between 1 and 3600; None for none, and for what is neither a number nor a date."""
    if text is None:
        return None
    text = text.strip()[:100]
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)  # without a zone where it is -0000, which is UTC all the same
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - clock.now_s()
        except (ValueError, OverflowError, OSError):
            return None
    if math.isnan(seconds):
        return None
    return min(max(seconds, 1.0), LONGEST_WAIT_S)
