"""The setup of every cold application: the database and, where it has doors, sign-in, CSRF and pages.

The factory imports this module late, so that a process with /v1 alone never loads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import msgspec
from flask import Flask, Response, g, session
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app import current
from app.domain import audit_chain, sessions, settings
from app.domain.person import Person
from app.extensions import csrf, db, init_database, login
from app.reports import metrics
from app.runtime import health
from app.runtime.bodies import WholeBodies
from app.web import errors
from app.workflows import figures, publication
from config import Config

LARGEST_BODY = 4 * 1024 * 1024
EXPIRY_SHOWN_FOR = timedelta(days=7)  # how long the cookie outlives its session, so that the sign-in page can say so

__all__ = ["audit_chain", "init_app", "publication"]  # two modules that act when a unit of work commits


def init_app(app: Flask, config: Config, *, pages: bool) -> None:
    """Add the cold side's extensions to `app` and, with `pages`, everything that HTML needs."""
    secrets = config.secrets()
    app.config.update(
        SECRET_KEY=secrets.session_secret,
        SESSION_COOKIE_NAME="portico_session",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=config.secure_cookies,
        PERMANENT_SESSION_LIFETIME=timedelta(hours=config.auth.session_hours) + EXPIRY_SHOWN_FOR,
        WTF_CSRF_TIME_LIMIT=None,
        MAX_CONTENT_LENGTH=LARGEST_BODY,
        MAX_FORM_MEMORY_SIZE=LARGEST_BODY,  # a body is in memory already, see `WholeBodies`
        CURRENCY=config.portal.currency,
        STATIC_URL=config.server.static_url,
        JSON_SORT_KEYS=False,
    )
    init_database(app, config)
    current.follow_stored(app, settings.in_force)
    health.add_check(app, "database", _database_answers)
    if pages:
        from app.web import init_web

        figures.register(app)
        health.set_document(app, _summary)

        app.wsgi_app = WholeBodies(app.wsgi_app, LARGEST_BODY, config.server.body_timeout_s)  # type: ignore[method-assign]
        errors.refuse_bodies(app)
        csrf.init_app(app)
        login.init_app(app)
        login.session_protection = None  # the session's id is checked in Redis at each request
        login.request_loader(_person_of_the_session)
        login.login_view = "public.sign_in.show"
        init_web(app)
        errors.register_error_pages(app)


def _person_of_the_session(_: object) -> Person | None:
    """The signed-in person, or None. The cookie names a session, Redis its person, and SQL says whether they may sign in."""
    from app.web import request_cache

    id = session.get(sessions.COOKIE_FIELD)
    found = sessions.find(id) if isinstance(id, str) else None
    if found is None:
        return None
    person = request_cache.load_person(found.person_id)
    if person is None or person.disabled:
        return None
    g.browser_session = found
    return person


def _database_answers() -> bool:
    try:
        db.session.execute(text("SELECT 1"))
        return True
    except SQLAlchemyError:
        return False
    finally:
        db.session.rollback()


def _summary(args: Mapping[str, str]) -> Response:
    """What `GET /api/metrics` answers, for whoever may read `/metrics`."""
    try:
        found = metrics.measure(msgspec.convert(dict(args), metrics.Span, strict=False))
    except ValueError as error:
        return Response(f"{error}\n", 422, mimetype="text/plain")
    finally:
        db.session.rollback()
    return Response(msgspec.json.encode(found), mimetype="application/json")
