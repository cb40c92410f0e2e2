"""Calls of models from the portal's side: admitted, held for, metered and booked as those that come to /v1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from app import current
from app.clock import to_ms
from app.directory import CallerRecord
from app.domain import credentials, prompts
from app.domain.errors import DomainError, Invalid
from app.domain.person import Person
from app.domain.subscriptions import usable
from app.domain.teams import Team
from app.extensions import db
from app.gateway import pipeline
from app.gateway.admission import admit, check_endpoint
from app.gateway.call import Call, Interrupted
from app.gateway.endpoints import CHAT, EMBEDDINGS, Endpoint
from app.gateway.errors import ApiError, unavailable, upstream_failed
from app.gateway.estimates import estimate_of
from app.gateway.labels import Labels
from app.gateway.prompts import tags_of
from app.gateway.redis_wire import RedisAway
from app.gateway.runtime import Runtime, of_process
from app.gateway.streaming import SLOW_READER_S, BrokenOff, Watch, Watched
from app.metering.usage import UsageEvent
from app.runtime.forms import Form
from app.runtime.ids import new_id
from app.runtime.templates import Value, WrongVariable, fill_in

TEST_TOKENS = 32  # of the answer to a test
AGENT = "portal"  # the client of these calls, as Activity shows it


class Refused(DomainError):
    """The gateway refused the call or could not serve it; `headers` are its own, such as `Retry-After`."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message, error.param)
        self.status = 422 if error.status == 400 else error.status
        self.code = error.code or ("invalid_field" if error.status == 400 else error.type)
        self.headers = error.headers


class Answered(NamedTuple):
    """A call that was answered: the answer's body with its media type (None for JSON), and what is booked of the call."""

    id: str
    body: bytes
    event: UsageEvent
    media_type: str | None = None

    @property
    def answer(self) -> dict[str, Any]:
        """The answer in OpenAI's shape, if it is JSON."""
        answer: dict[str, Any] = msgspec.json.decode(self.body)
        return answer

    @property
    def text(self) -> str:
        """What a chat's first choice says; "" where there is none."""
        choices = self.answer.get("choices")
        message = choices[0].get("message") if isinstance(choices, list) and choices else None
        text = message.get("content") if isinstance(message, dict) else None
        return text if isinstance(text, str) else ""


class Streamed(NamedTuple):
    """A chat that is being answered: its call, and the stream's bytes as /v1 sends them."""

    call: Call
    pieces: Watched


class Filled(NamedTuple):
    """A version of a kept prompt with its variables filled in. `model` is for calls that name none."""

    id: str
    version: int
    text: str
    model: str | None

    @property
    def tags(self) -> tuple[str, ...]:
        return tags_of(self.id, self.version)


def fill(person: Person, id: str, version: int | None, variables: Mapping[str, Value]) -> Filled:
    """A prompt that this person can see, with these values, in its present version unless another is named. Raises
    `NotFound`, and `Invalid` naming the variable."""
    prompt = prompts.get_visible(person, id)
    found = prompts.version_of(prompt, version)
    try:
        text = fill_in(found.template, variables)
    except WrongVariable as error:
        raise Invalid(str(error), f"variables.{error.name}") from None
    return Filled(prompt.id, found.version, text, found.model)


def caller_of(person: Person, team: Team | None = None) -> CallerRecord:
    """This person as a caller without a key: for a team that they are a member of, or else for themselves."""
    found = db.session.execute(usable([person.id], [] if team is None else [team.id])).all()
    wanted = None if team is None else team.id
    mine = {model: (id, ends) for _, team_id, model, id, ends in found if team_id == wanted}
    return CallerRecord(
        id=person.id,
        kind="token",
        name="portal",
        person_id=person.id,
        username=person.username,
        models={model: id for model, (id, _) in mine.items()},
        ends_ms={model: to_ms(ends) for model, (_, ends) in mine.items() if ends is not None},
        team_id=wanted,
        team=None if team is None else team.name,
        credentials={} if team else credentials.defaults_of(db.session(), {person.id}).get(person.id, {}),
    )


def tester_of(person: Person, model: str) -> CallerRecord:
    """An admin who tests a model: without a subscription, and at their own cost."""
    return CallerRecord(
        id=person.id,
        kind="token",
        name="test",
        person_id=person.id,
        username=person.username,
        models={model: ""},
    )


