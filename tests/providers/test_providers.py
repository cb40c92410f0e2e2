"""A kind of provider is a module or a row, found by its name."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest

from app import providers
from app.providers import UnknownKind, adapter, kinds
from app.providers.base import Adapter
from app.providers.openai_kinds import ROWS


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_gives_an_adapter_with_a_title_and_abilities(kind: str) -> None:
    found = adapter(kind)
    assert issubclass(found, Adapter) and found is adapter(kind)
    assert found.title and found.abilities


def test_a_row_is_a_kind_as_good_as_a_module_and_no_two_share_a_name() -> None:
    assert set(ROWS) < set(kinds()) and {"openai", "echo", "triton"} - set(ROWS) <= set(kinds())
    assert list(kinds()) == sorted(set(kinds()))


@pytest.mark.parametrize("kind", ["", "nothing", "base", "http", "sse", "../openai", "app.providers.openai"])
def test_what_is_no_kind_is_refused_with_those_that_there_are(kind: str) -> None:
    with pytest.raises(UnknownKind) as refused:
        adapter(kind)
    assert ", ".join(kinds()) in str(refused.value)


def test_naming_the_kinds_loads_none_of_them() -> None:
    script = "import sys; from app.providers import kinds; kinds(); print([n for n in sys.modules if 'triton' in n])"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60).stdout
    assert told == "[]\n"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package that brings the kind `mine`, and one of a name that is taken."""
    points = [EntryPoint(name, "app.providers.echo:ADAPTER", "portico.providers") for name in ("mine", "openai")]
    monkeypatch.setattr(providers, "entry_points", lambda *, group: points if group == "portico.providers" else [])
    caches = (providers.kinds, providers.adapter, providers._installed)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def test_an_installed_package_brings_a_kind_and_replaces_none(installed: None) -> None:
    assert "mine" in kinds()
    assert kinds().count("openai") == 1
    assert adapter("mine") is adapter("echo")
    assert adapter("openai").__module__ == "app.providers.openai"
