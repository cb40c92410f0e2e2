"""`config apply`, as an operator gives it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.house import People


def test_config_apply_brings_the_state_to_a_file_once(
    people: People,
    run: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "portico.yml"
    file.write_text("portico: 1\nproviders: [{name: Echo, provider: echo}]\nmodels: [{name: small}]\n")
    assert run("config", "apply", "--file", str(file), "--dry-run") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "It would be: 2 created, 0 updated, 0 deleted."
    assert run("config", "apply", "--file", str(file)) == 0
    assert capsys.readouterr().out.splitlines()[0] == "create provider Echo"
    assert run("config", "apply", "--file", str(file)) == 0
    assert capsys.readouterr().out == "Done: nothing to change.\n"
    file.write_text(
        "portico: 1\nmodels: [{name: small, status: hidden}]\nproviders: [{name: New, provider: openai, secrets: [api_key]}]"
    )
    assert run("config", "apply", "--file", str(file), "--prune") == 0
    said = capsys.readouterr().out.splitlines()
    assert '  status: "active" -> "hidden"' in said
    assert "New is disabled until somebody enters its api_key" in said
    assert said[-1] == "Done: 1 created, 1 updated, 1 deleted."


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("portico: 2", "config.portico: "),
        ("{", "cannot be read"),
        ("portico: 1\nmodels: [{name: a b}]", "config.models[0].name: "),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(
    people: People,
    run: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    document: str,
    reason: str,
) -> None:
    file = tmp_path / "portico.json"
    file.write_text(document)
    assert run("config", "apply", "--file", str(file)) == 2
    assert reason in capsys.readouterr().out
    assert run("config", "apply", "--file", str(tmp_path / "none")) == 2
