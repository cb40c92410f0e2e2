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
    Settings,
    SettingsError,
    Variables,
    address,
    checked,
    fields_of,
    names_with,
    origins_of,
    other_forms,
    secret_env,
)
from app.runtime.logs import masked
from config import load

DEFAULT = Variables(load({}).upstream.env)


class Odd(Settings):
    """Settings of an adapter that calls them by other names."""

    place: Annotated[str, Meta(extra=ADDRESS)] = "https://host.example"
    ticket: Annotated[str | None, Meta(extra=SECRET)] = None
    variable: Annotated[str | None, Meta(extra=secret_env("ticket"))] = None
    tunnel: Annotated[str | None, Meta(extra=address("grpcs", "grpc"))] = None

    def __post_init__(self) -> None:
        if self.ticket == "used up":
            raise SettingsError("ticket", f"{self.ticket} is no ticket")
        if self.ticket == "torn":
            raise ValueError(f"{self.ticket} can't be read")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("place", "https://host.example/\r\n"),
        ("ticket", "a\nb"),
        ("ticket", " a"),
        ("variable", "HOME"),
        ("tunnel", "http://host:1"),
        ("tunnel", "grpc://host"),
        ("place", "grpc://host:1"),
    ],
)
def test_a_setting_is_judged_by_its_role(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        checked(Odd, {name: value}, DEFAULT)
    assert refused.value.field == name


def test_a_secret_is_told_neither_by_a_refusal_nor_in_a_log() -> None:
    for ticket in ("used up", "torn"):
        with pytest.raises(SettingsError) as refused:
            checked(Odd, {"ticket": ticket}, DEFAULT)
        assert ticket not in str(refused.value) and str(refused.value)
    kept = checked(Odd, {"ticket": "plain words of a ticket"}, DEFAULT)
    assert kept.ticket == "plain words of a ticket"
    told = str(masked({"settings": kept})) + repr(kept) + f"{kept}"
    assert "plain words" not in told and "https://host.example" in told


def test_secrets_are_given_in_the_clear_wherever_they_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "from afar")
    assert checked(Odd, {"ticket": "here"}, DEFAULT).secrets() == ("here",)
    assert checked(Odd, {"variable": "SOME_KEY"}, DEFAULT).secrets() == ("from afar",)
    assert checked(Odd, {"variable": "OTHER_KEY"}, DEFAULT).secrets() == checked(Odd, {}, DEFAULT).secrets() == ()


def test_origins_are_those_of_every_address_with_its_default() -> None:
    def told(**values: str) -> dict[str, str]:
        return {name: f"{at.scheme}://{at.host}:{at.port}" for name, at in origins_of(Odd, values).items()}

    assert told() == {"place": "https://host.example:443"}
    assert told(place="http://a/x", tunnel="grpcs://b") == {"place": "http://a:80", "tunnel": "grpcs://b:443"}
    assert told(place="nonsense", tunnel="grpc://b") == {}


def test_a_secret_and_its_variable_stand_for_each_other() -> None:
    assert other_forms(Odd) == {"variable": ("ticket",), "ticket": ("variable",)}


class OfNothing(Settings):
    variable: Annotated[str | None, Meta(extra=secret_env("ticket"))] = None


class Several(Settings):
    places: Annotated[list[str], Meta(extra=ADDRESS)] = []


class Misspelt(Settings):
    ticket: Annotated[str | None, Meta(extra={"role": "secrt"})] = None


class Unreachable(Settings):
    place: Annotated[str, Meta(extra=address("gopher"))] = "gopher://host"


@pytest.mark.parametrize("settings", [OfNothing, Several, Misspelt, Unreachable])
def test_a_role_that_could_not_be_kept_is_refused_at_once(settings: type[Settings]) -> None:
    with pytest.raises(TypeError, match=settings.__name__):
        fields_of(settings)


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
