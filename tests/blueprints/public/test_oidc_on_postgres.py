"""Signing in with an identity provider on a real PostgreSQL."""

import pytest

from tests.blueprints.public.test_oidc import (  # noqa: F401
    config,
    issuer,
    running,
    test_a_new_person_is_led_to_the_provider_and_back_to_the_page,
    test_what_the_provider_gave_goes_when_it_gives_it_no_more,
)

pytestmark = [pytest.mark.services, pytest.mark.both_databases]


@pytest.fixture
def database_url(lasting_postgres_url: str) -> str:
    return lasting_postgres_url
