"""Large pictures cost each of their bytes the same, whole and streamed, in however many pieces they come."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from app.gateway.dialects.openai_images import GenerationRequest
from app.providers.base import UpstreamRequest, all_of
from app.providers.openai_images import ImagesExchange
from tests.providers.canned import Canned


def seconds(size: int, stream: bool) -> float:
    parsed: Any = msgspec.convert({"model": "m", "prompt": "A boat", "stream": stream}, GenerationRequest)
    data = b"A" * size
    if stream:
        body, kind = b'data: {"type":"image_generation.completed","b64_json":"%b"}\n\n' % data, "text/event-stream"
    else:
        body, kind = b'{"data":[{"b64_json":"%b"}],"x":{"model":"m"}}' % data, "application/json"
    best = 60.0
    for _ in range(3):
        request = UpstreamRequest(
            capability="images", dialect="openai_images", model="m", members={}, parsed=parsed, stream=stream
        )
        exchange = ImagesExchange(Canned(body, kind).answer, request, "openai_images", None, 1.0)
        began = time.process_time()
        if stream:
            (event,) = all_of(exchange.events())
        else:
            exchange.receive()
            event = exchange.body()
        best = min(best, time.process_time() - began)
        assert len(event) > size and exchange.usage.more["images"] == 1
    return best


@pytest.mark.parametrize("stream", [True, False])
def test_the_time_of_a_large_picture_is_proportional_to_its_size(stream: bool) -> None:
    assert seconds(16 << 20, stream) < 5 * 4 * max(seconds(4 << 20, stream), 0.002)
