"""The failure of an attempt tells what may be shown, and no more."""

from __future__ import annotations

from app.providers.errors import UpstreamError


def test_a_failure_reads_as_its_message() -> None:
    failed = UpstreamError("The provider can't be reached.", unreachable=True)
    assert str(failed) == failed.message == "The provider can't be reached."
    assert (failed.status, failed.refused, failed.timed_out, failed.retry_after_s) == (None, False, False, None)
