"""Logs are JSON lines in which no secret can be read."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as some

from app.runtime import logs
from config import Config, Log, Storage
from tests.examples import examples
from tests.growth import assert_linear

SECRETS = [
    "key sk-CANARYcanary1234 was used",
    "key gsk_CANARYcanary12345678 was used",
    "key AIzaSyCANARYcanary1234567890 was used",
    "Authorization: Bearer CANARYcanary1234",
    "https://x.example/?api_key=CANARYcanary1234&b=1",
    '{"password": "CANARYcanary1234"}',
    "postgresql://portico:CANARYcanary1234@db/portico",
    "eyJhbGciOiJIUzI1NiJ9.CANARYcanary1234.c2lnbmF0dXJl",
]


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
    assert (
        first.items()
        >= {"event": "it is done", "events": 5, "level": "info", "component": "jobs", "process": "drainer"}.items()
    )
    assert second.items() >= {"event": "that happened", "level": "warning", "request_id": "r1"}.items()
    assert str(first["at"]).endswith("Z")


@pytest.mark.parametrize("text", SECRETS)
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


# What an upstream or a client may say so that a search through it begins again and again.
@pytest.mark.parametrize(
    "unit",
    [
        "eyJ-",
        "eyJaaaaaaaa.",
        "a.",
        "a+",
        "http://a:",
        "://:",
        "secret ",
        "secret= ",
        "bearer ",
        " ",
        "sk-",
        "api-key",
        "-",
        "é",
    ],
)
def test_masking_takes_linear_time_whatever_is_in_a_text(monkeypatch: pytest.MonkeyPatch, unit: str) -> None:
    monkeypatch.setattr(logs, "_LONGEST_TEXT", 1 << 30)
    monkeypatch.setattr(logs, "_LONGEST_LINE", 1 << 30)
    assert_linear(logs.masked, lambda size: unit * (size // len(unit)), 20_000)


def test_a_long_text_is_cut_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Config())
    logging.getLogger("a").error("word " * 2_000_000)
    (line,) = lines(capsys)
    assert len(str(line["event"])) < 10_000
    assert "word… [" in str(line["event"])
    assert "characters left out]" in str(line["event"])


def test_the_end_of_a_long_traceback_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Config())
    try:
        raise ValueError("line\n" * 10_000 + "the reason")
    except ValueError:
        logging.getLogger("a").exception("failed")
    (line,) = lines(capsys)
    assert str(line["exception"]).endswith("the reason")
    assert "Traceback" in str(line["exception"])


@given(some.integers(5_000, 9_000), some.sampled_from(range(len(SECRETS))), some.sampled_from(["x", " ", "\n", "x\n"]))
@settings(deadline=None, max_examples=examples(150))
def test_no_half_of_a_secret_is_left_where_a_text_is_cut(before: int, secret: int, filling: str) -> None:
    text = filling * (before // len(filling)) + f' "{SECRETS[secret]}" ' + filling * 20_000
    assert "canary" not in logs.masked(text)


def test_wide_and_deep_things_are_cut() -> None:
    wide = logs.masked({f"n{number}": ["x" * 100] * 1000 for number in range(1000)})
    assert len(wide) == 101
    assert len(json.dumps(wide)) < 200_000
    assert logs.masked(list(range(1000)))[-1] == "and 900 more"
    assert logs.masked({("a", 1): 1}) == {"('a', 1)": 1}
    assert len(logs.masked(10**5000)) < 9000


def test_a_long_name_of_a_field_is_still_known_for_a_secret() -> None:
    assert list(logs.masked({"a" * 1_000_000 + "_password": "canary"}).values()) == [logs.MASK]


def test_components_have_levels_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    levels = {"gateway": "debug", "providers": "error"}
    logs.configure(Config(log=Log(level="warning", levels=levels, sinks=["console"])), "web")  # type: ignore[arg-type]
    for name in ("gateway.attempts", "providers.usage", "app.domain.keys"):
        for level in ("debug", "info", "warning", "error"):
            structlog.get_logger(name).log(logging.getLevelName(level.upper()), level)
    told = [(line["component"], line["event"]) for line in lines(capsys)]
    assert told == [
        *[("gateway", level) for level in ("debug", "info", "warning", "error")],
        ("providers", "error"),
        ("portal", "warning"),
        ("portal", "error"),
    ]


def test_a_file_is_a_sink_of_each_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(Config(storage=Storage(data_dir=str(tmp_path)), log=Log(sinks=["file"])), "worker")
    logging.getLogger("app.a").warning("password=%s", "canary-1")
    (line,) = (tmp_path / "logs" / "worker.log").read_text().splitlines()
    assert json.loads(line)["process"] == "worker" and "canary" not in line
    assert capsys.readouterr().out == ""
    logs.configure(Config(log=Log(sinks=["console"])))
