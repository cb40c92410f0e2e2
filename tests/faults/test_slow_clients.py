"""Clients that send or read slowly hold nothing that others need."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import pytest
import requests

from tests.services.portico import Portico
from tests.services.waiting import PATIENCE_S

pytestmark = pytest.mark.slow

QUICK_S = 3.0  # for a page of an idle machine: a hundredth of it


def token(portico: Portico) -> str:
    form = {"username": "admin", "password": portico.admin_password}
    told: str = requests.post(f"{portico.url}/token", form, timeout=PATIENCE_S).json()["access_token"]
    return told


def begin(portico: Portico, head: str, body: bytes = b"") -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", portico.port), timeout=PATIENCE_S)
    sock.sendall(head.encode() + body)
    return sock


def assert_others_are_served(portico: Portico, headers: dict[str, str]) -> None:
    for path in ("/sign-in", "/api/keys"):
        started = time.monotonic()
        assert requests.get(portico.url + path, headers=headers, timeout=PATIENCE_S).status_code == 200
        assert time.monotonic() - started < QUICK_S


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/api/keys", "application/json"),
        ("/sign-in", "application/x-www-form-urlencoded"),
        ("/sign-in", "multipart/form-data; boundary=x"),
    ],
)
def test_a_hundred_slow_bodies_hold_up_nobody(portico: Portico, path: str, kind: str) -> None:
    headers = {"Authorization": f"Bearer {token(portico)}"}
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {headers['Authorization']}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: 1000\r\n\r\n"
    )
    with ExitStack() as slow:
        for _ in range(100):
            slow.enter_context(begin(portico, head, b'{"name":'))
        assert_others_are_served(portico, headers)


def test_a_body_that_does_not_come_is_refused_in_time(start_portico) -> None:
    portico = start_portico(CONFIG_SERVER_BODY_TIMEOUT_S="0.5", CONFIG_SERVER_DOORS="portal,api,public")
    for length in ("Content-Length: 1000", "Transfer-Encoding: chunked"):
        with begin(portico, f"POST /token HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n") as sock:
            answer = sock.makefile("rb")
            assert answer.readline().split()[1] == b"408"
            assert b"in time" in answer.read()  # to its end: the connection is closed
