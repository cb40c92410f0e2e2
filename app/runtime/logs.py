"""Logs: one JSON object a line, whichever library wrote it, with secrets masked.

Every process calls `configure` once when it starts. A line says which `process` wrote it (by the Procfile's name) and which
`component` it is about. It goes to standard output, to a file of the process, or to the database by way of Redis
(`app.runtime.log_stream`), as `log.sinks` says. The module imports neither SQL nor Flask, so that the hot side can use it.
"""

from __future__ import annotations

import logging
import logging.config
import logging.handlers
import re
import sys
import threading
from collections.abc import Mapping, MutableMapping
from itertools import islice
from types import TracebackType
from typing import Any

import structlog

from app.runtime.log_stream import LogStream
from config import Config, Log

MASK = "***"

# Fields whose values are never logged, by the end of their name: api_key, x-api-key, session_secret, password …
_SECRET_FIELD = re.compile(
    r"(?:api[_-]?key|passw(?:or)?d|passphrase|secret|secrets|pepper|credentials?|authorization|cookie"
    r"|(?:access|refresh|bearer|id|csrf|auth)[_-]?token|private[_-]?key|encryption[_-]?keys?|sealed)$",
    re.IGNORECASE,
)
# How API keys of well-known services begin, before a hyphen or an underscore.
KEY_STARTS = "gsk|hf|xai|ghp|gho|xoxb|xoxp|nvapi|pplx"
# Each pattern can start at few places and never backtracks, so that the work is linear in the text's length.
_SECRET_TEXTS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"\bsk-[A-Za-z0-9_-]{4,}+"), f"sk-{MASK}"),
    (
        re.compile(rf"\b(?:{KEY_STARTS})[-_][A-Za-z0-9_-]{{16,}}+|\bAIza[A-Za-z0-9_-]{{20,}}+|\bAKIA[A-Z0-9]{{12,}}+"),
        MASK,
    ),
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
# These libraries log every step; their warnings are enough.
QUIET = ("rq.cron", "rq.worker", "rq.scheduler", "urllib3", "requests", "authlib", "alembic.runtime")
# What a logger's lines are about, by how its name begins; those of other loggers are about the process's own work.
COMPONENTS = {
    "gateway": "gateway",
    "metering": "gateway",
    "providers": "providers",
    "app.gateway": "gateway",
    "app.metering": "gateway",
    "app.blueprints.v1": "gateway",
    "app.providers": "providers",
    "app.workflows.model_lists": "providers",
    "app.blueprints.api": "api",
    "app.jobs": "jobs",
    "app.queue": "jobs",
    "rq": "jobs",
    "app.workflows.sync": "sync",
    "app.domain.identity": "identity",
    "app.domain.identities": "identity",
    "app.workflows.single_sign_on": "identity",
    "app.workflows.provisioning": "identity",
    "app.domain.sessions": "identity",
    "app.domain.tokens": "identity",
    "app.domain.audit": "audit",
    "app.domain.audit_chain": "audit",
}
BACKGROUND = ("drainer", "worker", "clock", "setup", "command")
_DEEPEST = 6
_LONGEST_TEXT = 8_192  # characters of a text: a traceback, an upstream's words
_LONGEST_LINE = 32_768  # characters of all texts of a line
_SHORT_TEXT = 64  # characters shown even when the line is full
_LONGEST_NAME = 100
_MOST_ITEMS = 100  # of a mapping or a list
_APART = re.compile(r"[\s\"',;]")  # no secret has one of these


