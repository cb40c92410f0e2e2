"""Models of the settings file are made at the start, once, at the server that it names."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain import catalog, providers
from app.domain.errors import Invalid
from app.extensions import db, transaction
from app.workflows import configured_models
from app.workflows.configured_models import address_of, settings_of
from config import ConfigError, ConfiguredModel


def about(host: str = "triton.example.com", **more: Any) -> ConfiguredModel:
    return ConfiguredModel(host=host, **more)


@pytest.mark.parametrize(
    ("model", "address"),
    [
        (about(), "grpc://triton.example.com:8001"),
        (about(port=8000), "http://triton.example.com:8000"),
        (about(type="http", port=9000), "http://triton.example.com:9000"),
        (about("grpcs://triton.example.com", port=443), "grpcs://triton.example.com:443"),
        (about("http://triton.example.com:80/"), "http://triton.example.com:80"),
        (about("[2001:db8::1]"), "grpc://[2001:db8::1]:8001"),
    ],
)
def test_the_address_says_which_transport(model: ConfiguredModel, address: str) -> None:
    assert address_of(model) == address


def test_arguments_are_settings_names_of_inputs_or_constants() -> None:
    model = about(
        args={"preset": "vllm", "prompt": "query", "temperature": 0.5, "beam_width": 1}, response={"text": "answer"}
    )
    assert settings_of(model) == {
        "preset": "vllm", "inputs": {"prompt": "query"}, "constants": {"temperature": 0.5, "beam_width": 1},
        "outputs": {"text": "answer"},
    }  # fmt: skip
    assert settings_of(about(response="answer")) == {"outputs": {"text": "answer"}}
    assert settings_of(about(type="embeddings", response="vector")) == {"outputs": {"embedding": "vector"}}


def test_models_of_one_server_share_its_provider_and_what_is_there_stays(inside: None) -> None:
    models = {"llama": about(), "e5": about(type="embeddings"), "plain": about(port=8000)}
    assert transaction(configured_models.ensure, models) == ["llama", "e5", "plain"]
    assert transaction(configured_models.ensure, models) == []
    made = db.session.scalars(providers.search(kind="triton")).all()
    assert sorted(one.name for one in made) == ["Triton triton.example.com:8000", "Triton triton.example.com:8001"]
    (deployment,) = catalog.model("e5").deployments
    assert deployment.upstream_model == "e5" and catalog.model("e5").capabilities == ["embeddings"]
    assert deployment.provider_id == catalog.model("llama").deployments[0].provider_id


def test_what_can_t_be_made_is_said_with_its_place(inside: None) -> None:
    for model, words in (
        (about("not a host"), "address"),
        (about(args={"preset": "nothing"}), "nothing"),
        (about(response={"speech": "x"}), "speech"),
    ):
        with pytest.raises(ConfigError, match=rf"models\.bad: .*{words}"):
            transaction(configured_models.ensure, {"bad": model})
        db.session.rollback()


def test_a_deployment_s_settings_are_judged_by_its_provider_s_adapter(inside: None) -> None:
    triton = transaction(
        providers.create, by=None, name="T", kind="triton", config={"base_url": "grpc://t.example:8001"}
    )
    for settings, place in (
        ({"inputs": {"nonsense": "x"}}, "settings"),
        ({"preset": "unheard of"}, "settings.preset"),
        ({"chat_template": "{% for"}, "settings"),
        ({"ask_model": False}, "settings"),
    ):
        spec = catalog.DeploymentSpec(provider_id=triton.id, upstream_model="m", settings=settings)
        with pytest.raises(Invalid) as refused:
            catalog.create_model(by=None, name="m", capabilities=["chat"], deployments=[spec])
        assert (refused.value.field or "").startswith(f"deployments[0].{place}")
        db.session.rollback()
