"""Addresses are asked for once by a burst of connections, and judged each time."""

from __future__ import annotations

import contextlib
import ipaddress
import socket

import gevent
import gevent.socket
import pytest
from hypothesis import assume, given, settings
from hypothesis.strategies import ip_addresses, sampled_from

from app.providers.addresses import AddressPolicy, AddressRefused
from tests.examples import examples


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


# --- IPv6 that carries IPv4 ---


def _local_nat64(inner: int, length: int) -> int:
    """RFC 6052, 2.2: the address behind a prefix of 64:ff9b:1::/48 of that length, bits 64 to 71 left out."""
    spread = (0x0064_FF9B_0001 << 72) | inner << (88 - length)
    return (spread >> 56) << 64 | spread & (1 << 56) - 1


FORMS = {
    "mapped": lambda inner: 0xFFFF << 32 | inner,
    "compatible": lambda inner: inner,
    "SIIT": lambda inner: 0xFFFF << 48 | inner,
    "NAT64": lambda inner: 0x0064_FF9B << 96 | inner,
    "local NAT64, 48": lambda inner: _local_nat64(inner, 48),
    "local NAT64, 56": lambda inner: _local_nat64(inner, 56),
    "local NAT64, 64": lambda inner: _local_nat64(inner, 64),
    "local NAT64, 96": lambda inner: 0x0064_FF9B_0001 << 80 | inner,
    "6to4": lambda inner: 0x2002 << 112 | inner << 80 | 1,
    "Teredo, client": lambda inner: 0x2001_0000 << 96 | 0x0808_0808 << 64 | inner ^ 0xFFFF_FFFF,
    "Teredo, server": lambda inner: 0x2001_0000 << 96 | inner << 64 | 0x0808_0808 ^ 0xFFFF_FFFF,
    "ISATAP": lambda inner: 0x2A00_1450_4001_0812 << 64 | 0x0000_5EFE << 32 | inner,
    "ISATAP, global": lambda inner: 0x2A00_1450_4001_0812 << 64 | 0x0200_5EFE << 32 | inner,
}
REFUSED_ALWAYS = ("169.254.169.254", "169.254.1.1", "100.100.100.200", "168.63.129.16", "0.0.0.0", "224.0.0.1",
                  "255.255.255.255", "127.0.0.1", "127.9.9.9")  # fmt: skip
PRIVATE = ("10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "198.18.0.1", "240.0.0.1")


def _is_refused(policy: AddressPolicy, address: str, port: int = 8000) -> bool:
    try:
        policy.resolve(address, port)
    except AddressRefused:
        with pytest.raises(AddressRefused):
            policy.check(address, port)
        return True
    policy.check(address, port)
    return False


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inner", REFUSED_ALWAYS)
def test_an_address_that_is_refused_always_is_refused_in_every_ipv6_form(form: str, inner: str) -> None:
    policy = AddressPolicy(allow_private=True, own_ports=frozenset({8000}))
    carrier = ipaddress.IPv6Address(FORMS[form](int(ipaddress.IPv4Address(inner))))
    if form.startswith("local") and inner == "0.0.0.0":
        return  # of several readings one is right: those that lead nowhere say nothing
    assert _is_refused(policy, str(carrier))
    assert _is_refused(policy, carrier.exploded)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=examples(60), deadline=None)
@given(inner=ip_addresses(v=4) | sampled_from([ipaddress.IPv4Address(text) for text in REFUSED_ALWAYS + PRIVATE]))
def test_an_ipv6_address_is_never_allowed_more_than_the_ipv4_address_it_carries(
    form: str, inner: ipaddress.IPv4Address
) -> None:
    carrier = ipaddress.IPv6Address(FORMS[form](int(inner)))
    assume(int(carrier) != 1 and not (form.startswith("local") and inner in ipaddress.IPv4Network("0.0.0.0/8")))
    for policy in (AddressPolicy(allow_private=False), AddressPolicy(allow_private=True, own_ports=frozenset({8000}))):
        if _is_refused(policy, str(inner)):
            assert _is_refused(policy, str(carrier))


