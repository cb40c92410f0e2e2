"""Every process of a running Portico writes its log as JSON, in which no secret can be read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable

import pytest
import requests

from tests.blueprints.v1.house import WORDS, House
from tests.services.portico import ROOT, Portico
from tests.services.upstream import CHAT, Answer, Stream, Upstream, failure
from tests.services.waiting import PATIENCE_S, until

pytestmark = pytest.mark.slow

PASSWORD = "hunter2hunter2"
TOKEN = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9"
LEAK = f"cannot reach the database: password={PASSWORD} token {TOKEN}"
PRINTED = re.compile(r"^\S+ (\w+) +\| (.*)$", re.MULTILINE)  # the launcher's lines: time, process, what it printed


def printed(portico: Portico, process: str) -> list[str]:
    return [line for name, line in PRINTED.findall(portico.log(10_000_000)) if name == process]


def test_what_an_upstream_leaks_stands_neither_in_the_log_nor_in_the_answer(
    start_portico: Callable[..., Portico], upstream: Upstream
) -> None:
    portico = start_portico()
    house = House(portico, upstream)
    house.furnish()
    house.admin.subscription()
    headers = {"Authorization": f"Bearer {house.admin.key()['key']}"}

    def ask(**more: object) -> str:
        return requests.post(f"{portico.url}{CHAT}", json={**WORDS, **more}, headers=headers, timeout=PATIENCE_S).text

    answers = []
    piece = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "small",
             "choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}]}  # fmt: skip
    told = {"error": {"message": LEAK}}
    faults = [
        failure(500, LEAK),
        Answer(LEAK, 500),
        Answer({"detail": LEAK}, 500),
        failure(400, LEAK),
        Answer(told, 200),
    ]
    for fault in (*faults, Stream([told]), Stream([piece, told])):
        for stream in (False, True):
            upstream.always(CHAT, fault)
            answers.append(ask(stream=stream))
    until(lambda: len(house.rows("SELECT 1 FROM usage_entry")) == len(answers), portico.log)
    kept = json.dumps(house.rows("SELECT error_message, attempts FROM usage_entry"))
    portico.stop()
    log = portico.log(10_000_000)
    assert log.count("an attempt failed") >= 6
    failed = [json.loads(line) for line in printed(portico, "web") if "an attempt failed" in line]
    assert {(line["component"], line["level"]) for line in failed} == {("gateway", "warning")}
    assert all(line["request_id"] for line in failed)
    for secret in (PASSWORD, TOKEN.split(".")[1], TOKEN.split(".")[2]):
        assert not [answer for answer in answers if secret in answer]
        assert secret not in kept
        assert not [line for line in log.splitlines() if secret in line]


def test_every_process_writes_json(start_portico: Callable[..., Portico]) -> None:
    portico = start_portico(CONFIG_LOG_LEVEL="debug", GUNICORN_CMD_ARGS="--access-logfile -")
    until(lambda: printed(portico, "drainer"), portico.log)
    portico.stop()
    processes = {process: printed(portico, process) for process in ("web", "drainer", "worker", "clock")}
    for process, lines in processes.items():
        assert lines, process
        for line in lines:
            told = json.loads(line)
            assert told.keys() >= {"event", "level", "logger", "at"}
            assert told["process"] == process
    for process, words in {"web": "Listening at", "drainer": "the drainer has started"}.items():
        assert any(words in line for line in processes[process])
    assert any('"logger": "gunicorn.access"' in line for line in processes["web"])
    of_set_up = [line for line in portico.log(10_000_000).splitlines() if "was recounted" in line]
    assert json.loads(of_set_up[0])["process"] == "setup"


@pytest.mark.parametrize(
    "script",
    [
        "raise ValueError(text)",
        "import threading; threading.Thread(target=lambda: 1 / len(text[:0]), name=text).start()",
        "import warnings; warnings.warn(text)",
        "class Odd:\n    def __del__(self): raise ValueError(text)\nodd = Odd(); del odd",
    ],
)
def test_what_nobody_caught_is_logged_as_json_too(script: str) -> None:
    begin = f"import wsgi\nwsgi.create_app()\ntext = 'password={PASSWORD}'\n"
    done = subprocess.run([sys.executable, "-c", begin + script], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["process"] == "command"
    assert PASSWORD not in line
