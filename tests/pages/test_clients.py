"""Each client's block is read in its own syntax, with names that would break a careless one."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain import names
from app.domain.catalog import MODEL_NAME
from app.pages.clients import BY_ID, CLIENTS, Choice, Setup
from app.runtime.agents import AGENTS

MODEL = Choice("vendor/large:2", ("chat",), 128_000, 16_384)
SMALL = Choice("small", ("chat",))
SETUP = Setup(MODEL, SMALL, "my laptop")
SHOWN = SETUP._replace(secret="sk-shown")


@pytest.fixture(autouse=True)
def asked(app: Flask) -> Iterator[None]:
    with app.test_request_context("/"):
        yield


def text(id: str, setup: Setup = SETUP) -> str:
    return BY_ID[id].panes(setup)[0].code


def exported(script: str) -> dict[str, str]:
    words = shlex.split(script, comments=True)
    return dict(word.split("=", 1) for word in words if word != "export")


def test_the_clients_are_those_that_programs_may_rely_on() -> None:
    assert list(BY_ID) == [
        "claude-code", "codex", "opencode", "cline", "continue", "openai-python", "anthropic-python", "langchain", "curl",
    ]  # fmt: skip
    recognised = {agent for client in CLIENTS for agent in client.agents}
    assert recognised == {*AGENTS, None}, "every client that is recognised belongs to a row"


@pytest.mark.parametrize("id", list(BY_ID))
def test_a_block_names_the_key_and_reads_its_secret_from_the_environment(id: str) -> None:
    block = text(id)
    assert "my laptop" in block and "vendor/large:2" in block and "PORTICO_API_KEY" in block
    assert "http://localhost" in block
    assert ("http://localhost/v1" in block) is (id not in ("claude-code", "anthropic-python"))
    assert "one of your keys" in text(id, SETUP._replace(key_name=None)) or id == "opencode"


@pytest.mark.parametrize("id", list(BY_ID))
def test_a_block_holds_the_secret_where_it_is_shown_once(id: str) -> None:
    for pane in BY_ID[id].panes(SHOWN):
        assert "sk-shown" in pane.code and "PORTICO_API_KEY" not in pane.code


def test_claude_code_gets_big_and_small_models_and_both_limits() -> None:
    assert exported(text("claude-code")) == {
        "ANTHROPIC_BASE_URL": "http://localhost", "ANTHROPIC_AUTH_TOKEN": "$PORTICO_API_KEY",
        "ANTHROPIC_MODEL": "vendor/large:2", "ANTHROPIC_DEFAULT_OPUS_MODEL": "vendor/large:2",
        "ANTHROPIC_DEFAULT_SONNET_MODEL": "vendor/large:2", "ANTHROPIC_DEFAULT_HAIKU_MODEL": "small",
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": "128000", "CLAUDE_CODE_MAX_OUTPUT_TOKENS": "16384",
    }  # fmt: skip
    assert "CLAUDE_CODE_MAX_CONTEXT_TOKENS" not in text("claude-code", SETUP._replace(model=SMALL))


def test_codex_speaks_responses_over_http_with_the_key_in_its_variable() -> None:
    assert tomllib.loads(text("codex")) == {
        "model": "vendor/large:2", "model_provider": "portico", "model_context_window": 128_000,
        "model_providers": {
            "portico": {
                "name": "Portico", "base_url": "http://localhost/v1", "env_key": "PORTICO_API_KEY",
                "wire_api": "responses", "supports_websockets": False,
            }
        },
    }  # fmt: skip
    shown = tomllib.loads(text("codex", SHOWN))["model_providers"]["portico"]
    assert shown["http_headers"] == {"Authorization": "Bearer sk-shown"} and "env_key" not in shown
    assert "model_context_window" not in tomllib.loads(text("codex", SETUP._replace(model=SMALL)))


def test_opencode_knows_both_models_and_the_limits_that_are_known() -> None:
    told = json.loads(text("opencode"))
    assert (told["model"], told["small_model"]) == ("portico/vendor/large:2", "portico/small")
    provider = told["provider"]["portico"]
    assert provider["name"] == "Portico (my laptop)"
    assert provider["options"] == {"baseURL": "http://localhost/v1", "apiKey": "{env:PORTICO_API_KEY}"}
    assert provider["models"] == {
        "vendor/large:2": {"limit": {"context": 128_000, "output": 16_384}}, "small": {},
    }  # fmt: skip


def test_cline_is_set_up_by_one_command() -> None:
    assert shlex.split(text("cline"), comments=True) == [
        "cline", "auth", "-p", "openai-compatible", "-k", "$PORTICO_API_KEY", "-m", "vendor/large:2",
        "-b", "http://localhost/v1",
    ]  # fmt: skip


def test_continue_gets_the_model_with_its_limits() -> None:
    def model(setup: Setup) -> dict[str, Any]:
        [found] = yaml.safe_load(text("continue", setup))["models"]
        return dict(found)

    assert model(SETUP) == {
        "name": "vendor/large:2", "provider": "openai", "model": "vendor/large:2", "apiBase": "http://localhost/v1",
        "apiKey": "${{ secrets.PORTICO_API_KEY }}", "roles": ["chat", "edit", "apply"],
        "defaultCompletionOptions": {"contextLength": 128_000, "maxTokens": 16_384},
    }  # fmt: skip
    assert "defaultCompletionOptions" not in model(SETUP._replace(model=SMALL))


@pytest.mark.parametrize("id", ["openai-python", "anthropic-python", "langchain"])
@pytest.mark.parametrize("setup", [SETUP, SHOWN])
def test_the_code_of_sdks_is_python(id: str, setup: Setup) -> None:
    compile(text(id, setup), id, "exec")


def test_the_openai_sdk_comes_in_two_languages() -> None:
    python, javascript = BY_ID["openai-python"].panes(SETUP)
    assert (python.language, javascript.language) == ("python", "javascript")
    assert javascript.code.startswith("// $PORTICO_API_KEY")


def test_a_client_that_chats_has_no_block_for_a_model_that_does_not() -> None:
    vectors = Choice("vectors", ("embeddings",))
    setup = SETUP._replace(model=vectors)
    assert {client.id for client in CLIENTS if client.panes(setup)} == {"openai-python", "langchain", "curl"}
    assert "embeddings" in text("curl", setup)
    assert BY_ID["curl"].capability(vectors) == "embeddings" and BY_ID["codex"].capability(vectors) == "chat"


def _is_name(name: str) -> bool:
    try:
        return names.checked(name) == name
    except names.Invalid:
        return False


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # which the examples only read
@given(key_name=st.text(max_size=60).filter(_is_name), model=st.from_regex(MODEL_NAME, fullmatch=True))
def test_no_name_breaks_out_of_its_place(app: Flask, key_name: str, model: str) -> None:
    setup = Setup(Choice(model, ("chat",), 1, 1), Choice(model, ("chat",)), key_name)
    with app.test_request_context("/"):
        assert exported(text("claude-code", setup))["ANTHROPIC_MODEL"] == model
        assert tomllib.loads(text("codex", setup))["model"] == model
        assert json.loads(text("opencode", setup))["provider"]["portico"]["name"] == f"Portico ({key_name})"
        assert shlex.split(text("cline", setup), comments=True)[7] == model
        assert yaml.safe_load(text("continue", setup))["models"][0]["model"] == model
        for id in ("openai-python", "anthropic-python", "langchain"):
            compile(text(id, setup), id, "exec")
