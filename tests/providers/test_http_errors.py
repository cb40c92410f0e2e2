"""What upstreams say of failures is told without addresses and secrets, and costs as much as it is long."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.http_errors import error_of, reason_in, safe_to_show, seconds_in
from tests.growth import seconds

OURS = "sk-portico-0123456789abcdef0123456789"
PLAIN = "0123456789abcdef0123456789abcdef"  # a key that no pattern knows


@pytest.mark.parametrize(
    "hidden",
    [
        "http://10.0.0.1/x", "https://inference.example/v1?key=a", "grpc://triton:8001", "postgres://u:p@db/x",
        "10.1.2.3", "10.1.2.3:9000", "10.0.0.0/8", "127.0.0.1",
        "db-01:5432", "inference.internal:8000", "host.example:443", "redis:6379", "GPU_7:80", "vllm-0.vllm.svc:8000",
        "localhost", "localhost:11434", "node7.corp", "api.cluster.local", "db.prod.internal", "x.lan", "db.svc.prod",
        "::1", "fe80::1%eth0", "2001:db8::8a2e:370:7334", "[::1]:8080", "[2001:db8::1]", "[fe80::1%eth0]:80",
        "::ffff:10.0.0.1", "2001:0db8:0000:0000:0000:0000:0000:0001", "admin:hunter2@db01",
        OURS, PLAIN, "sk-...abcd", "sk-…abcd", "sk-p****", "sk-proj-****************cdef", "sk-••••••1234",
        "****************abcd", "abcd****wxyz", "ABCD...wxyz", "gsk_abcdefgh", "hf_abcdefgh", "AIzaSyA-abcdefghij",
        "AIza****wxyz", "AKIAABCDEFGHIJKLMNOP", "ya29.a0AfH6SMC-x_y", "ghp_abcdefgh",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0",
        "eyJhbGciOiJIUzI1NiJ9eyJhbGciOiJIUzI1NiJ9",
        "password=hunter2", "passwd: hunter2", '"password": "hunter2"', "api_key=abcd1234", "API key: abcd1234",
        "client_secret=abcd", "access_token=abcd", "Bearer abcdef123456", "Basic YWRtaW46aHVudGVyMg==",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "sentence", ["{}", "It failed at {}", "no route to {}.", "({}) is down", "'{}', again", "x={}"]
)
def test_addresses_and_secrets_are_never_shown(hidden: str, sentence: str) -> None:
    shown = safe_to_show(sentence.format(hidden), PLAIN)
    for word in ("hunter2", "abcd", "wxyz", "0123", "1234", "10.", "127.", "db8", "fe80", "internal", "5432", "::1", "local",
                 "corp", "lan", "svc", "8000", "cdef", "eyJ", "6379", ":80", "ghp", "ya29", "AKIA", "triton"):  # fmt: skip
        assert word not in shown, shown


@pytest.mark.parametrize(
    "text",
    [
        "This model's maximum context length is 8192 tokens; you asked for 9000 (8000 in the messages, 1000 to answer).",
        "max_tokens: 5000 is too large at 12:30:45 on 2026-11-30",
        "messages[0].content[1]: expected a string, got None (type=value_error)",
        "Use std::vector, a ratio of 3:4, or gpt-4.1-mini-2025-04-14 of platform.openai.com",
        "'temperature' must be <= 2.0 ...",
        "Basic authentication is not supported",
        "Größe überschritten: 日本語",
    ],
)
def test_other_words_stay_as_they_are(text: str) -> None:
    assert safe_to_show(text, OURS) == text


def test_what_is_shown_is_short_and_printable() -> None:
    assert len(safe_to_show("word " * 10_000)) <= 500
    assert safe_to_show("a\r\nb\x1b[31m\ud83dc") == "a  b [31m c"


@pytest.mark.parametrize("secret", [OURS, PLAIN, "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"])
def test_a_secret_is_not_shown_in_part_where_a_text_is_cut(secret: str) -> None:
    for start in range(4096 - len(secret) - 2, 4097):
        # Of what stands before it little is left, so that the end of what is searched comes into view.
        text = "http://" + "a" * (start - 8) + " " + secret + " and more"
        shown = safe_to_show(text, secret)
        assert shown.removeprefix("[address]").removesuffix(" and more").strip() in ("", "[removed]", "[remove"), shown


@given(st.text("aA0.:-_@/[]*…=\"' \n%", max_size=200), st.integers(0, 190))
def test_a_secret_is_removed_wherever_it_stands(text: str, at: int) -> None:
    assert PLAIN not in safe_to_show(text[:at] + PLAIN + text[at:], PLAIN)


HARD = ("http://a.", "a.", "a-", "a:", "1.", "1:", "::", "[", "[::1", "sk-", "eyJ", "eyJa.", "*", "a*", "a…", "a@", "a:a@", "..",
        "Bearer ", "password", "password=", "x.svc", "localhost", "a b ", "_", "…", '"', "api key")  # fmt: skip


@pytest.mark.parametrize("unit", HARD)
def test_a_text_costs_no_more_however_it_repeats_itself(unit: str) -> None:
    def cost(size: int) -> float:
        text = unit * (size // len(unit))
        return min(seconds(lambda text: safe_to_show(text, OURS), text) for _ in range(3))

    assert cost(4_000_000) < 5 * max(cost(4096), 0.001)  # no more than the beginning is looked at
    assert cost(4096) < 16 * 4 * max(cost(256), 0.0001)  # and that is linear


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"error": {"message": "m"}}, "m"), ({"error": "m"}, "m"), ({"error": {"code": 5}, "message": "m"}, "m"),
        ({"detail": "m"}, "m"), ({"detail": [{"msg": "m"}]}, "m"), ({"code": 1, "msg": "m"}, "m"), ({"errors": ["m"]}, "m"),
        ([{"error": {"message": "m"}}], "m"), ({"error": {"error": {"message": "m"}}}, "m"), ("m", "m"), ({}, ""),
        ({"error": True}, ""), ({"message": 5}, ""), (None, ""), ([], ""),
        ({"error": {"error": {"error": {"error": {"error": "m"}}}}}, ""),
    ],
)  # fmt: skip
def test_the_reason_is_found_in_any_shape(said: object, reason: str) -> None:
    assert reason_in(said) == reason


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"<html>",
        b"[" * 100_000,
        b'{"error": ' + b"9" * 6000 + b"}",
        b'{"error": {"message": "\\ud83d"}}',
        b"\xff",
    ],
)
def test_any_bytes_make_an_error(body: bytes) -> None:
    assert error_of(500, body, None).message


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.sampled_from(["", "m"]),
                    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
                        st.sampled_from(["error", "message", "detail", "code", "param", "errors"]), inner, max_size=3),
                    max_leaves=8))  # fmt: skip
def test_any_value_makes_an_error(said: object) -> None:
    error = error_of(400, json.dumps(said).encode(), None)
    assert error.message and error.refused
    assert error.code is None or isinstance(error.code, str)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("9", 9), ("1.5", 1.5), ("0", 1), ("-5", 1), ("inf", 3600), ("-inf", 1), ("nan", None), ("1e400", 3600), ("1e9", 3600),
        ("", None), ("soon", None), (None, None), ("9" * 5000, 3600), (" 7 ", 7),
        ("Mon, 30 Nov 2026 00:00:30 GMT", 30), ("Mon, 30 Nov 2026 00:00:30 -0000", 30), ("Sun, 29 Nov 2026 00:00:00 GMT", 1),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600), ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("Mon, 30 Feb 2026 00:00:00 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_between_one_and_an_hour(
    text: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = int(datetime(2026, 11, 30, tzinfo=UTC).timestamp()) * 1_000_000_000
    monkeypatch.setattr("app.clock.now_ns", lambda: now)
    assert seconds_in(text) == seconds
