"""The same people, keys, budgets, invitations, banner and deliveries on a real PostgreSQL: differences show here."""

import pytest

from tests.blueprints.admin.test_announcement import *  # noqa: F403
from tests.blueprints.admin.test_budgets import *  # noqa: F403
from tests.blueprints.admin.test_deliveries import *  # noqa: F403
from tests.blueprints.admin.test_invitations import *  # noqa: F403
from tests.blueprints.admin.test_keys import *  # noqa: F403
from tests.blueprints.admin.test_people import *  # noqa: F403

pytestmark = [pytest.mark.services, pytest.mark.both_databases]


@pytest.fixture
def database_url(lasting_postgres_url: str) -> str:
    return lasting_postgres_url
