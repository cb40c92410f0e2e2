"""The errors that domain verbs raise, each with a sentence that is safe to show.

Doors translate them: the management API into JSON, the portal into a form's message or a page.
"""

from __future__ import annotations

from collections.abc import Mapping


class DomainError(Exception):
    """A refusal. `status` is its HTTP status, `code` its name for programs, `field` the invalid input, `headers` what an
    answer in HTTP says besides."""

    status = 400
    code = "refused"
    headers: Mapping[str, str] = {}

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class Invalid(DomainError):
    """Invalid input; `field` names it."""

    status = 422
    code = "invalid_field"


class NotFound(DomainError):
    """This person can see no such object; whether it exists is not disclosed."""

    status = 404
    code = "not_found"


class Conflict(DomainError):
    """The current state does not allow it."""

    status = 409
    code = "conflict"


class Forbidden(DomainError):
    """The person's role or scope does not allow it; the message names the one that does."""

    status = 403
    code = "forbidden"


class LocalSignInOff(Forbidden):
    """People sign in with the identity provider only."""

    code = "local_sign_in_off"


class Unauthenticated(DomainError):
    """Nobody is signed in, or the credentials are wrong."""

    status = 401
    code = "unauthenticated"


class Throttled(DomainError):
    """Too many failed attempts; the next one is possible in `retry_after_s` seconds."""

    status = 429
    code = "too_many_attempts"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.headers = {"Retry-After": str(retry_after_s)}


class Unavailable(DomainError):
    """A required store does not answer; nothing was changed."""

    status = 503
    code = "unavailable"