@pytest.mark.parametrize(
    "address", ["64:ff9b::8.8.8.8", "2002:808:808::1", "::ffff:8.8.8.8", "2a00:1450:4001:812::200e"]
)
def test_a_public_address_stays_usable_in_the_forms_that_lead_there(address: str) -> None:
    assert not _is_refused(AddressPolicy(allow_private=False), address)


@pytest.mark.parametrize("address", ["fec0::1", "fc00::1", "fd12::1", "100::1", "4000::1", "5f00::1", "::1",
                                     "2001:db8::1", "64:ff9b:1::8.8.8.8"])  # fmt: skip
def test_only_global_unicast_is_public(address: str) -> None:
    assert _is_refused(AddressPolicy(allow_private=False), address)
    assert not _is_refused(AddressPolicy(allow_private=True), address)


@settings(max_examples=examples(200), deadline=None)
@given(ip_addresses(v=6))
def test_no_ipv6_address_outside_global_unicast_is_public(address: ipaddress.IPv6Address) -> None:
    known = address in ipaddress.IPv6Network("2000::/3") or address in ipaddress.IPv6Network("64:ff9b::/96")
    assert known or address.ipv4_mapped or _is_refused(AddressPolicy(allow_private=False), str(address))


@pytest.mark.parametrize("text", ["127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001",
                                  "0x7f.0x0.0x0.0x1", "[::1]", "localhost", "LOCALHOST.", "a.localhost"])  # fmt: skip
def test_an_address_is_known_in_every_spelling(text: str) -> None:
    policy = AddressPolicy(allow_private=True, own_ports=frozenset({8000}))
    with pytest.raises(AddressRefused):
        policy.check(text.strip("[]"), 8000)
    policy.check(text.strip("[]"), 8001)


@pytest.mark.parametrize("text", ["2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "169.16689662",
                                  "metadata.google.internal", "Metadata.Google.Internal."])  # fmt: skip
def test_metadata_is_known_in_every_spelling(text: str) -> None:
    with pytest.raises(AddressRefused):
        AddressPolicy(allow_private=True).check(text, 80)


# --- Portico's own ---


def _own_addresses() -> list[str]:
    """Addresses of this machine that are not loopback."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))
        return [probe.getsockname()[0]]
    return []


def test_its_own_port_is_refused_on_every_address_of_the_machine(asked: list[str]) -> None:
    policy = AddressPolicy(allow_private=True, own_ports=frozenset({8000}))
    for address in ["127.0.0.1", "127.8.8.8", "::1", *_own_addresses()]:
        assert _is_refused(policy, address, 8000)
        assert not _is_refused(policy, address, 8001)
    assert not _is_refused(policy, "10.255.255.254", 8000)


def test_its_stores_are_refused_where_they_are_and_nowhere_else(asked: list[str]) -> None:
    stores = [("10.1.2.3", 6379), ("yes.example", 5432), ("localhost", 6380)]
    policy = AddressPolicy(allow_private=True, own_places=stores)
    for address, port in (
        ("10.1.2.3", 6379),
        ("::ffff:10.1.2.3", 6379),
        ("64:ff9b::10.1.2.3", 6379),
        ("167838211", 6379),
    ):
        assert _is_refused(policy, address, port)
    assert not _is_refused(policy, "10.1.2.4", 6379)
    assert not _is_refused(policy, "10.1.2.3", 6380)
    for name in ("yes.example", "YES.example."):
        with pytest.raises(AddressRefused):
            policy.check(name, 5432)
    with pytest.raises(AddressRefused):
        policy.resolve("other.example", 5432)  # another name of the same address
    with pytest.raises(AddressRefused):
        policy.resolve("93.184.216.34", 5432)
    for address in ("127.0.0.1", "::1", *_own_addresses()):  # a store of this machine, at any of its addresses
        with pytest.raises(AddressRefused):
            policy.check(address, 6380)
        assert not _is_refused(policy, address, 6381)


def test_a_store_whose_name_has_no_address_stands_in_nobodys_way(asked: list[str]) -> None:
    policy = AddressPolicy(allow_private=True, own_places=[("no.example", 5432)])
    assert not _is_refused(policy, "10.1.2.3", 5432)
