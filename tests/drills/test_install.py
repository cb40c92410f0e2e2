"""A fresh clone, a stock pip and `make run`: a whole Portico, which answers a first call and is backed up by `make backup`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import requests

from tests.services.upstream import unused_port
from tools.orphans import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 300


def test_a_fresh_clone_runs_and_answers(tmp_path: Path) -> None:
    clone = tmp_path / "portico"
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", str(clone)], check=True)
    port = unused_port()
    kept = {
        name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG") or name.startswith("PIP_")
    }
    environ = kept | {"CONFIG_SERVER_PORT": str(port), "CONFIG_SERVER_WORKERS": "1", "PIP_NO_CACHE_DIR": "1"}
    log = tmp_path / "log"
    with log.open("wb") as out:
        running = subprocess.Popen(
            ["make", "run"], cwd=clone, env=environ, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
            start_new_session=True, preexec_fn=die_with_parent(signal.SIGKILL),
        )  # fmt: skip
    try:
        deadline = time.monotonic() + WITHIN_S
        while "ready at" not in log.read_text():
            assert running.poll() is None and time.monotonic() < deadline, log.read_text()[-5000:]
            time.sleep(0.2)
        _first_call(f"http://127.0.0.1:{port}", log.read_text())
        for target in ("doctor", f"backup TO={tmp_path / 'b.zip'}"):
            done = subprocess.run(["make", *target.split()], cwd=clone, env=environ, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        assert (tmp_path / "b.zip").stat().st_size > 1000
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGINT)
        ended = running.wait(60)
    assert ended in (0, -signal.SIGINT), log.read_text()[-5000:]  # make has its own words for a Ctrl-C


def _first_call(url: str, printed: str) -> None:
    shown = re.search(r"First admin: admin, password: (\S+)", printed)
    assert shown is not None, printed
    form = {"username": "admin", "password": shown[1]}
    token = requests.post(f"{url}/token", form, timeout=30).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert requests.post(f"{url}/api/subscriptions", json={"model": "echo-1"}, headers=headers, timeout=30).ok
    made = requests.post(f"{url}/api/keys", json={"name": "first"}, headers=headers, timeout=30).json()
    body = {"model": "echo-1", "messages": [{"role": "user", "content": "hello"}]}
    answer = requests.post(
        f"{url}/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {made['key']}"}, timeout=30
    )
    assert answer.status_code == 200, answer.text
