"""Secrets that are shown once. The form's POST answers with a redirect to a page that takes the secret and shows it, so
that Back and a reload show the page without it.

In between the secret is in Redis for at most five minutes, encrypted with a key that comes from the session id in the
browser's cookie: neither a copy of Redis nor another session can read it, and nobody can once the session is over.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable
from urllib.parse import urlencode

from flask import Response, request, session
from redis import RedisError

from app import current, store
from app.domain import sessions
from app.runtime.sealing import Sealer, SealingError
from app.web.render import render, see_other

KEPT_S = 300
PARAMETER = "once"
LONGEST_NUMBER = 32


def show_once(id: str, secret: str, address: str, page: Callable[[str], Response]) -> Response:
    """Redirects to `address`, whose view shows the secret of the object with this id with `take`.

    Without Redis it answers with `page(secret)` itself: the secret exists now, so its creator must see it.
    """
    number = secrets.token_urlsafe(16)
    try:
        place = store.shown_once(id, number)
        current.redis().set(place, _sealer().seal(secret.encode(), place), ex=KEPT_S)
    except RedisError:
        return page(secret)
    return see_other(f"{address}?{urlencode({PARAMETER: number})}")


def take(id: str) -> str | None:
    """Returns the secret that this request's address names, and forgets it. None if it was taken or has expired, or if it
    belongs to another session."""
    number = request.args.get(PARAMETER, "")
    if request.method != "GET" or not number or len(number) > LONGEST_NUMBER:
        return None
    place = store.shown_once(id, number)
    sealed = current.redis().getdel(place)
    try:
        return _sealer().open(str(sealed), place).decode() if sealed else None
    except SealingError:
        return None


def gone(title: str, words: str, back: str) -> Response:
    """The page in place of a secret that has been shown. `words` say what to do if it is lost."""
    return render("layouts/shown.html", title=title, words=words, back=back)


def _sealer() -> Sealer:
    key = hmac.new(
        current.secrets().session_secret.encode(),
        f"shown once:{session[sessions.COOKIE_FIELD]}".encode(),
        hashlib.sha256,
    )
    return Sealer([base64.urlsafe_b64encode(key.digest())])
