"""Connect: a finished block of settings for the client that a person picks, and whether its first call has arrived."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple

from flask import Blueprint, Response, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from app.blueprints.portal.person import me
from app.clock import from_ms, now, to_ms
from app.domain import keys
from app.domain.keys import ApiKey
from app.domain.person import Person
from app.pages import connect
from app.pages.clients import BY_ID, CLIENTS, Client
from app.pages.snippets import VARIABLE
from app.pages.usage import reader_of
from app.reports import first_calls
from app.reports.first_calls import FirstCall
from app.runtime.agents import Agent
from app.web.htmx import htmx
from app.web.render import render

LOOKS_FOR = timedelta(minutes=15)  # how long an open page goes on looking for the first call
EVERY_S = 3


class WayOut(NamedTuple):
    """What people can do about a refused call, and where."""

    text: str
    label: str
    href: str


bp = Blueprint("connect", __name__)


@bp.get("/connect")
def index() -> Response:
    person, client, own = me(), _client(), connect.live_keys(me())
    model, small = request.args.get("model"), request.args.get("small")
    key = _asked_key(person) or _key_for(own, model)
    connection = connect.connection(person, key, model, small)
    return render(
        "portal/connect/index.html",
        "portal/connect/_connect.html",
        clients=CLIENTS,
        connection=connection,
        model=connection.model(client),
        choices=connection.choices(client),
        panes=client.panes(connection.setup(client)),
        own_keys=own if key is None or key in own else [key, *own],
        out_of_scope=connection.is_out_of_scope(client),
        may_change=key is not None and keys.may_change(person, key),
        variable=VARIABLE,
        **_first_call(person, client, key, to_ms(now() + LOOKS_FOR)),
    )


@bp.get("/connect/first-call")
def first_call() -> AnyResponse:
    """The part of the page that looks for the first call; its page for everyone but htmx."""
    key = _asked_key(me())
    if not htmx.is_partial or key is None:
        here = url_for("portal.connect.index", client=_client().id, key=key.id if key else None)
        return redirect(here, 303)
    until_ms = request.args.get("until", 0, type=int)
    return render("portal/connect/_first_call.html", **_first_call(me(), _client(), key, until_ms))


def _client() -> Client:
    return BY_ID.get(request.args.get("client", "")) or CLIENTS[0]


def _asked_key(person: Person) -> ApiKey | None:
    key_id = request.args.get("key")
    return keys.get_visible(person, key_id) if key_id else None


def _key_for(own: list[ApiKey], model: str | None) -> ApiKey | None:
    """The newest active key, if possible one that names the model or can call all."""
    active = [key for key in own if key.status == "active"] or own
    naming = [key for key in active if not model or not key.models or model in key.models]
    return next(iter([*naming, *active]), None)


def _first_call(person: Person, client: Client, key: ApiKey | None, until_ms: int) -> dict[str, Any]:
    if key is None:
        return {"client": client, "key": None}
    progress = first_calls.progress(reader_of(person), key.id, client.agents)
    first, refused = progress.first, progress.refused
    failed = refused or (first if first.state == "failed" else None)
    is_done = first.state == "ok" and first.has_page
    has_time = to_ms(now()) < until_ms <= to_ms(now() + LOOKS_FOR)
    return {
        "client": client,
        "key": key,
        "first": first,
        "first_at": from_ms(first.at_ms) if first.at_ms is not None else None,
        "failed": failed,
        "failed_at": from_ms(failed.at_ms) if failed and failed.at_ms is not None else None,
        "way_out": _way_out(failed, key) if failed else None,
        "others": list(dict.fromkeys(_title(agent) for agent in progress.others)),
        "every_s": EVERY_S if not is_done and has_time else None,
        "is_done": is_done,
        "until_ms": until_ms,
    }


def _title(agent: Agent | None) -> str:
    """The client that calls itself so."""
    return next((client.title for client in CLIENTS if agent and agent in client.agents), "another client")


def _way_out(call: FirstCall, key: ApiKey) -> WayOut | None:
    """What to do about a call that failed; None where the reason says it all."""
    settings = url_for("portal.key_settings.settings", id=key.id)
    match call.code, call.status:
        case "model_not_found", _:
            return WayOut(
                "Choose a model that this key can call, or request access to the one that you want.", "Browse models",
                url_for("portal.catalog.index"),
            )  # fmt: skip
        case "insufficient_scope", _:
            return WayOut("Allow it in the key’s settings, or use another key.", "Change key", settings)
        case (("insufficient_quota" | "billing_error"), _):
            return WayOut(
                "Wait until the budget resets, or request an increase.", "See budgets", url_for("portal.budgets.index")
            )
        case "rate_limit_exceeded", _:
            return WayOut("Wait a moment and try again, or raise the key’s limits.", "Change key", settings)
        case _, (404 | 405):
            return WayOut(
                "The client called a path that Portico doesn’t have. Check the base URL in its settings.", "See all paths",
                url_for("portal.reference.index"),
            )  # fmt: skip
        case _:
            return None
