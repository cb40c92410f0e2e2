"""TLS in front of a server that has none: a relay with a certificate for `localhost`, which decrypts and passes on."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from pathlib import Path

from bench.gateway.builds import Trust


class TlsRelay:
    """Listens on `port` with what `bench.gateway.builds.trust` made; `behind` is a socket's path, or a port here."""

    def __init__(self, made: Trust, behind: Path | int) -> None:
        self._behind = behind
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(made.certificate, made.key)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        starting = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self._server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(10)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _serve(self, near: asyncio.StreamReader, near_writer: asyncio.StreamWriter) -> None:
        if isinstance(self._behind, int):
            far, far_writer = await asyncio.open_connection("127.0.0.1", self._behind)
        else:
            far, far_writer = await asyncio.open_unix_connection(str(self._behind))
        try:
            await asyncio.gather(_copy(near, far_writer), _copy(far, near_writer))
        finally:
            near_writer.transport.abort()
            far_writer.transport.abort()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        open_ones = asyncio.all_tasks() - {asyncio.current_task()}
        for task in open_ones:
            task.cancel()
        await asyncio.gather(*open_ones, return_exceptions=True)
        await asyncio.sleep(0.05)  # the loop's own turn to close what was aborted


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    target.close()
