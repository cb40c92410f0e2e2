"""The same promises of the search on a real PostgreSQL, whose indexes and whose small letters are others."""

import pytest

from tests.pages.test_search import *  # noqa: F403

pytestmark = [pytest.mark.services, pytest.mark.both_databases]


@pytest.fixture
def database_url(lasting_postgres_url: str) -> str:
    return lasting_postgres_url
