"""What every application of the cold side has: the database, and where it has doors, sign-in, CSRF and pages.

The factory loads this module late, so that /v1 alone never sees it.
"""

from __future__ import annotations

from datetime import timedelta

from flask import Flask, g, session
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app import health, refusals
from app.bodies import WholeBodies
from app.domain import publication, sessions
from app.domain.person import Person
from app.extensions import csrf, db, init_database, login
from config import Config

LARGEST_BODY = 4 * 1024 * 1024
TELLS_OF_ITS_END = timedelta(days=7)  # how long the cookie outlives its session, for the sign-in page to say that

__all__ = ["furnish", "publication"]


def furnish(app: Flask, config: Config, *, pages: bool) -> None:
    """Puts the cold side's extensions into `app`; `pages` also what HTML needs."""
    secrets = config.secrets()
    app.config.update(
        SECRET_KEY=secrets.session_secret,
        SESSION_COOKIE_NAME="portico_session",
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=config.secure_cookies,
        PERMANENT_SESSION_LIFETIME=timedelta(hours=config.auth.session_hours) + TELLS_OF_ITS_END,
        WTF_CSRF_TIME_LIMIT=None,
        MAX_CONTENT_LENGTH=LARGEST_BODY,
        CURRENCY=config.portal.currency,
        JSON_SORT_KEYS=False,
    )
    init_database(app, config)
    health.add_check(app, "database", _database_answers)
    if pages:
        from app.web import init_web

        app.wsgi_app = WholeBodies(app.wsgi_app, LARGEST_BODY, config.server.body_timeout_s)  # type: ignore[method-assign]
        refusals.refuse_bodies(app)
        csrf.init_app(app)
        login.init_app(app)
        login.session_protection = None  # the session's id is checked in Redis at each request
        login.request_loader(_person_of_the_session)
        login.login_view = "public.sign_in"
        init_web(app)
        refusals.answer_people(app)


def _person_of_the_session(_: object) -> Person | None:
    """Whose browser this is: the cookie names a session, Redis says whose, SQL says that they may still enter."""
    from app.web import asked

    id = session.get(sessions.COOKIE_FIELD)
    found = sessions.find(id) if isinstance(id, str) else None
    if found is None:
        return None
    person = asked.whoever(found.person_id)
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
