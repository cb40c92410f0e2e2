"""A backup is made under load, the deployment is lost, and an empty one serves the same keys with the same sums."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from app import store
from tests.faults.conftest import World
from tests.services.portico import ROOT, Portico
from tests.services.upstream import Upstream
from tests.services.waiting import PATIENCE_S


def operator(portico: Portico, *words: str) -> str:
    """What `python -m app` answers with the settings of this Portico."""
    done = subprocess.run(
        [sys.executable, "-m", "app", *words], cwd=ROOT, env=portico.env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


def sums(world: World) -> dict[str, Any]:
    """What the owner of the key and the admin are told of usage, and what the key's budget is told of itself."""
    url = world.portico.url
    form = {"username": "admin", "password": world.portico.admin_password}
    token = requests.post(f"{url}/token", form, timeout=PATIENCE_S).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    told = {
        path: requests.get(f"{url}{path}", headers=headers, timeout=PATIENCE_S).json()
        for path in ("/usage/me/day", "/usage/admin/summary", f"/api/budgets/key/{world.key_id}")
    }
    meter = requests.get(f"{url}/v1/key", headers={"Authorization": f"Bearer {world.key}"}, timeout=PATIENCE_S).json()
    return told | {"meter": [(budget["scope"], budget["spent"], budget["limit"]) for budget in meter["budgets"]]}


@pytest.mark.both_databases
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_an_empty_deployment_serves_the_same_keys_and_sums(
    database: str, tmp_path: Path, upstream: Upstream, request: pytest.FixtureRequest
) -> None:
    def environ() -> dict[str, str]:
        if database == "sqlite":
            return {}
        return {"CONFIG_DATABASE_URL": request.getfixturevalue("postgres").fresh()}

    phrase = tmp_path / "phrase"
    phrase.write_text("the words of the escrow\n")
    lost, fresh = Portico(environ()), Portico(environ())
    here = World(lost.start(), upstream).furnish()
    try:
        with here.load(clients=3):
            here.is_under_way()
            operator(lost, "backup", "--to", str(tmp_path / "under-load.zip"), "--with-keys", str(phrase))
        here.settles_down()
        before = sums(here)
        operator(lost, "backup", "--to", str(tmp_path / "last.zip"), "--with-keys", str(phrase))
        lost.kill()

        told = operator(fresh, "restore", "--from", str(tmp_path / "last.zip"), "--with-keys", str(phrase))
        assert told.startswith("Restored ")
        here.portico = fresh.start()
        assert sums(here) == before
        here.works_again()
        with here.load(clients=3):
            here.is_under_way()
        here.settles_down()
        fresh.kill()
        _is_whole(environ(), tmp_path, phrase)
    finally:
        for portico in (lost, fresh):
            portico.close()


def _is_whole(environ: dict[str, str], tmp_path: Path, phrase: Path) -> None:
    """The backup that was made while requests were posted is of one moment: its budgets say what its entries say."""
    other = Portico(environ)
    try:
        operator(other, "restore", "--from", str(tmp_path / "under-load.zip"), "--with-keys", str(phrase))
        here = World(other, None)  # type: ignore[arg-type]
        spent = {store.spent(kind, id, period): nano for kind, id, period, nano in
                 here.query("SELECT kind, id, period, spent_nano FROM scope_spent")}  # fmt: skip
        assert spent == here.booked() != {}
    finally:
        other.close()
