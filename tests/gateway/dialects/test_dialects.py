"""A dialect is the name of a module, which loads when a path of it is first asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from app.gateway.dialects import dialect
from app.gateway.endpoints import ASKED


@pytest.mark.parametrize("endpoint", ASKED.values(), ids=list(ASKED))
def test_the_dialect_of_every_path_is_there_and_knows_its_own_name(endpoint):
    assert dialect(endpoint.dialect).name == endpoint.dialect
    assert dialect(endpoint.dialect) is dialect(endpoint.dialect)


def test_a_dialect_that_is_not_there_is_no_module():
    with pytest.raises(ModuleNotFoundError):
        dialect("klingon")


def test_a_dialect_loads_none_but_itself_and_what_it_imports():
    script = (
        "import sys; from app.gateway.dialects import dialect; dialect('rerank'); "
        "print([name for name in sys.modules if name.startswith('app.gateway.dialects.')])"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "dialects.rerank'" in told and "dialects.openai_chat" not in told
