"""What every kind of provider promises, shown with recorded conversations over a real socket.

A recording is two files in `tests/providers/recorded/<kind>/`: `<name>.http` is what the upstream said (`.raw` where it does
not speak HTTP), `<name>.json` what it was asked and what must come of it. A kind without an upstream has the second alone.
Kinds that share an adapter share its recordings: they lie under the name of the module that it is from.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import gevent
from gevent.server import StreamServer
from structlog.testing import capture_logs

from app import providers
from app.directory import Deployment
from app.gateway.dialects import dialect
from app.gateway.endpoints import ENDPOINTS
from app.providers.addresses import AddressPolicy
from app.providers.base import Adapter, CheckResult, Exchange, UpstreamError, UpstreamRequest, Usage, all_of
from app.providers.conversation import Event, Finish, Reasoning, Reply, Text, ToolCall, ToolCallDelta
from app.providers.settings import names_with, schemes_of
from app.runtime.forms import Form, Upload
from tests.providers.more_kinds import more_kinds
from tests.services.sounds import wav

RECORDED = Path(__file__).parent / "recorded"
SORTS = (
    "plain",
    "streamed",
    "tools",
    "parallel_tools",
    "long",
    "error",
    "cut",
    "usage",
)  # of a kind that chats upstream
SORTS_WITHIN = ("plain", "streamed", "tools")  # ... of one that answers by itself
SHORT = 600  # bytes of an answer that is cut at every place

SECRET = "of no pattern, so only who knows it can find it/7"
OURS, THEIRS = "ours", "their-model-4711"  # names of the model
INTERNAL = ("10.1.2.3", "cluster.local", "/opt/secret-place")  # places that recorded errors tell of
POLICY = AddressPolicy(allow_private=True)
SPOKEN = {endpoint.dialect for endpoint in ENDPOINTS.values()}  # by clients


class Recording(NamedTuple):
    """One recorded conversation."""

    name: str
    asks: dict[str, Any]  # a body, as a client writes it
    said: bytes | None  # what the upstream answered, None where there is no upstream
    is_http: bool
    hangs_up: bool  # behind it
    gives: dict[str, Any]
    capability: str
    settings: dict[str, Any]  # of the adapter, beside address and secret
    deployment: dict[str, Any]  # its settings
    asked: dict[str, Any] | None  # of the upstream: path, headers (None for one that is not there), members, without
    endpoint: str | None  # its id, where a capability has more than one

    @property
    def streams(self) -> bool:
        return bool(self.asks.get("stream")) or self.capability == "speech"


class Outcome(NamedTuple):
    """What an adapter made of an answer: in the dialect of its upstream, or in the neutral language."""

    pieces: tuple[bytes, ...] = ()
    parts: tuple[Any, ...] = ()
    used: dict[str, Any] | None = None
    finish_reason: str | None = None
    error: dict[str, Any] | None = None
    original: Any = None  # the error as the upstream wrote it

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def reasoning(self) -> str:
        return "".join(part.text for part in self.parts if isinstance(part, Reasoning))

    @property
    def calls(self) -> list[list[str]]:
        """Id, name and arguments of each call of a tool."""
        found: dict[int, list[str]] = {}
        for place, part in enumerate(self.parts):
            if isinstance(part, ToolCall):
                found[place] = [part.id, part.name, part.arguments]
            elif isinstance(part, ToolCallDelta):
                id, name, arguments = found.get(part.index, ["", "", ""])
                found[part.index] = [id + (part.id or ""), name + (part.name or ""), arguments + part.arguments]
        return list(found.values())

    @property
    def finish(self) -> str | None:
        return next((part.reason for part in self.parts if isinstance(part, Finish)), None)


def all_kinds() -> list[str]:
    """The kinds of the application and those that tests have beside them."""
    with more_kinds():
        return list(providers.kinds())


def adapter_of(kind: str) -> type[Adapter]:
    with more_kinds():
        return providers.adapter(kind)


def home_of(kind: str) -> str:
    """The module that the kind's adapter is from, which is the kind's own unless it shares one."""
    return adapter_of(kind).__module__.rpartition(".")[2]


@cache
def recordings_of(kind: str) -> dict[str, Recording]:
    """Those of its adapter, and its own."""
    folders = dict.fromkeys([RECORDED / home_of(kind), RECORDED / kind])
    return {path.stem: _read(path) for folder in folders for path in sorted(folder.glob("*.json"))}


@cache
def own_recordings_of(kind: str) -> dict[str, Recording]:
    """Those that it shares with no other kind."""
    return {path.stem: _read(path) for path in sorted((RECORDED / kind).glob("*.json"))}


def _read(path: Path) -> Recording:
    about = json.loads(path.read_text())
    said = next((path.with_suffix(end) for end in (".http", ".raw") if path.with_suffix(end).exists()), None)
    return Recording(
        name=path.stem,
        asks=about["asks"],
        said=None if said is None else said.read_bytes(),
        is_http=said is not None and said.suffix == ".http",
        hangs_up=about.get("hangs_up", False),
        gives=about["gives"],
        capability=about.get("capability", "chat"),
        settings=about.get("settings", {}),
        deployment=about.get("deployment", {}),
        asked=about.get("asked"),
        endpoint=about.get("endpoint"),
    )


def _framed(recorded: bytes, *, hangs_up: bool) -> bytes:
    """An answer as HTTP has it: the head's lines with their ends, the body with its length, or each event in a chunk. Of
    one that hangs up, more was announced."""
    head, _, body = recorded.partition(b"\n\n")
    lines = head.split(b"\n")
    if b"text/event-stream" not in head:
        body = body.removesuffix(b"\n")
        return b"\r\n".join([*lines, b"Content-Length: %d" % (len(body) + hangs_up), b"", body])
    chunks = [b"%x\r\n%s\r\n" % (len(event), event) for event in re.findall(rb".+?\n\n|.+", body, re.DOTALL)]
    return b"\r\n".join(
        [*lines, b"Transfer-Encoding: chunked", b"", b"".join(chunks) + (b"" if hangs_up else b"0\r\n\r\n")]
    )


def shortened(recording: Recording) -> Iterator[Recording]:
    """The recording with its body ended at every place, which HTTP takes for its proper end."""
    if recording.is_http and recording.said is not None:
        for place in range(recording.said.index(b"\n\n") + 2, len(recording.said)):
            yield recording._replace(said=recording.said[:place], hangs_up=False)


class Player:
    """A server on a real socket that answers every request with the same bytes, cut where it is told.

    It lives in the event loop of the adapter, so that a piece has been read before the next is sent.
    """

    def __init__(self) -> None:
        self._answer: Sequence[bytes] = ()
        self._hangs_up = False
        self.connections = 0
        self.requests: list[bytes] = []
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    def answer(self, pieces: Sequence[bytes], *, hangs_up: bool = False) -> None:
        self._answer, self._hangs_up = pieces, hangs_up

    def close(self) -> None:
        self._server.stop()

    def _serve(self, sock: Any, _: Any) -> None:
        self.connections += 1
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while request := _take_request(sock):
                self.requests.append(request)
                for piece in self._answer:
                    sock.sendall(piece)
                    gevent.idle()  # whoever reads it has read it
                if self._hangs_up:
                    return
        except OSError:
            pass  # the adapter hung up, as it may
        finally:
            sock.close()


def _take_request(sock: Any) -> bytes:
    """Read one request, of HTTP or a line; b"" at the end."""
    data = b""
    while b"\n" not in data:
        piece = sock.recv(65_536)
        if not piece:
            return b""
        data += piece
    if b"HTTP/1.1\r\n" not in data:
        return data
    while b"\r\n\r\n" not in data:
        data += sock.recv(65_536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    while length and len(body) < int(length[1]):
        body += sock.recv(65_536)
    return head + b"\r\n\r\n" + body


@contextmanager
def playing(kind: str, settings: dict[str, Any] | None = None) -> Iterator[Stage]:
    """The kind's adapter, set up for a player; `settings` are those that a recording asks for, with {ADDRESS} for where
    the player is."""
    player = Player()
    declared = adapter_of(kind).Settings
    addresses = {name: f"{schemes[0]}://127.0.0.1:{player.port}" for name, schemes in schemes_of(declared).items()}
    secrets = dict.fromkeys(names_with(declared, "secret"), SECRET)
    own = {
        name: value.replace("{ADDRESS}", f"127.0.0.1:{player.port}") if isinstance(value, str) else value
        for name, value in (settings or {}).items()
    }
    adapter = adapter_of(kind)(declared(**{**addresses, **secrets, "timeout_s": 5, **own}), policy=POLICY)
    try:
        yield Stage(adapter, player)
    finally:
        adapter.close()
        player.close()


class Stage(NamedTuple):
    """An adapter and the server that it talks to."""

    adapter: Adapter
    player: Player

    def said_by(self, recording: Recording) -> bytes:
        """The answer on the wire, the adapter's own secret and address in it where the recording tells of them."""
        said = recording.said or b""
        said = said.replace(b"{SECRET}", SECRET.encode()).replace(b"{ADDRESS}", b"127.0.0.1:%d" % self.player.port)
        return _framed(said, hangs_up=recording.hangs_up) if recording.is_http else said

    def play(
        self, recording: Recording, cuts: Sequence[int] = (), *, until: int | None = None, neutral: bool
    ) -> Outcome:
        """What comes of the recording with its bytes cut at these places; with `until` the upstream hangs up there."""
        said = self.said_by(recording)[:until]
        places = [0, *sorted(cuts), len(said)]
        pieces = [said[start:end] for start, end in pairwise(places) if start < end]
        self.player.answer(pieces, hangs_up=recording.hangs_up or until is not None)
        with capture_logs() as logs:
            outcome = _outcome(self.adapter, recording, neutral)
        assert_keeps_quiet(logs, outcome, port=self.player.port)
        assert THEIRS.encode() not in b"".join(outcome.pieces)
        return outcome

    def check(self, recording: Recording) -> CheckResult:
        """A *Test* of the provider that is answered so."""
        self.player.answer([self.said_by(recording)], hangs_up=recording.hangs_up)
        with capture_logs() as logs:
            result = self.adapter.check(model=THEIRS, prompt="Hello", parameters={})
        assert_keeps_quiet(logs, result, port=self.player.port)
        return result


