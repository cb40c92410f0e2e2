"""The one table of /v1, and where a client is led who asks for a path that is not quite in it."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.directory import KeyScope
from app.gateway.endpoints import ASKED, ENDPOINTS, TABLE, is_without_v1, meant_by

PATHS = st.sampled_from([endpoint.path for endpoint in TABLE])


def test_every_row_is_found_by_its_name_and_by_its_path() -> None:
    assert len(ENDPOINTS) == len(TABLE) == len({endpoint.path for endpoint in TABLE})
    assert all((endpoint.capability is None) is (endpoint.dialect is None) for endpoint in TABLE)
    assert {path: one for path, one in ASKED.items() if one.path != path or one.dialect is None} == {}


def test_every_scope_of_a_key_opens_something_and_no_path_needs_another() -> None:
    assert {endpoint.scope for endpoint in TABLE} == set(get_args(KeyScope))


@given(PATHS, st.integers(0, 3), st.integers(1, 3), st.integers(0, 2))
def test_too_many_slashes_and_a_v1_too_many_or_too_few_lead_to_the_path_that_is_meant(
    path: str, times: int, slashes: int, after: int
) -> None:
    parts = ["v1"] * times + path.removeprefix("/v1/").split("/")
    asked = "".join("/" * slashes + part for part in parts) + "/" * after
    assert meant_by(asked) == path
    assert meant_by(meant_by(asked)) == path


@given(PATHS)
def test_a_path_without_v1_is_a_clients_and_one_below_v1_is_not_without_it(path: str) -> None:
    assert is_without_v1(path.removeprefix("/v1"), by_a_client=True)
    assert is_without_v1("/" + path, by_a_client=False)
    assert not is_without_v1(path, by_a_client=True)


@pytest.mark.parametrize(
    ("path", "client", "browser"),
    [
        ("/models", True, False), ("/models/a/b", True, False), ("/modelsx", False, False), ("/keys", False, False),
        ("/", False, False), ("//keys", False, False), ("///v1", True, True), ("//v1x", False, False),
        ("/key/info", True, True), ("/api/v1/key", True, True), ("/api/v1/keys", False, False),
        ("//chat/completions", True, True),
    ],
)  # fmt: skip
def test_pages_of_the_portal_stay_its_own(path: str, client: bool, browser: bool) -> None:
    assert is_without_v1(path, by_a_client=True) is client
    assert is_without_v1(path, by_a_client=False) is browser
