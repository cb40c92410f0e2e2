"""How failed requests outside /v1 are answered: people get a page, programs get the API's error object.

Views answer the errors that they can handle (a form shows its own). All others end here.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from functools import partial

from flask import Flask, Response, abort, g, request
from flask_login import AnonymousUserMixin, current_user
from flask_wtf.csrf import CSRFError
from redis import RedisError
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as NoConnection
from werkzeug.exceptions import HTTPException, InternalServerError, ServiceUnavailable, default_exceptions

from app.domain.errors import DomainError, Throttled
from app.extensions import db
from app.runtime.bodies import FAULT
from app.runtime.ids import new_id
from app.web.render import render
from app.web.sign_in import redirect_expired_session

log = logging.getLogger(__name__)

RETRY_AFTER_S = 5  # when a store did not answer
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}
BODY_FAULTS = {
    400: "The request body was cut short.",
    408: "The request body did not arrive in time.",
    413: "The request body is too large.",
    503: "Too many request bodies are on their way. Try again.",
}
PROGRAMS = "portico_programs"  # in app.extensions: path prefixes, and the function that answers errors below them
Answer = Callable[[HTTPException], Response]


def register_json_errors(app: Flask, prefixes: tuple[str, ...], answer: Answer) -> None:
    """Lets `answer` answer errors below `prefixes`, also for paths without a route."""
    app.extensions[PROGRAMS] = (prefixes, answer)


def request_id() -> str:
    """The id of the current request. Every response carries it, error pages show it, and logged errors name it."""
    if "request_id" not in g:
        g.request_id = new_id()
    id: str = g.request_id
    return id


def register_error_pages(app: Flask) -> None:
    """Registers the handlers for every error that a page can raise."""

    @app.after_request
    def add_request_id(response: Response) -> Response:
        response.headers.setdefault("X-Request-ID", request_id())
        return response

    @app.errorhandler(HTTPException)
    def answer_http(error: HTTPException) -> Response:
        prefixes, answer = app.extensions.get(PROGRAMS, ((), None))
        if answer is not None and (request.path.startswith(prefixes) or _is_a_program()):
            response: Response = answer(error)
            return response
        return error_page(error.code or 500, error.description if _is_ours(error) else None)

    @app.errorhandler(DomainError)
    def answer_refusal(error: DomainError) -> Response:
        wait = error.retry_after_s if isinstance(error, Throttled) else None
        response = error_page(error.status, error.message, retry_after=wait)
        if wait is not None:
            response.headers["Retry-After"] = str(wait)
        return response

    @app.errorhandler(CSRFError)
    def answer_csrf(error: CSRFError) -> Response:
        return error_page(400, None) if current_user.is_authenticated else redirect_expired_session()

    @app.errorhandler(IntegrityError)
    def answer_collision(error: IntegrityError) -> Response:
        db.session.rollback()
        return error_page(409, None)

    def unavailable() -> Response:
        db.session.rollback()
        response = answer_http(ServiceUnavailable())
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
        return response

    @app.errorhandler(OperationalError)
    @app.errorhandler(NoConnection)
    def answer_database(error: SQLAlchemyError) -> Response:
        log.warning("the database did not answer: %s (request %s)", type(error).__name__, request_id())
        return unavailable()

    @app.errorhandler(RedisError)
    def answer_redis(error: RedisError) -> Response:
        log.warning("Redis did not take a command: %s (request %s)", error, request_id())
        return unavailable()

    @app.errorhandler(OSError)
    def answer_disk(error: OSError) -> Response:
        if error.errno not in DISK_ERRORS:
            return answer_bug(error)
        log.error("the disk did not take what was to be written: %s (request %s)", error, request_id())
        return unavailable()

    @app.errorhandler(Exception)
    def answer_bug(error: Exception) -> Response:
        db.session.rollback()
        place = request.url_rule.rule if request.url_rule else request.path  # a path may contain an invitation's token
        log.exception("a request failed: %s %s (request %s)", request.method, place, request_id())
        if app.config.get("PROPAGATE_EXCEPTIONS"):
            raise error
        return answer_http(InternalServerError())


def refuse_bodies(app: Flask) -> None:
    """Answers requests whose body was refused, before any view runs."""

    @app.before_request
    def refuse() -> None:
        status = request.environ.get(FAULT)
        if status is not None:
            abort(status, BODY_FAULTS[status])


def error_page(status: int, detail: str | None, *, retry_after: int | None = None) -> Response:
    """Returns the page for a refusal, with masthead and menu for those who are signed in. `detail` is a sentence that is
    safe to show."""
    page = partial(
        render,
        "errors/error.html",
        status=status,
        code=status,
        request_id=request_id(),
        detail=detail,
        retry_after=retry_after,
        login_href="/sign-in",
    )
    if status <= 500:  # above, a store may be away that the menu would wait for
        try:
            return page()
        except Exception:  # loading the person or the menu may be what failed
            log.exception("an error page came without its menu (request %s)", request_id())
            db.session.rollback()
    g._login_user = AnonymousUserMixin()
    return page()


def _is_a_program() -> bool:
    """Whether the current request prefers JSON, as no browser does."""
    accepted = request.accept_mimetypes
    return request.is_json or accepted["application/json"] > accepted["text/html"]


def _is_ours(error: HTTPException) -> bool:
    """Whether the description was written for this case, not taken from the status."""
    kind = default_exceptions.get(error.code or 500)
    return kind is not None and error.description != kind.description
