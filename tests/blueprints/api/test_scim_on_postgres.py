"""SCIM on a real PostgreSQL: names in any case, JSON that is not there, and unique external ids."""

import pytest

from tests.blueprints.api.test_scim import (  # noqa: F401
    config,
    directory,
    test_a_name_or_external_id_is_taken_once_by_a_local_account_too,
    test_a_person_is_made_found_changed_and_deleted,
    test_groups_are_teams,
)

pytestmark = [pytest.mark.services, pytest.mark.both_databases]


@pytest.fixture
def database_url(lasting_postgres_url: str) -> str:
    return lasting_postgres_url
