"""A conversation of the playground: its turns, which the page itself carries, and what is asked with them.

The server keeps nothing of it. Each turn stands in the page as JSON, so that a form without scripts sends the whole
conversation, and a script only adds turns.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Container, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import quote

import msgspec
from msgspec import Meta
from werkzeug.datastructures import FileStorage, MultiDict

from app.domain import subscriptions
from app.domain.catalog import Model
from app.domain.errors import DomainError, Invalid
from app.domain.person import Person
from app.web.request_cache import memberships
from app.workflows.chats import Answering, Figures, ToolCall
from app.workflows.inference import Refused

IMAGES = ("image/png", "image/jpeg", "image/webp", "image/gif")
MOST_IMAGES = 8  # of one message
LARGEST_IMAGES = 2_800_000  # characters of all images of a conversation, which is sent whole each time: some 2 MB
MOST_TURNS = 500
Image = Annotated[str, Meta(pattern=r"^data:image/(png|jpeg|webp|gif);base64,[A-Za-z0-9+/=]+\Z")]


class Turn(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One message of a conversation. `call_id` is that of the call which a tool's turn answers."""

    role: Literal["user", "assistant", "tool"]
    text: str = ""
    images: Annotated[list[Image], Meta(max_length=MOST_IMAGES)] = []
    reasoning: str = ""
    calls: list[ToolCall] = []
    call_id: str = ""
    figures: Figures | None = None
    error: str | None = None  # why it is not whole

    @property
    def json(self) -> str:
        return msgspec.json.encode(self).decode()

    def message(self) -> dict[str, Any]:
        """The turn as chat completions take it."""
        if self.role == "tool":
            return {"role": "tool", "tool_call_id": self.call_id, "content": self.text}
        if self.role == "user" and self.images:
            pictures = [{"type": "image_url", "image_url": {"url": image}} for image in self.images]
            return {"role": "user", "content": [{"type": "text", "text": self.text}, *pictures]}
        message: dict[str, Any] = {"role": self.role, "content": self.text}
        if self.calls:
            message["tool_calls"] = [
                {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}}
                for one in self.calls
            ]
        return message


_turn = msgspec.json.Decoder(Turn)


class Parameter(NamedTuple):
    """A number that a chat takes, with its field's words."""

    name: str
    label: str
    least: float
    most: float
    help: str


PARAMETERS = (
    Parameter("temperature", "Temperature", 0, 2, "0 to 2. Higher is more varied."),
    Parameter("top_p", "Top p", 0, 1, "0 to 1."),
    Parameter("max_tokens", "Max output", 1, 2**31, "In tokens."),
    Parameter("seed", "Seed", -(2**63), 2**63 - 1, "The same seed asks for the same answer."),
)
WHOLE = ("max_tokens", "seed")
FORMATS = {"text": "Text", "json_object": "JSON", "json_schema": "JSON by a schema"}
TOOL_CHOICES = {"auto": "As the model likes", "required": "At least one", "none": "None"}
EFFORTS = ("minimal", "low", "medium", "high")


