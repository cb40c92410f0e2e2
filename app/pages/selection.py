"""Several things of a list at once: each is done by itself, and has its own result."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from app.domain.errors import DomainError
from app.extensions import transaction

MOST = 100  # in one selection


class Item(NamedTuple):
    """One chosen thing, and where its page is."""

    id: str
    name: str
    href: str


class Result(NamedTuple):
    """What became of one: its error, or None if it was done."""

    item: Item
    error: str | None


def act_on_each(items: Iterable[Item], act: Callable[[str], object]) -> list[Result]:
    """Runs `act` with the id of each item, in a transaction of its own, so that one that is refused does not stop the others."""
    results = []
    for item in items:
        try:
            transaction(act, item.id)
        except DomainError as error:
            results.append(Result(item, error.message))
        else:
            results.append(Result(item, None))
    return results
