"""Which addresses a provider may point at: never Portico's own ports or a cloud's metadata, private ones by setting.

Names are resolved here and the very address that was judged is connected to, so that a name can't change its
meaning between the two.
"""

from __future__ import annotations

import ipaddress
from typing import Any

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


class AddressRefused(Exception):
    """An address that providers may not point at; the message is safe to show."""


class AddressPolicy:
    """The deployment's rule, and the ports of its own that are refused on this machine's addresses."""

    def __init__(self, *, allow_private: bool, own_ports: frozenset[int] = frozenset()) -> None:
        self.allow_private = allow_private
        self.own_ports = own_ports

    def resolve(self, host: str, port: int) -> list[tuple[int, Any]]:
        """The (family, socket address) pairs that may be connected to. Raises `AddressRefused` or `OSError`."""
        found = gevent.socket.getaddrinfo(host, port, 0, gevent.socket.SOCK_STREAM)
        allowed = [(int(family), address) for family, _, _, _, address in found if self._may(str(address[0]), port)]
        if not allowed:
            raise AddressRefused("this address may not be used for a provider")
        return allowed

    def _may(self, text: str, port: int) -> bool:
        address = ipaddress.ip_address(text.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        if address in METADATA or address.is_multicast or address.is_unspecified or address.is_link_local:
            return False
        if address.is_loopback and port in self.own_ports:
            return False
        return address.is_global or self.allow_private
