"""What PostgreSQL itself may take amiss, such as NUL characters in texts: those that are marked `both_databases`."""

import pytest

from tests.blueprints.api.test_hostile_bodies import *  # noqa: F403

pytestmark = [pytest.mark.services, pytest.mark.slow]


@pytest.fixture
def database_url(lasting_postgres_url: str) -> str:
    return lasting_postgres_url
