"""Redis and providers behind TLS: verified, kept alive, and as whole as without."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from app.gateway.redis_wire import RedisWire
from bench.gateway.builds import Trust, trust
from tests.services.gate import Gate
from tests.services.tls import TlsRelay
from tests.services.upstream import CHAT, Upstream
from tests.services.valkey import ValkeyServer


@pytest.fixture
def authority(tmp_path: Path) -> Trust:
    return trust(tmp_path)


@pytest.fixture
def redis_behind_tls(redis_url: str, valkey_server: ValkeyServer, authority: Trust) -> Iterator[str]:
    """The URL of the test's Valkey over TLS."""
    relay = TlsRelay(authority, valkey_server.socket_path)
    yield f"rediss://localhost:{relay.port}/0?ssl_ca_certs={authority.ca}"
    relay.close()


def test_answers_larger_than_a_record_and_many_at_once_come_whole(redis_behind_tls: str) -> None:
    wire = RedisWire(redis_behind_tls, timeout_s=60)
    large = "x" * 1_000_000
    assert wire.call("SET", "large", large) == b"OK"
    asked = [gevent.spawn(wire.call, "ECHO", str(n)) for n in range(200)]
    assert wire.call("GET", "large") == large.encode()
    gevent.joinall(asked, timeout=60)
    assert [one.value for one in asked] == [str(n).encode() for n in range(200)]
    wire.close()


@pytest.mark.slow
def test_a_gateway_serves_over_both(redis_behind_tls: str, upstream: Upstream, authority: Trust) -> None:
    relay = TlsRelay(authority, upstream.port)
    gate = Gate(redis_behind_tls, SSL_CERT_FILE=str(authority.ca))
    try:
        gate.start().begin()
        gate.provider("up", base_url=f"https://localhost:{relay.port}/v1")
        gate.provider("wrong", base_url=f"https://127.0.0.2:{relay.port}/v1")
        gate.model("small", "up")
        gate.model("wrong", "wrong")
        key = gate.key("small", "wrong")

        def ask(model: str, **fields: object) -> bytes:
            body = json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello"}], **fields}).encode()
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            with urllib.request.urlopen(urllib.request.Request(gate.url + CHAT, body, headers), timeout=60) as answer:
                return bytes(answer.read())

        for _ in range(3):
            assert json.loads(ask("small"))["choices"]
            assert ask("small", stream=True).endswith(b"data: [DONE]\n\n")
        assert len({request.connection for request in upstream.requests}) == 1  # kept alive
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask("wrong")
        refused.value.close()
        assert refused.value.code == 502
    finally:
        gate.close()
        relay.close()
