"""Writers at the same moment on a real PostgreSQL, which has more than one at a time."""

import pytest

from tests.blueprints.api.test_versions import (  # noqa: F401
    admin,
    ids,
    test_of_programs_that_change_the_same_version_at_the_same_moment_one_wins,
)

pytestmark = [pytest.mark.services, pytest.mark.both_databases]


@pytest.fixture
def database_url(lasting_postgres_url: str) -> str:
    return lasting_postgres_url
