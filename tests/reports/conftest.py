"""Reports are read from books that stand alone."""

from tests.ledger.conftest import ledger  # noqa: F401
