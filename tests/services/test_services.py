"""The real parts that tests stand on, themselves tested: a fault that is not really played proves nothing."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import redis
from openai import APIConnectionError, OpenAI, RateLimitError

from tests.services.chromium import Chromium, NoChromium, packaged_chromium
from tests.services.packed import gzip_blanks
from tests.services.postgres import Postgres
from tests.services.upstream import CHAT, GARBAGE, Answer, Hang, Raw, Stream, Upstream, chat, failure
from tests.services.valkey import ValkeyServer


@pytest.fixture
def client(upstream: Upstream) -> OpenAI:
    return OpenAI(base_url=upstream.url, api_key="sk-test", max_retries=0, timeout=60)


def post(upstream: Upstream, body: object) -> socket.socket:
    """A chat request on a bare socket."""
    content = json.dumps(body).encode()
    connection = socket.create_connection(("127.0.0.1", upstream.port), timeout=60)
    connection.sendall(
        b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (CHAT.encode(), len(content), content)
    )
    return connection


HELLO = [{"role": "user", "content": "one two three"}]


def test_many_blanks_are_packed_as_gzip_packs_them() -> None:
    for size in (1 << 20, (3 << 20) + 5):
        assert gzip.decompress(gzip_blanks(size)) == b" " * size


def test_each_test_finds_an_empty_valkey(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as valkey:
        assert valkey.dbsize() == 0
        valkey.set("left", "behind")


def test_a_valkey_that_was_killed_comes_back_with_its_data(redis_url: str, valkey_server: ValkeyServer) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as valkey:
        assert valkey.get("left") is None
        valkey.set("kept", "1")
        assert valkey.execute_command("WAITAOF", 1, 0, 30_000)[0] == 1  # a busy disk holds its log up for seconds
        valkey_server.kill()
        with pytest.raises(redis.ConnectionError):
            valkey.ping()
        valkey_server.start()
        assert valkey.get("kept") == "1"


@pytest.mark.services
def test_a_lasting_database_stays_as_it_was_left_and_a_fresh_one_is_empty(postgres: Postgres) -> None:
    def tables(url: str) -> list[tuple[str]]:
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
            connection.execute("CREATE TABLE IF NOT EXISTS marks (n int)")
        return found

    assert tables(postgres.lasting("marked")) == []
    assert tables(postgres.lasting("marked")) == [("marks",)]
    for _ in range(2):
        url = postgres.fresh()
        assert tables(url) == []
        postgres.drop(url)


@pytest.mark.services
def test_postgres_comes_back_after_a_stop(postgres: Postgres, postgres_url: str) -> None:
    postgres.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(postgres_url.replace("+psycopg", ""))
    postgres.start()
    psycopg.connect(postgres_url.replace("+psycopg", "")).close()


def test_the_default_answers_are_read_by_openais_own_client(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="small", messages=HELLO)
    assert whole.choices[0].message.content == "one two three"
    assert whole.usage is not None and whole.usage.total_tokens == 6
    stream = client.chat.completions.create(
        model="small", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "one two three "
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 3
    assert [model.id for model in client.models.list()] == ["small", "large"]
    assert client.embeddings.create(model="small", input=["a", "bb"]).data[1].embedding[0] == 2.0  # asked as base64
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    called = client.chat.completions.create(model="small", messages=HELLO, tools=[tool])
    assert called.choices[0].message.tool_calls[0].function.name == "look"


def test_a_script_is_played_in_order_and_then_forgotten(upstream: Upstream, client: OpenAI) -> None:
    upstream.script(CHAT, failure(429, retry_after="7"), lambda body: chat(body, delay_s=0.01))
    with pytest.raises(RateLimitError) as refused:
        client.chat.completions.create(model="small", messages=HELLO)
    assert refused.value.response.headers["retry-after"] == "7"
    for _ in range(2):
        assert client.chat.completions.create(model="small", messages=HELLO).choices
    first = upstream.requests[0]
    assert first.headers["authorization"] == "Bearer sk-test" and first.json["messages"] == HELLO
    assert len({exchange.connection for exchange in upstream.requests}) == 1  # kept alive


@pytest.mark.parametrize(
    "fault",
    [GARBAGE, Raw(), Raw(reset=True), Answer({"a": 1}, cut_after=3), Stream([{"a": 1}], cut_after=1),
     Stream([{"a": 1}], cut_after=1, reset=True)],
    ids=["garbage", "closed", "reset", "body cut", "stream cut", "stream reset"],
)  # fmt: skip
def test_a_broken_answer_is_an_error_for_any_client(upstream: Upstream, fault: Raw | Answer | Stream) -> None:
    upstream.script(CHAT, fault)
    connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=60)

    def ask() -> bytes:
        connection.request("POST", CHAT, body=b"{}")
        return connection.getresponse().read()

    with pytest.raises((http.client.HTTPException, OSError)):
        ask()
    connection.close()


def test_a_connection_may_be_closed_between_two_requests(upstream: Upstream) -> None:
    upstream.script(CHAT, Answer({}, close=True))
    connection = http.client.HTTPConnection("127.0.0.1", upstream.port, timeout=60)

    def ask() -> bytes:
        connection.request("POST", CHAT, body=b"{}")
        return connection.getresponse().read()

    assert ask() == b"{}"
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
        ask()
    connection.close()


def test_nobody_listens_while_the_upstream_refuses(upstream: Upstream, client: OpenAI) -> None:
    client.chat.completions.create(model="small", messages=HELLO)
    with upstream.refusing(), pytest.raises(APIConnectionError):
        client.chat.completions.create(model="small", messages=HELLO)
    assert client.chat.completions.create(model="small", messages=HELLO).choices


@pytest.mark.parametrize(
    "behaviour",
    [
        Hang(),
        Stream([{"n": 1}] * 3, hang_after=2),
        Stream(["x"] * 1000, delay_s=0.02),
        Answer("x" * 1000, drip=(1, 0.05)),
    ],
    ids=["before the head", "in the middle", "slow stream", "drip"],
)
def test_the_moment_the_client_leaves_is_known(upstream: Upstream, behaviour: Hang | Stream | Answer) -> None:
    upstream.script(CHAT, behaviour)
    connection = post(upstream, {"stream": True})
    [exchange] = upstream.wait_for_requests(1)
    time.sleep(0.1)
    assert exchange.client_gone_at is None
    closed_at = time.monotonic()
    connection.close()
    assert upstream.wait_for_client_gone(exchange) - closed_at < 10


def test_a_hanging_request_does_not_outlive_a_reset(upstream: Upstream) -> None:
    upstream.script(CHAT, Hang())
    connection = post(upstream, {})
    [exchange] = upstream.wait_for_requests(1)
    upstream.reset()
    upstream.wait_for(lambda: exchange.ended_at is not None)
    assert upstream.requests == []
    connection.close()


def test_upstreams_do_not_know_each_other(make_upstream: Callable[[], Upstream]) -> None:
    first, second = make_upstream(), make_upstream()
    first.always(CHAT, failure(500))
    with OpenAI(base_url=second.url, api_key="x", max_retries=0) as client:
        assert client.chat.completions.create(model="small", messages=HELLO).choices
    assert first.requests == []


SHOW = """
import json, sys
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(**json.load(sys.stdin))
    page = browser.new_page()
    page.set_content("<h1>Grüezi</h1>")
    print(page.inner_text("h1"))
    browser.close()
"""


@pytest.mark.browser
@pytest.mark.slow
def test_the_packaged_chromium_shows_a_page() -> None:
    try:
        packaged: Chromium = packaged_chromium()
    except NoChromium as reason:
        pytest.skip(f"no browser: {reason}")
    shown = subprocess.run(
        [sys.executable, "-c", SHOW], input=json.dumps(packaged.launch_options()), capture_output=True, text=True
    )
    assert shown.stdout == "Grüezi\n", shown.stderr


@pytest.mark.browser
def test_the_browser_that_was_found_shows_a_page(chromium_path: Path, chromium: Chromium) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", SHOW], input=json.dumps(chromium.launch_options()), capture_output=True, text=True
    )
    assert shown.stdout == "Grüezi\n", shown.stderr
