"""What exchanges share where an answer is no chat: the usage is the tally's and what the exchange knows by itself."""

from __future__ import annotations

from typing import Any

from app.providers.base import UpstreamRequest, Usage
from app.providers.openai_exchange import TalliedExchange
from tests.providers.canned import Canned


class Counting(TalliedExchange):
    def complete(self, used: Usage) -> Usage:
        used.more["images"] = 2
        return used

    def body(self) -> bytes:
        return self._body

    def events(self) -> Any:
        raise NotImplementedError


def exchange(body: bytes = b"{}") -> tuple[Counting, Canned]:
    canned = Canned(body)
    request = UpstreamRequest(capability="images", dialect="d", model="m", members={"prompt": b'"a b"'}, parsed=None)
    return Counting(canned.answer, request, "openai_images", "sk-secret", 1.0), canned


def test_what_an_exchange_knows_is_told_before_and_after_the_end() -> None:
    made, _ = exchange()
    assert made.usage.more == made.conclude().more == {"images": 2}


def test_an_answer_is_read_whole_and_its_connection_given_back() -> None:
    made, canned = exchange(b'{"data":[]}')
    made.receive()
    assert made.body() == b'{"data":[]}'
    made.close()
    assert canned.closed


def test_a_failure_has_the_upstreams_reason_without_the_secret() -> None:
    made, _ = exchange()
    failure = made._none(b'{"error":{"message":"No room for sk-secret."}}')
    assert failure.status == 502 and "No room" in failure.message and "sk-secret" not in failure.message
