"""How an attempt at an upstream fails."""

from __future__ import annotations


class UpstreamError(Exception):
    """An attempt that failed.

    `status` is the upstream's HTTP status, None when there was none; `message` is safe to show, addresses and
    secrets removed; `refused` says that the upstream judged this very request, so that no other would take it;
    `unconnected` that there was no connection on which to ask; `original` is a dialect and the error as the upstream wrote it
    in that, if it is safe to show.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        refused: bool = False,
        timed_out: bool = False,
        unreachable: bool = False,
        unconnected: bool = False,
        retry_after_s: float | None = None,
        param: str | None = None,
        code: str | None = None,
        original: tuple[str, bytes] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.refused = refused
        self.timed_out = timed_out
        self.unreachable = unreachable
        self.unconnected = unconnected or unreachable
        self.retry_after_s = retry_after_s
        self.param = param
        self.code = code
        self.original = original