class Draft(NamedTuple):
    """What a form of the playground holds: the settings as they were typed, and the conversation."""

    choice: str = ""  # team id (or nothing), "/", and the model's name
    system: str = ""
    parameters: Mapping[str, str] = {}
    stop: str = ""
    format: str = "text"
    schema: str = ""
    effort: str = ""
    tools: str = ""
    tool_choice: str = "auto"
    text: str = ""
    turns: tuple[Turn, ...] = ()
    results: tuple[str, ...] = ()  # of the last turn's calls
    images: tuple[str, ...] = ()
    prompt_id: str = ""  # of a kept prompt, whose text is asked with these values
    version: int | None = None
    variables: Mapping[str, str] = {}
    compared: tuple[str, ...] = ()  # choices that are asked the same, side by side
    is_kept: bool = False  # in the history, with its words

    @property
    def team_id(self) -> str | None:
        return self.choice.partition("/")[0] or None

    @property
    def model(self) -> str:
        return self.choice.partition("/")[2]

    def with_question(self) -> Draft:
        """The same with what was typed as the newest turns. Raises `Invalid` if nothing was."""
        waiting = self.turns[-1].calls if self.turns else []
        added: list[Turn] = []
        if waiting:
            added = [
                Turn(role="tool", call_id=call.id, text=result)
                for call, result in zip(waiting, [*self.results, *[""] * len(waiting)], strict=False)
            ]
        if self.text.strip() or self.images:
            added.append(Turn(role="user", text=self.text.strip(), images=list(self.images)))
        if not added:
            raise Invalid("Enter a message.", "text")
        return self._replace(
            turns=(*self.turns, *added), text="", results=(), images=(), prompt_id="", version=None, variables={}
        )

    def before_answer(self) -> Draft:
        """The same without the last answer, to be asked again. Raises `Invalid` if nothing was asked."""
        turns = list(self.turns)
        while turns and turns[-1].role == "assistant":
            turns.pop()
        if not turns:
            raise Invalid("There is nothing to repeat yet.", "text")
        return self._replace(turns=tuple(turns))

    def before_turn(self, index: int) -> Draft:
        """The same as it was when the turn of this index was being typed, to change it. Raises `Invalid`."""
        if not 0 <= index < len(self.turns):
            raise Invalid("This message is no longer there.", "text")
        turn = self.turns[index]
        return self._replace(turns=self.turns[:index], text=turn.text, images=tuple(turn.images))

    def up_to(self, index: int) -> Draft:
        """The same up to and with the turn of this index, for a branch."""
        return self._replace(turns=self.turns[: max(index, -1) + 1], text="")

    def words(self) -> list[dict[str, Any]]:
        """What is asked as it may be kept: messages without their images."""
        turns = tuple(msgspec.structs.replace(turn, images=[]) for turn in self.turns)
        messages: list[dict[str, Any]] = self._replace(turns=turns).body()["messages"]
        return messages

    def body(self) -> dict[str, Any]:
        """What is asked, as chat completions take it. Raises `Invalid` naming the field."""
        system = [{"role": "system", "content": self.system}] if self.system.strip() else []
        body: dict[str, Any] = {"model": self.model, "messages": [*system, *(turn.message() for turn in self.turns)]}
        for parameter in PARAMETERS:
            if text := self.parameters.get(parameter.name, "").strip():
                body[parameter.name] = _number(parameter, text)
        if stops := [line for line in self.stop.splitlines() if line]:
            if len(stops) > 4:
                raise Invalid("Enter at most 4 lines.", "stop")
            body["stop"] = stops
        if self.effort:
            body["reasoning_effort"] = self.effort
        if self.format == "json_object":
            body["response_format"] = {"type": "json_object"}
        elif self.format == "json_schema":
            schema = _json(self.schema, "schema", dict)
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        if self.tools.strip():
            body["tools"] = [_tool(one) for one in _json(self.tools, "tools", list)]
            body["tool_choice"] = self.tool_choice
        return body


def draft_of(form: MultiDict[str, str], files: Sequence[FileStorage] = ()) -> Draft:
    """The draft in a form that was sent. Raises `Invalid` for a conversation or an image that can't be read."""
    told = form.getlist("turn")
    if len(told) > MOST_TURNS:
        raise Invalid(f"A conversation has at most {MOST_TURNS} messages here.", "text")
    try:
        turns = tuple([_turn.decode(one) for one in told])
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise Invalid("The conversation can't be read. Begin a new one.", "text") from None
    images = [image for image in form.getlist("image") if image]
    images += [_image(file) for file in files if file.filename]
    if len(images) > MOST_IMAGES:
        raise Invalid(f"Choose at most {MOST_IMAGES} images.", "images")
    if sum(map(len, [*images, *(image for turn in turns for image in turn.images)])) > LARGEST_IMAGES:
        raise Invalid("The images of this conversation are too large: at most 2 MB in all.", "images")
    return Draft(
        choice=form.get("choice", "")[:300],
        system=_typed(form, "system"),
        parameters={one.name: form.get(one.name, "")[:30] for one in PARAMETERS},
        stop=_typed(form, "stop"),
        format=_one_of(form, "format", FORMATS, "text"),
        schema=form.get("schema", ""),
        effort=_one_of(form, "effort", EFFORTS, ""),
        tools=form.get("tools", ""),
        tool_choice=_one_of(form, "tool_choice", TOOL_CHOICES, "auto"),
        text=_typed(form, "text"),
        turns=turns,
        results=tuple(form.getlist("result")),
        images=tuple(images),
        prompt_id=form.get("prompt_id", "")[:36],
        version=form.get("version", type=int),
        variables={name[4:]: _typed(form, name) for name in form if name.startswith("var-")},
        compared=tuple(dict.fromkeys(one[:300] for one in form.getlist("compared"))),
        is_kept="keep" in form,
    )


def turn_of(answering: Answering) -> Turn:
    """The turn that an answer makes, once it has come."""
    return Turn(
        role="assistant",
        text=answering.text,
        reasoning=answering.reasoning,
        calls=answering.calls,
        figures=answering.figures,
        error=answering.error,
    )


def offers_of(person: Person, capability: str) -> list[tuple[str, list[tuple[str, Model]]]]:
    """The models with a capability that a person can call, by who pays for them: the payer's title, and choices (see
    `Draft.choice`) with their models."""
    payers: list[tuple[str | None, str]] = [(None, "Your budget")]
    payers += [(one.team_id, f"Team {one.team.name}") for one in memberships(person)]
    found = []
    for team_id, title in payers:
        models = [one for one in subscriptions.paid_models(person.id, team_id) if capability in one.capabilities]
        found.append((title, [(f"{team_id or ''}/{one.name}", one) for one in models]))
    return [(title, choices) for title, choices in found if choices]


