"""Which addresses a provider may point at: never Portico's own ports and stores or a cloud's metadata, private ones by
setting.

Names are resolved here and the very address that was judged is connected to, so that a name can't change its
meaning between the two. An IPv6 address that carries an IPv4 address is judged by both: a translator on the way would
lead to the second. A burst of connections to one name asks once: resolving takes a thread, and a thread waits
for a busy process at every step.
"""

from __future__ import annotations

import _socket
import ipaddress
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import gevent
import gevent.socket

from config import Config

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# Where clouds answer questions about a machine's credentials; no model is ever served there.
METADATA = {
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",
        "169.254.170.2",
        "169.254.169.253",
        "100.100.100.200",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd20:ce::254",
        "168.63.129.16",
    )
}
METADATA_NAMES = {"metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"}

# IPv6 addresses that carry an IPv4 address in their last 32 bits. "::" and "::1" are not of this form.
_LAST_32 = [ipaddress.IPv6Network(text) for text in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)  # the first half of the interface's part
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")

BELIEVED_S = 5.0  # what a name was resolved to

REFUSED = "this address may not be used for a provider"

Found = list[tuple[Any, ...]]  # of getaddrinfo


class Origin(NamedTuple):
    """Where an address leads, and the path its requests begin with."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def secure(self) -> bool:
        return self.scheme in SECURE


HTTP = ("http", "https")
SECURE = ("https", "grpcs")
# The schemes there are, and the ports that need not be written.
PORTS: dict[str, int | None] = {"http": 80, "https": 443, "grpc": None, "grpcs": 443}
_URL = re.compile(r"[!-~]+")  # printable ASCII without blanks
_HOST = re.compile(r"(?=.{1,253}$)(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\.?")


def origin_of(url: str, schemes: Sequence[str] = HTTP) -> Origin:
    """Raises `ValueError` with a sentence for what is no plain address in one of `schemes`: it is written into requests as
    it is."""
    like = "https://host/v1" if schemes == HTTP else f"{schemes[0]}://host:8001"
    if not _URL.fullmatch(url) or "\\" in url:
        raise ValueError(
            "expected an address in printable ASCII without blanks; write a host of other letters as xn--…"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"expected an address such as {like}") from None
    host = parts.hostname
    port = PORTS.get(parts.scheme) if port is None else port
    if parts.scheme not in schemes or not host or not _is_host(host, "[" in parts.netloc) or not port:
        raise ValueError(f"expected an address such as {like}")
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise ValueError("expected an address without user, query or fragment")
    return Origin(parts.scheme, host, port, parts.path.rstrip("/"))


def _is_host(host: str, bracketed: bool) -> bool:
    if not bracketed:
        return _HOST.fullmatch(host) is not None
    try:
        return "%" not in host and ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


class AddressRefused(Exception):
    """An address that providers may not point at; the message is safe to show."""


class AddressPolicy:
    """The deployment's rule. `own_ports` are refused on every address of this machine; `own_places` are hosts and ports,
    of Portico's stores, that are refused wherever they are."""

    def __init__(
        self,
        *,
        allow_private: bool,
        own_ports: frozenset[int] = frozenset(),
        own_places: Sequence[tuple[str, int]] = (),
    ) -> None:
        self.allow_private = allow_private
        self.own_ports = own_ports
        self.own_places = tuple(own_places)
        self._known: dict[tuple[str, int], tuple[float, Found]] = {}
        self._asking: dict[tuple[str, int], Any] = {}  # greenlets

    @classmethod
    def of(cls, config: Config) -> AddressPolicy:
        """The rule of a deployment: its own port and its stores are refused always."""
        return cls(
            allow_private=config.allow_private_upstreams,
            own_ports=frozenset({config.server.port}),
            own_places=config.stores,
        )

    def check(self, host: str, port: int) -> None:
        """Raises `AddressRefused` for a place that is refused whatever names come to mean: an address in numbers, in any
        spelling, a name of this machine or of a cloud's metadata, and a store's own name."""
        name = _plain(host)
        if name in METADATA_NAMES or any((name, port) == (_plain(own), at) for own, at in self.own_places):
            raise AddressRefused(REFUSED)
        try:
            found = _in_numbers(name, port)
        except OSError:
            return  # a name: it is judged when it is connected to
        if not all(self._may(str(address[0]), port, ask=False) for _, _, _, _, address in found):
            raise AddressRefused(REFUSED)

    def resolve(self, host: str, port: int) -> list[tuple[int, Any]]:
        """The (family, socket address) pairs that may be connected to. Raises `AddressRefused` or `OSError`."""
        found = self._found(host, port)
        allowed = [(int(family), address) for family, _, _, _, address in found if self._may(str(address[0]), port)]
        if not allowed:
            raise AddressRefused(REFUSED)
        return allowed

    def _found(self, host: str, port: int) -> Found:
        now = time.monotonic()
        until, found = self._known.get((host, port), (0.0, []))
        if until > now:
            return found
        asking = self._asking.get((host, port))
        if asking is None:
            asking = self._asking[host, port] = gevent.spawn(self._ask, host, port)
        told: Found | OSError = asking.get()
        if isinstance(told, OSError):
            raise told
        self._known[host, port] = (now + BELIEVED_S, told)
        return told

    def _ask(self, host: str, port: int) -> Found | OSError:
        try:
            try:  # an address needs no thread
                return _in_numbers(host, port)
            except OSError:
                found: Found = gevent.socket.getaddrinfo(host, port, 0, gevent.socket.SOCK_STREAM)
                return found
        except OSError as error:
            return error
        finally:
            del self._asking[host, port]

    def _may(self, text: str, port: int, *, ask: bool = True) -> bool:
        """Whether an address may be connected to; with `ask`, the names of Portico's stores are resolved for it."""
        address = _read(text)
        judged = [address, *carried(address)]
        if any(_is_never_allowed(one) for one in judged):
            return False
        if port in self.own_ports and any(_is_of_this_machine(one) for one in judged):
            return False
        if any(at == port and self._is_at(own, at, judged, ask) for own, at in self.own_places):
            return False
        return self.allow_private or all(_is_public(one) for one in judged)

    def _is_at(self, host: str, port: int, judged: list[IPAddress], ask: bool) -> bool:
        try:
            found = self._found(host, port) if ask else _in_numbers(_plain(host), port)
        except OSError:
            return False  # a store that has no address can't be reached by it
        places = [_read(str(address[0])) for _, _, _, _, address in found]
        if set(places) & set(judged):
            return True
        # A store on this machine may listen on all its addresses.
        return any(map(_is_of_this_machine, places)) and any(map(_is_of_this_machine, judged))