def speaks_to_clients(kind: str) -> bool:
    """Whether the bytes of its upstream's dialect are what some clients hear."""
    return home_of(kind) in ("openai", "echo", "anthropic")


def request_of(recording: Recording) -> UpstreamRequest:
    endpoint = next(
        one
        for one in ENDPOINTS.values()
        if one.capability == recording.capability and recording.endpoint in (None, one.id)
    )
    assert endpoint.dialect is not None
    spoken = dialect(endpoint.dialect)
    asks = {"model": OURS} | recording.asks
    asked = spoken.read(json.dumps(asks).encode() if endpoint.body == "json" else _form(asks, recording.capability))
    parsed: Any = asked.checked
    return UpstreamRequest(
        capability=recording.capability,  # type: ignore[arg-type]
        dialect=spoken.name,
        model=OURS,
        members=asked.members,
        parsed=parsed,
        stream=bool(parsed.stream),
        include_usage=parsed.include_usage,
        prompt_estimate=7,
        max_output=getattr(parsed, "output_limit", getattr(parsed, "max_tokens", None)),
        usual_output=1000,
        translate=spoken.conversation,
        form=asked.form,
    )


def _form(fields: dict[str, str], capability: str) -> Form:
    """A form with a sound of two and a half seconds, or a picture."""
    form = Form()
    form.fields = list(fields.items())
    is_picture = capability == "images"
    form.files = [Upload("image" if is_picture else "file", "speech.wav", "audio/wav", BytesIO())]
    form.files[0].add(wav(2.5))
    return form


