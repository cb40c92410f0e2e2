from __future__ import annotations

from typing import Any

import pytest

from app.jobs import litellm
from app.workflows import litellm_sync


@pytest.mark.parametrize(("job", "verb"), [("make_plan", "make_plan"), ("go_on", "go_on")])
def test_jobs_only_forward(app: Any, monkeypatch: pytest.MonkeyPatch, job: str, verb: str) -> None:
    seen: list[str] = []
    monkeypatch.setattr(litellm_sync, verb, seen.append)
    with app.app_context():
        getattr(litellm, job)("an id")
    assert seen == ["an id"]


def test_nothing_is_due_without_a_connection(app: Any) -> None:
    with app.app_context():
        litellm.run()
