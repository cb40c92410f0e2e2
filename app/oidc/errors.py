"""Why a sign-in at the identity provider gave nothing. Each has a word for the audit log and a sentence for people."""

from __future__ import annotations


class SignInFailed(Exception):
    """A sign-in is refused: what came back is wrong, used up, or not meant for us."""

    status = 400

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.message = message


class ProviderFailed(SignInFailed):
    """The identity provider can't be reached, or answers what nobody can read."""

    status = 502
