"""Triton over gRPC, on gevent's loop: one channel a host, streams that are cancelled with their client.

gRPC is loaded when a provider first wants it, and it must be told of gevent before its first channel; otherwise the
process would stand still at the first call. `trouble` tries that and says why it can't be used.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NoReturn

import gevent
import msgspec
from gevent import monkey
from gevent.queue import Empty, Queue

from app.providers.dial import Dial
from app.providers.errors import UpstreamError
from app.providers.http_errors import safe_to_show
from app.providers.settings import Deadlines
from app.providers.triton_errors import failure
from app.providers.triton_tensors import Tensor, read_tensor
from app.providers.triton_transport import Answers, Outputs, Transport

MAX_MESSAGE_BYTES = 64 << 20
TRIED_S = 5.0
HELD = 16  # answers that came and were not read yet
_SERVICE = "/inference.GRPCInferenceService/"
OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.use_local_subchannel_pool", 1),  # a new channel does not inherit another's back-off
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.primary_user_agent", "Portico"),
)


class _Loaded(NamedTuple):
    grpc: Any
    pb: Any  # the messages of Triton's service


@cache
def _load() -> _Loaded:
    import grpc

    if monkey.is_module_patched("socket"):
        import grpc.experimental.gevent

        grpc.experimental.gevent.init_gevent()
    from tritonclient.grpc import service_pb2

    return _Loaded(grpc, service_pb2)


@cache
def trouble() -> str | None:
    """Why this process can't speak gRPC, None if it can: a call to a port where nobody listens must fail soon, while other
    greenlets go on."""
    try:
        grpc, pb = _load()
        with socket.socket() as nobody:
            nobody.bind(("127.0.0.1", 0))
            with grpc.insecure_channel(f"ipv4:127.0.0.1:{nobody.getsockname()[1]}", options=OPTIONS) as channel:
                call = channel.unary_unary(
                    f"{_SERVICE}ServerLive",
                    request_serializer=pb.ServerLiveRequest.SerializeToString,
                    response_deserializer=pb.ServerLiveResponse.FromString,
                ).future(pb.ServerLiveRequest(), timeout=TRIED_S)
                code = call.exception(TRIED_S).code()
        return None if code is grpc.StatusCode.UNAVAILABLE else f"a try ended with {code.name}"
    except Exception as error:  # whatever it is, gRPC can't be used
        return f"{type(error).__name__}: {str(error)[:200]}"


class _Channel:
    """A channel to what an address meant when it was made, and the calls on it."""

    def __init__(self, dial: Dial, places: list[tuple[int, Any]]) -> None:
        grpc = _load().grpc
        self.places = places
        self.is_broken = False
        self._unary: dict[str, Any] = {}
        self._calls = 0
        self._is_retired = False
        family = places[0][0]
        name = "ipv6" if family == socket.AF_INET6 else "ipv4"
        hosts = [f"{_bracketed(at[0])}:{at[1]}" for kind, at in places if kind == family]
        options = [
            *OPTIONS,
            ("grpc.default_authority", f"{_bracketed(dial.origin.host)}:{dial.origin.port}"),
            ("grpc.min_reconnect_backoff_ms", int(dial.deadlines.connect_s * 1000)),  # what one try to connect may take
        ]
        if dial.origin.secure:
            options.append(("grpc.ssl_target_name_override", dial.origin.host))
            self.channel = grpc.secure_channel(
                f"{name}:{','.join(hosts)}", grpc.ssl_channel_credentials(_roots()), options=options
            )
        else:
            self.channel = grpc.insecure_channel(f"{name}:{','.join(hosts)}", options=options)

    @cached_property
    def stream(self) -> Any:
        """Asks for a stream of answers."""
        pb = _load().pb
        return self.channel.unary_stream(
            f"{_SERVICE}ModelStreamInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )

    def unary(self, method: str, request: Any, answer: Any) -> Any:
        """Asks for one answer."""
        made = self._unary.get(method)
        if made is None:
            made = self._unary[method] = self.channel.unary_unary(
                _SERVICE + method,
                request_serializer=request.SerializeToString,
                response_deserializer=answer.FromString,
            )
        return made

    def take(self) -> None:
        """A call begins on it."""
        self._calls += 1

    def give_back(self) -> None:
        self._calls -= 1
        if self._is_retired and not self._calls:
            self.channel.close()

    def retire(self) -> None:
        """Close it, once its calls have ended."""
        self._is_retired = True
        if not self._calls:
            self.channel.close()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@cache
def _roots() -> bytes | None:
    """The certificates that this system trusts; None for those that gRPC brings."""
    file = ssl.get_default_verify_paths().cafile
    return Path(file).read_bytes() if file else None


class GrpcTransport(Transport):
    """One server over gRPC."""

    cancels: ClassVar[bool] = True

    def __init__(self, dial: Dial, secrets: tuple[str, ...]) -> None:
        self._dial = dial
        self._secrets = secrets
        self._metadata = (("authorization", f"Bearer {secrets[0]}"),) if secrets else ()
        self._channel: _Channel | None = None

    def taken(self) -> _Channel:
        """The channel, for one call. It is another one where the address means something else by now, or where the last call
        could not connect: a channel would not try again for a while."""
        places = self._dial.places()
        channel = self._channel
        if channel is None or channel.is_broken or channel.places != places:
            if channel is not None:
                channel.retire()
            channel = self._channel = _Channel(self._dial, places)
        channel.take()
        return channel

    def infer(self, model: str, version: str, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        return _tensors(self._ask("ModelInfer", self._request(model, version, inputs), "ModelInferResponse"))

    def generate(self, model: str, version: str, inputs: Sequence[Tensor], *, stream: bool) -> Answers:
        return GrpcAnswers(self, self._request(model, version, inputs))

    def _request(self, model: str, version: str, inputs: Sequence[Tensor]) -> Any:
        pb = _load().pb
        request = pb.ModelInferRequest(model_name=model, model_version=version)
        for tensor in inputs:
            request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            request.raw_input_contents.append(tensor.raw())
        return request

    def config(self, model: str, version: str) -> Any:
        request = _load().pb.ModelConfigRequest(name=model, version=version)
        return _json_of(self._ask("ModelConfig", request, "ModelConfigResponse").config)

    def index(self) -> Any:
        answer = self._ask("RepositoryIndex", _load().pb.RepositoryIndexRequest(), "RepositoryIndexResponse")
        return [_json_of(one) for one in answer.models]

    def is_ready(self, model: str | None = None) -> bool:
        pb = _load().pb
        if model is None:
            return bool(self._ask("ServerReady", pb.ServerReadyRequest(), "ServerReadyResponse").ready)
        return bool(self._ask("ModelReady", pb.ModelReadyRequest(name=model), "ModelReadyResponse").ready)

    def statistics(self, model: str = "") -> Any:
        request = _load().pb.ModelStatisticsRequest(name=model)
        return [_json_of(one) for one in self._ask("ModelStatistics", request, "ModelStatisticsResponse").model_stats]

    def _ask(self, method: str, request: Any, answer: str) -> Any:
        """The one answer to a request. Raises `UpstreamError`.

        A blocking call would take one of gevent's threads for as long as it waits; a future only waits.
        """
        grpc, pb = _load()
        deadlines = self.deadlines
        channel = self.taken()
        call = None
        try:
            call = channel.unary(method, type(request), getattr(pb, answer)).future(
                request, timeout=min(deadlines.first_byte_s, deadlines.total_s), metadata=self._metadata
            )
            return call.result()
        except grpc.RpcError as error:
            self.fail(channel, error, begun=False)
        finally:
            if call is not None:
                call.cancel()
            channel.give_back()

    def begin(self, channel: _Channel, request: Any) -> Any:
        """The stream of a request's answers. It is asked one question, so that the stream's end is the model's."""
        return channel.stream(request, timeout=self.deadlines.total_s, metadata=self._metadata)

    @property
    def deadlines(self) -> Deadlines:
        return self._dial.deadlines

    def failure(self, reason: str) -> UpstreamError:
        return failure(reason, *self._secrets)

    def fail(self, channel: _Channel, error: Any, *, begun: bool) -> NoReturn:
        """Raise what a failed call means."""
        codes = _load().grpc.StatusCode
        code, said = error.code(), safe_to_show(error.details() or "", *self._secrets)
        if code is codes.UNAVAILABLE:
            channel.is_broken = True
            if begun:
                raise UpstreamError("The connection to the provider broke.") from None
            raise UpstreamError("The provider can't be reached.", unreachable=True) from None
        if code is codes.DEADLINE_EXCEEDED:
            deadlines = self.deadlines
            if begun or deadlines.total_s <= deadlines.first_byte_s:
                said = f"The provider's answer took longer than {deadlines.total_s:g} s."
            else:
                said = _did_not_begin(deadlines)
            raise UpstreamError(said, timed_out=True) from None
        statuses = {codes.UNAUTHENTICATED: 401, codes.PERMISSION_DENIED: 403, codes.RESOURCE_EXHAUSTED: 429}
        if code in statuses:
            raise UpstreamError(said or "The provider refuses.", status=statuses[code]) from None
        if code in (codes.UNKNOWN, codes.UNIMPLEMENTED) and not said:
            raise UpstreamError("The provider's answer can't be read; is the address Triton's gRPC port?") from None
        raise failure(error.details() or "", *self._secrets, status=404 if code is codes.NOT_FOUND else None) from None

    def close(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.retire()


class GrpcAnswers(Answers):
    """The answers of one stream."""

    def __init__(self, transport: GrpcTransport, request: Any) -> None:
        self._transport = transport
        self._channel = transport.taken()
        self._is_open = True
        self._call: Any = None
        self._reader: Any = None
        try:
            self._call = transport.begin(self._channel, request)
            self._first = self._next(begun=False)  # a stream that fails at once has not begun
        except BaseException:
            self.close()
            raise

    def come(self, keep_alive_s: float | None) -> Iterator[Outputs | None]:
        if self._first is None:
            return
        yield self._first
        if keep_alive_s is None:
            while (answer := self._next(begun=True)) is not None:
                yield answer
            return
        # An answer that is waited for can't be left and waited for again, so that somebody else waits for it.
        came: Queue[Outputs | UpstreamError | None] = Queue(HELD)
        self._reader = gevent.spawn(self._read_into, came)
        while True:
            try:
                told = came.get(timeout=keep_alive_s)
            except Empty:
                yield None
                continue
            if told is None:
                return
            if isinstance(told, UpstreamError):
                raise told
            yield told

    def _read_into(self, came: Queue[Outputs | UpstreamError | None]) -> None:
        answer: Outputs | UpstreamError | None = None
        while True:
            try:
                answer = self._next(begun=True)
            except UpstreamError as error:
                answer = error
            came.put(answer)
            if answer is None or isinstance(answer, UpstreamError):
                return

    def _next(self, *, begun: bool) -> Outputs | None:
        """The next answer, None at the end. Raises `UpstreamError`."""
        transport, deadlines = self._transport, self._transport.deadlines
        try:
            with gevent.Timeout(deadlines.idle_s if begun else deadlines.first_byte_s, _Silent):
                answer = next(self._call)
        except StopIteration:
            return None
        except _Silent:
            stopped = f"The provider stopped in the middle of its answer: nothing came for {deadlines.idle_s:g} s."
            raise UpstreamError(stopped if begun else _did_not_begin(deadlines), timed_out=True) from None
        except _load().grpc.RpcError as error:
            transport.fail(self._channel, error, begun=begun)
        if answer.error_message:
            raise transport.failure(answer.error_message)
        return {name: list(tensor.values) for name, tensor in _tensors(answer.infer_response).items()}

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            if self._call is not None:
                self._call.cancel()
            if self._reader is not None:
                self._reader.kill(block=False)
            self._channel.give_back()


class _Silent(Exception):
    """Nothing came for too long."""


def _did_not_begin(deadlines: Deadlines) -> str:
    return f"The provider did not begin to answer within {deadlines.first_byte_s:g} s."


def _tensors(answer: Any) -> dict[str, Tensor]:
    raws = answer.raw_output_contents
    if len(raws) != len(answer.outputs):
        raise UpstreamError("The provider's answer can't be read.")
    return {
        one.name: read_tensor(one.name, one.datatype, one.shape, raw)
        for one, raw in zip(answer.outputs, raws, strict=True)
    }


def _json_of(message: Any) -> Any:
    from google.protobuf.json_format import MessageToJson  # type: ignore[import-untyped]

    return msgspec.json.decode(MessageToJson(message, preserving_proto_field_name=True))
