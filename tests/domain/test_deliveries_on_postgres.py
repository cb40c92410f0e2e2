"""The same deliveries and invitations on a real PostgreSQL: what it takes differently shows here."""

import pytest

from tests.domain.test_deliveries import *  # noqa: F403
from tests.domain.test_invitations import *  # noqa: F403

pytestmark = [pytest.mark.services, pytest.mark.both_databases]


@pytest.fixture
def database_url(lasting_postgres_url: str) -> str:
    return lasting_postgres_url
