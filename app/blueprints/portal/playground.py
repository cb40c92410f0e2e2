"""The playground: chats with models, without a key, at the person's or a team's cost.

The page carries the conversation, see `app.pages.chats`. A form without scripts is answered with the whole page; the
script of the page asks `answer`, which streams.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
from flask import Blueprint, Response, get_template_attribute, request, stream_with_context, url_for
from markupsafe import Markup

from app.blueprints.portal.person import me, my_team
from app.directory import CallerRecord
from app.domain import inferences, prompts
from app.domain.errors import DomainError, Invalid
from app.extensions import db, transaction
from app.pages.chats import (
    EFFORTS,
    FORMATS,
    PARAMETERS,
    TOOL_CHOICES,
    Draft,
    Trouble,
    Turn,
    draft_of,
    exported,
    offers_of,
    takes,
    trouble_of,
    turn_of,
)
from app.pages.snippets import Pane, chat_call
from app.runtime.templates import variables_of
from app.web.markdown import Blocks
from app.web.render import render
from app.workflows import inference
from app.workflows.chats import Answering, side_by_side

MACROS = "portal/playground/_macros.html"
FEWEST, MOST = 2, 4  # models side by side
HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

bp = Blueprint("playground", __name__)


class Question(NamedTuple):
    """What is asked now: the conversation with its newest turn, and the kept prompt that the turn was made with."""

    draft: Draft
    prompt: inference.Filled | None = None

    @property
    def tags(self) -> tuple[str, ...]:
        return self.prompt.tags if self.prompt else ()


@bp.get("/playground")
def index() -> Response:
    """A new conversation: with the model of the URL, or the first that the person can call, and with a kept prompt."""
    wanted = f"{request.args.get('team', '')}/{request.args.get('model', '')}"
    prompt_id, version = request.args.get("prompt", ""), request.args.get("version", type=int)
    return _page(Draft(choice=wanted if wanted != "/" else "", prompt_id=prompt_id[:36], version=version))


@bp.post("/playground")
def converse() -> Response:
    """Sends, repeats, changes or branches a conversation, as the pressed button says, and answers whole."""
    act, _, number = request.form.get("act", "send").partition("-")
    draft = Draft()
    try:
        draft = draft_of(request.form, request.files.getlist("images"))
        if act == "edit":
            return _page(draft.before_turn(_index(number)))
        if act == "branch":
            return _page(draft.up_to(_index(number)))
        if act == "estimate":
            return _page(draft, estimate=_estimate(draft))
        if act == "code":
            return _page(draft, panes=chat_call(_meant(draft).body()))
        if act == "export":
            return _export(draft, number)
        asked = _question(draft, act)
        answering = Answering(inference.stream(_caller(asked.draft), asked.draft.body(), tags=asked.tags)).whole()
        _keep(me().id, asked, answering)
        return _page(asked.draft._replace(turns=(*asked.draft.turns, turn_of(answering))))
    except DomainError as error:
        return _page(draft, trouble=_trouble(error, draft), status=error.status)


@bp.post("/playground/answers")
def answer() -> Response:
    """The same for the script of the page: events as they come. A refusal is HTML with its own status."""
    draft = Draft()
    try:
        draft = draft_of(request.form, request.files.getlist("images"))
        asked = _question(draft, request.form.get("act", "send"))
        caller = _caller(asked.draft)
        sock = request.environ.get("gunicorn.socket")
        streamed = inference.stream(caller, asked.draft.body(), sock, asked.tags)
    except DomainError as error:
        html = get_template_attribute(MACROS, "trouble")(_trouble(error, draft))
        return Response(html, error.status, mimetype="text/html")
    events = _events(caller.person_id, Answering(streamed), asked, len(draft.turns))
    return Response(stream_with_context(events), mimetype="text/event-stream", headers=HEADERS)


@bp.post("/playground/estimates")
def estimate() -> Response:
    """What sending the draft would cost, as a fragment."""
    draft = Draft()
    try:
        draft = draft_of(request.form)
        found = _estimate(draft)
    except DomainError as error:
        return render("portal/playground/_estimate.html", trouble=_trouble(error, draft), estimate=None)
    return render("portal/playground/_estimate.html", trouble=None, estimate=found)


@bp.post("/playground/code")
def code() -> Response:
    """The same call for programs, as a fragment."""
    draft = Draft()
    try:
        draft = draft_of(request.form)
        panes = chat_call(_meant(draft).body())
    except DomainError as error:
        return render("portal/playground/_code.html", trouble=_trouble(error, draft), panes=None)
    return render("portal/playground/_code.html", trouble=None, panes=panes)


@bp.get("/playground/compare")
def compare() -> Response:
    """Two to four models side by side; nothing is asked yet."""
    return _comparison(Draft(compared=tuple(request.args.getlist("compared"))))


@bp.post("/playground/compare")
def answer_side_by_side() -> Response:
    """Has one message answered by all chosen models at the same time."""
    draft = Draft()
    try:
        draft = draft_of(request.form)
        if not FEWEST <= len(draft.compared) <= MOST:
            raise Invalid(f"Choose {FEWEST} to {MOST} models.", "compared")
        asked = [_question(draft._replace(choice=choice), "send") for choice in draft.compared]
        bodies = [one.draft.body() for one in asked]
        callers = [_caller(one.draft) for one in asked]
    except DomainError as error:
        return _comparison(draft, trouble=_trouble(error, draft), status=error.status)
    answers = side_by_side([partial(_answered, caller, body) for caller, body in zip(callers, bodies, strict=True)])
    columns: list[tuple[Draft, Turn | None, Trouble | None]] = []
    for one, found in zip(asked, answers, strict=True):
        if isinstance(found, inference.Refused):
            columns.append((one.draft, None, _trouble(found, one.draft)))
            continue
        _keep(me().id, one, found)
        columns.append((one.draft, turn_of(found), None))
    return _comparison(draft, columns=columns)


def _answered(caller: CallerRecord, body: dict[str, Any]) -> Answering | inference.Refused:
    try:
        return Answering(inference.stream(caller, body)).whole()
    except inference.Refused as refused:
        return refused


def _comparison(
    draft: Draft,
    *,
    columns: Sequence[tuple[Draft, Turn | None, Trouble | None]] = (),
    trouble: Trouble | None = None,
    status: int = 200,
) -> Response:
    return render(
        "portal/playground/compare.html",
        status=status,
        draft=draft,
        offers=offers_of(me(), "chat"),
        columns=columns,
        trouble=trouble,
        fewest=FEWEST,
        most=MOST,
    )


def _events(person_id: str, answering: Answering, asked: Question, known: int) -> Iterator[str]:
    """The stream of an answer as the page's script reads it. The browser gets no more than it needs: words as they
    come, each block of Markdown once, and the whole message in the end."""
    turn, figures = (get_template_attribute(MACROS, name) for name in ("turn", "figures"))
    new = Markup("").join(turn(one, place) for place, one in enumerate(asked.draft.turns) if place >= known)
    parts = iter(answering)
    try:
        yield _event("begun", html=new, id=answering.id)
        blocks = Blocks()
        for part in parts:
            if part.kind == "figures":
                yield _event("figures", html=figures(answering.figures))
                continue
            yield _event(part.kind, text=part.text)
            if part.kind == "text" and (html := blocks.feed(part.text)) is not None:
                yield _event("block", html=html, text=blocks.rest)
        yield _event("done", html=turn(turn_of(answering), len(asked.draft.turns)))
    finally:
        parts.close()  # type: ignore[attr-defined]
        _keep(person_id, asked, answering)


def _event(kind: str, **values: str) -> str:
    told = {"kind": kind} | {name: str(value) for name, value in values.items()}
    return f"data: {msgspec.json.encode(told).decode()}\n\n"


def _question(draft: Draft, act: str) -> Question:
    """What is asked by this draft. Raises `DomainError`."""
    if act == "again":
        return Question(draft.before_answer())
    if not draft.prompt_id:
        return Question(draft.with_question())
    filled = inference.fill(me(), draft.prompt_id, draft.version, draft.variables)
    text = f"{filled.text}\n\n{draft.text}".strip()
    return Question(draft._replace(text=text).with_question(), filled)


def _keep(person_id: str, asked: Question, answering: Answering) -> None:
    """Note an answer in the person's history, with its words only if they said so."""
    figures, prompt = answering.figures, asked.prompt
    words = asked.draft.is_kept
    transaction(
        inferences.keep, person_id, id=answering.id, model=figures.model,
        prompt=(prompt.id, prompt.version) if prompt else None,
        asked=asked.draft.words() if words else None, output=answering.text if words else None,
        prompt_tokens=figures.prompt_tokens, completion_tokens=figures.completion_tokens, cost_nano=figures.cost_nano,
        status=answering.status,
    )  # fmt: skip


