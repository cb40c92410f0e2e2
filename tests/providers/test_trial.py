"""A try at a provider tells apart what went wrong."""

from __future__ import annotations

import pytest

from app.providers.base import UpstreamError
from app.providers.model_list import ListedModel
from app.providers.trial import try_out


def fails(**more: object) -> None:
    raise UpstreamError("no", **more)  # type: ignore[arg-type]


def test_a_list_alone_is_enough_where_no_model_is_named() -> None:
    told = try_out(lambda: (ListedModel("a"), ListedModel("b")), None)
    assert (told.result, told.models, told.detail) == ("ok", ("a", "b"), "The provider answers and offers 2 models.")
    assert try_out(lambda: None, None).detail == "The provider answers."
    assert try_out(lambda: fails(status=403), None).result == "auth_error"  # type: ignore[func-returns-value]


def test_a_call_tells_more_than_a_list_that_is_kept_from_the_key() -> None:
    told = try_out(lambda: fails(status=403), lambda: None)  # type: ignore[func-returns-value]
    assert (told.result, told.models) == ("ok", ())


@pytest.mark.parametrize(
    ("more", "verdict"),
    [
        ({"status": 401}, "auth_error"), ({"status": 404}, "model_not_found"), ({"timed_out": True}, "timeout"),
        ({"unreachable": True}, "connection_error"), ({"status": 500}, "bad_response"),
    ],
)  # fmt: skip
def test_a_failure_is_told_apart(more: dict[str, object], verdict: str) -> None:
    told = try_out(lambda: (ListedModel("a"),), lambda: fails(**more))
    assert (told.result, told.detail, told.models) == (verdict, "no", ("a",))


def test_a_provider_that_is_away_is_not_called() -> None:
    assert try_out(lambda: fails(unreachable=True), lambda: pytest.fail("called")).result == "connection_error"  # type: ignore[func-returns-value]
