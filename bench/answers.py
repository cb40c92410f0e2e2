"""What it costs to read an OpenAI-shaped upstream's bytes, without any socket: CPU-µs a chunk and a whole answer.

python -m bench.answers
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from app.providers.base import UpstreamRequest
from app.providers.http import Answer
from app.providers.openai import OpenAIExchange

CHUNKS = 2000
HEAD = {"id": "chatcmpl-9f86d081884c7d659a2feaa0c55ad015", "created": 1_700_000_000, "model": "small-up"}
DONE = b"data: [DONE]\n\n"


class Canned:
    """An answer whose pieces have all come."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = iter(pieces)

    def read(self, until: float | None = None) -> bytes:
        return next(self._pieces, b"")

    def read_within(self, seconds: float) -> bytes | None:
        return self.read()

    def read_stream(self, keep_alive_s: float, until: float | None) -> bytes | None:
        return self.read()

    def read_object(self, grace_s: float) -> bytes:
        return b"".join(self._pieces)

    def finish(self) -> None:
        """There is no connection."""


def exchange(pieces: list[bytes], stream: bool) -> OpenAIExchange:
    request = UpstreamRequest(
        capability="chat",
        dialect="openai_chat",
        model="small",
        members={},
        parsed=None,
        stream=stream,
        prompt_estimate=5,
    )
    return OpenAIExchange(cast("Answer", Canned(pieces)), request, None, 60.0)


def stream(pieces: list[bytes]) -> None:
    for _ in exchange(pieces, True).events():
        pass


def whole(body: bytes) -> None:
    exchange([body], False).body()


def chunk(text: str, reason: str | None = None, **options: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": reason}
    told = HEAD | {"object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + json.dumps(told, **options).encode() + b"\n\n"


def answer(words: int) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hello " * words}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": words, "total_tokens": words + 5}
    return json.dumps(HEAD | {"object": "chat.completion", "choices": [choice], "usage": usage}).encode()


def cost_us(work: Callable[[], Any], parts: int) -> float:
    """The best of some rounds: whatever else the machine does only adds."""
    best = float("inf")
    for _ in range(10):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best / parts * 1e6


def main() -> None:
    compact: dict[str, Any] = {"separators": (",", ":")}
    usual = [chunk(f" word{n}", **compact) for n in range(CHUNKS)]
    body = b"".join(usual)
    large = chunk("x" * (4 << 20))
    streams: dict[str, list[bytes]] = {
        "one event a piece": usual,
        "with blanks": [chunk(f" word{n}") for n in range(CHUNKS)],
        "the model behind the choices": [chunk(f" word{n}", sort_keys=True) for n in range(CHUNKS)],
        "pieces of 8 kB": [body[at : at + 8192] for at in range(0, len(body), 8192)],
        "CRLF": [event.replace(b"\n", b"\r\n") for event in usual],
        "each event in two pieces": [part for event in usual for part in (event[:100], event[100:])],
    }
    for name, pieces in streams.items():
        ended = [*pieces, chunk("", "stop"), DONE]
        print(f"{name:36}{cost_us(partial(stream, ended), CHUNKS):8.2f} µs a chunk")
    pieces = [*(large[at : at + 65_536] for at in range(0, len(large), 65_536)), chunk("", "stop"), DONE]
    print(f"{'one event of 4 MB in 64 kB pieces':36}{cost_us(partial(stream, pieces), 1000):8.2f} ms")
    for words in (100, 20_000):
        told = answer(words)
        print(f"{f'a whole answer of {len(told)} B':36}{cost_us(partial(whole, told), 1):8.2f} µs")


if __name__ == "__main__":
    main()
