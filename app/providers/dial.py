"""Connecting to an upstream, the same for every transport: its address is judged each time, and what was judged is what is
connected to.

Nothing else in `app.providers` opens a connection. A transport that connects by itself is given `places`, addresses in
numbers, and never a name.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import gevent
import gevent.socket
import gevent.ssl

from app.providers.addresses import HTTP, AddressPolicy, AddressRefused, origin_of
from app.providers.errors import UpstreamError
from app.providers.settings import Deadlines


class Dial:
    """The way to one address. Raises `ValueError` for what is none in one of these schemes."""

    def __init__(
        self, address: str, *, deadlines: Deadlines, policy: AddressPolicy, schemes: Sequence[str] = HTTP
    ) -> None:
        self.origin = origin_of(address, schemes)
        self.deadlines = deadlines
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
        """A connected socket with the idle timeout set, with TLS if the scheme wants it. Raises `UpstreamError`.

        Finding the address, connecting to any of its places and TLS have one deadline together.
        """
        late = gevent.Timeout.start_new(self.deadlines.connect_s)
        try:
            return self._connect()
        except gevent.Timeout as timeout:
            if timeout is not late:
                raise
            raise _too_late() from None
        finally:
            late.close()

    def _connect(self) -> Any:
        failure: UpstreamError | None = None
        ends_at = time.monotonic() + self.deadlines.connect_s
        places = self.places()
        for number, (family, address) in enumerate(places):
            sock = gevent.socket.socket(family, socket.SOCK_STREAM)
            try:
                # A place that says nothing leaves time for the others.
                sock.settimeout(max(ends_at - time.monotonic(), 0.0) / (len(places) - number))
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.origin.secure:
                    sock = _tls().wrap_socket(sock, server_hostname=self.origin.host)
                sock.settimeout(self.deadlines.idle_s)
                return sock
            except TimeoutError:
                failure = _too_late()
            except ssl.SSLCertVerificationError:
                failure = UpstreamError("The provider's TLS certificate is not valid for its name.", unreachable=True)
            except OSError:
                failure = UpstreamError("The provider can't be reached.", unreachable=True)
            except gevent.Timeout:
                sock.close()
                raise
            sock.close()
        assert failure is not None
        raise failure


def _too_late() -> UpstreamError:
    return UpstreamError("The provider could not be reached in time.", timed_out=True, unconnected=True)


@cache
def _tls() -> Any:
    return gevent.ssl.create_default_context()
