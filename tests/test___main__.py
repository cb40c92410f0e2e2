"""`python -m app`: which commands there are, and what they answer to wrong words and settings."""

from __future__ import annotations

from importlib import import_module

import pytest

from app.__main__ import COMMANDS, main


def test_each_command_is_a_module_that_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            import_module(f"app.commands.{name}").main(["--help"])
        assert ended.value.code == 0
        assert f"python -m app {name}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["--help"]])
def test_other_words_list_the_commands(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert all(f"  {name}" in capsys.readouterr().err for name in list(COMMANDS)[:1])


def test_wrong_settings_are_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONFIG_SERVER_PORT", "0")
    assert main(["backup", "--to", "/nowhere/b.zip"]) == 2
    assert capsys.readouterr().out == "The settings are wrong: server.port: expected 1 to 65535\n"
