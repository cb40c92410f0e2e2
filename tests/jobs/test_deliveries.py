"""The job `deliveries` is found by its name, as it stands in the queue, and sends what that names."""

from __future__ import annotations

import pytest
from flask import Flask

from app.domain import deliveries as verbs
from app.jobs import deliveries


def test_a_letter_is_sent_by_the_verb(ledger: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(verbs, "send", sent.append)
    deliveries.send("one")
    assert sent == ["one"]


def test_what_fails_is_told_to_the_queue(ledger: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(id: str) -> None:
        raise verbs.Undelivered("no")

    monkeypatch.setattr(verbs, "send", fail)
    with pytest.raises(verbs.Undelivered):
        deliveries.send("one")
