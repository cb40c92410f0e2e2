"""The job `provider_lists`: it asks providers as often as the deployment's setting says, or never."""

from __future__ import annotations

import msgspec
import pytest
import redis
from flask import Flask

from app import current, store
from app.domain import providers
from app.extensions import transaction
from app.jobs import provider_lists
from app.workflows import model_lists
from tests.services.upstream import Upstream


def test_the_job_asks_those_that_are_due(inside: Flask, wire: redis.Redis, shared_upstream: Upstream) -> None:
    shared_upstream.reset()
    config = {"base_url": shared_upstream.url}
    id = transaction(providers.create, by=None, name="Asked", kind="vllm", config=config).id
    for _ in range(2):
        provider_lists.run()
    assert wire.hexists(store.MODEL_LISTS, id)
    assert [one.path for one in shared_upstream.requests] == ["/v1/models"]


def test_a_setting_switches_it_off(inside: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    config = current.config()
    off = msgspec.structs.replace(config, upstream=msgspec.structs.replace(config.upstream, list_every_s=0))
    monkeypatch.setattr(current, "config", lambda: off)
    monkeypatch.setattr(model_lists, "refresh", pytest.fail)
    provider_lists.run()
