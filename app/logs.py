"""Logs: one JSON object a line on standard output, whichever library wrote it, with secrets masked.

Every process calls `configure` once at its start; it imports neither SQL nor Flask, so the hot side may.
"""

from __future__ import annotations

import logging
import logging.config
import re
import sys
import threading
from collections.abc import Mapping, MutableMapping
from types import TracebackType
from typing import Any

import structlog

from config import Config

MASK = "***"

# Fields whose values are never logged, by the end of their name: api_key, x-api-key, session_secret, password …
_SECRET_FIELD = re.compile(
    r"(?:api[_-]?key|passw(?:or)?d|passphrase|secret|secrets|pepper|credentials?|authorization|cookie"
    r"|(?:access|refresh|bearer|id|csrf|auth)[_-]?token|private[_-]?key|encryption[_-]?keys?|sealed)$",
    re.IGNORECASE,
)
_SECRET_TEXTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\bsk-[A-Za-z0-9_-]{4,}"), f"sk-{MASK}"),
    (re.compile(r"\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE), rf"\1 {MASK}"),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"), MASK),  # a JSON web token
    (
        re.compile(
            r"((?:api[_-]?key|passw(?:or)?d|secret|access[_-]?token|refresh[_-]?token)[\"']?\s*[=:]\s*[\"']?)"
            r"[^\s\"'&,;}]+",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s@/]+@", re.IGNORECASE), rf"\1{MASK}@"),  # a URL's password
)
_DEEPEST = 6


def masked(value: Any, depth: int = 0) -> Any:
    """`value` with secrets inside replaced: texts that look like one, and fields whose name says so."""
    if isinstance(value, str):
        for pattern, replacement in _SECRET_TEXTS:
            value = pattern.sub(replacement, value)
        # Half a character cannot be written as UTF-8.
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, bytes):
        return masked(value.decode("utf-8", "backslashreplace"), depth)
    if depth >= _DEEPEST:
        return value if isinstance(value, int | float | bool | None) else MASK
    if isinstance(value, Mapping):
        return {
            key: MASK if item and isinstance(key, str) and _SECRET_FIELD.search(key) else masked(item, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [masked(item, depth + 1) for item in value]
    if value is None or isinstance(value, int | float):
        return value
    return masked(str(value), depth + 1)


def _mask(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    hidden = {key: event[key] for key in event if key.startswith("_")}  # structlog's own notes
    shown: dict[str, Any] = masked({key: event[key] for key in event if key not in hidden})
    shown.update(hidden)
    return shown


def configure(config: Config, process: str | None = None) -> None:
    """Send the logs of structlog and of the standard library to standard output as JSON.

    `process` names the process of the Procfile on every line. A second call replaces the first. What Python itself would
    write to standard error goes there too: warnings, and exceptions that nobody caught.
    """
    structlog.contextvars.clear_contextvars()
    if process:
        structlog.contextvars.bind_contextvars(component=process)
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    level = config.log.level.upper()
    component = {"component": process} if process else {}

    def named(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for key, value in component.items():  # threads and greenlets begin with an empty context
            event.setdefault(key, value)
        return event

    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
        processors=[
            named,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _mask,
            structlog.processors.JSONRenderer(ensure_ascii=False, default=str),
        ],
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # Libraries that tell every step: their warnings are enough.
    for name in ("rq.cron", "rq.worker", "rq.scheduler", "urllib3", "requests", "authlib", "alembic.runtime"):
        logging.getLogger(name).setLevel(max(logging.getLevelName(level), logging.WARNING))
    logging.captureWarnings(True)
    sys.excepthook = log_uncaught
    threading.excepthook = lambda told: log_uncaught(told.exc_type, told.exc_value, told.exc_traceback)
    sys.unraisablehook = lambda told: log_uncaught(told.exc_type, told.exc_value, told.exc_traceback)


def log_uncaught(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    """Log an exception that nobody caught; a Ctrl-C and an asked-for end are none."""
    if not issubclass(kind, KeyboardInterrupt | SystemExit):
        logging.getLogger(__name__).error("an exception was not caught", exc_info=(kind, error or kind(), traceback))
