"""Logs are JSON lines in which no secret can be read."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator

import pytest
import structlog

from app import logs
from config import Config


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_both_kinds_of_logger_write_json(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Config(), "drainer")
    structlog.get_logger("app.a").info("it is done", events=5)
    logging.getLogger("app.b").warning("that %s", "happened", extra={"request_id": "r1"})
    logging.getLogger("app.b").debug("not asked for")
    first, second = lines(capsys)
    assert first.items() >= {"event": "it is done", "events": 5, "level": "info", "component": "drainer"}.items()
    assert second.items() >= {"event": "that happened", "level": "warning", "request_id": "r1"}.items()
    assert str(first["at"]).endswith("Z")


@pytest.mark.parametrize(
    "text",
    [
        "key sk-CANARYcanary1234 was used",
        "Authorization: Bearer CANARYcanary1234",
        "https://x.example/?api_key=CANARYcanary1234&b=1",
        '{"password": "CANARYcanary1234"}',
        "postgresql://portico:CANARYcanary1234@db/portico",
        "eyJhbGciOiJIUzI1NiJ9.CANARYcanary1234.c2lnbmF0dXJl",
    ],
)
def test_secrets_in_a_text_are_masked(capsys: pytest.CaptureFixture[str], text: str) -> None:
    logs.configure(Config())
    logging.getLogger("a").error(text)
    structlog.get_logger().error("nested", details={"deep": [text]})
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("a").exception("failed")
    output = capsys.readouterr().out
    assert "canary" not in output
    assert len(output.splitlines()) == 3


@pytest.mark.parametrize("field", ["api_key", "password", "session_secret", "x-api-key", "Authorization", "cookie"])
def test_fields_that_name_a_secret_are_masked(capsys: pytest.CaptureFixture[str], field: str) -> None:
    logs.configure(Config())
    structlog.get_logger().info("set", **{field: "canary"}, config={field: "canary"}, prompt_tokens=5)
    (line,) = lines(capsys)
    assert line[field] == logs.MASK
    assert line["config"] == {field: logs.MASK}
    assert line["prompt_tokens"] == 5


def test_anything_can_be_logged(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Config())
    endless: dict[str, object] = {}
    endless["self"] = endless
    structlog.get_logger().info("odd", a=object(), b=b"\xff", c={1, 2}, d=endless, e="\ud800")
    assert len(capsys.readouterr().out.splitlines()) == 1
