"""Calls of models from the portal's side: admitted, held for, metered and booked as those that come to /v1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from app import current
from app.clock import to_ms
from app.directory import CallerRecord
from app.domain.errors import DomainError, Invalid
from app.domain.person import Person
from app.domain.subscriptions import usable
from app.domain.teams import Team
from app.extensions import db
from app.gateway import pipeline
from app.gateway.admission import admit, check_endpoint
from app.gateway.call import Interrupted
from app.gateway.endpoints import CHAT, EMBEDDINGS, Endpoint
from app.gateway.errors import ApiError, unavailable
from app.gateway.runtime import of_process
from app.metering.usage import UsageEvent
from app.runtime.ids import new_id

TEST_TOKENS = 32  # of the answer to a test


class Refused(DomainError):
    """The gateway refused the call or could not serve it; `headers` are its own, such as `Retry-After`."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message, error.param)
        self.status = 422 if error.status == 400 else error.status
        self.code = error.code or ("invalid_field" if error.status == 400 else error.type)
        self.headers = error.headers


class Answered(NamedTuple):
    """A call that was answered: the answer in OpenAI's shape, and what is booked of the call."""

    id: str
    answer: dict[str, Any]
    event: UsageEvent

    @property
    def text(self) -> str:
        """What a chat's first choice says; "" where there is none."""
        choices = self.answer.get("choices")
        message = choices[0].get("message") if isinstance(choices, list) and choices else None
        text = message.get("content") if isinstance(message, dict) else None
        return text if isinstance(text, str) else ""


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


def chat(caller: CallerRecord, body: dict[str, Any]) -> Answered:
    """Have a chat answered whole; `body` is that of /v1/chat/completions. Raises `Refused`."""
    return ask(caller, CHAT, body | {"stream": False})


def ask(caller: CallerRecord, endpoint: Endpoint, body: dict[str, Any]) -> Answered:
    """Have a request in JSON answered whole. Raises `Refused`.

    The upstream may take long: the caller's session must hold nothing open.
    """
    runtime = of_process(current.config())
    id, call = new_id(), None
    try:
        runtime.know_directory()
        check_endpoint(runtime, caller, endpoint)
        origin = current.config().server.public_url or ""
        call = admit(runtime, caller, endpoint, msgspec.json.encode(body), id=id, origin=origin)
        served = pipeline.run(runtime, call)
    except ApiError as error:
        if call is None or not call.settled:
            runtime.refused_calls.note(caller, id, endpoint.path, error, call)
        raise Refused(error) from None
    except Interrupted:
        raise Refused(unavailable("The gateway")) from None
    assert isinstance(served.body, bytes)
    return Answered(id, msgspec.json.decode(served.body), call.event())
