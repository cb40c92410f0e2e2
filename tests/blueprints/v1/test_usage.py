"""What upstreams say of usage, on real sockets: a good answer is never lost for it, never free, and nobody pays for a lie."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from app import store
from app.directory import Price
from app.providers import tokens
from tests.blueprints.v1.conftest import Client
from tests.services.upstream import CHAT, EMBEDDINGS, Answer, Stream
from tests.services.waiting import until

WORDS = "The quick brown fox jumps over the lazy dog. " * 60  # 2,700 characters, 600 tokens
ASKED = "one two three"
OK = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
HUGE = [10**18, 9 * 10**12, 2**63 - 1, 2**63, 2**64, 10**30, 1e300]
ODD: list[tuple[Any, tuple[int, int, bool]]] = [
    (OK, (3, 2, False)),
    ({}, (3, 2, True)),
    (None, (3, 2, True)),
    ([], (3, 2, True)),
    ("many", (3, 2, True)),
    ({"input_tokens": 3, "output_tokens": 2}, (3, 2, False)),
    ({"prompt_tokens": "3", "completion_tokens": "2"}, (3, 2, False)),
    ({"prompt_tokens": 3.0, "completion_tokens": 2.0, "total_tokens": 5.0}, (3, 2, False)),
    (OK | {"prompt_tokens_details": []}, (3, 2, False)),
    (OK | {"prompt_tokens_details": {"cached_tokens": None}}, (3, 2, False)),
    (OK | {"completion_tokens_details": "none"}, (3, 2, False)),
    ({"prompt_tokens": 0, "completion_tokens": 50, "total_tokens": 50}, (0, 50, False)),
    ({"prompt_tokens": 3, "total_tokens": 5}, (3, 2, False)),
    ({"completion_tokens": 2, "total_tokens": 5}, (3, 2, False)),
    ({"total_tokens": 5}, (3, 2, True)),
    ({"prompt_tokens": -3, "completion_tokens": True}, (3, 2, True)),
    ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (3, 2, True)),
    *(({**OK, name: figure}, (3, 2, True)) for name in ("prompt_tokens", "completion_tokens") for figure in HUGE),
]


def whole(said: Any = ..., content: str = "hello world") -> Answer:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    body: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "up",
        "choices": [choice],
    }
    return Answer(body if said is ... else body | {"usage": said})


def chunk(text: str | None = None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, "finish_reason": reason}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "up",
        "choices": [choice],
    } | more


def stream(*frames: Any, **options: Any) -> Stream:
    """A text is a chunk of the answer, a usage object has a chunk of its own, other objects are chunks as they stand."""
    chunks = [chunk("")]
    for frame in frames:
        if isinstance(frame, str):
            chunks.append(chunk(frame))
        elif isinstance(frame, dict) and "choices" in frame:
            chunks.append(frame)
        else:
            chunks.append(chunk(usage=frame) | {"choices": []})
    return Stream(chunks, **options)


END = chunk(reason="stop")
ASK_USAGE = {"stream_options": {"include_usage": True}}


def booked(gate) -> tuple[int, int, bool]:
    (event,) = gate.events(1)
    cost = event.prompt_tokens * 1000 + event.completion_tokens * 2000
    assert event.cost_nano == cost
    assert gate.counted("organisation", "default") == (event.cost_nano, 0)
    return event.prompt_tokens, event.completion_tokens, event.estimated


def chunks_of(body: bytes) -> list[dict[str, Any]]:
    lines = [line.removeprefix(b"data: ") for line in body.split(b"\n\n") if line.startswith(b"data: ")]
    assert lines[-1] == b"[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize(("said", "expected"), ODD, ids=lambda value: str(value)[:60])
def test_a_whole_answer_is_booked_whatever_its_usage_looks_like_and_tells_what_is_booked(
    gate, client, upstream, said, expected
):
    upstream.script(CHAT, whole(said))
    reply = client.chat(ASKED)
    assert (reply.status, reply.json["choices"][0]["message"]["content"]) == (200, "hello world")
    assert booked(gate) == expected
    told = reply.json["usage"]
    assert (told["prompt_tokens"], told["completion_tokens"], told["total_tokens"]) == (
        *expected[:2],
        sum(expected[:2]),
    )
    assert client.chat(ASKED, model="echo-1").status == 200  # nothing stands behind it


@pytest.mark.parametrize(("said", "expected"), ODD, ids=lambda value: str(value)[:60])
def test_a_stream_is_booked_whatever_its_usage_looks_like_and_tells_what_is_booked(
    gate, client, upstream, said, expected
):
    alone = Stream([chunk("hello"), chunk(" world"), END, chunk(usage=said) | {"choices": []}])
    upstream.script(CHAT, alone)
    *chunks, last = chunks_of(client.chat(ASKED, stream=True, **ASK_USAGE).body)
    said_by_it = "".join(choice["delta"].get("content", "") for one in chunks for choice in one["choices"])
    assert said_by_it == "hello world"
    assert not any(one.get("usage") for one in chunks)
    assert booked(gate) == expected
    told = last["usage"]
    assert last["choices"] == [] and (last["id"], last["model"]) == ("chatcmpl-1", "small")
    assert (told["prompt_tokens"], told["completion_tokens"], told["total_tokens"]) == (
        *expected[:2],
        sum(expected[:2]),
    )


def test_a_whole_answer_without_usage_is_booked_by_its_text(gate, client, upstream):
    upstream.script(CHAT, whole())
    assert client.chat(ASKED).json["usage"] == OK
    assert booked(gate) == (3, 2, True)


def test_a_stream_without_usage_is_booked_by_its_text_and_not_by_its_chunks(gate, client, upstream):
    upstream.script(CHAT, stream(WORDS, END))
    (*_, last) = chunks_of(client.chat("a b c d e f g h", stream=True, **ASK_USAGE).body)
    assert last["usage"] == {"prompt_tokens": 8, "completion_tokens": 600, "total_tokens": 608}
    assert booked(gate) == (8, 600, True)


def test_an_estimate_is_never_more_than_what_was_held(gate, client, upstream):
    gate.limit("user", "person-1", limit="0.002")
    upstream.script(CHAT, whole(content=WORDS * 10))
    reply = client.chat(ASKED)
    (event,) = gate.events(1)
    assert event.completion_tokens == int(reply.headers["x-portico-max-tokens"]) and event.estimated
    assert 0 < event.cost_nano <= event.hold_nano and event.overdraft_nano == 0


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (("a", {"prompt_tokens": 100, "completion_tokens": 40}, {"cost": 0.0021}), (100, 40, False)),
        (({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, WORDS), (3, 600, True)),
        (({"prompt_tokens": 100, "completion_tokens": 0}, WORDS), (100, 600, True)),
        ((WORDS, {"prompt_tokens": 100}), (100, 600, True)),
        (("a", chunk(" b", usage={"prompt_tokens": 7, "completion_tokens": 9})), (7, 9, False)),
        (
            (chunk("a", usage={"prompt_tokens": 7, "completion_tokens": 1}),
             chunk(" b", usage={"prompt_tokens": 7, "completion_tokens": 2})), (7, 2, False),
        ),
        (("a", {"prompt_tokens": 7, "completion_tokens": 9}, chunk(WORDS, usage=None)), (7, 609, True)),
    ],
)  # fmt: skip
def test_frames_of_usage_are_merged(gate, client, upstream, frames, expected):
    upstream.script(CHAT, stream(*frames, END))
    (*chunks, last) = chunks_of(client.chat(ASKED, stream=True, **ASK_USAGE).body)
    assert booked(gate) == expected
    assert (last["usage"]["prompt_tokens"], last["usage"]["completion_tokens"]) == expected[:2]
    assert not any(one.get("usage") for one in chunks)


@pytest.mark.parametrize("ending", [{"cut_after": 3}, {"cut_after": 3, "reset": True}])
def test_a_stream_that_the_upstream_cuts_is_booked_by_the_text_that_came(gate, client, upstream, ending):
    upstream.script(CHAT, stream({"prompt_tokens": 100, "completion_tokens": 0}, WORDS, "never comes", **ending))
    assert b"upstream_cut" in client.chat(ASKED, stream=True).body
    assert booked(gate) == (100, 600, True)


def test_a_client_that_leaves_pays_for_the_text_that_came_and_for_a_long_prompt(gate, key, upstream):
    prompt = "a b c d e f g h " * 20_000  # 320 kB: half of it short words, kept as a sample
    upstream.script(CHAT, stream(WORDS, "never comes", hang_after=2))
    body = json.dumps({"model": "small", "stream": True, "messages": [{"role": "user", "content": prompt}]}).encode()
    with socket.create_connection(("127.0.0.1", gate.port), timeout=30) as client:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (key.encode(), len(body), body)
        )
        received = b""
        while WORDS[-30:].encode() not in received:
            received += client.recv(65_536)
    prompt_tokens, completion_tokens, estimated = booked(gate)
    assert prompt_tokens == pytest.approx(tokens.count(prompt), rel=0.02)
    assert (completion_tokens, estimated) == (600, True)


@pytest.mark.parametrize("said", [{"message": {"role": "assistant", "content": WORDS}}, {"text": WORDS}])
def test_text_that_is_streamed_in_no_delta_is_not_free(gate, client, upstream, said):
    upstream.script(CHAT, Stream([chunk() | {"choices": [{"index": 0, "finish_reason": "stop"} | said]}]))
    assert client.chat(ASKED, stream=True).status == 200
    assert booked(gate) == (3, 600, True)


def test_usage_that_was_not_asked_for_is_not_passed_on(gate, client, upstream):
    said = {"prompt_tokens": 7, "completion_tokens": 2}
    spelled = json.dumps(chunk(" c") | {"usage": None}, separators=(",", ":"))
    upstream.script(
        CHAT, stream(chunk("a", usage=None), chunk(" b", usage=said), END | {"usage": said}, said), stream(END)
    )
    chunks = chunks_of(client.chat(ASKED, stream=True).body)
    assert not any("usage" in one for one in chunks)
    assert [one["choices"][0]["delta"].get("content") for one in chunks] == ["", "a", " b", None]
    assert booked(gate) == (7, 2, False)
    upstream.reset()
    upstream.script(CHAT, Stream([spelled, spelled, json.dumps({"usage": None} | END)]))
    assert not any("usage" in one for one in chunks_of(client.chat(ASKED, stream=True).body))


def test_what_an_upstream_says_in_its_text_is_not_taken_for_usage(gate, client, upstream):
    text = 'Say ,"usage":null or "usage": {"prompt_tokens": 9} twice, '
    upstream.script(CHAT, stream(chunk(text, usage=None), chunk(text, usage=OK), END))
    chunks = chunks_of(client.chat(ASKED, stream=True).body)
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in chunks) == text * 2


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"prompt_tokens": 9, "total_tokens": 9}, (9, 0, False)), ({"total_tokens": 9}, (9, 0, False)),
        ({"input_tokens": 9}, (9, 0, False)), ({}, (3, 0, True)), (None, (3, 0, True)),
        ({"prompt_tokens": 10**18, "total_tokens": 10**18}, (3, 0, True)),
    ],
)  # fmt: skip
def test_embeddings_are_booked_whatever_their_usage_looks_like(gate, client, upstream, said, expected):
    data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
    upstream.script(EMBEDDINGS, Answer({"object": "list", "data": data, "model": "up", "usage": said}))
    reply = client("/v1/embeddings", {"model": "small", "input": ASKED})
    assert booked(gate) == expected
    assert reply.json["usage"] == {"prompt_tokens": expected[0], "total_tokens": expected[0]}


def test_tokens_given_as_numbers_are_counted_one_by_one(gate, client, upstream):
    data = [{"object": "embedding", "index": index, "embedding": [0.5]} for index in range(2)]
    upstream.script(EMBEDDINGS, Answer({"object": "list", "data": data, "model": "up"}))
    client("/v1/embeddings", {"model": "small", "input": [[1, 2, 3], [4, 5]]})
    assert booked(gate) == (5, 0, True)


def test_more_than_was_held_is_an_overdraft_and_more_than_is_possible_is_not_believed(gate, client, upstream):
    upstream.script(CHAT, whole(OK | {"completion_tokens": 900}), whole(OK | {"completion_tokens": 100_000}))
    for _ in range(2):
        assert client.chat(ASKED, max_tokens=3).status == 200
    over, beyond = gate.events(2)
    assert (over.completion_tokens, over.estimated) == (900, False) and over.overdraft_nano > 0
    assert (beyond.completion_tokens, beyond.estimated, beyond.overdraft_nano) == (2, True, 0)
    log = gate.log()
    assert "a call cost more than was held for it" in log
    assert "an upstream tells usage that can't be" in log and "completion_tokens 100000" in log


def test_the_budget_of_a_key_holds_whatever_an_upstream_says(gate, key, client, upstream):
    """A settle that broke half way took the hold off and charged nothing, so that a key could spend without an end."""
    upstream.always(CHAT, lambda body: whole(OK | {"prompt_tokens": 10**18}))
    gate.limit("user", "person-1", limit="0.001")
    statuses = [client.chat(ASKED, max_tokens=100).status for _ in range(200)]
    assert statuses.count(429) > 0
    spent, held = gate.counted("user", "person-1")
    assert 0 < spent <= 1_000_000 and held == 0
    assert spent == sum(event.cost_nano for event in gate.events(statuses.count(200)))


def test_alarms_are_metrics_too(gate, client, upstream):
    upstream.script(CHAT, whole(OK | {"prompt_tokens": 10**18}))
    client.chat(ASKED)
    gate.events(1)
    unreadable = b'portico_usage_alarms_total{reason="unreadable"}'
    until(lambda: unreadable in Client(gate, None)("/metrics").body, lambda: "the alarm is not told")


@pytest.mark.slow
@pytest.mark.parametrize("first", [0, 1])
def test_a_settle_that_redis_refuses_holds_up_no_other(gate, client, upstream, first):
    upstream.always(CHAT, lambda body: stream("hello", END, OK, delay_s=0.3))
    with ThreadPoolExecutor(2) as others:
        replies = []
        for _ in range(2):
            replies.append(others.submit(client.chat, ASKED, stream=True))
        until(lambda: gate.redis.zcard(store.LEASES) == 2, lambda: "no holds")
        ids = [id.decode() for id in gate.redis.zrange(store.LEASES, 0, -1)]
        for id in ids:  # from here on neither can be settled
            gate.redis.rpush(store.tombstone(id), "no tombstone")
        assert all(reply.result(30).body.endswith(b"data: [DONE]\n\n") for reply in replies)
    gate.redis.delete(store.tombstone(ids[first]))
    (settled,) = gate.events(1)
    assert settled.request_id == ids[first]
    gate.redis.delete(store.tombstone(ids[1 - first]))
    assert {event.request_id for event in gate.events(2)} == set(ids)
    assert gate.counted("organisation", "default") == (2 * settled.cost_nano, 0)
    assert "Redis refuses a settle" in gate.log()


def test_a_turn_that_a_client_repeats_is_charged_for_exactly_what_upstreams_did(gate, client, upstream):
    upstream.script(CHAT, Answer({}, status=500), stream("hello world", cut_after=2), whole(OK))
    for streams in (False, True, False):
        body = {"model": "small", "messages": [{"role": "user", "content": ASKED}], "stream": streams}
        client("/v1/chat/completions", body, None, **{"x-session-id": "s1"})
    events = gate.events(3)
    assert [(one.outcome, one.cost_nano) for one in events] == [
        ("error", 0),
        ("error", 3 * 1000 + 2 * 2000),
        ("ok", 7000),
    ]
    assert len({one.turn_id for one in events}) == 1 and events[0].turn_id
    assert gate.counted("organisation", "default") == (sum(one.cost_nano for one in events), 0)


def test_what_a_price_has_no_member_for_is_told_with_the_call(gate, client, upstream):
    gate.model("half", "up", price=Price(id="half", rates={"input_per_mtok": 1_000_000_000}))
    gate.model("unpriced", "up", price=None)
    upstream.script(CHAT, whole(OK), whole(OK), whole(OK))
    key = Client(gate, gate.key())
    for model in ("small", "half", "unpriced"):
        assert key.chat(ASKED, model=model).status == 200
    assert [one.unpriced for one in gate.events(3)] == [
        None, {"completion_tokens": 2}, {"prompt_tokens": 3, "completion_tokens": 2},
    ]  # fmt: skip
