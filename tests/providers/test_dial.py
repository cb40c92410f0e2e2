"""There is one way to an upstream, whatever is spoken over it, and no address is connected to that it has not judged."""

from __future__ import annotations

import ast
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

import app.providers
from app import providers
from app.providers.addresses import AddressPolicy
from app.providers.base import Adapter, UpstreamError
from app.providers.dial import Dial
from app.providers.settings import Deadlines, names_with, schemes_of
from tests.providers.more_kinds import FOLDERS, more_kinds

ANYWHERE = AddressPolicy(allow_private=True)
MODULES = sorted(Path(app.providers.__path__[0]).glob("*.py"))
KINDS = [path for folder in FOLDERS for path in folder.glob("*.py")]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        found.settimeout(0.05)
        yield found


def adapter_at(kind: str, port: int, policy: AddressPolicy) -> Adapter:
    found = providers.adapter(kind)
    address = {name: f"{schemes[0]}://127.0.0.1:{port}" for name, schemes in schemes_of(found.Settings).items()}
    secrets = dict.fromkeys(names_with(found.Settings, "secret"), "a secret")
    return found(found.Settings(**address, **secrets, timeout_s=5), policy=policy)


def was_reached(listener: socket.socket) -> bool:
    try:
        listener.accept()[0].close()
    except TimeoutError:
        return False
    return True


def own_port(port: int) -> AddressPolicy:
    return AddressPolicy(allow_private=True, own_ports=frozenset({port}))


def store(port: int) -> AddressPolicy:
    return AddressPolicy(allow_private=True, own_places=[("localhost", port)])


with more_kinds():
    REACHING = [kind for kind in providers.kinds() if schemes_of(providers.adapter(kind).Settings)]


@pytest.mark.parametrize("kind", REACHING)
@pytest.mark.parametrize("policy", [lambda _: AddressPolicy(allow_private=False), own_port, store])
def test_no_kind_connects_to_an_address_that_is_refused(kind: str, policy: Any, listener: socket.socket) -> None:
    """Also where the settings were saved under another rule, or another way than by the domain."""
    port = listener.getsockname()[1]
    with more_kinds(), contextlib.closing(adapter_at(kind, port, policy(port))) as adapter:
        tried = adapter.check(model=None, prompt=None, parameters={})
        assert (tried.result, was_reached(listener)) == ("connection_error", False)
        assert "may not be used" in tried.detail and str(port) not in tried.detail


def test_a_plain_socket_is_handed_out_connected(listener: socket.socket) -> None:
    dial = Dial(
        f"grpc://127.0.0.1:{listener.getsockname()[1]}", schemes=["grpc"], deadlines=Deadlines.alike(5), policy=ANYWHERE
    )
    sock, (other, _) = dial.connect(), listener.accept()
    sock.sendall(b"hello")
    assert other.recv(5) == b"hello" and sock.gettimeout() == 5
    sock.close()
    other.close()


def test_what_was_judged_is_connected_to(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is resolved once for both; of several addresses those that are refused are passed over."""
    port = listener.getsockname()[1]
    family = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    found = [(*family, ("169.254.169.254", port)), (*family, ("127.0.0.1", port))]
    monkeypatch.setattr("app.providers.addresses.gevent.socket.getaddrinfo", lambda *_: found)
    dial = Dial(f"http://changing.example:{port}", deadlines=Deadlines.alike(5), policy=ANYWHERE)
    assert dial.places() == [(socket.AF_INET, ("127.0.0.1", port))]
    dial.connect().close()
    assert was_reached(listener)


@pytest.mark.parametrize(
    ("address", "told"),
    [("http://127.0.0.1:1", "can't be reached"), ("http://no-such-host.invalid", "can't be resolved"),
     ("http://169.254.169.254", "may not be used")],
)  # fmt: skip
def test_a_failure_is_told_without_the_address(address: str, told: str) -> None:
    with pytest.raises(UpstreamError, match=told) as failed:
        Dial(address, deadlines=Deadlines.alike(5), policy=ANYWHERE).connect()
    assert failed.value.unreachable and address.removeprefix("http://") not in failed.value.message


@pytest.mark.parametrize("address", ["gopher://a:1", "http://a", "grpc://a", "grpc://", "grpc://u@a:1", ""])
def test_an_address_of_another_scheme_is_none(address: str) -> None:
    with pytest.raises(ValueError, match="expected an address"):
        Dial(address, schemes=["grpc"], deadlines=Deadlines.alike(5), policy=ANYWHERE)


CONNECTING = {
    "socket", "ssl", "http.client", "urllib.request", "requests", "urllib3", "httpx", "aiohttp", "gevent.socket",
    "gevent.ssl", "geventhttpclient", "_socket",
}  # fmt: skip
CALLS = {"create_connection", "connect_ex", "insecure_channel", "secure_channel", "HTTPClient"}
# These judge and connect; gRPC connects by itself, to `Dial.places` alone.
THEIRS = {"addresses.py", "dial.py", "triton_grpc.py"}


@pytest.mark.parametrize("path", [*MODULES, *KINDS], ids=lambda path: path.stem)
def test_no_other_module_opens_a_connection(path: Path) -> None:
    """A library that connects by itself is given what `Dial.places` hands out, and is let in here by name."""
    tree = ast.walk(ast.parse(path.read_text()))
    used: set[str] = set()
    for node in tree:
        match node:
            case ast.Import():
                used |= {alias.name for alias in node.names} & CONNECTING
            case ast.ImportFrom():
                used |= {str(node.module)} & CONNECTING
                used |= {f"{node.module}.{alias.name}" for alias in node.names} & CONNECTING
            case ast.Call(func=ast.Attribute(attr=name)) | ast.Call(func=ast.Name(id=name)):
                used |= {name} & CALLS
    assert bool(used) is (path.name in THEIRS), used


def test_a_place_that_says_nothing_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        with socket.create_connection(address), socket.socket() as waiting:
            waiting.setblocking(False)
            waiting.connect_ex(address)  # and nobody accepts them
            dial = Dial(f"http://127.0.0.1:{address[1]}", deadlines=Deadlines.alike(1), policy=ANYWHERE)
            with pytest.raises(UpstreamError) as failed:
                dial.connect()
    assert failed.value.timed_out and failed.value.unconnected
    assert failed.value.message == "The provider could not be reached in time."


def test_a_name_that_nobody_resolves_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AddressPolicy, "resolve", lambda *_: gevent.sleep(60))
    dial = Dial("http://slow.example", deadlines=Deadlines.alike(0.1), policy=ANYWHERE)
    with pytest.raises(UpstreamError) as failed:
        dial.connect()
    assert failed.value.timed_out and failed.value.unconnected


def test_a_place_that_says_nothing_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.create_server(("127.0.0.1", 0)) as well:
        address = full.getsockname()
        with socket.create_connection(address), socket.socket() as waiting:
            waiting.setblocking(False)
            waiting.connect_ex(address)
            places = [(socket.AF_INET, address), (socket.AF_INET, well.getsockname())]
            monkeypatch.setattr(AddressPolicy, "resolve", lambda *_: places)
            dial = Dial("http://two.example", deadlines=Deadlines.alike(2), policy=ANYWHERE)
            with dial.connect() as sock:
                assert sock.getpeername() == well.getsockname()
