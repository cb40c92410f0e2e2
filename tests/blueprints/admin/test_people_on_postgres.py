"""The same people, invitations, banner and deliveries on a real PostgreSQL: what it takes differently shows here."""

import pytest

from tests.blueprints.admin.test_announcement import *  # noqa: F403
from tests.blueprints.admin.test_deliveries import *  # noqa: F403
from tests.blueprints.admin.test_invitations import *  # noqa: F403
from tests.blueprints.admin.test_people import *  # noqa: F403

pytestmark = pytest.mark.services


@pytest.fixture
def database_url(lasting_postgres_url: str) -> str:
    return lasting_postgres_url
