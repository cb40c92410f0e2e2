"""One request to /v1, whichever server it comes through, and the answer to it.

Endpoints know only these two, so that Flask and the fast path in front of it serve exactly the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from app.gateway.call import Call
from app.gateway.dialects import dialect
from app.gateway.dialects.base import Dialect
from app.gateway.endpoints import CHAT, Endpoint
from app.gateway.labels import NO_LABELS, Labels
from app.gateway.runtime import Runtime
from app.runtime.agents import agent_of
from app.runtime.bodies import Readable
from app.runtime.ids import new_id

JSON = "application/json"
EVENTS = "text/event-stream"
STREAM = {"Content-Type": EVENTS, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@cache
def passed_headers(spoken: str | None) -> Mapping[str, str]:
    """The headers that a dialect passes on to upstreams, by their names as gunicorn writes them."""
    return {} if spoken is None else {name.upper(): name for name in dialect(spoken).headers}


class Request:
    """A request: its head, and a body that is here or still to be read. `length` is None for one of unknown length."""

    __slots__ = (
        "agent",
        "api_key",
        "authorization",
        "body",
        "call",
        "content_encoding",
        "content_type",
        "endpoint",
        "headers",
        "id",
        "is_read",
        "labels",
        "length",
        "origin",
        "query",
        "route",
        "runtime",
        "session",
        "socket",
        "streams",
    )

    def __init__(
        self,
        runtime: Runtime,
        route: str,
        *,
        authorization: str = "",
        api_key: str = "",
        content_encoding: str = "",
        content_type: str = "",
        endpoint: Endpoint | None = None,
        length: int | None,
        body: bytes | Readable,
        socket: Any,
        query: Mapping[str, str] | None = None,
        origin: str = "",
        session: str = "",
        user_agent: str = "",
        labels: Labels = NO_LABELS,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.id = new_id()  # the same in headers, ledger and logs
        self.runtime = runtime
        self.route = route  # the path as it was declared: a label of bounded variety
        self.endpoint = endpoint  # the row that a model answers; None for all others
        self.authorization = authorization
        self.api_key = api_key
        self.content_encoding = content_encoding
        self.content_type = content_type
        self.length = length
        self.body = body
        self.socket = socket  # the client's, None where a server does not lend it
        self.query = query or {}
        self.headers = headers or {}  # those that pass on, see `passed_headers`
        self.agent = agent_of(user_agent)  # which client it says it is
        self.session = session  # what the client calls its conversation, word for word
        self.labels = labels  # what of its own words may be stored
        self.origin = origin  # scheme and host as the client knows them
        self.is_read = False  # nothing of the body is left that could be taken for the next request
        self.streams = ""  # the model whose answer is to come as a stream, once that is known
        self.call: Call | None = None  # once it is admitted

    @property
    def bearer(self) -> str:
        """The credential: `Authorization: Bearer`, else `x-api-key`; what is empty counts as absent."""
        scheme, _, text = self.authorization.partition(" ")
        return (scheme.lower() == "bearer" and text.strip()) or self.api_key.strip()

    @property
    def dialect(self) -> Dialect:
        """What the client speaks; where that can't be known, as most do."""
        spoken = CHAT.dialect if self.endpoint is None else self.endpoint.dialect
        assert spoken is not None
        return dialect(spoken)


class Answer(NamedTuple):
    """What is to be sent. Pieces of a stream are to be closed when the last of them is sent, or none can be."""

    status: int
    headers: dict[str, str]
    body: bytes | Iterator[bytes]
