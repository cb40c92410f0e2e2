"""Writing and waiting on gevent's sockets with as few questions to the kernel as there can be.

gevent's own `sendall` first asks the socket for its sizes, and its `recv` tries before it waits. On the busiest paths
that is a system call each, which costs more than all that Python does around it.
"""

from __future__ import annotations

from typing import Any


def send(sock: Any, data: bytes) -> None:
    """All of `data`, at once where the kernel takes it. Raises what `sendall` raises."""
    plain = getattr(sock, "_sock", None)
    if plain is None or hasattr(sock, "getpeercert"):  # TLS has a buffer of its own
        sock.sendall(data)
        return
    try:
        sent = plain.send(data)
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        sock.sendall(memoryview(data)[sent:])


def receive(sock: Any, size: int) -> bytes:
    """What comes next, on a socket from which everything that had come was read. Raises what `recv` raises."""
    plain = getattr(sock, "_sock", None)
    if plain is None or hasattr(sock, "getpeercert"):
        data: bytes = sock.recv(size)
        return data
    sock._wait(sock._read_event)
    try:
        data = plain.recv(size)
    except BlockingIOError:
        data = sock.recv(size)
    return data
