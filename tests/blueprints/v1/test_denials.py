"""A refused key and a denied model leave a count, a line of the log and a word for the audit log."""

from __future__ import annotations

import re

import msgspec
import pytest

from app import store
from app.gateway.denials import Denial, Told
from app.runtime.key_text import new_key
from app.runtime.sealing import digest
from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate
from tests.services.waiting import until

pytestmark = pytest.mark.both_lanes


def told(gate: Gate) -> list[Denial]:
    found = [msgspec.json.decode(raw, type=Told) for raw in gate.redis.lrange(store.DENIALS, 0, -1)]
    return [msgspec.json.decode(one.kind, type=Denial) for one in found]


def metric(client: Client, reason: str) -> float:
    found = re.search(rf'portico_denials_total{{reason="{reason}"}} ([\d.]+)', client("/metrics").body.decode())
    return float(found[1]) if found else 0.0


def test_a_refused_key_is_written_down_without_its_text(gate: Gate) -> None:
    key = new_key()
    nobody = Client(gate, key)
    before = metric(nobody, "invalid_key")
    assert nobody.chat().status == nobody("/v1/models").status == Client(gate, "nonsense")("/v1/key").status == 401
    marks = {digest(gate.pepper, text): text for text in (key, "nonsense")}

    def ours() -> dict[str, str | None]:  # what tests before this one were denied may come late
        return {marks[one.digest]: one.last4 for one in told(gate) if one.digest in marks}

    until(lambda: len(ours()) == 2, gate.log)
    assert ours() == {key: key[-4:], "nonsense": None}
    assert metric(nobody, "invalid_key") == before + 3
    until(lambda: key[-4:] in gate.log(), gate.log)
    assert key not in gate.log()


def test_a_denied_model_is_written_down_with_who_asked(gate: Gate) -> None:
    client = Client(gate, gate.key("echo-1", id="key-denied"))
    before = metric(client, "model")
    assert client.chat().status == client.chat(model="nowhere").status == client("/v1/models/small").status == 404

    def ours() -> set[tuple[str | None, str | None]]:
        return {(one.person_id, one.model) for one in told(gate) if one.caller_id == "key-denied"}

    until(lambda: len(ours()) == 2, gate.log)
    assert ours() == {("person-1", "small"), ("person-1", "nowhere")}
    assert metric(client, "model") == before + 3
    until(lambda: "a model was denied" in gate.log(), gate.log)


def test_a_request_without_a_key_is_only_counted(gate: Gate) -> None:
    nobody = Client(gate, None)
    before = metric(nobody, "no_key")
    assert nobody.chat().status == 401
    assert metric(nobody, "no_key") == before + 1
    assert "no_key" not in {one.reason for one in told(gate)}
