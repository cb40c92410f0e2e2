"""The same promises of credits on a real PostgreSQL."""

from __future__ import annotations

import pytest

from tests.workflows.test_credits import *  # noqa: F403

pytestmark = [pytest.mark.services, pytest.mark.both_databases]


@pytest.fixture
def database_url(lasting_postgres_url: str) -> str:
    return lasting_postgres_url
