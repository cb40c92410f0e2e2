"""The same promises on a real PostgreSQL: what it takes differently shows here."""

import pytest

from tests.blueprints.api.test_teams import *  # noqa: F403
from tests.blueprints.api.test_tokens import *  # noqa: F403
from tests.blueprints.api.test_usage import *  # noqa: F403
from tests.blueprints.api.test_users_and_budgets import *  # noqa: F403
from tests.blueprints.api.test_whole_path import *  # noqa: F403

pytestmark = [pytest.mark.services, pytest.mark.both_databases]


@pytest.fixture
def database_url(lasting_postgres_url: str) -> str:
    return lasting_postgres_url
