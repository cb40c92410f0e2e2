"""Triton over HTTP: `infer` for tensors, `generate` and `generate_stream` for texts.

Triton answers some errors under status 200, and writes texts that are cut within a character as they are: both are read
here, so that both transports tell the same.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from app.providers.dial import Dial
from app.providers.errors import UpstreamError
from app.providers.http import Answer, Pool
from app.providers.http_errors import error_of, reason_in, seconds_in
from app.providers.lenient_json import read_json
from app.providers.sse import COMMENT, EventReader
from app.providers.triton_errors import failure
from app.providers.triton_tensors import Tensor, read_tensor
from app.providers.triton_transport import Answers, Outputs, Transport

MAX_ERROR_BYTES = 1 << 20
GRACE_S = 5.0
UNREADABLE = "The provider's answer can't be read; is the address Triton's HTTP port?"
_LENGTH = "Inference-Header-Content-Length"


class HttpTransport(Transport):
    """One server over HTTP, its connections kept. Triton notices that a connection is closed when it writes to it."""

    cancels: ClassVar[bool] = False

    def __init__(self, dial: Dial, secrets: tuple[str, ...]) -> None:
        self._pool = Pool(dial)
        self._timeout_s = dial.deadlines.idle_s
        self._secrets = secrets
        self._credentials = {"Authorization": f"Bearer {secrets[0]}"} if secrets else {}

    def infer(self, model: str, version: str, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        raws = [tensor.raw() for tensor in inputs]
        head = msgspec.json.encode({
            "inputs": [
                {"name": one.name, "shape": one.shape, "datatype": one.datatype,
                 "parameters": {"binary_data_size": len(raw)}}
                for one, raw in zip(inputs, raws, strict=True)
            ],
            "parameters": {"binary_data_output": True},
        })  # fmt: skip
        answer = self._post(f"{_path(model, version)}/infer", [head, *raws], **{_LENGTH: str(len(head))})
        length = answer.header(_LENGTH.lower())
        return self._tensors(answer.read_all(), length)

    def _tensors(self, body: bytes, length: str | None) -> dict[str, Tensor]:
        size = int(length) if length is not None and length.isdecimal() else len(body)
        said = read_json(body[:size])
        if not isinstance(said, dict) or not isinstance(said.get("outputs"), list):
            raise self._none(body[:size])
        found: dict[str, Tensor] = {}
        try:
            for one in said["outputs"]:
                name, kind, shape = one["name"], one["datatype"], one["shape"]
                count = one.get("parameters", {}).get("binary_data_size")
                if count is None:
                    found[name] = Tensor(name, kind, tuple(shape), list(map(_as_bytes, one["data"])))
                else:
                    found[name] = read_tensor(name, kind, shape, body[size : size + count])
                    size += count
        except (KeyError, TypeError, AttributeError):
            raise UpstreamError(UNREADABLE) from None
        return found

    def generate(self, model: str, version: str, inputs: Sequence[Tensor], *, stream: bool) -> Answers:
        body = msgspec.json.encode({tensor.name: tensor.plain() for tensor in inputs})
        verb = "generate_stream" if stream else "generate"
        accept = "text/event-stream" if stream else "application/json"
        answer = self._post(f"{_path(model, version)}/{verb}", [body], Accept=accept)
        return HttpAnswers(answer, self, stream=stream, grace_s=min(GRACE_S, self._timeout_s))

    def config(self, model: str, version: str) -> Any:
        return self._told("GET", f"{_path(model, version)}/config", dict)

    def index(self) -> Any:
        return self._told("POST", "/v2/repository/index", list, b"{}")

    def is_ready(self, model: str | None = None) -> bool:
        path = "/v2/health/ready" if model is None else f"{_path(model, '')}/ready"
        answer = self._pool.request("GET", path, self._credentials)
        if answer.status != 400:  # what a server and a model that are not ready say
            answer = self._checked(answer)
        answer.read_all(MAX_ERROR_BYTES)
        return answer.status == 200

    def statistics(self, model: str = "") -> Any:
        told = self._told("GET", f"{_path(model, '')}/stats" if model else "/v2/models/stats", dict)
        return told.get("model_stats")

    def _told(self, method: str, path: str, kind: type[Any], body: bytes | None = None) -> Any:
        headers = {"Accept": "application/json"} | self._credentials
        answer = self._checked(self._pool.request(method, path, headers, [body] if body else ()))
        said = answer.read_all()
        value = read_json(said)
        if not isinstance(value, kind) or isinstance(value, dict) and "error" in value:
            raise self._none(said)
        return value

    def _post(self, path: str, body: Sequence[bytes], **headers: str) -> Answer:
        said = {"Content-Type": "application/json"} | headers | self._credentials
        return self._checked(self._pool.request("POST", path, said, body))

    def _checked(self, answer: Answer) -> Answer:
        """The answer, if its status is good. Raises `UpstreamError`."""
        if answer.status == 200:
            return answer
        try:
            body = answer.read_all(MAX_ERROR_BYTES, time.monotonic() + self._timeout_s)
        except UpstreamError:  # the status has told what matters
            body = b""
        finally:
            answer.close()
        body = body.strip().removeprefix(b"data:").strip()  # as an event, where a stream was asked for
        if answer.status in (400, 404) and (reason := reason_in(read_json(body))):
            raise failure(reason, *self._secrets, status=answer.status)
        error = error_of(answer.status, body, *self._secrets, retry_after_s=seconds_in(answer.header("retry-after")))
        error.refused = answer.status == 413
        raise error

    def _none(self, body: bytes) -> UpstreamError:
        """What is no answer: an error that came under status 200, or anything."""
        value = read_json(body)
        reason = reason_in(value.get("error")) if isinstance(value, dict) else ""
        return failure(reason, *self._secrets) if reason else UpstreamError(UNREADABLE)

    def outputs(self, data: bytes) -> Outputs:
        """What one answer gives, by output. Raises `UpstreamError`."""
        try:
            said = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            try:  # a text may end within a character
                said = json.loads(data.decode("utf-8", "surrogateescape"))
            except (ValueError, RecursionError):
                said = None
        if not isinstance(said, dict) or said.get("error") or "model_name" not in said:
            raise self._none(data)
        return {
            name: list(map(_as_bytes, value)) if isinstance(value, list) else [_as_bytes(value)]
            for name, value in said.items()
        }

    def close(self) -> None:
        self._pool.close()


def _path(model: str, version: str) -> str:
    path = f"/v2/models/{quote(model, safe='')}"
    return f"{path}/versions/{quote(version, safe='')}" if version else path


def _as_bytes(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a character, written as an escape
        return value.encode("utf-8", "replace")


class HttpAnswers(Answers):
    """The answers of `generate` and `generate_stream`."""

    def __init__(self, answer: Answer, transport: HttpTransport, *, stream: bool, grace_s: float) -> None:
        self._answer = answer
        self._transport = transport
        self._stream = stream
        self._grace_s = grace_s

    def come(self, keep_alive_s: float | None) -> Iterator[Outputs | None]:
        answer = self._answer
        if not self._stream:
            yield self._transport.outputs(answer.read_object(self._grace_s))
            return
        read = answer.read if keep_alive_s is None else partial(answer.read_within, keep_alive_s)
        for name, data in EventReader(read, comments=keep_alive_s is not None):
            yield None if name == COMMENT else self._transport.outputs(data)

    def close(self) -> None:
        self._answer.close()
