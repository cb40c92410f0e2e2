"""Whatever /v1 refuses of a known caller is told for the ledger by the id that the client was told, and nothing else is."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app import clock
from app.runtime.ids import new_id
from tests.blueprints.v1.conftest import Client
from tests.services.gate import Gate
from tests.services.waiting import until

# A person of its own in each: of one person only so many refusals of a minute are told one by one.
pytestmark = pytest.mark.both_lanes


def test_each_refusal_of_a_key_is_told_with_the_id_of_its_answer(gate: Gate) -> None:
    client = Client(gate, gate.key("small", id="key-refused", person_id=new_id()))
    gate.limit("key", "key-refused", rpm=1)
    served = client.chat()
    refused = [
        client.chat(model="nowhere"), client("/v1/chat/completions", b"{"), client("/v1/nothing", b"{}"),
        client("/v1/chat/completions", {"model": "small"}), client.chat(), client.chat(),
    ]  # fmt: skip
    statuses = [reply.status for reply in refused]
    assert served.status == 200 and statuses[:4] == [404, 400, 404, 400] and statuses[-1] == 429
    ids = {reply.headers["x-request-id"]: reply.status for reply in refused if reply.status != 200}

    def told() -> dict[str, int]:
        return {event.request_id: event.status for event in gate.refused() if event.key_id == "key-refused"}

    until(lambda: told().keys() >= ids.keys(), gate.log)
    assert told().items() >= ids.items() and served.headers["x-request-id"] not in told()


def test_an_expired_key_is_told_to_its_owner_and_an_unknown_one_to_nobody(gate: Gate) -> None:
    expired = gate.key(
        "small", id="key-expired", person_id=new_id(), expires_ms=clock.to_ms(clock.now() - timedelta(hours=1))
    )
    reply = Client(gate, expired).chat()
    assert reply.status == 401 and Client(gate, "sk-unknown").chat().status == 401

    def told() -> dict[str, str | None]:
        return {event.request_id: event.error_code for event in gate.refused() if event.key_id == "key-expired"}

    until(lambda: reply.headers["x-request-id"] in told(), gate.log)
    assert set(told().values()) == {"invalid_api_key"}
    assert not [
        event for event in gate.refused() if event.person_id == "" and not (event.refusal and event.refusal.counted)
    ]
