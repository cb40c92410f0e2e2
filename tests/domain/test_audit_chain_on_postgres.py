"""The same promises of the audit log's chain on a real PostgreSQL, whose writers do run at the same time."""

import pytest

from app.domain import audit, identity
from app.extensions import transaction, transaction_if
from tests.domain.test_audit_chain import *  # noqa: F403
from tests.domain.test_audit_chain import assert_writers_share_the_chain

pytestmark = [pytest.mark.services, pytest.mark.both_databases]


@pytest.fixture
def database_url(lasting_postgres_url: str) -> str:
    return lasting_postgres_url


def test_writers_that_ask_for_serializable_transactions_share_it_too(app, people, monkeypatch) -> None:
    def serializable(work, *args, **kwargs):
        return transaction_if(lambda: identity.find("admin"), work, *args, **kwargs)

    monkeypatch.setattr("tests.domain.test_audit_chain.transaction", serializable)
    assert_writers_share_the_chain(app, people)
    assert transaction(audit.record, None, "thing.act", "thing", "1").position
