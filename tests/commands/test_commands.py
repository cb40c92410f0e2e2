"""The commands `backup` and `restore`, as an operator gives them."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.__main__ import main
from config import Config


@pytest.mark.slow
def test_a_deployment_moves_by_two_commands(
    people: object, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    phrase = tmp_path / "phrase"
    phrase.write_text("the words of the escrow\n")
    monkeypatch.setenv("CONFIG_REDIS_URL", "unix:///nowhere")
    monkeypatch.setenv("CONFIG_STORAGE_DATA_DIR", str(config.data_dir))
    assert main(["backup", "--to", str(tmp_path / "b.zip"), "--with-keys", str(phrase)]) == 0
    assert "and the secrets, encrypted." in capsys.readouterr().out
    assert main(["restore", "--from", str(tmp_path / "b.zip")]) == 2
    assert capsys.readouterr().out.startswith("Nothing was restored. The database is not empty.")
    monkeypatch.setenv("CONFIG_STORAGE_DATA_DIR", str(tmp_path / "new"))
    assert main(["restore", "--from", str(tmp_path / "b.zip"), "--with-keys", str(phrase)]) == 0
    assert "start Portico now" in capsys.readouterr().out
    assert (tmp_path / "new" / "secrets.json").read_text() == config.secrets_file.read_text()
    assert main(["backup", "--to", "/proc/b.zip"]) == 2
    assert capsys.readouterr().out.startswith("No backup was made. Cannot write /proc/b.zip")
