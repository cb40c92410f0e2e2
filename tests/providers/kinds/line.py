"""An adapter that shares nothing with the others: its settings bear odd names, and it speaks lines of JSON over a plain
socket. What holds for it holds by role and by `Adapter.dial`, not because of a name or of HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from app.directory import Capability, Deployment
from app.providers import usage
from app.providers.base import Adapter, CheckResult, Exchange, UpstreamError, UpstreamRequest, Usage
from app.providers.conversation import Event, Finish, Reasoning, Reply, Text, ToolCall, ToolCallDelta
from app.providers.http_errors import error_of
from app.providers.lenient_json import read_json
from app.providers.openai import verdict_of
from app.providers.settings import SECRET, Settings, address, secret_env


class LineSettings(Settings):
    """What it can be told. Its address has a default; its two secrets have variables whose names tell nothing."""

    url: Annotated[str, Meta(title="Place", max_length=500, extra=address("grpc"))] = "grpc://line.example:8001"
    token: Annotated[str | None, Meta(title="Ticket", extra=SECRET)] = None
    variable: Annotated[str | None, Meta(title="Ticket's variable", extra=secret_env("token"))] = None


class LineExchange(Exchange):
    """One answer: a line for each piece, and a last one that tells how it ended and what was used."""

    speaks = "lines"

    def __init__(self, sock: Any, first: bytes, request: UpstreamRequest, secrets: tuple[str, ...]) -> None:
        self._sock = sock
        self._rest = first
        self._request = request
        self._secrets = secrets
        self._tally = usage.Tally(request)

    @property
    def usage(self) -> Usage:
        return self._tally.usage

    def conclude(self) -> Usage:
        return self._tally.conclude()

    def _pieces(self) -> Iterator[dict[str, Any]]:
        while True:
            line, ended, self._rest = self._rest.partition(b"\n")
            if not ended:
                self._rest = line + _received(self._sock)
                continue
            piece = read_json(line)
            if not isinstance(piece, dict) or "failed" in piece:
                raise error_of(502, line, *self._secrets, otherwise="The provider's answer can't be read.")
            yield piece
            if "end" in piece:
                return

    def body(self) -> bytes:
        raise NotImplementedError("no client speaks lines")

    def events(self) -> Iterator[bytes]:
        raise NotImplementedError("no client speaks lines")

    def reply(self) -> Reply:
        parts: list[Any] = []
        calls: dict[int, ToolCall] = {}
        for event in self.neutral_events():
            match event:
                case Text() | Reasoning():
                    parts.append(event)
                case ToolCallDelta():
                    before = calls.get(event.index, ToolCall(event.id or "", event.name or "", ""))
                    calls[event.index] = msgspec.structs.replace(before, arguments=before.arguments + event.arguments)
        assert self.finish_reason is not None
        texts = "".join(part.text for part in parts if isinstance(part, Text))
        thoughts = "".join(part.text for part in parts if isinstance(part, Reasoning))
        said = (*((Reasoning(thoughts),) if thoughts else ()), *((Text(texts),) if texts else ()))
        return Reply(parts=(*said, *calls.values()), finish=self.finish_reason)  # type: ignore[arg-type]

    def neutral_events(self) -> Iterator[Event]:
        for piece in self._pieces():
            if "used" in piece:
                told = dict(zip(("prompt_tokens", "completion_tokens"), piece["used"], strict=True))
                self._tally.tell(msgspec.json.encode(told))
            if "text" in piece:
                self._hear(piece["text"])
                yield Text(piece["text"])
            if "thought" in piece:
                self._hear(piece["thought"])
                yield Reasoning(piece["thought"])
            if "call" in piece:
                self._hear(piece["call"].get("name", "") + piece["call"].get("arguments", ""))
                yield ToolCallDelta(**piece["call"])
            if "end" in piece:
                self.finish_reason = piece["end"]
                yield Finish(piece["end"])

    def _hear(self, text: str) -> None:
        self._tally.hear({"text": msgspec.Raw(msgspec.json.encode(text))})

    def close(self) -> None:
        self._sock.close()


class Line(Adapter):
    """An upstream that is asked in one line and answers in some."""

    title: ClassVar[str] = "Line"
    Settings: ClassVar[type[Settings]] = LineSettings
    abilities: ClassVar[frozenset[Capability]] = frozenset(("chat",))
    settings: LineSettings

    def open(self, request: UpstreamRequest, deployment: Deployment) -> Exchange:
        turns = msgspec.to_builtins(request.conversation().turns)
        question = {"model": deployment.upstream_model, "turns": turns, "most": request.max_output}
        return LineExchange(*self._ask(question), request, self.settings.secrets())

    def _ask(self, question: dict[str, Any]) -> tuple[Any, bytes]:
        """The connection on which the answer comes, and what of it has come. Raises `UpstreamError`."""
        secrets = self.settings.secrets()
        sock = self.dial().connect()
        try:
            sock.sendall(msgspec.json.encode(question | {"ticket": next(iter(secrets), None)}) + b"\n")
            head = _received(sock)
            while b"\n" not in head:
                head += _received(sock)
            line, _, rest = head.partition(b"\n")
            said = read_json(line)
            if not isinstance(said, dict) or said.get("status") != 200:
                status = said.get("status") if isinstance(said, dict) else None
                raise error_of(status if isinstance(status, int) else 502, line, *secrets)
        except BaseException:
            sock.close()
            raise
        return sock, rest

    def check(self, *, model: str | None, prompt: str | None, parameters: dict[str, Any]) -> CheckResult:
        started = time.monotonic()
        try:
            sock, _ = self._ask({"model": model, "turns": [{"role": "user", "parts": [{"text": prompt}]}], "most": 16})
        except UpstreamError as error:
            return CheckResult(result=verdict_of(error), latency_ms=_ms_since(started), detail=error.message)
        sock.close()
        return CheckResult(result="ok", latency_ms=_ms_since(started), detail="The provider answers.")


def _ms_since(started: float) -> int:
    return int((time.monotonic() - started) * 1000)


def _received(sock: Any) -> bytes:
    try:
        data: bytes = sock.recv(65_536)
    except TimeoutError:
        raise UpstreamError("The provider did not answer in time.", timed_out=True) from None
    except OSError:
        data = b""
    if not data:
        raise UpstreamError("The provider's answer was cut off.")
    return data


ADAPTER = Line