def exported(draft: Draft, kind: str) -> tuple[str, str, str]:
    """A conversation as a file: its name, text and media type; `kind` is "markdown", else JSON."""
    if kind == "markdown":
        names = {"user": "You", "assistant": draft.model or "Answer", "tool": "Result"}
        system = [f"## System\n\n{draft.system.strip()}\n"] if draft.system.strip() else []
        return (
            "chat.md",
            "\n".join([*system, *(f"## {names[one.role]}\n\n{one.text}\n" for one in draft.turns)]),
            "text/markdown",
        )
    system_turn = [{"role": "system", "content": draft.system}] if draft.system.strip() else []
    messages = [*system_turn, *(one.message() for one in draft.turns)]
    return (
        "chat.json",
        json.dumps({"model": draft.model, "messages": messages}, ensure_ascii=False, indent=1),
        "application/json",
    )


class WayOut(NamedTuple):
    """What somebody can do about a refusal."""

    label: str
    href: str


class Trouble(NamedTuple):
    """Why a call was refused, and the ways out. `title` says it in a few words."""

    title: str
    text: str
    ways: Sequence[WayOut] = ()
    field: str | None = None


def trouble_of(refused: DomainError, model: str, catalogue: str) -> Trouble:
    """A refusal in words for people. `catalogue` is the path of the models' pages."""
    if not isinstance(refused, Refused):
        return Trouble("Please check this", refused.message, field=refused.field)
    page = f"{catalogue}/{quote(model)}"
    others = WayOut("Pick another model", catalogue)
    text = refused.message.partition(" Ask for more at ")[0].partition("; GET /v1/models")[0]
    match refused.code:
        case "model_not_found":
            text = f"The model {model} is not offered to you."
            return Trouble(
                "You don’t have access to this model", text, [WayOut("Subscribe", f"{page}?tab=access"), others]
            )
        case "insufficient_quota":
            ways = [WayOut("Request an increase", _budget(refused)), others]
            return Trouble("Not enough budget left for this request", text, ways)
        case "model_not_priced":
            return Trouble("This model has no price", text, [others])
        case "rate_limit_exceeded":
            return Trouble("Too many requests", text, [others])
        case "endpoint_disabled":
            return Trouble("Chats are switched off", text)
        case "upstream_error" | "upstream_timeout":
            return Trouble("The provider did not answer", f"{text} Try again, or choose another model.", [others])
    if refused.status == 422:
        return Trouble("The request was refused", text, field=refused.field)
    return Trouble("The request failed", text, [others])


def _budget(refused: Refused) -> str:
    """The page of the budget that stood in the way; the gateway's message ends with its address."""
    address = refused.message.rpartition(" Ask for more at ")[2]
    return f"/budgets/{address.rpartition('/budgets/')[2]}" if "/budgets/" in address else "/budgets"


def takes(model: Model | None, feature: str) -> bool:
    """Whether a model is known to take something, such as images (`vision`) or `tools`."""
    return model is not None and feature in model.features


def _typed(form: MultiDict[str, str], name: str) -> str:
    """What was typed into several lines; browsers end them by two characters."""
    return form.get(name, "").replace("\r\n", "\n")


def _one_of(form: MultiDict[str, str], name: str, choices: Container[str], usual: str) -> str:
    chosen = form.get(name, "")
    return chosen if chosen in choices else usual


def _number(parameter: Parameter, text: str) -> float | int:
    try:
        value = int(text) if parameter.name in WHOLE else float(text)
    except ValueError:
        raise Invalid("Enter a number.", parameter.name) from None
    if not parameter.least <= value <= parameter.most:
        raise Invalid(f"Enter a number from {parameter.least:g} to {parameter.most:g}.", parameter.name)
    return value


def _json(text: str, field: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise Invalid("Enter valid JSON.", field) from None
    if not isinstance(value, kind):
        raise Invalid("Enter a list in JSON." if kind is list else "Enter an object in JSON.", field)
    return value


def _tool(declared: Any) -> dict[str, Any]:
    """A tool as chat completions take it; what is only a function is put into one."""
    if not isinstance(declared, dict):
        raise Invalid("Each tool must be an object.", "tools")
    return declared if "type" in declared and "function" in declared else {"type": "function", "function": declared}


def _image(file: FileStorage) -> str:
    """An uploaded image as a data URL."""
    if file.mimetype not in IMAGES:
        raise Invalid("Choose images of the types PNG, JPEG, WebP or GIF.", "images")
    return f"data:{file.mimetype};base64,{base64.b64encode(file.read()).decode()}"
