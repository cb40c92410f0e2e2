"""What a verb of the domain may refuse, and why, in a sentence that is safe to show.

A door turns these into its own language: the management API into JSON, the portal into a form's message or a page.
"""

from __future__ import annotations

from collections.abc import Mapping


class DomainError(Exception):
    """A refusal. `status` is its HTTP equivalent, `code` its name for programs, `field` the input at fault, `headers` what
    an answer in HTTP says besides."""

    status = 400
    code = "refused"
    headers: Mapping[str, str] = {}

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class Invalid(DomainError):
    """An input that cannot be used; `field` names it."""

    status = 422
    code = "invalid_field"


class NotFound(DomainError):
    """Nothing of that name within this person's reach; whether it exists elsewhere is not told."""

    status = 404
    code = "not_found"


class Conflict(DomainError):
    """The present state does not allow it."""

    status = 409
    code = "conflict"


class Forbidden(DomainError):
    """The person's role or scope does not allow it; the message names the one that would."""

    status = 403
    code = "forbidden"


class Unauthenticated(DomainError):
    """Nobody is signed in, or not with these credentials."""

    status = 401
    code = "unauthenticated"


class Throttled(DomainError):
    """Too many failed attempts; `retry_after_s` tells when the next one counts."""

    status = 429
    code = "too_many_attempts"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.headers = {"Retry-After": str(retry_after_s)}


class Unavailable(DomainError):
    """A store that this needs does not answer; nothing was changed."""

    status = 503
    code = "unavailable"