def test(person: Person, model: str, capabilities: Sequence[str], prompt: str) -> Answered:
    """Ask a model for a little: a chat, or else an embedding. Raises `Refused`, and `Invalid` for what it can't be asked."""
    caller = tester_of(person, model)
    if "chat" in capabilities:
        messages = [{"role": "user", "content": prompt}]
        return ask(caller, CHAT, {"model": model, "messages": messages, "max_completion_tokens": TEST_TOKENS})
    if "embeddings" in capabilities:
        return ask(caller, EMBEDDINGS, {"model": model, "input": prompt})
    raise Invalid("Only models that chat or embed can be tested here.")


def chat(caller: CallerRecord, body: dict[str, Any], tags: tuple[str, ...] = ()) -> Answered:
    """Have a chat answered whole; `body` is that of /v1/chat/completions. Raises `Refused`."""
    return ask(caller, CHAT, body | {"stream": False}, tags)


def ask(caller: CallerRecord, endpoint: Endpoint, body: dict[str, Any] | Form, tags: tuple[str, ...] = ()) -> Answered:
    """Have a request answered whole, one in JSON unless the endpoint takes a form. Raises `Refused`.

    The upstream may take long: the caller's session must hold nothing open.
    """
    runtime = of_process(current.config())
    id, call = new_id(), None
    try:
        call = _admit(runtime, caller, endpoint, body, id, tags)
        served = pipeline.run(runtime, call)
        answer = served.body if isinstance(served.body, bytes) else b"".join(served.body)  # a sound comes in pieces
    except ApiError as error:
        raise _noted(runtime, caller, endpoint, id, error, call) from None
    except Interrupted:
        raise Refused(unavailable("The gateway")) from None
    except BrokenOff:
        assert call is not None
        raise Refused(upstream_failed(call.error_message or "The answer was cut.")) from None
    return Answered(call.id, answer, call.event(), served.media_type)


def stream(caller: CallerRecord, body: dict[str, Any], sock: Any = None, tags: tuple[str, ...] = ()) -> Streamed:
    """Have a chat answered piece by piece. Raises `Refused`; what fails later is told in the stream.

    `sock` is the socket of who reads it: the call ends when that does. Nothing else may be held open meanwhile, and the
    stream must be closed.
    """
    runtime, id = of_process(current.config()), new_id()
    try:
        call = _admit(runtime, caller, CHAT, body | {"stream": True}, id, tags)
    except ApiError as error:
        raise _noted(runtime, caller, CHAT, id, error) from None
    watch = Watch(sock, lambda: call.interrupt("gone"))
    try:
        served = pipeline.run(runtime, call)
    except BaseException as error:
        watch.stop()
        if isinstance(error, ApiError):
            raise _noted(runtime, caller, CHAT, id, error, call) from None
        if isinstance(error, Interrupted):
            raise Refused(unavailable("The gateway")) from None
        raise
    if sock is not None:
        sock.settimeout(SLOW_READER_S)
    assert not isinstance(served.body, bytes)
    return Streamed(call, Watched(served.body, watch))


def estimate(caller: CallerRecord, body: dict[str, Any]) -> dict[str, Any]:
    """What a chat would hold and probably cost, as `POST /v1/estimate` tells it, without making it. Raises `Refused`."""
    runtime = of_process(current.config())
    try:
        return estimate_of(runtime, _admit(runtime, caller, CHAT, body, new_id()))
    except ApiError as error:
        raise Refused(error) from None
    except RedisAway:
        raise Refused(unavailable("The meter")) from None


def _admit(
    runtime: Runtime,
    caller: CallerRecord,
    endpoint: Endpoint,
    body: dict[str, Any] | Form,
    id: str,
    tags: tuple[str, ...] = (),
) -> Call:
    """Raises `ApiError`. `tags` are those by which usage tells a kept prompt."""
    runtime.know_directory()
    check_endpoint(runtime, caller, endpoint)
    origin = current.config().server.public_url or ""
    asked = body if isinstance(body, Form) else msgspec.json.encode(body)
    return admit(runtime, caller, endpoint, asked, id=id, origin=origin, labels=Labels(agent=AGENT, tags=tags))


def _noted(
    runtime: Runtime, caller: CallerRecord, endpoint: Endpoint, id: str, error: ApiError, call: Call | None = None
) -> Refused:
    """The refusal of a call, which is listed like any other if the call is not."""
    if call is None or not call.settled:
        runtime.refused_calls.note(caller, id, endpoint.path, error, call)
    return Refused(error)
