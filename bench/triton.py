"""What a request and a chunk cost over both transports to a real Triton, and how long the event loop is ever held.

`python -m bench.triton` prints a table. The adapter is asked in this process, as a worker asks it: CPU is of the process with
all its threads, without the gateway around it.
"""

from gevent import monkey

monkey.patch_all()

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import gevent

from app.directory import Deployment
from app.gateway.dialects import dialect
from app.providers import adapter
from app.providers.addresses import AddressPolicy
from app.providers.base import Adapter, UpstreamRequest
from tests.services.triton import running_triton

REQUESTS, SHORT, LONG, STREAMS = 300, 20, 420, 40
TICK_S = 0.002


def ask(made: Adapter, text: str, stream: bool) -> int:
    """One chat; the pieces of its answer."""
    body = {"model": "ours", "messages": [{"role": "user", "content": text}], "stream": stream}
    spoken = dialect("openai_chat")
    asked = spoken.read(json.dumps(body).encode())
    request = UpstreamRequest(
        capability="chat", dialect=spoken.name, model="ours", members=asked.members, parsed=asked.checked, stream=stream,
        translate=spoken.conversation,
    )  # fmt: skip
    exchange = made.open(request, Deployment(id="d", provider_id="p", upstream_model="generator"))
    try:
        if stream:
            return sum(1 for _ in exchange.neutral_events())
        exchange.receive()
        return len(exchange.reply().parts)
    finally:
        exchange.close()


def cpu_us(count: int, work: Callable[[], object]) -> float:
    """CPU of this process for each of so many runs, µs."""
    before = time.process_time()
    for _ in range(count):
        work()
    return (time.process_time() - before) / count * 1e6


@contextmanager
def held() -> Iterator[list[float]]:
    """How late a ticker came, seconds."""
    late: list[float] = [0.0]

    def tick() -> None:
        while True:
            due = time.perf_counter() + TICK_S
            gevent.sleep(TICK_S)
            late.append(time.perf_counter() - due)

    ticker = gevent.spawn(tick)
    try:
        yield late
    finally:
        ticker.kill()


def main() -> None:
    with running_triton() as server:
        print("transport   load ms  µs a request  µs a chunk  held ms (1 stream)  held ms (40 streams)")
        for name, address in (("http", server.http), ("grpc", server.grpc)):
            kind = adapter("triton")
            before = time.perf_counter()
            made = kind(kind.Settings(base_url=address), policy=AddressPolicy(allow_private=True))  # type: ignore[call-arg]
            loaded = time.perf_counter() - before
            for _ in range(20):
                ask(made, "one", stream=False)
            request = cpu_us(REQUESTS, partial(ask, made, "one", stream=False))
            short = cpu_us(10, partial(ask, made, f"count:{SHORT}", stream=True))
            long = cpu_us(10, partial(ask, made, f"count:{LONG}", stream=True))
            with held() as alone:
                ask(made, "count:100 wait:10", stream=True)
            with held() as together:
                started = time.perf_counter()
                gevent.joinall([gevent.spawn(ask, made, "count:20 wait:50", stream=True) for _ in range(STREAMS)])
                whole = time.perf_counter() - started
            print(
                f"{name:<10} {loaded * 1e3:8.0f} {request:13.0f} {(long - short) / (LONG - SHORT):11.0f}"
                f" {max(alone) * 1e3:19.1f} {max(together) * 1e3:21.1f}   40 streams of 1 s in {whole:.2f} s"
            )
            made.close()


if __name__ == "__main__":
    main()
