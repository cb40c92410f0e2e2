"""A kind that speaks OpenAI's format is a row, and all that holds for OpenAI holds for it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from app import providers
from app.providers.addresses import AddressPolicy
from app.providers.openai import OpenAI
from app.providers.openai_kinds import ROWS, OpenAIKind
from app.providers.settings import Role, SettingsError, Variables, checked, names_with
from tests.providers.more_kinds import more_kinds
from tests.services.upstream import Upstream

POLICY = AddressPolicy(allow_private=True)


@pytest.mark.parametrize("kind", ROWS)
def test_a_row_is_a_kind_with_its_own_defaults(kind: str) -> None:
    adapter = providers.adapter(kind)
    assert providers.adapter(kind) is adapter and issubclass(adapter, OpenAI)
    settings = checked(adapter.Settings, {}, Variables(()))
    assert (adapter.title, settings.base_url, settings.output_limit_field) == ROWS[kind]
    roles = {role: names_with(adapter.Settings, role) for role in get_args(Role)}
    assert roles == {"address": ("base_url",), "secret": ("api_key",), "secret_env": ("api_key_env",)}
    with pytest.raises(SettingsError):
        checked(adapter.Settings, {"colour": "red"}, Variables(()))


def test_a_new_row_is_a_new_kind(monkeypatch: pytest.MonkeyPatch, upstream: Upstream) -> None:
    monkeypatch.setitem(ROWS, "nearby", OpenAIKind("Near by", upstream.url, "max_completion_tokens"))
    with more_kinds():  # they are looked for again
        assert "nearby" in providers.kinds()
        adapter = providers.adapter("nearby")
        with contextlib.closing(adapter(adapter.Settings(api_key="sk-nearby"), policy=POLICY)) as made:
            assert made.check(model=None, prompt=None, parameters={}).models == ("small", "large")
    assert upstream.last.headers["authorization"] == "Bearer sk-nearby"
    assert repr(made.settings).startswith("NearbySettings(")


def test_every_kind_has_one_name_and_one_title() -> None:
    with more_kinds():
        kinds = providers.kinds()
        assert len({providers.adapter(kind).title for kind in kinds}) == len(set(kinds)) == len(kinds)


def test_an_unknown_kind_names_those_there_are() -> None:
    with pytest.raises(providers.UnknownKind, match=r"unknown provider 'carrier pigeon'; known are echo, groq"):
        providers.adapter("carrier pigeon")


def test_kinds_are_listed_without_loading_an_adapter() -> None:
    script = "import sys; from app import providers; providers.kinds(); print('app.providers.openai' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "False"
