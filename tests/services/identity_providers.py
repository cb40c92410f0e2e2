"""Two real identity providers: oidc-provider-mock out of PyPI, and npm's oidc-provider, which is certified.

The second is installed below `.cache` when a test first asks. Where that can't be, `certified_provider` says why.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.upstream import unused_port
from tests.services.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".cache" / "oidc-provider"
PACKAGE = "oidc-provider@9.13.3"


class NoProvider(Exception):
    """There is no such provider on this machine; the message says why."""


@contextmanager
def simple_provider() -> Iterator[str]:
    """The issuer of a provider that signs in whoever is named, with any client."""
    port = unused_port()
    command = [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port)]
    with _running(command, f"http://localhost:{port}") as issuer:
        yield issuer


@contextmanager
def certified_provider(client: str, secret: str, callback: str, after: str) -> Iterator[str]:
    """The issuer of the certified provider, which knows one client. Raises `NoProvider`."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise NoProvider("no node and npm on PATH")
    _install(npm)
    port = unused_port()
    script = Path(__file__).with_name("oidc_provider.mjs")
    command = [node, str(script), str(port), client, secret, callback, after]
    with _running(command, f"http://127.0.0.1:{port}") as issuer:
        yield issuer


def _install(npm: str) -> None:
    HOME.parent.mkdir(exist_ok=True)
    with open(HOME.parent / "oidc-provider.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (HOME / "node_modules" / "oidc-provider").is_dir():
            return
        HOME.mkdir(exist_ok=True)
        quiet = ["--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run([npm, "install", *quiet, "--prefix", str(HOME), PACKAGE], capture_output=True, text=True)
        if done.returncode:
            shutil.rmtree(HOME)
            raise NoProvider(f"npm install {PACKAGE} failed: {done.stderr.strip()[-300:]}")


@contextmanager
def _running(command: list[str], issuer: str) -> Iterator[str]:
    environ = os.environ | {"OIDC_PROVIDER_HOME": str(HOME)}
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                with urllib.request.urlopen(f"{issuer}/.well-known/openid-configuration", timeout=2):
                    break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise NoProvider(f"{' '.join(command[:4])} did not start") from None
                time.sleep(0.1)
        yield issuer
    finally:
        process.terminate()
        process.wait(10)