class _Masking:
    """Masks and bounds one log line. A text that is too long is cut before the search for secrets, with a note."""

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
            items = [self.value(item, depth + 1) for item in islice(value, _MOST_ITEMS)]
            return [*items, f"and {len(value) - _MOST_ITEMS} more"] if len(value) > _MOST_ITEMS else items
        return self._text(str(value))

    def fields(self, values: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        masked: dict[str, Any] = {}
        for name, item in islice(values.items(), _MOST_ITEMS):
            key = _without_secrets(str(name)[-_LONGEST_NAME:])  # a name's end says what it names
            masked[key] = MASK if item and _SECRET_FIELD.search(key) else self.value(item, depth + 1)
        if len(values) > _MOST_ITEMS:
            masked["…"] = f"and {len(values) - _MOST_ITEMS} more"
        return masked

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
    """Cut a text longer than `most` characters: its beginning stays and, if it has lines, its end. Words stay whole, as half a
    secret would not be recognised."""
    if len(text) <= most:
        return text
    head, tail = text[: most * 3 // 4], text[len(text) - most // 4 :]
    last = next((at for at in range(len(head) - 1, -1, -1) if _APART.match(head, at)), 0)
    _, line_end, tail = tail.partition("\n")
    left_out = len(text) - last - len(tail)
    return f"{head[:last]}… [{left_out} characters left out]{line_end}{tail}"


def masked(value: Any) -> Any:
    """Return any `value` in a form that a log may show: bounded, with secrets replaced."""
    return _Masking().value(value)


def _mask(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    internal = {key: event[key] for key in event if key.startswith("_")}  # structlog's own
    fields = _Masking().fields({key: event[key] for key in event if key not in internal}, 0)
    fields.update(internal)
    return fields


class Levels(logging.Filter):
    """Lets a line pass if its component's level allows it: the level of its own, or else that of all."""

    def __init__(self, log: Log, process: str | None) -> None:
        super().__init__()
        self._take(log)
        self._rest = "jobs" if process in BACKGROUND else "portal"
        self._known: dict[str, str] = {}

    def _take(self, log: Log) -> None:
        self._usual = logging.getLevelNamesMapping()[log.level.upper()]
        self._levels: dict[str, int] = {
            component: logging.getLevelNamesMapping()[one.upper()] for component, one in log.levels.items()
        }

    def act(self, log: Log | None = None) -> None:
        """Let loggers make the lines that may pass, by these settings from now on."""
        if log is not None:
            self._take(log)
        logging.getLogger().setLevel(min([self._usual, *self._levels.values()]))
        for name in QUIET:
            logging.getLogger(name).setLevel(max(self._usual, logging.WARNING))

    def component_of(self, logger: str) -> str:
        """The component that a logger's lines are about."""
        found = self._known.get(logger)
        if found is None:
            names = (name for prefix, name in COMPONENTS.items() if f"{logger}.".startswith(f"{prefix}."))
            found = self._known[logger] = next(names, self._rest)
        return found

    def filter(self, record: logging.LogRecord) -> bool:
        level: int = self._levels.get(self.component_of(record.name), self._usual)
        return record.levelno >= level


def _sinks(config: Config, process: str | None) -> list[logging.Handler]:
    found: list[logging.Handler] = []
    if "console" in config.log.sinks:
        found.append(logging.StreamHandler(sys.stdout))
    if "file" in config.log.sinks:
        folder = config.data_dir / "logs"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found.append(logging.handlers.WatchedFileHandler(folder / f"{process or 'portico'}.log", encoding="utf-8"))
    if "database" in config.log.sinks:
        stream = LogStream(config.redis_url)
        if process != "web":
            stream.begin()
        found.append(stream)
    return found


def configure(config: Config, process: str | None = None) -> None:
    """Send the logs of structlog and of the standard library to the sinks of the settings, as JSON.

    `process` is the Procfile's name of this process, which every line carries. A second call replaces the first. Warnings and
    uncaught exceptions, which Python would write to standard error, are logged too.
    """
    structlog.contextvars.clear_contextvars()
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
    ]
    levels = Levels(config.log, process)

    def named(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if process:
            event["process"] = process
        event["component"] = levels.component_of(str(event.get("logger", "")))
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
    root = logging.getLogger()
    for handler in root.handlers:
        if isinstance(handler, LogStream | logging.FileHandler):
            handler.close()
    root.handlers = _sinks(config, process)
    for handler in root.handlers:
        handler.setFormatter(formatter)
        handler.addFilter(levels)
    levels.act()
    global _in_use
    _in_use = levels
    logging.captureWarnings(True)
    sys.excepthook = log_uncaught
    threading.excepthook = lambda hook: log_uncaught(hook.exc_type, hook.exc_value, hook.exc_traceback)
    sys.unraisablehook = lambda hook: log_uncaught(hook.exc_type, hook.exc_value, hook.exc_traceback)


def begin() -> None:
    """A worker of the web process has loaded the application: its lines go to the database too."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogStream):
            handler.begin()


_in_use: Levels | None = None


def follow(log: Log) -> None:
    """Log by the levels of these settings from now on."""
    if _in_use is not None:
        _in_use.act(log)


def log_uncaught(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    """Log an uncaught exception, unless it is a Ctrl-C or a requested exit."""
    if not issubclass(kind, KeyboardInterrupt | SystemExit):
        logging.getLogger(__name__).error("an exception was not caught", exc_info=(kind, error or kind(), traceback))