def carried(address: IPAddress) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address carries: mapped, compatible, translated (SIIT, NAT64), 6to4, Teredo
    (its server and its client), ISATAP."""
    if not isinstance(address, ipaddress.IPv6Address):
        return
    number = int(address)
    if any(address in network for network in _LAST_32) and number > 1:
        yield _ipv4(number)
    if address in _LOCAL_NAT64:  # the operator chooses how long the prefix is (RFC 6052, 2.2)
        spread = number >> 64 << 56 | number & (1 << 56) - 1  # without the eight bits in the middle that are always 0
        readings = [spread >> (88 - length) for length in (48, 56, 64)] + [number]
        yield from (one for one in map(_ipv4, readings) if one not in _THIS_NETWORK)
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if number >> 32 & 0xFFFF_FFFF in _ISATAP:
        yield _ipv4(number)


def _plain(host: str) -> str:
    """A host as it is compared: in small letters, without the dot at its end; this machine's name as its address."""
    name = host.lower().rstrip(".")
    return "127.0.0.1" if name == "localhost" or name.endswith(".localhost") else name


def _read(text: str) -> IPAddress:
    """An address without its zone; a mapped one is the IPv4 address that the system would connect to."""
    address = ipaddress.ip_address(text.partition("%")[0])
    return address.ipv4_mapped or address if isinstance(address, ipaddress.IPv6Address) else address


def _ipv4(number: int) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(number & 0xFFFF_FFFF)


def _in_numbers(host: str, port: int) -> Found:
    """An address in any of the spellings that the system takes (`127.1`, `0x7f000001`); raises `OSError` for a name."""
    found: Found = _socket.getaddrinfo(host, port, 0, _socket.SOCK_STREAM, 0, _socket.AI_NUMERICHOST)
    return found


def _is_never_allowed(address: IPAddress) -> bool:
    if address in METADATA or address.is_multicast or address.is_unspecified or address.is_link_local:
        return True
    return isinstance(address, ipaddress.IPv4Address) and (address in _THIS_NETWORK or address == _BROADCAST)


def _is_public(address: IPAddress) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global
    # What else the module takes for global, such as fec0::/10, was never given out or is translated.
    return address in _NAT64 or (address in _GLOBAL_UNICAST and address.is_global)


def _is_of_this_machine(address: IPAddress) -> bool:
    """Whether the address is one of this machine's own, which the system tells by letting it be bound."""
    if address.is_loopback:
        return True
    family = _socket.AF_INET if address.version == 4 else _socket.AF_INET6
    try:
        probe = _socket.socket(family, _socket.SOCK_DGRAM)
    except OSError:  # a machine without IPv6
        return False
    try:
        probe.bind((str(address), 0))
    except OSError:
        return False
    finally:
        probe.close()
    return True
