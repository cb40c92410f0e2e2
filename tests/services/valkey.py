"""A real Valkey for tests, started by the launcher's own recipe in a folder of its own.

One server a test process; what a test wrote is flushed before the next one looks.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import redis

from tests.services.memory import PLACE
from tools.embedded_valkey import EmbeddedValkey


class ValkeyServer(EmbeddedValkey):
    """The embedded server, with what tests do to servers."""

    @property
    def url(self) -> str:
        return f"unix://{self.socket_path}?db=0"

    @cached_property
    def _client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    def flush(self) -> None:
        self._client.pipeline(transaction=False).flushall().script_flush().config_resetstat().execute()

    def kill(self) -> None:
        """SIGKILL, as power or the kernel would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @contextmanager
    def silent(self) -> Iterator[None]:
        """It takes what it is sent, and answers nobody."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


@contextmanager
def running_valkey() -> Iterator[ValkeyServer]:
    folder = Path(tempfile.mkdtemp(prefix="pvk-", dir=PLACE))
    server = ValkeyServer(folder / "s", folder / "data")
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
