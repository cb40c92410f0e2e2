"""The same pages of teams, and their bill, on a real PostgreSQL: what it takes differently shows here."""

import pytest

from tests.blueprints.admin.test_teams import *  # noqa: F403
from tests.blueprints.portal.test_teams import *  # noqa: F403

pytestmark = [pytest.mark.services, pytest.mark.both_databases]


@pytest.fixture
def database_url(lasting_postgres_url: str) -> str:
    return lasting_postgres_url
