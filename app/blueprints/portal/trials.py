"""The playground of models that do not chat: embeddings, completions, pictures, speech and its recognition."""

from __future__ import annotations

from io import BytesIO
from typing import Any, Literal, NamedTuple, cast

from flask import Blueprint, Response, current_app, request, url_for

from app.blueprints.portal.person import me, my_team
from app.domain import inferences
from app.domain.errors import DomainError, Invalid
from app.extensions import db, transaction
from app.gateway.endpoints import COMPLETIONS, EMBEDDINGS, IMAGES, SPEECH, TRANSCRIPTIONS, Endpoint
from app.pages.chats import Trouble, offers_of, trouble_of
from app.pages.trials import MOST_TEXTS, completion_in, pictures_in, similarities, sound_of, text_in, vectors_in
from app.runtime.forms import Form, Upload
from app.web.render import render
from app.web.security import content_security_policy
from app.workflows import inference
from app.workflows.inference import Answered

Kind = Literal["embeddings", "completions", "images", "speech", "transcription"]


class Trial(NamedTuple):
    """A tab: its title, the path that is asked, and what its field is called."""

    title: str
    endpoint: Endpoint
    label: str
    help: str = ""


TRIALS: dict[Kind, Trial] = {
    "completions": Trial("Completions", COMPLETIONS, "Prompt"),
    "embeddings": Trial("Embeddings", EMBEDDINGS, "Texts", f"2 to {MOST_TEXTS} texts, one a line."),
    "images": Trial("Images", IMAGES, "Prompt"),
    "speech": Trial("Text to speech", SPEECH, "Text", "At most 4,096 characters."),
    "transcription": Trial("Speech to text", TRANSCRIPTIONS, "Sound", "MP3, WAV, WebM and the like, at most 3 MB."),
}
VOICES = "alloy"

bp = Blueprint("trials", __name__)


@bp.get("/playground/<any(embeddings, completions, images, speech, transcription):kind>")
def show(kind: str) -> Response:
    wanted = f"{request.args.get('team', '')}/{request.args.get('model', '')}"
    return _page(cast(Kind, kind), wanted)


@bp.post("/playground/<any(embeddings, completions, images, speech, transcription):kind>")
def run(kind: str) -> Response:
    """Has the form's request answered, at the cost of the person or the chosen team."""
    trial, choice = TRIALS[cast(Kind, kind)], request.form.get("choice", "")[:300]
    team_id, _, model = choice.partition("/")
    try:
        body = _body(cast(Kind, kind), model)
        person = me()
        person_id, caller = person.id, inference.caller_of(person, my_team(team_id or None))
        db.session.rollback()  # the upstream may be slow
        try:
            answered = inference.ask(caller, trial.endpoint, body)
        finally:
            if isinstance(body, Form):
                body.close()
    except DomainError as error:
        trouble = trouble_of(error, model, url_for("portal.catalog.index"))
        return _page(cast(Kind, kind), choice, trouble, error.status)
    event = answered.event
    transaction(
        inferences.keep, person_id, id=answered.id, model=event.model, prompt_tokens=event.prompt_tokens,
        completion_tokens=event.completion_tokens, cost_nano=event.cost_nano, status=event.status,
    )  # fmt: skip
    return _page(cast(Kind, kind), choice, answered=answered)


def _body(kind: Kind, model: str) -> dict[str, Any] | Form:
    """What is asked, as its path takes it. Raises `Invalid` naming the field."""
    if not model:
        raise Invalid("Choose a model.", "choice")
    text = request.form.get("text", "").replace("\r\n", "\n").strip()
    if kind == "transcription":
        return _sound(model)
    if not text:
        raise Invalid("Enter a text.", "text")
    match kind:
        case "embeddings":
            texts = [line for line in text.split("\n") if line.strip()]
            if not 2 <= len(texts) <= MOST_TEXTS:
                raise Invalid(f"Enter 2 to {MOST_TEXTS} texts, one a line.", "text")
            return {"model": model, "input": texts, "encoding_format": "float"}
        case "images":
            return {"model": model, "prompt": text}
        case "speech":
            voice = request.form.get("voice", "").strip()[:256] or VOICES
            return {"model": model, "input": text, "voice": voice, "response_format": "mp3"}
        case _:
            most = request.form.get("max_tokens", "").strip()
            if most and not (most.isdecimal() and 0 < int(most[:10]) < 2**31):
                raise Invalid("Enter a number of at least 1.", "max_tokens")
            return {"model": model, "prompt": text} | ({"max_tokens": int(most)} if most else {})


def _sound(model: str) -> Form:
    file = request.files.get("file")
    if file is None or not file.filename:
        raise Invalid("Choose a sound.", "file")
    form = Form()
    form.fields = [("model", model), ("response_format", "json")]
    upload = Upload("file", file.filename, file.mimetype or "application/octet-stream", BytesIO())
    upload.add(file.read())
    form.files = [upload]
    return form


def _page(
    kind: Kind, choice: str, trouble: Trouble | None = None, status: int = 200, answered: Answered | None = None
) -> Response:
    texts = [line for line in request.form.get("text", "").split("\n") if line.strip()]
    values: dict[str, Any] = {}
    if answered is not None:
        match kind:
            case "embeddings":
                values = {"rows": list(zip(texts, similarities(vectors_in(answered.answer)), strict=False))}
            case "images":
                values = {"pictures": pictures_in(answered.answer)}
            case "speech":
                values = {"sound": sound_of(answered.body, answered.media_type)}
            case "transcription":
                values = {"text": text_in(answered.answer)}
            case _:
                values = {"text": completion_in(answered.answer)}
    response = render(
        "portal/trials/index.html",
        status=status,
        kind=kind,
        trial=TRIALS[kind],
        choice=choice,
        sent=request.form,
        offers=offers_of(me(), str(TRIALS[kind].endpoint.capability)),
        trouble=trouble,
        answered=answered,
        **values,
    )
    if kind == "speech":
        policy = content_security_policy(str(current_app.config.get("STATIC_URL") or ""))
        response.headers["Content-Security-Policy"] = f"{policy}; media-src data:"
    return response
