"""Upstreams as they really are: whatever they do with a stream's bytes and its connection, clients get whole answers,
and what is no answer is a failure of the attempt."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.blueprints.v1.conftest import Client, Reply
from tests.services.gate import Gate
from tests.services.packed import gzip_blanks
from tests.services.upstream import (
    CHAT,
    EMBEDDINGS,
    Answer,
    Raw,
    Stream,
    Upstream,
    Wire,
    answer_twice,
    beat_for_ever,
    crash,
    failure,
    hang_up,
    say_nonsense,
    stay_open,
)

SECRET = "sk-upstream-0123456789abcdef"


@pytest.fixture
def client(gate: Gate, key: str, upstream: Upstream) -> Client:
    gate.provider("up", base_url=upstream.url, api_key=SECRET, timeout_s=1)
    return Client(gate, key)


def piece(text: str | None = None, reason: Any = None, index: int = 0, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": {} if text is None else {"content": text}, "finish_reason": reason}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "small-up",
            "choices": [choice]} | more  # fmt: skip


def whole(content: str = "one two", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "small-up", "choices": [choice],
            "usage": USAGE} | more  # fmt: skip


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
SAID = [piece("one "), piece("two"), piece(None, "stop")]
COUNTED = piece() | {"choices": [], "usage": USAGE}


def told(reply: Reply) -> tuple[str, Any]:
    """What a client has read: the text, and the end, which is "[DONE]" or the code of an error."""
    assert reply.status == 200, reply.body
    *events, last = [
        event.removeprefix(b"data: ") for event in reply.body.split(b"\n\n") if event and not event.startswith(b":")
    ]
    assert b"\n" not in b"".join(events)
    chunks = [json.loads(event) for event in events]
    assert all(chunk["model"] == "small" for chunk in chunks)
    text = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
    return text, "[DONE]" if last == b"[DONE]" else json.loads(last)["error"]["code"]


def streamed(client: Client, **fields: Any) -> tuple[str, Any]:
    return told(client.chat(stream=True, **fields))


# The protocol decides when an answer is whole


@pytest.mark.both_lanes
@pytest.mark.parametrize("after", [stay_open, hang_up, crash, say_nonsense, answer_twice, beat_for_ever(b": beat\n\n")])
@pytest.mark.parametrize("chunks", [[*SAID, COUNTED], [piece("one "), piece("two")]], ids=["finished", "unfinished"])
def test_after_done_nothing_is_waited_for_and_nothing_can_go_wrong(gate, client, upstream, after, chunks):
    gate.provider("up", base_url=upstream.url, timeout_s=60)
    upstream.script(CHAT, Stream(chunks, after=after))
    started = time.monotonic()
    assert streamed(client) == ("one two", "[DONE]")
    assert time.monotonic() - started < 10
    assert gate.events(1)[0].outcome == "ok"
    assert client.chat("three").status == 200  # over a connection that is fit for it


def test_a_connection_whose_answer_never_ends_is_closed_soon(client, upstream):
    upstream.script(CHAT, Stream(SAID, after=stay_open))
    assert streamed(client) == ("one two", "[DONE]")
    upstream.wait_for_client_gone(upstream.last)


def test_a_connection_whose_answer_ends_is_used_again(client, upstream):
    connections = []
    for _ in range(3):
        assert streamed(client)[1] == "[DONE]"
        connections.append(upstream.last.connection)
        time.sleep(0.1)  # the end of the body follows its last event
    assert len(set(connections)) == 1


BEATS = (b": beat\n\n", b"data: {}\n\n", b"data: ping\n\n", b'data: {"choices": []}\n\n', b"\n",
         b'data: {"choices": [{"index": 0, "delta": {}}]}\n\n')  # fmt: skip


@pytest.mark.both_lanes
@pytest.mark.parametrize("after", [stay_open, hang_up, crash, say_nonsense, *(beat_for_ever(beat) for beat in BEATS)])
def test_a_finished_choice_is_a_whole_answer_whatever_follows(gate, client, upstream, after):
    upstream.script(CHAT, Stream([*SAID, COUNTED], done=False, after=after))
    started = time.monotonic()
    assert streamed(client) == ("one two", "[DONE]")
    assert time.monotonic() - started < 10
    (event,) = gate.events(1)
    assert (event.outcome, event.completion_tokens, event.finish_reason) == ("ok", 2, "stop")


def test_usage_that_follows_the_last_choice_late_is_waited_for(gate, client, upstream):
    gate.provider("up", base_url=upstream.url, timeout_s=60)
    upstream.script(CHAT, Stream([*SAID, b": \n\n" * 3, COUNTED], delay_s=0.3))
    assert streamed(client) == ("one two", "[DONE]")
    assert not gate.events(1)[0].estimated


def test_an_upstream_that_says_stop_with_each_chunk_is_heard_to_its_end(client, upstream):
    chunks = [piece(f"{n} ", "stop") for n in range(8)]
    upstream.script(CHAT, Stream(chunks, delay_s=0.3))  # longer than it is waited for after the last word
    assert streamed(client) == ("0 1 2 3 4 5 6 7 ", "[DONE]")


@pytest.mark.both_lanes
@pytest.mark.parametrize(
    ("chunks", "fields"),
    [
        ([piece("one ", ""), piece("two", "")], {}),
        ([piece("one "), piece("two")], {}),
        ([piece("one "), piece("two"), piece(None, "stop")], {"n": 2}),
        ([piece("one ", index=1), piece("two"), piece(None, "stop", index=1)], {"n": 2}),
    ],
    ids=["an empty reason", "no reason", "one of two, the other not begun", "one of two"],
)
@pytest.mark.parametrize("after", [hang_up, crash, stay_open, None])
def test_a_cut_before_every_choice_has_finished_is_an_error(gate, client, upstream, chunks, fields, after):
    upstream.script(CHAT, Stream(chunks, done=False, after=after))
    assert streamed(client, **fields) == ("one two", "upstream_cut")
    assert gate.events(1)[0].outcome == "error"


def test_all_of_two_choices_finished_are_a_whole_answer(client, upstream):
    chunks = [piece("one "), piece("two", index=1), piece(None, "stop"), piece(None, "length", index=1)]
    upstream.script(CHAT, Stream(chunks, done=False, after=crash))
    assert streamed(client, n=2) == ("one two", "[DONE]")


@pytest.mark.parametrize("after", [stay_open, hang_up, crash, say_nonsense, answer_twice])
def test_an_object_that_is_closed_is_a_whole_answer_whatever_follows(client, upstream, after):
    body = b"\xef\xbb\xbf" + json.dumps(whole()).encode()
    upstream.script(CHAT, Stream([body[:60], body[60:]], done=False, after=after, content_type="application/json"))
    started = time.monotonic()
    assert client.chat().json["choices"][0]["message"]["content"] == "one two"
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("after", [stay_open, hang_up, crash, say_nonsense])
def test_an_object_that_is_not_closed_is_no_answer(client, upstream, after):
    body = json.dumps(whole()).encode()[:-1]  # which ends with a bracket all the same
    upstream.script(CHAT, Stream([body], done=False, after=after, content_type="application/json"))
    assert client.chat().status in (502, 504)


def test_a_pause_behind_a_bracket_is_no_end(gate, client, upstream):
    gate.provider("up", base_url=upstream.url, timeout_s=2)
    body = json.dumps(whole("}" + "x" * 30)).encode()
    at = body.index(b"}x") + 1

    def go_on(wire: Wire) -> None:
        wire.wait(2.6)  # longer than it is waited for behind a bracket
        wire.chunk(body[at:])
        wire.send(b"0\r\n\r\n")

    upstream.script(CHAT, Stream([body[:at]], done=False, after=go_on, content_type="application/json"))
    assert Client(gate, gate.key()).chat().json["choices"][0]["message"]["content"].startswith("}x")


# Bytes as upstreams write them


def lines(*chunks: Any, end: str) -> bytes:
    return "".join(f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}{end}" for chunk in chunks).encode()


@pytest.mark.both_lanes
@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + lines(*SAID, "[DONE]", end="\n\n"),
        lines(*SAID, "[DONE]", end="\n"),
        lines(*SAID, "[DONE]", end="\r\n\r\n"),
        lines(*SAID, "[DONE]", end="\r\r"),
        lines("null", "[]", "ping", '"text"', "5", *SAID, "null", "[DONE]", end="\n\n"),
        lines("null", SAID[0], "[]", *SAID[1:], end="\n"),
        b"".join(b"event: message\nid: 1\nretry: 5\n: hello\n" + lines(chunk, end="\n\n") for chunk in [*SAID, "[DONE]"]),
        b"data:" + lines(*SAID, end="\n\n").replace(b"data: ", b"data:")[5:] + b"data:[DONE]",
        lines(*SAID, end="\n\n").replace(b'"choices"', b'\ndata: "choices"') + b"data: [DONE]\n\n",
        lines("{}", '{"type": "ping"}', *SAID, '{"time": 5}', "[DONE]", end="\n\n"),
    ],
    ids=["a mark", "one line end", "CRLF", "CR", "pings", "pings and one line end", "other fields", "no blank",
         "several lines", "objects that are no chunks"],
)  # fmt: skip
@pytest.mark.parametrize("size", [1 << 20, 7])
def test_however_events_are_written_their_chunks_arrive_and_nothing_else(client, upstream, body, size):
    upstream.script(CHAT, Stream([body[at : at + size] for at in range(0, len(body), size)], done=False))
    reply = client.chat(stream=True)
    assert told(reply) == ("one two", "[DONE]")
    assert reply.body.count(b"data: ") == 4


@pytest.mark.both_lanes
def test_halves_of_characters_pass_through(client, upstream):
    halves = [
        lines(piece("X"), end="\n\n").replace(b"X", half) for half in (b"\\ud83d", b"\\ude00", b"\xf0\x9f", b"\x98\x80")
    ]
    upstream.script(CHAT, Stream([*halves, SAID[2]]))
    body = client.chat(stream=True).body
    assert [body.count(half) for half in (b"\\ud83d", b"\\ude00", b"\xf0\x9f", b"\x98\x80")] == [1, 1, 1, 1]
    assert body.endswith(b"data: [DONE]\n\n")
    upstream.script(CHAT, Answer(json.dumps(whole("XY")).encode().replace(b"XY", b"\\ud83d \xf0")))
    reply = client.chat()
    assert reply.status == 200
    assert b"\\ud83d \xf0" in reply.body and b'"model":"small"' in reply.body


def test_what_only_the_books_need_may_be_odd(client, upstream):
    odd = [
        piece("one ", index="0"),  # type: ignore[arg-type]
        piece("two") | {"usage": {"prompt_tokens": "many"}},
        piece() | {"choices": [{"index": 0, "delta": None, "finish_reason": 5}]},
        SAID[2],
    ]
    upstream.script(CHAT, Stream(odd[:2] + odd[3:]))
    assert streamed(client) == ("one two", "[DONE]")
    upstream.script(CHAT, Answer(whole(usage={"prompt_tokens": []})))
    assert client.chat().status == 200


@pytest.mark.both_lanes
def test_an_event_of_megabytes_in_pieces_arrives(client, upstream):
    event = lines(piece("a" * (3 << 20)), end="\n\n")
    upstream.script(CHAT, Stream([*(event[at : at + 65_536] for at in range(0, len(event), 65_536)), SAID[2]]))
    text, end = streamed(client)
    assert (len(text), end) == (3 << 20, "[DONE]")


@pytest.mark.parametrize("status", [201, 202, 203])
def test_any_good_status_with_an_answer_is_an_answer(client, upstream, status):
    upstream.script(CHAT, Answer(whole(), status))
    assert client.chat().json["choices"][0]["message"]["content"] == "one two"
    upstream.script(CHAT, Stream(SAID, status=status))
    assert streamed(client) == ("one two", "[DONE]")


def bare(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def pieces_packed(chunks: list[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(wbits=31)
    for chunk in chunks:
        yield packer.compress(chunk) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()


@pytest.mark.both_lanes
@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("GZIP", lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])),
     ("deflate", zlib.compress), ("deflate", bare), ("identity", bytes)],
)  # fmt: skip
def test_an_answer_that_is_packed_is_unpacked(client, upstream, encoding, pack: Callable[[bytes], bytes]):
    headers = {"Content-Encoding": encoding}
    upstream.script(CHAT, Answer(pack(json.dumps(whole()).encode()), headers=headers))
    assert client.chat().json["choices"][0]["message"]["content"] == "one two"
    body = pack(lines(*SAID, "[DONE]", end="\n\n"))
    upstream.script(CHAT, Stream([body[:1], body[1:20], body[20:]], done=False, headers=headers))
    assert streamed(client) == ("one two", "[DONE]")
    upstream.script(CHAT, Answer(pack(json.dumps({"error": {"message": "too long"}}).encode()), 400, headers))
    assert client.chat().json["error"]["message"] == "too long"


@pytest.mark.both_lanes
def test_a_packed_stream_comes_piece_by_piece(client, upstream):
    packed = pieces_packed([lines(chunk, end="\n\n") for chunk in [*SAID, "[DONE]"]])
    upstream.script(CHAT, Stream(list(packed)[:-1], done=False, headers={"Content-Encoding": "gzip"}, after=stay_open))
    assert streamed(client) == ("one two", "[DONE]")


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("gzip", gzip_blanks(80 << 20)), ("gzip", b"no gzip"), ("br", b"{}"), ("gzip", gzip.compress(b"{}")[:-9])],
    ids=["a bomb", "not packed", "another way", "cut"],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_unpacked_is_a_failure(client, upstream, encoding, body, stream):
    upstream.script(CHAT, Answer(body, headers={"Content-Encoding": encoding}))
    assert client.chat(stream=stream).error[:2] == (502, "upstream_error")


def test_a_refusal_that_cannot_be_unpacked_is_a_refusal_all_the_same(client, upstream):
    upstream.script(CHAT, Answer(b"{}", 400, {"Content-Encoding": "br"}))
    assert client.chat().error[0] == 400


# The model's name


INNER = {"function": {"name": "f", "arguments": '{"model": "theirs"}'}, "args": {"model": "inner"}}


@pytest.mark.parametrize("place", ["first", "last", "missing", "null", "object"])
@pytest.mark.parametrize("spaced", [True, False])
def test_the_model_is_named_at_the_top_level_only(client, upstream, place, spaced):
    def named(body: dict[str, Any]) -> bytes:
        body = dict(body)
        del body["model"]
        if place != "missing":
            name = {"null": None, "object": {"id": "small-up"}}.get(place, "small-up")
            body = body | {"model": name} if place == "last" else {"model": name} | body
        return json.dumps(body, separators=None if spaced else (",", ":")).encode()

    chunks = [{"extra": INNER} | piece(f"{n}", None, extra=INNER) for n in range(4)]
    body = b"".join(b"data: " + named(chunk) + b"\n\n" for chunk in [*chunks, SAID[2]])
    upstream.script(CHAT, Stream([body]))
    reply = client.chat(stream=True)
    assert told(reply) == ("0123", "[DONE]")
    assert b"small-up" not in reply.body
    assert all(json.loads(event[6:])["extra"] == INNER for event in reply.body.split(b"\n\n")[:4])
    upstream.script(CHAT, Answer(named(whole(extra=INNER))))
    answer = client.chat().json
    assert (answer["model"], answer["extra"]) == ("small", INNER)


# An answer that is none is a failure of the attempt

NONE = [
    ({}, None),
    ({"detail": "no such deployment"}, "no such deployment"),
    ({"detail": [{"loc": ["body"], "msg": "value is odd"}]}, "value is odd"),
    ({"code": 50001, "msg": "quota is empty"}, "quota is empty"),
    ({"error": {"message": "overloaded", "code": 529}}, "overloaded"),
    ({"error": "overloaded"}, "overloaded"),
    ({"object": "error", "message": "overloaded", "code": 400}, "overloaded"),
    ({"type": "error", "error": {"type": "overloaded_error", "message": "overloaded"}}, "overloaded"),
    (whole(choices=[]), None),
    (whole(choices=None), None),
    (whole(choices=[None]), None),
    (whole(choices=[{}]), None),
    (whole(choices="none"), None),
    (whole(choices=[{"index": 0, "message": {"content": ""}, "finish_reason": "error"}], error={"message": "it broke"}),
     "it broke"),
    (whole(choices=[{"index": 0, "message": {"content": ""}, "finish_reason": "error"}]), None),
    ([], None), (None, None), (b'"text"', "text"), ("text", None), ("<html>busy</html>", None), (b"", None), (b"{", None),
]  # fmt: skip


def with_another(gate: Gate, make_upstream: Any) -> tuple[Client, Upstream]:
    """A client, now that another upstream stands behind the first."""
    other: Upstream = make_upstream()
    gate.provider("other", base_url=other.url)
    gate.model("small", "up", "other")
    return Client(gate, gate.key()), other


@pytest.mark.parametrize(("body", "reason"), NONE)
@pytest.mark.parametrize("stream", [False, True])
def test_a_good_status_without_an_answer_fails_the_attempt(
    gate, client, upstream, make_upstream, body, reason, stream
):  # fmt: skip
    upstream.always(CHAT, Answer(body))
    reply = client.chat(stream=stream)
    assert reply.error == (502, "upstream_error", None)
    if reason is not None:
        assert reply.json["error"]["message"] == reason
    assert gate.events(1)[0].cost_nano == 0
    client, other = with_another(gate, make_upstream)
    assert client.chat(stream=stream).status == 200
    assert len(other.requests) == 1


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        ([], None),
        ([{"error": {"message": "overloaded", "code": 503}}], "overloaded"),
        ([b'event: error\ndata: {"message": "overloaded"}\n\n'], "overloaded"),
        ([{"detail": "no such deployment"}], "no such deployment"),
        ([b'{"error": {"message": "overloaded"}}\n'], "overloaded"),
        ([piece(None, "error", error={"message": "it broke"})], "it broke"),
        ([COUNTED], None),
        ([piece() | {"choices": []}] * 100, None),
        ([piece() | {"choices": []}, {"error": "overloaded"}], "overloaded"),
        ([piece() | {"choices": None}], None),
        ([b"<html>\n<body>busy</body>\n"], None),
        ([b'data: {"id": "x", "choi\n\n'], None),
    ],
)
@pytest.mark.parametrize("done", [True, False])
def test_a_stream_without_a_choice_fails_the_attempt(gate, client, upstream, make_upstream, chunks, reason, done):
    upstream.always(CHAT, Stream(chunks, done=done))
    options = {"stream_options": {"include_usage": True}}
    reply = client.chat(stream=True, **options)
    assert reply.error == (502, "upstream_error", None)
    if reason is not None:
        assert reply.json["error"]["message"] == reason
    assert gate.events(1)[0].cost_nano == 0
    client, _ = with_another(gate, make_upstream)
    assert streamed(client) == ("one two three ", "[DONE]")


@pytest.mark.both_lanes
@pytest.mark.parametrize(
    "last",
    [
        {"error": {"message": f"lost worker at db-01:5432 with {SECRET}"}},
        b'event: error\ndata: {"message": "lost worker"}\n\n',
        piece(None, "error", error={"message": "lost worker"}),
        b'data: {"detail": "lost worker"}\n\n',
        b'{"error": "lost worker"}\n\n',
    ],
    ids=["an error", "by its name", "a reason", "another object", "outside of events"],
)
def test_a_failure_after_the_first_byte_ends_the_stream_with_its_reason(client, upstream, last):
    upstream.script(CHAT, Stream([SAID[0], last], done=False))
    body = client.chat(stream=True).body
    assert b"[DONE]" not in body
    error = json.loads(body.split(b"\n\n")[-2].removeprefix(b"data: "))["error"]
    assert (error["type"], error["code"]) == ("upstream_error", "upstream_cut")
    assert error["message"].startswith("lost worker")
    assert SECRET not in error["message"] and "db-01" not in error["message"]


@pytest.mark.both_lanes
def test_a_role_alone_is_the_first_byte_and_an_empty_answer_is_one(client, upstream):
    upstream.script(CHAT, Stream([piece() | {"choices": [{"index": 0, "delta": {"role": "assistant"}}]}]))
    assert streamed(client) == ("", "[DONE]")
    upstream.script(CHAT, Answer(whole("")))
    assert client.chat().json["choices"][0]["message"]["content"] == ""
    upstream.script(CHAT, Answer(whole(error=None)), Answer(whole(error={})))
    assert [client.chat().status, client.chat().status] == [200, 200]


@pytest.mark.both_lanes
def test_what_comes_before_the_first_choice_is_not_lost(client, upstream):
    filtered = piece() | {"choices": [], "prompt_filter_results": [1]}
    upstream.script(CHAT, Stream([filtered, *SAID]))
    reply = client.chat(stream=True)
    assert told(reply) == ("one two", "[DONE]")
    assert reply.body.count(b"prompt_filter_results") == 1


@pytest.mark.parametrize(
    "body",
    [{"object": "list", "data": data, "model": "x"} for data in (None, [], {}, [None], [{}], "text")]
    + [{}, {"detail": "no"}, {"error": {"message": "no"}}, {"object": "list"}, []],
)
def test_embeddings_without_vectors_fail_the_attempt(client, upstream, body):
    upstream.script(EMBEDDINGS, Answer(body))
    assert client("/v1/embeddings", {"model": "small", "input": "a"}).error[:2] == (502, "upstream_error")


@pytest.mark.parametrize("vector", [[0.5, 1], "AAAA", []])
def test_embeddings_with_vectors_are_an_answer(client, upstream, vector):
    upstream.script(EMBEDDINGS, Answer({"data": [{"index": 0, "embedding": vector}], "usage": {"total_tokens": 1}}))
    reply = client("/v1/embeddings", {"model": "small", "input": "a"})
    assert (reply.status, reply.json["model"]) == (200, "small")


@pytest.mark.parametrize(
    ("value", "shown"),
    [("inf", "3600"), ("nan", "5"), ("1e400", "3600"), ("-5", "1"), ("0", "1"), ("9" * 400, "3600"), ("soon", "5"),
     ("Fri, 01 Jan 1999 00:00:00 GMT", "1"), ("Fri, 31 Dec 9999 23:59:59 GMT", "3600"), ("2.6", "3"), ("", "5")],
)  # fmt: skip
def test_any_retry_after_of_an_upstream_is_a_sensible_one_of_ours(client, upstream, value, shown):
    upstream.script(CHAT, failure(429, retry_after=value))
    reply = client.chat()
    assert reply.error[:2] == (429, "upstream_error")
    assert reply.headers["Retry-After"] == shown


@pytest.mark.parametrize(
    ("param", "code", "shown"),
    [
        ("messages[0].content", "context_length_exceeded", ("messages[0].content", "context_length_exceeded")),
        ("x" * 60_000, "y" * 60_000, (None, None)),
        ("a\r\nb", "<script>", (None, None)),
        ({"a": 1}, 400, (None, None)),
        (5, "400", (None, None)),
        (SECRET, f"at_db-01:5432_{SECRET}", (None, None)),
    ],
)
def test_an_upstreams_param_and_code_pass_if_they_are_names(client, upstream, param, code, shown):
    upstream.script(CHAT, Answer({"error": {"message": "no", "param": param, "code": code}}, 400))
    error = client.chat().json["error"]
    assert (error["param"], error["code"]) == shown


@pytest.mark.parametrize("status", [204, 301, 304, 418, 599])
def test_any_other_status_is_a_failure(client, upstream, status):
    upstream.script(CHAT, Answer(b"" if status in (204, 304) else b"{}", status))
    assert client.chat().error[:2] == (502, "upstream_error")


def test_a_head_without_end_is_a_failure(client, upstream):
    upstream.script(CHAT, Raw(b"HTTP/1.1 200 OK\r\n" + b"x-a: " + b"y" * 60_000 + b"\r\n" * 1 + b"x-b: z\r\n" * 60_000))
    assert client.chat().error[:2] == (502, "upstream_error")


def test_an_error_as_long_as_a_book_holds_up_nobody(client, upstream):
    upstream.script(CHAT, failure(400, "Bad: " + "http://a." * 20_000 + "sk-" * 20_000))
    started = time.monotonic()
    reply = client.chat()
    assert time.monotonic() - started < 5
    assert reply.status == 400
    assert len(reply.json["error"]["message"]) <= 500