def _export(draft: Draft, kind: str) -> Response:
    """The conversation as a file."""
    name, text, media_type = exported(draft, kind)
    response = Response(text, mimetype=media_type)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _caller(draft: Draft) -> CallerRecord:
    """Who pays. The upstream may be slow, so nothing of the database stays open. Raises `NotFound` for somebody else's team."""
    if not draft.model:
        raise Invalid("Choose a model.", "choice")
    caller = inference.caller_of(me(), my_team(draft.team_id))
    db.session.rollback()
    return caller


def _estimate(draft: Draft) -> dict[str, Any]:
    asked = _meant(draft)
    return inference.estimate(_caller(asked), asked.body())


def _meant(draft: Draft) -> Draft:
    """What sending the draft would ask, or what was asked last if nothing new is typed. Raises `DomainError`."""
    is_new = draft.text.strip() or draft.prompt_id or draft.results or draft.images
    return _question(draft, "send" if is_new else "again").draft


def _trouble(error: DomainError, draft: Draft) -> Trouble:
    return trouble_of(error, draft.model, url_for("portal.catalog.index"))


def _index(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 6 else -1


def _page(
    draft: Draft,
    *,
    trouble: Trouble | None = None,
    estimate: dict[str, Any] | None = None,
    panes: Sequence[Pane] | None = None,
    status: int = 200,
) -> Response:
    offers = offers_of(me(), "chat")
    models = {choice: model for _, choices in offers for choice, model in choices}
    unknown = draft.model if draft.choice not in models else ""
    if not draft.choice and models:
        draft = draft._replace(choice=next(iter(models)))
    model = models.get(draft.choice)
    prompt = prompts.get_visible(me(), draft.prompt_id) if draft.prompt_id else None
    version = prompts.version_of(prompt, draft.version) if prompt else None
    return render(
        "portal/playground/index.html",
        status=status,
        draft=draft,
        offers=offers,
        model=model,
        unknown=unknown,
        trouble=trouble,
        estimate=estimate,
        panes=panes,
        parameters=PARAMETERS,
        formats=FORMATS,
        efforts=EFFORTS,
        tool_choices=TOOL_CHOICES,
        takes=takes,
        prompt=prompt,
        version=version,
        variables=variables_of(version.template) if version else [],
    )
