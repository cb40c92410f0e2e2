"""What is asked of a setting follows from its role, whatever it is called."""

from __future__ import annotations

from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from app import providers
from app.providers.settings import (
    ADDRESS,
    SECRET,
    SECRET_ENV,
    Settings,
    SettingsError,
    Variables,
    checked,
    fields_of,
    names_with,
)
from config import load

DEFAULT = Variables(load({}).upstream.env)


class Odd(Settings):
    """Settings of an adapter that calls them by other names."""

    place: Annotated[str, Meta(extra=ADDRESS)] = "https://host.example"
    ticket: Annotated[str | None, Meta(extra=SECRET)] = None
    ticket_env: Annotated[str | None, Meta(extra=SECRET_ENV)] = None


@pytest.mark.parametrize(
    ("name", "value"),
    [("place", "https://host.example/\r\n"), ("ticket", "a\nb"), ("ticket", " a"), ("ticket_env", "HOME")],
)
def test_a_setting_is_judged_by_its_role(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        checked(Odd, {name: value}, DEFAULT)
    assert refused.value.field == name


@given(st.text(max_size=20))
def test_a_secret_that_is_taken_is_one_line_of_printable_ascii(text: str) -> None:
    try:
        checked(Odd, {"ticket": text}, DEFAULT)
    except SettingsError:
        assert not (text.isascii() and text.isprintable() and text == text.strip())
    else:
        assert text.isascii() and text.isprintable()


@pytest.mark.parametrize("kind", providers.kinds())
def test_every_adapter_tells_the_roles_of_its_settings(kind: str) -> None:
    settings = providers.adapter(kind).Settings
    names = {field.name for field in fields_of(settings)}
    assert {name for name in names if "url" in name} == set(names_with(settings, "address"))
    assert {name for name in names if name.endswith("_env")} == set(names_with(settings, "secret_env"))
    for name in names_with(settings, "secret_env"):
        assert name.removesuffix("_env") in names_with(settings, "secret")


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY",
        "MY_PROVIDER_KEY",
        "PORTICO_UPSTREAM_KEY",
        "HF_TOKEN",
        "UPSTREAM_SECRET",
        "UPSTREAM_SECRET_KEY",
        "LITELLM_MASTER_KEY",
    ],
)
def test_names_of_upstreams_keys_are_allowed_by_default(name: str) -> None:
    assert DEFAULT.allow(name)


@pytest.mark.parametrize(
    "name",
    ["HOME", "AWS_SESSION_TOKEN", "GITHUB_TOKEN", "GH_TOKEN", "CI_JOB_TOKEN", "PGPASSWORD", "PGSSLKEY", "DB_KEY", "SECRET_KEY",
     "DJANGO_SECRET_KEY", "TLS_PRIVATE_KEY", "JWT_SIGNING_KEY", "CONFIG_UPSTREAM_KEY", "Config_Upstream_Key", "REDIS_KEY"],
)  # fmt: skip
def test_secrets_of_other_programs_are_not_allowed_by_default(name: str) -> None:
    assert not DEFAULT.allow(name)


def test_the_operator_narrows_and_widens_what_can_be_named() -> None:
    variables = Variables(["LLM_*", "GITHUB_TOKEN", "CONFIG_SECURITY_KEY_PEPPER"])
    assert variables.allow("LLM_ANY") and variables.allow("GITHUB_TOKEN")
    assert not variables.allow("OPENAI_API_KEY")
    assert not variables.allow("CONFIG_SECURITY_KEY_PEPPER")
    assert not Variables([]).allow("OPENAI_API_KEY")
    assert not Variables(["G*"]).allow("GITHUB_TOKEN")
