"""The playground of models that do not chat, over real sockets: each is asked at its own path and booked as there."""

from __future__ import annotations

import io
from typing import Any

import pytest
from flask import Flask

from app.domain import providers
from app.domain.catalog import DeploymentSpec
from app.extensions import transaction
from app.workflows import publication
from tests.blueprints.portal.conftest import Browser, subscribe
from tests.blueprints.portal.test_playground import Visit, events
from tests.house import People, make_model, metered  # noqa: F401
from tests.page import read
from tests.services.sounds import wav
from tests.services.upstream import Answer, Upstream

CAPABILITIES = ["embeddings", "completions", "images", "speech", "transcription"]


@pytest.fixture
def owner(signed_in: Visit, people: People, metered: None, upstream: Upstream) -> Browser:  # noqa: F811
    """The owner, who may call `all`, a model of a scripted upstream."""
    config = {"base_url": upstream.url, "api_key": "sk-upstream"}
    provider = transaction(lambda: providers.create(by=people.admin, name="Upstream", kind="openai", config=config))
    deployments = [DeploymentSpec(provider_id=provider.id, upstream_model="up")]
    price = {
        "input_per_mtok": "1",
        "output_per_mtok": "1",
        "per_image": "1",
        "per_million_characters": "1",
        "per_audio_minute": "1",
    }
    model = transaction(make_model, None, "all", capabilities=CAPABILITIES, deployments=deployments, price=price)
    subscribe(people.owner, model)
    publication.publish_all()
    return signed_in("owner")


def test_embeddings_are_a_matrix_of_how_alike_texts_are(owner: Browser, app: Flask) -> None:
    page = read(owner.post("/playground/embeddings", choice="/all", text="one\r\none\r\ntwo words"))
    assert page.table().rows[0].name == "1. one"
    assert "1.00" in page.table().rows[0].cells.values()
    assert [event.endpoint for event in events(app)] == ["/v1/embeddings"]
    assert owner.post("/playground/embeddings", choice="/all", text="one").status_code == 422


def test_a_completion_is_text(owner: Browser, app: Flask) -> None:
    answer = owner.post("/playground/completions", choice="/all", text="Once <b>upon</b>", max_tokens="5")
    assert answer.status_code == 200 and "<b>upon" not in answer.text
    assert [(event.endpoint, event.agent) for event in events(app)] == [("/v1/completions", "portal")]
    assert owner.post("/playground/completions", choice="/all", text="a", max_tokens="x").status_code == 422


def test_pictures_are_shown_in_the_page(owner: Browser, upstream: Upstream) -> None:
    upstream.script("/v1/images/generations", Answer({"created": 1, "data": [{"b64_json": "AAAA"}]}))
    answer = owner.post("/playground/images", choice="/all", text="A fox")
    assert 'src="data:image/png;base64,AAAA"' in answer.text


def test_speech_is_played_and_its_page_alone_may_play(owner: Browser, upstream: Upstream) -> None:
    upstream.script("/v1/audio/speech", Answer(b"ID3\x04sound", content_type="audio/mpeg"))
    answer = owner.post("/playground/speech", choice="/all", text="Hello")
    assert "data:audio/mpeg;base64," in answer.text
    assert "media-src data:" in answer.headers["Content-Security-Policy"]
    assert "media-src" not in owner.get("/playground/images").headers["Content-Security-Policy"]


def test_a_sound_is_written_down(owner: Browser, upstream: Upstream, app: Flask) -> None:
    upstream.script("/v1/audio/transcriptions", Answer({"text": "Hello there"}))
    answer = owner.post("/playground/transcription", choice="/all", file=(io.BytesIO(wav()), "a.wav"))
    assert "Hello there" in answer.text, answer.text
    assert [event.endpoint for event in events(app)] == ["/v1/audio/transcriptions"]
    assert owner.post("/playground/transcription", choice="/all").status_code == 422


@pytest.mark.parametrize("kind", CAPABILITIES)
def test_a_model_that_one_cannot_call_leads_to_it(owner: Browser, kind: str) -> None:
    sent: dict[str, Any] = {"choice": "/other", "text": "a\nb"}
    if kind == "transcription":
        sent["file"] = (io.BytesIO(wav()), "a.wav")
    page = read(owner.post(f"/playground/{kind}", **sent))
    assert page.link("Subscribe").href == "/models/other?tab=access"