# What an adapter makes up where its upstream has no such thing: it is another each time.
# What tells clients the end of a stream where that is one of its events.
ENDS = re.compile(
    rb'"type": ?"(message_stop|response\.(completed|incomplete)|transcript\.text\.done|speech\.audio\.done)"'
)
_OURS = re.compile(rb'("id":"cmpl)-[0-9a-f-]{36}("),?("object":"text_completion"),"created":\d+')


def _outcome(adapter: Adapter, recording: Recording, neutral: bool) -> Outcome:
    """Only `UpstreamError` is a failure; anything else that is raised fails the test."""
    pieces: list[bytes] = []
    parts: list[Event | Reply | Any] = []
    error = exchange = original = None
    try:
        deployment = Deployment(id="d", provider_id="p", upstream_model=THEIRS, settings=recording.deployment)
        exchange = adapter.open(request_of(recording), deployment)
        _consume(exchange, recording, neutral, pieces, parts)
    except UpstreamError as failure:
        error = {name: value for name, value in vars(failure).items() if value not in (None, False)}
        original = error.pop("original", None)
    if exchange is None:
        return Outcome(error=error, original=original)
    assert neutral or exchange.speaks in SPOKEN, "no client speaks that"
    used = figures(exchange.conclude())
    exchange.close()
    if exchange.media_type is not None and pieces:  # its pieces are as the network's are
        pieces = [b"".join(pieces)]
    return Outcome(
        tuple(_OURS.sub(rb"\1\2,\3", piece) for piece in pieces),
        tuple(parts),
        used,
        exchange.finish_reason,
        error,
        original,
    )


def figures(used: Usage) -> dict[str, Any]:
    """The quantities that are not 0, whether they are estimated, and the service tier if it was told."""
    told = {name: count for name, count in used.counts.items() if count} | {"estimated": used.estimated}
    return told if used.service_tier is None else told | {"service_tier": used.service_tier}


def _consume(exchange: Exchange, recording: Recording, neutral: bool, pieces: list[bytes], parts: list[Any]) -> None:
    if recording.streams:
        if neutral:
            parts += exchange.neutral_events()
            return
        for piece in all_of(exchange.events()):
            pieces.append(piece)
        assert not ENDS.search(b"".join(pieces[:-1])), "the end would leave before the call is settled"
        return
    exchange.receive()
    if neutral:
        reply = exchange.reply()
        parts += [*reply.parts, Finish(reply.finish)]
    else:
        pieces.append(exchange.body())


def assert_keeps_quiet(*given: Any, port: int) -> None:
    """Nothing that is given tells a secret, or where upstreams are."""
    told = str(given)
    for hidden in (SECRET, f":{port}", *INTERNAL):
        assert hidden not in told, hidden
