"""How requests that fail are answered outside of /v1: people get a page, programs the API's one error shape.

Doors answer what they can themselves (a form's fault stays in the form); what they let go ends here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from flask import Flask, Response, g, request
from flask_login import AnonymousUserMixin, current_user
from flask_wtf.csrf import CSRFError
from sqlalchemy.exc import IntegrityError, OperationalError
from werkzeug.exceptions import HTTPException, InternalServerError, default_exceptions

from app.domain.errors import DomainError, Throttled
from app.entrance import lead_back_in
from app.extensions import db
from app.ids import new_id
from app.web.render import render

log = logging.getLogger(__name__)

PROGRAMS = "portico_programs"  # in app.extensions: path prefixes, and what answers below them
Answer = Callable[[HTTPException], Response]


def answer_programs(app: Flask, prefixes: tuple[str, ...], answer: Answer) -> None:
    """Below `prefixes` errors are answered by `answer`, also for paths that no route has."""
    app.extensions[PROGRAMS] = (prefixes, answer)


def request_id() -> str:
    """The name of the present request: every answer bears it, error pages show it, and the log of a fault names it."""
    if "request_id" not in g:
        g.request_id = new_id()
    found: str = g.request_id
    return found


def answer_people(app: Flask) -> None:
    """Registers the handlers of everything that pages may fail with."""

    @app.after_request
    def named(response: Response) -> Response:
        response.headers.setdefault("X-Request-ID", request_id())
        return response

    @app.errorhandler(HTTPException)
    def http(error: HTTPException) -> Response:
        prefixes, answer = app.extensions.get(PROGRAMS, ((), None))
        if answer is not None and (request.path.startswith(prefixes) or _is_a_program()):
            refused: Response = answer(error)
            return refused
        return error_page(error.code or 500, error.description if _is_ours(error) else None)

    @app.errorhandler(DomainError)
    def refused(error: DomainError) -> Response:
        wait = error.retry_after_s if isinstance(error, Throttled) else None
        response = error_page(error.status, error.message, retry_after=wait)
        if wait is not None:
            response.headers["Retry-After"] = str(wait)
        return response

    @app.errorhandler(CSRFError)
    def forged(error: CSRFError) -> Response:
        return error_page(400, None) if current_user.is_authenticated else lead_back_in()

    @app.errorhandler(IntegrityError)
    def collided(error: IntegrityError) -> Response:
        db.session.rollback()
        return error_page(409, None)

    @app.errorhandler(OperationalError)
    def away(error: OperationalError) -> Response:
        db.session.rollback()
        log.warning("the database did not answer: %s (request %s)", type(error.orig).__name__, request_id())
        return error_page(503, None)

    @app.errorhandler(Exception)
    def broken(error: Exception) -> Response:
        db.session.rollback()
        log.exception("a request failed: %s %s (request %s)", request.method, request.path, request_id())
        if app.config.get("PROPAGATE_EXCEPTIONS"):
            raise error
        return http(InternalServerError())


def error_page(status: int, detail: str | None, *, retry_after: int | None = None) -> Response:
    """The page of a refusal; `detail` is a sentence safe to show."""
    if status >= 500:
        g._login_user = AnonymousUserMixin()  # who it is may be what cannot be found out
    return render(
        "errors/error.html",
        status=status,
        code=status,
        request_id=request_id(),
        detail=detail,
        retry_after=retry_after,
        login_href="/sign-in",
        signed_in=current_user.is_authenticated,
    )


def _is_a_program() -> bool:
    """Whether the present request speaks JSON, as no page does."""
    accepted = request.accept_mimetypes
    return request.is_json or accepted["application/json"] > accepted["text/html"]


def _is_ours(error: HTTPException) -> bool:
    """Whether the description was written for this case, and not for every case of its status."""
    kind = default_exceptions.get(error.code or 500)
    return kind is not None and error.description != kind.description
