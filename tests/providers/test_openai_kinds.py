"""A kind that speaks OpenAI's format is a row, and all that holds for OpenAI holds for it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from app import providers
from app.providers.addresses import AddressPolicy
from app.providers.openai import OpenAI, shape_of
from app.providers.openai_kinds import ROWS, OpenAIKind
from app.providers.settings import Role, SettingsError, Variables, checked, fields_of, names_with
from tests.providers.more_kinds import more_kinds
from tests.services.upstream import Upstream

POLICY = AddressPolicy(allow_private=True)


GIVEN = {kind: {} if row.base_url else {"base_url": "https://models.example.com/v1"} for kind, row in ROWS.items()}


@pytest.mark.parametrize("kind", ROWS)
def test_a_row_is_a_kind_with_its_own_defaults(kind: str) -> None:
    adapter, row = providers.adapter(kind), ROWS[kind]
    assert providers.adapter(kind) is adapter and issubclass(adapter, OpenAI)
    settings = checked(adapter.Settings, GIVEN[kind], Variables(()))
    assert (adapter.title, settings.output_limit_field) == (row.title, row.output_limit_field)
    assert settings.base_url == GIVEN[kind].get("base_url", row.base_url)
    assert shape_of(settings, row).auth == row.auth
    roles = {role: names_with(adapter.Settings, role) for role in get_args(Role)}
    assert roles == {"address": ("base_url",), "secret": ("api_key",), "secret_env": ("api_key_env",)}
    with pytest.raises(SettingsError):
        checked(adapter.Settings, GIVEN[kind] | {"colour": "red"}, Variables(()))


@pytest.mark.parametrize("kind", ROWS)
def test_a_form_asks_for_the_address_first(kind: str) -> None:
    assert fields_of(providers.adapter(kind).Settings)[0].name == "base_url"


def test_the_kinds_of_the_contract_are_there() -> None:
    contract = {
        "openai",
        "azure",
        "groq",
        "mistral",
        "deepseek",
        "openrouter",
        "huggingface",
        "ollama",
        "vllm",
        "litellm",
    }
    assert contract | {"other"} <= set(providers.kinds())


def test_a_kind_without_a_usual_address_needs_one() -> None:
    for kind in ("azure", "other"):
        with pytest.raises(SettingsError) as refused:
            checked(providers.adapter(kind).Settings, {}, Variables(()))
        assert refused.value.field == "base_url"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("auth", "digest"),
        ("auth_header", "x key"),
        ("auth_header", "x-key\n"),
        ("auth_header", "x" * 101),
        ("username", "ada:lovelace"),
        ("username", "ada\r\nhost: else"),
        ("headers", {"x-one": "two\nthree"}),
        ("headers", {"x-one": "zwei ä"}),
        ("headers", {"x-one": "v" * 501}),
        ("headers", {"x one": "two"}),
        ("headers", {"Host": "elsewhere"}),
        ("headers", {"authorization": "Bearer in the clear"}),
        ("headers", {f"x-{number}": "v" for number in range(21)}),
        ("query", {"a&b": "c"}),
        ("query", {"a": "c\nd"}),
        ("query", ["a"]),
        ("path", "/deployments/{model}"),
        ("path", "/../{path}?x"),
        ("path", "/a b{path}"),
        ("list_path", "//models"),
        ("list_path", "models"),
        ("rename", {"model": "engine"}),
        ("rename", {"seed": "random seed"}),
        ("rename", {"user": "model"}),
        ("rename", {"seed": "max_tokens"}),
        ("drop", ["messages"]),
        ("drop", ["max_tokens"]),
        ("drop", "user"),
    ],
)
def test_a_setting_that_would_make_another_request_is_refused(setting: str, value: Any) -> None:
    with pytest.raises(SettingsError) as refused:
        checked(providers.adapter("other").Settings, GIVEN["other"] | {setting: value}, Variables(()))
    assert refused.value.field == setting


def test_an_output_limit_may_have_another_name() -> None:
    given = GIVEN["other"] | {"rename": {"max_tokens": "max_new_tokens"}}
    assert checked(providers.adapter("other").Settings, given, Variables(())).rename == given["rename"]


@pytest.mark.parametrize(
    ("base_url", "version", "call", "models"),
    [
        ("https://a.openai.azure.com/openai/v1", "", "/chat/completions", "/models"),
        ("https://a.openai.azure.com/openai/v1/", "preview", "/chat/completions", "/models"),
        ("https://a.openai.azure.com", "2024-10-21", "/openai/deployments/{model}/chat/completions", "/openai/models"),
        ("https://a.example.com/openai", "", "/deployments/{model}/chat/completions", "/models"),
    ],
)
def test_azure_has_the_interface_of_its_address(base_url: str, version: str, call: str, models: str) -> None:
    settings = checked(
        providers.adapter("azure").Settings, {"base_url": base_url, "api_version": version}, Variables(())
    )
    shape = shape_of(settings, ROWS["azure"])
    assert (shape.path.replace("{path}", "/chat/completions"), shape.list_path) == (call, models)
    is_newer = "v1" in base_url
    assert shape.query.get("api-version") == (version or (None if is_newer else "2024-10-21"))


def test_a_new_row_is_a_new_kind(monkeypatch: pytest.MonkeyPatch, upstream: Upstream) -> None:
    monkeypatch.setitem(ROWS, "nearby", OpenAIKind("Near by", upstream.url, "max_completion_tokens"))
    with more_kinds():  # they are looked for again
        assert "nearby" in providers.kinds()
        adapter = providers.adapter("nearby")
        with contextlib.closing(adapter(adapter.Settings(api_key="sk-nearby"), policy=POLICY)) as made:
            assert made.check(model=None, prompt=None, parameters={}).models == ("large", "small")
    assert upstream.last.headers["authorization"] == "Bearer sk-nearby"
    assert repr(made.settings).startswith("NearbySettings(")


def test_every_kind_has_one_name_and_one_title() -> None:
    with more_kinds():
        kinds = providers.kinds()
        assert len({providers.adapter(kind).title for kind in kinds}) == len(set(kinds)) == len(kinds)


def test_an_unknown_kind_names_those_there_are() -> None:
    with pytest.raises(providers.UnknownKind, match=r"unknown provider 'carrier pigeon'; known are anthropic, azure"):
        providers.adapter("carrier pigeon")


def test_kinds_are_listed_without_loading_an_adapter() -> None:
    script = "import sys; from app import providers; providers.kinds(); print('app.providers.openai' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "False"
