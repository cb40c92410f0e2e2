"""Which addresses a provider may point at: never Portico's own ports or a cloud's metadata, private ones by setting.

Names are resolved here and the very address that was judged is connected to, so that a name can't change its
meaning between the two. A burst of connections to one name asks once: resolving takes a thread, and a thread waits
for a busy process at every step.
"""

from __future__ import annotations

import _socket
import ipaddress
import time
from typing import Any

import gevent
import gevent.socket

# Where clouds answer questions about a machine's credentials; no model is ever served there.
METADATA = {
    ipaddress.ip_address(text)
    for text in (
        "169.254.169.254",
        "169.254.170.2",
        "169.254.169.253",
        "100.100.100.200",
        "fd00:ec2::254",
        "168.63.129.16",
    )
}

BELIEVED_S = 5.0  # what a name was resolved to

Found = list[tuple[Any, ...]]  # of getaddrinfo


class AddressRefused(Exception):
    """An address that providers may not point at; the message is safe to show."""


class AddressPolicy:
    """The deployment's rule, and the ports of its own that are refused on this machine's addresses."""

    def __init__(self, *, allow_private: bool, own_ports: frozenset[int] = frozenset()) -> None:
        self.allow_private = allow_private
        self.own_ports = own_ports
        self._known: dict[tuple[str, int], tuple[float, Found]] = {}
        self._asking: dict[tuple[str, int], Any] = {}  # greenlets

    def check(self, host: str, port: int) -> None:
        """Raises `AddressRefused` for an address that is refused whatever names come to mean: one in numbers."""
        try:
            ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            if host.lower() != "localhost":
                return
            host = "127.0.0.1"
        if not self._may(host, port):
            raise AddressRefused("this address may not be used for a provider")

    def resolve(self, host: str, port: int) -> list[tuple[int, Any]]:
        """The (family, socket address) pairs that may be connected to. Raises `AddressRefused` or `OSError`."""
        found = self._found(host, port)
        allowed = [(int(family), address) for family, _, _, _, address in found if self._may(str(address[0]), port)]
        if not allowed:
            raise AddressRefused("this address may not be used for a provider")
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
        kind = gevent.socket.SOCK_STREAM
        try:
            try:  # an address needs no thread
                found: Found = _socket.getaddrinfo(host, port, 0, kind, 0, _socket.AI_NUMERICHOST)
            except OSError:
                found = gevent.socket.getaddrinfo(host, port, 0, kind)
            return found
        except OSError as error:
            return error
        finally:
            del self._asking[host, port]

    def _may(self, text: str, port: int) -> bool:
        address = ipaddress.ip_address(text.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if address in METADATA or address.is_multicast or address.is_unspecified or address.is_link_local:
            return False
        if address.is_loopback and port in self.own_ports:
            return False
        return address.is_global or self.allow_private
