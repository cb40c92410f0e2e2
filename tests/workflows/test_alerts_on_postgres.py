"""The same promises of alerts on a real PostgreSQL: whoever inserts first tells."""

from __future__ import annotations

import pytest

from tests.workflows.test_alerts import *  # noqa: F403

pytestmark = [pytest.mark.services, pytest.mark.both_databases]


@pytest.fixture
def database_url(lasting_postgres_url: str) -> str:
    return lasting_postgres_url
