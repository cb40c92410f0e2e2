"""Connecting to an upstream, the same for every transport: its address is judged each time, and what was judged is what is
connected to.

Nothing else in `app.providers` opens a connection. A transport that connects by itself is given `places`, addresses in
numbers, and never a name.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from functools import cache
from typing import Any

import gevent.socket
import gevent.ssl

from app.providers.addresses import HTTP, AddressPolicy, AddressRefused, origin_of
from app.providers.errors import UpstreamError


class Dial:
    """The way to one address. Raises `ValueError` for what is none in one of these schemes."""

    def __init__(self, address: str, *, timeout_s: float, policy: AddressPolicy, schemes: Sequence[str] = HTTP) -> None:
        self.origin = origin_of(address, schemes)
        self.timeout_s = timeout_s
        self._policy = policy

    def places(self) -> list[tuple[int, Any]]:
        """The (family, socket address) pairs that may be connected to. Raises `UpstreamError`."""
        try:
            return self._policy.resolve(self.origin.host, self.origin.port)
        except AddressRefused as error:
            raise UpstreamError(f"The provider can't be used: {error}.", unreachable=True) from None
        except OSError:
            raise UpstreamError("The provider's name can't be resolved.", unreachable=True) from None

    def connect(self) -> Any:
        """A connected socket with the timeout set, with TLS if the scheme wants it. Raises `UpstreamError`."""
        failure: UpstreamError | None = None
        for family, address in self.places():
            sock = gevent.socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.settimeout(self.timeout_s)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.origin.secure:
                    sock = _tls().wrap_socket(sock, server_hostname=self.origin.host)
                return sock
            except TimeoutError:
                failure = UpstreamError("The provider could not be reached in time.", timed_out=True, unconnected=True)
            except ssl.SSLCertVerificationError:
                failure = UpstreamError("The provider's TLS certificate is not valid for its name.", unreachable=True)
            except OSError:
                failure = UpstreamError("The provider can't be reached.", unreachable=True)
            sock.close()
        assert failure is not None
        raise failure


@cache
def _tls() -> Any:
    return gevent.ssl.create_default_context()
