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
from itertools import islice
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
# Each starts where nothing before it can be of it, and gives nothing back: the work grows as the text does.
_SECRET_TEXTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\bsk-[A-Za-z0-9_-]{4,}+"), f"sk-{MASK}"),
    (re.compile(r"\b(bearer|basic)\s++[A-Za-z0-9._~+/=-]{6,}+", re.IGNORECASE), rf"\1 {MASK}"),
    # A JSON web token
    (re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]*+)?"), MASK),
    (
        re.compile(
            r"((?:api[_-]?key|passw(?:or)?d|secret|access[_-]?token|refresh[_-]?token)[\"']?\s*+[=:]\s*+[\"']?)"
            r"[^\s\"'&,;}]++",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"(://[^\s:/@]*+:)[^\s@/]++@"), rf"\1{MASK}@"),  # a URL's password
)
_DEEPEST = 6
_LONGEST_TEXT = 8_192  # characters of a text: a traceback, an upstream's words
_LONGEST_LINE = 32_768  # characters of all texts of a line
_SHORT_TEXT = 64  # which is shown even where the line is full
_LONGEST_NAME = 100
_MOST_ITEMS = 100  # of a mapping or a list
_APART = re.compile(r"[\s\"',;]")  # no secret has one of these


class _Masking:
    """Makes one line fit to be written. What is too long is cut before it is searched, and says so."""

    def __init__(self) -> None:
        self._room = _LONGEST_LINE

    def value(self, value: Any, depth: int = 0) -> Any:
        """`value` with secrets inside replaced: texts that look like one, and fields whose name says so."""
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            return value if value.bit_length() <= 64 else self._text(hex(value))
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, bytes):
            return self._text(value[: 2 * _LONGEST_TEXT].decode("utf-8", "backslashreplace"))
        if isinstance(value, Mapping | list | tuple | set | frozenset):
            if depth >= _DEEPEST or self._room <= 0:
                return MASK
            if isinstance(value, Mapping):
                return self.fields(value, depth)
            shown = [self.value(item, depth + 1) for item in islice(value, _MOST_ITEMS)]
            return [*shown, f"and {len(value) - _MOST_ITEMS} more"] if len(value) > _MOST_ITEMS else shown
        return self._text(str(value))

    def fields(self, values: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for name, item in islice(values.items(), _MOST_ITEMS):
            key = _without_secrets(str(name)[-_LONGEST_NAME:])  # the end of a name tells what it names
            shown[key] = MASK if item and _SECRET_FIELD.search(key) else self.value(item, depth + 1)
        if len(values) > _MOST_ITEMS:
            shown["…"] = f"and {len(values) - _MOST_ITEMS} more"
        return shown

    def _text(self, text: str) -> str:
        text = _cut(text, min(_LONGEST_TEXT, max(self._room, _SHORT_TEXT)))
        self._room -= len(text)
        return _without_secrets(text)


def _without_secrets(text: str) -> str:
    for pattern, replacement in _SECRET_TEXTS:
        text = pattern.sub(replacement, text)
    # Half a character cannot be written as UTF-8.
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _cut(text: str, most: int) -> str:
    """The beginning and, for a text of lines, the end of one that is longer than `most` characters. No word is cut: half a
    secret would not be known for one."""
    if len(text) <= most:
        return text
    head, tail = text[: most * 3 // 4], text[len(text) - most // 4 :]
    last = next((at for at in range(len(head) - 1, -1, -1) if _APART.match(head, at)), 0)
    _, line_end, tail = tail.partition("\n")
    left_out = len(text) - last - len(tail)
    return f"{head[:last]}… [{left_out} characters left out]{line_end}{tail}"


def masked(value: Any) -> Any:
    """`value`, which may be anything, as what a log may show: bounded, and with its secrets replaced."""
    return _Masking().value(value)


def _mask(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    hidden = {key: event[key] for key in event if key.startswith("_")}  # structlog's own notes
    shown = _Masking().fields({key: event[key] for key in event if key not in hidden}, 0)
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
