"""How requests that fail are answered outside of /v1: people get a page, programs the API's one error shape.

Doors answer what they can themselves (a form's fault stays in the form); what they let go ends here.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable

from flask import Flask, Response, abort, g, request
from flask_login import AnonymousUserMixin, current_user
from flask_wtf.csrf import CSRFError
from redis import RedisError
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnection
from werkzeug.exceptions import HTTPException, InternalServerError, ServiceUnavailable, default_exceptions

from app.bodies import FAULT
from app.domain.errors import DomainError, Throttled
from app.entrance import lead_back_in
from app.extensions import db
from app.ids import new_id
from app.web.render import render

log = logging.getLogger(__name__)

AGAIN_S = 5  # after a store was away
DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}
BODY_FAULTS = {
    400: "The request body was cut short.",
    408: "The request body did not arrive in time.",
    413: "The request body is too large.",
    503: "Too many request bodies are on their way. Try again.",
}
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

    def unavailable() -> Response:
        db.session.rollback()
        response = http(ServiceUnavailable())
        response.headers["Retry-After"] = str(AGAIN_S)
        return response

    @app.errorhandler(OperationalError)
    @app.errorhandler(NoConnection)
    def away(error: SQLAlchemyError) -> Response:
        log.warning("the database did not answer: %s (request %s)", type(error).__name__, request_id())
        return unavailable()

    @app.errorhandler(RedisError)
    def redis_away(error: RedisError) -> Response:
        log.warning("Redis did not take a command: %s (request %s)", error, request_id())
        return unavailable()

    @app.errorhandler(OSError)
    def disk_full(error: OSError) -> Response:
        if error.errno not in DISK_TROUBLE:
            return broken(error)
        log.error("the disk did not take what was to be written: %s (request %s)", error, request_id())
        return unavailable()

    @app.errorhandler(Exception)
    def broken(error: Exception) -> Response:
        db.session.rollback()
        place = request.url_rule.rule if request.url_rule else request.path  # a path may hold an invitation
        log.exception("a request failed: %s %s (request %s)", request.method, place, request_id())
        if app.config.get("PROPAGATE_EXCEPTIONS"):
            raise error
        return http(InternalServerError())


def refuse_bodies(app: Flask) -> None:
    """Answers requests whose body was not taken, before anything is done for them."""

    @app.before_request
    def refuse() -> None:
        status = request.environ.get(FAULT)
        if status is not None:
            abort(status, BODY_FAULTS[status])


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
