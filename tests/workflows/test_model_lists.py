"""Lists of models: asked when they are due, kept, and forgotten with what they were asked with."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from app import clock, store
from app.domain import providers
from app.extensions import db, transaction
from app.providers import model_list
from app.workflows import model_lists
from app.workflows.model_lists import ModelList
from tests.house import People
from tests.services.upstream import CHAT, Answer, Behaviour, Raw, Upstream, failure

MODELS = "/v1/models"
MINUTE_MS = 60_000


@pytest.fixture
def upstream(shared_upstream: Upstream) -> Upstream:
    shared_upstream.reset()
    return shared_upstream


def make(upstream: Upstream, name: str = "Upstream", **values: Any) -> str:
    config = {"base_url": upstream.url, "api_key": "sk-upstream-0123456789abcdef", "timeout_s": 2}
    made = transaction(providers.create, by=None, name=name, kind="openai", config=config, **values)
    return made.id


def asked(upstream: Upstream) -> int:
    return sum(exchange.path == MODELS for exchange in upstream.requests)


def of(id: str, **how: Any) -> ModelList:
    return model_lists.of(providers.get(id), **how)


def known(id: str) -> ModelList | None:
    item = providers.get(id)
    return model_lists.known([item]).get(item.id)


def test_a_list_is_asked_once_and_kept(people: People, upstream: Upstream) -> None:
    id = make(upstream)
    for _ in range(3):
        assert [one.id for one in of(id).models] == ["large", "small"]
    assert asked(upstream) == 1
    assert of(id, anew=True).failures == 0 and asked(upstream) == 2


def test_an_old_list_is_asked_anew(people: People, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    id = make(upstream)
    of(id)
    now_ms = clock.now_ms()
    monkeypatch.setattr("app.clock.now_ns", lambda: (now_ms + model_lists.FRESH_MS) * 1_000_000)
    of(id)
    assert asked(upstream) == 2


def test_nothing_but_the_list_is_asked_for(people: People, upstream: Upstream) -> None:
    make(upstream)
    model_lists.refresh(every_s=300)
    assert [(one.method, one.path) for one in upstream.requests] == [("GET", MODELS)]
    assert not [one for one in upstream.requests if one.path == CHAT]


def test_each_active_provider_is_asked_when_it_is_due(
    people: People, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _, off = make(upstream), make(upstream, "Other"), make(upstream, "Off", status="disabled")
    assert (model_lists.refresh(every_s=300), asked(upstream)) == (2, 2)
    assert known(one) is not None and known(off) is None
    assert model_lists.refresh(every_s=300) == 0
    now_ms = clock.now_ms()
    monkeypatch.setattr("app.clock.now_ns", lambda: (now_ms + 5 * MINUTE_MS) * 1_000_000)
    assert model_lists.refresh(every_s=300) == 2


def test_failures_are_counted_and_the_last_list_stays(people: People, upstream: Upstream) -> None:
    id = make(upstream)
    since_ms = of(id).since_ms
    upstream.always(MODELS, failure(401, "Incorrect API key provided: sk-upstream-0123456789abcdef"))
    for failures in (1, 2, 3):
        found = of(id, anew=True)
        assert (found.failures, [one.id for one in found.models]) == (failures, ["large", "small"])
        assert "Incorrect API key" in found.reason and "0123456789" not in found.reason
        assert found.since_ms >= since_ms
    upstream.reset()
    recovered = of(id, anew=True)
    assert (recovered.failures, recovered.reason) == (0, "") and recovered.since_ms >= found.since_ms


HUGE = Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"[" + b" " * (model_list.MAX_BYTES + 1))


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (Answer(b"<html>Sign in</html>", content_type="text/html"), "can't be read"),
        (Answer({"data": [{"id": str(number)} for number in range(model_list.MOST + 1)]}), "more than 5000"),
        (HUGE, "too large"),
        (failure(503, "Overloaded"), "Overloaded"),
    ],
)
def test_a_bad_list_is_a_sentence(people: People, upstream: Upstream, said: Behaviour, word: str) -> None:
    upstream.always(MODELS, said)
    found = of(make(upstream))
    assert word in found.reason and not found.models and found.failures == 1


def test_a_provider_without_a_list_has_not_failed(people: People, upstream: Upstream) -> None:
    upstream.always(MODELS, failure(404, "Not Found"))
    found = of(make(upstream))
    assert (found.has_list, found.failures, found.models) == (False, 0, ())


def test_other_settings_have_another_list(people: People, upstream: Upstream) -> None:
    id = make(upstream)
    of(id)
    transaction(lambda: providers.update(providers.get(id), by=None, config={"base_url": upstream.url}))
    assert known(id) is None
    of(id)
    assert asked(upstream) == 2


def test_a_list_of_a_provider_that_is_gone_is_forgotten(people: People, upstream: Upstream, wire: redis.Redis) -> None:
    id = make(upstream)
    of(id)
    transaction(lambda: providers.remove(providers.get(id), by=None))
    model_lists.refresh(every_s=300)
    assert not wire.hexists(store.MODEL_LISTS, id)


def test_what_another_version_has_kept_is_asked_anew(people: People, upstream: Upstream, wire: redis.Redis) -> None:
    id = make(upstream)
    wire.hset(store.MODEL_LISTS, id, '{"odd": 1}')
    assert known(id) is None and len(of(id).models) == 2


def test_settings_that_no_longer_work_are_a_reason(
    people: People, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = make(upstream)
    providers.get(id).settings = {"base_url": "nowhere"}
    db.session.commit()
    found = of(id)
    assert found.failures == 1 and "address" in found.reason and not asked(upstream)
