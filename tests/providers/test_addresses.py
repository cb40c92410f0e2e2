"""Addresses are asked for once by a burst of connections, and judged each time."""

from __future__ import annotations

import gevent
import gevent.socket
import pytest

from app.providers.addresses import AddressPolicy, AddressRefused


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that were resolved; resolving takes a moment, and `no.example` fails."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, *_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        gevent.sleep(0.02)
        if host == "no.example":
            raise gevent.socket.gaierror(-2, "Name or service not known")
        return [(2, 1, 6, "", ("93.184.216.34", port))]

    monkeypatch.setattr(gevent.socket, "getaddrinfo", getaddrinfo)
    return asked


def test_a_burst_of_connections_resolves_a_name_once(asked: list[str]) -> None:
    policy = AddressPolicy(allow_private=False)
    burst = [gevent.spawn(policy.resolve, "yes.example", 443) for _ in range(50)]
    assert [one.get(timeout=60) for one in burst] == [[(2, ("93.184.216.34", 443))]] * 50
    assert policy.resolve("yes.example", 443) == [(2, ("93.184.216.34", 443))]
    assert asked == ["yes.example"]


def test_what_failed_is_asked_again(asked: list[str]) -> None:
    policy = AddressPolicy(allow_private=False)
    for _ in range(2):
        with pytest.raises(OSError, match="not known"):
            policy.resolve("no.example", 443)
    assert asked == ["no.example"] * 2


def test_an_address_is_taken_as_it_is_and_judged_each_time(asked: list[str]) -> None:
    policy = AddressPolicy(allow_private=True, own_ports=frozenset({8000}))
    assert policy.resolve("127.0.0.1", 9100) == [(2, ("127.0.0.1", 9100))]
    for host, port in (("127.0.0.1", 8000), ("127.1", 8000), ("169.254.169.254", 80), ("::ffff:169.254.169.254", 80)):
        for _ in range(2):
            with pytest.raises(AddressRefused):
                policy.resolve(host, port)
    assert asked == []


def test_an_address_in_numbers_is_judged_without_asking_and_a_name_later(asked: list[str]) -> None:
    policy = AddressPolicy(allow_private=True, own_ports=frozenset({8000}))
    for host, port in (
        ("127.0.0.1", 8000),
        ("localhost", 8000),
        ("::1", 8000),
        ("169.254.169.254", 80),
        ("fe80::1%lo", 80),
    ):
        with pytest.raises(AddressRefused):
            policy.check(host, port)
    for host, port in (("127.0.0.1", 9100), ("localhost", 9100), ("no.example", 443), ("10.0.0.1", 80)):
        policy.check(host, port)
    with pytest.raises(AddressRefused):
        AddressPolicy(allow_private=False).check("10.0.0.1", 80)
    assert asked == []


def test_who_is_interrupted_while_a_name_is_resolved_takes_nothing_from_the_others(asked: list[str]) -> None:
    policy = AddressPolicy(allow_private=False)
    first, second = (gevent.spawn(policy.resolve, "yes.example", 443) for _ in range(2))
    gevent.sleep(0.005)
    first.kill()
    assert second.get(timeout=60) == [(2, ("93.184.216.34", 443))]
