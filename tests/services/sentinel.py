"""A primary, a replica and three Sentinels on ports of this machine: Valkey as a fail-over pair."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM

import redis

from tests.services.memory import PLACE
from tests.services.upstream import unused_port
from tests.services.waiting import PATIENCE_S
from tools.embedded_valkey import find_program
from tools.orphans import die_with_parent

NAME = "portico"
DOWN_AFTER_MS = 1000


class Pair:
    """`url` is what `CONFIG_REDIS_URL` takes; `kill_primary()` leaves the rest to the Sentinels."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.servers: dict[int, subprocess.Popen[bytes]] = {}
        first, second = self._server(), self._server()
        self._ask(second, "REPLICAOF", "127.0.0.1", str(first))
        self._until(lambda: self.client(second).info("replication")["master_link_status"] == "up")
        self.sentinels = [self._sentinel(first) for _ in range(3)]
        self._until(lambda: all(self._sees_all(port) for port in self.sentinels))

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        return f"redis+sentinel://{places}/{NAME}/0"

    @property
    def primary(self) -> int:
        """The port of the server that the first Sentinel names."""
        told = self.client(self.sentinels[0]).execute_command("SENTINEL", "get-master-addr-by-name", NAME)
        return int(told[1])

    def client(self, port: int) -> redis.Redis:
        return redis.Redis(port=port, decode_responses=True, socket_timeout=5)

    def kill_primary(self) -> int:
        """SIGKILL; answers the port that it had."""
        port = self.primary
        self.servers[port].kill()
        self.servers[port].wait()
        return port

    def stop(self) -> None:
        for server in self.servers.values():
            server.kill()
            server.wait()

    def _server(self) -> int:
        port = unused_port()
        folder = self._folder / str(port)
        folder.mkdir()
        self._start(port, ["--port", str(port), "--dir", str(folder), "--appendonly", "yes", "--save", "",
                           "--maxmemory-policy", "noeviction", "--repl-diskless-sync-delay", "0"])  # fmt: skip
        return port

    def _sentinel(self, primary: int) -> int:
        port = unused_port()
        path = self._folder / f"sentinel-{port}.conf"
        path.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {self._folder}\nsentinel monitor {NAME} 127.0.0.1 {primary} 2\n"
            f"sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\nsentinel failover-timeout {NAME} 5000\n"
        )
        self._start(port, [str(path), "--sentinel"])
        return port

    def _start(self, port: int, arguments: list[str]) -> None:
        extra = [] if "--sentinel" in arguments else ["--bind", "127.0.0.1"]
        self.servers[port] = subprocess.Popen(
            [find_program(), *arguments, *extra], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
            start_new_session=True, preexec_fn=die_with_parent(SIGTERM),
        )  # fmt: skip
        self._until(lambda: self.client(port).ping())

    def _ask(self, port: int, *words: str) -> None:
        self.client(port).execute_command(*words)

    def _sees_all(self, port: int) -> bool:
        [seen] = [self.client(port).execute_command("SENTINEL", "master", NAME)]
        told = seen if isinstance(seen, dict) else dict(zip(seen[::2], seen[1::2], strict=True))
        return int(told["num-other-sentinels"]) == 2 and int(told["num-slaves"]) == 1

    def _until(self, met: object) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                if met():  # type: ignore[operator]
                    return
            except (redis.RedisError, KeyError):
                pass
            assert time.monotonic() < deadline, "the pair did not come up"
            time.sleep(0.05)


@contextmanager
def running_pair() -> Iterator[Pair]:
    folder = Path(tempfile.mkdtemp(prefix="pse-", dir=PLACE))
    pair = None
    try:
        pair = Pair(folder)
        yield pair
    finally:
        if pair is not None:
            pair.stop()
        shutil.rmtree(folder, ignore_errors=True)
