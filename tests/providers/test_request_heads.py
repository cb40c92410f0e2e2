"""What is written into the head of a request to an upstream is one request, whatever settings and names hold."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.addresses import AddressPolicy
from app.providers.base import UpstreamError
from app.providers.dial import Dial
from app.providers.http import Pool, head_of
from app.providers.openai import OpenAI, OpenAISettings
from app.providers.settings import Deadlines
from tests.services.upstream import Answer, Upstream


def _fits(value: str) -> bool:
    return value.isascii() and value.isprintable()


POLICY = AddressPolicy(allow_private=True)


@given(st.sampled_from(["GET", "POST"]), st.text(max_size=12), st.text(max_size=8), st.text(max_size=12))
def test_a_head_is_one_line_for_each_thing_or_it_is_not_sent(method: str, target: str, name: str, value: str) -> None:
    try:
        head = head_of(method, f"/v1{target}", {name: value, "Accept": "*/*"})
    except UpstreamError:
        target_fits = target.isascii() and target.isprintable() and " " not in target
        assert not (target_fits and re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII) and _fits(value))
    else:
        assert head.split(b"\r\n") == [
            f"{method} /v1{target} HTTP/1.1".encode(), f"{name}: {value}".encode(), b"Accept: */*", b"", b"",
        ]  # fmt: skip
        assert head.split(b"\r\n")[0].count(b" ") == 2
        assert b":" not in name.encode() and not set(head) & {*range(32), *range(127, 256)} - {13, 10}


@pytest.mark.parametrize("value", ["sk-1\r\nX-Injected: yes", "sk-1\n", "sk-1\r", "sk\x00", "schlüssel", "sk\x7f"])
def test_a_variable_with_a_line_break_sends_nothing(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    if "\0" in value:
        settings = OpenAISettings(base_url=upstream.url, api_key=value)
    else:
        monkeypatch.setenv("UPSTREAM_TEST_KEY", value)
        settings = OpenAISettings(base_url=upstream.url, api_key_env="UPSTREAM_TEST_KEY")
    with contextlib.closing(OpenAI(settings, policy=POLICY)) as adapter:
        tried = adapter.check(model=None, prompt=None, parameters={})
    assert tried.result == "bad_response"
    assert "can't be sent" in tried.detail
    assert value.strip() not in tried.detail
    assert upstream.requests == []


def test_the_target_of_a_request_cannot_add_one(upstream: Upstream) -> None:
    pool = Pool(Dial(upstream.url, deadlines=Deadlines.alike(5), policy=POLICY))
    for path in ("/models HTTP/1.1\r\nX: y", "/a b", "/é", "/a\n"):
        with pytest.raises(UpstreamError, match="can't be sent"):
            pool.request("GET", path, {})
    assert upstream.requests == []


def test_a_redirect_is_not_followed(make_upstream: Callable[[], Upstream]) -> None:
    first, second = make_upstream(), make_upstream()
    for status in (301, 302, 303, 307, 308):
        first.script("/v1/models", Answer({}, status, {"Location": f"{second.url}/models"}))
        with contextlib.closing(OpenAI(OpenAISettings(base_url=first.url, api_key="sk-1"), policy=POLICY)) as adapter:
            assert adapter.check(model=None, prompt=None, parameters={}).result == "bad_response"
    assert second.requests == []


def test_a_store_behind_another_name_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as store:
        port = store.getsockname()[1]
        store.settimeout(0.2)
        policy = AddressPolicy(allow_private=True, own_places=[("localhost", port)])
        pool = Pool(Dial(f"http://127.0.0.2:{port}", deadlines=Deadlines.alike(5), policy=policy))
        with pytest.raises(UpstreamError, match="may not be used"):
            pool.request("GET", "/", {})
        with pytest.raises(TimeoutError):
            store.accept()
