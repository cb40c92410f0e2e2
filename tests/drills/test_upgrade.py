"""An upgrade under traffic: the new version migrates the database while the former serves, then takes over.

From the last tag, or from the commit that `UPGRADE_FROM` names. Nobody's request fails, and nothing is lost.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.conftest import World
from tests.services.portico import ROOT, Portico
from tests.services.postgres import Postgres
from tests.services.upstream import Upstream
from tests.services.valkey import ValkeyServer

BEFORE_TAGS = "46dd591"  # from where to upgrade while there is no tag


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def former(tmp_path: Path) -> Path:
    """A checkout of the version to upgrade from."""
    commit = os.environ.get("UPGRADE_FROM") or (git("tag", "--sort=-creatordate").splitlines() or [BEFORE_TAGS])[0]
    folder = tmp_path / "former"
    folder.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True)
    if archive.returncode != 0:
        pytest.skip(f"no commit {commit} in this clone: fetch its history, or name another with UPGRADE_FROM")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def test_an_upgrade_under_traffic_fails_nobody(
    former: Path, tmp_path: Path, postgres: Postgres, valkey_server: ValkeyServer, upstream: Upstream
) -> None:
    valkey_server.flush()
    secrets = {
        "CONFIG_SECURITY_SESSION_SECRET": "a session secret of the drill, long enough",
        "CONFIG_SECURITY_KEY_PEPPER": "a pepper of the drill that is long enough",
        "CONFIG_SECURITY_ENCRYPTION_KEYS": "ZGV2ZWxvcG1lbnQga2V5IG9mIHRoZSBkcmlsbHMgMDE=",
    }
    shared = secrets | {"CONFIG_DATABASE_URL": postgres.fresh(), "CONFIG_REDIS_URL": valkey_server.url}
    old = Portico(shared, data_dir=tmp_path / "old", checkout=former)
    new = Portico(shared, ["--set-up", ""], data_dir=tmp_path / "new")
    for portico in (old, new):
        portico.data_dir.mkdir()
    here = World(old.start(), upstream).furnish()
    try:
        with here.load(clients=3, delay_s=0.01):
            here.is_under_way()
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", "app.setup"], cwd=ROOT, env=new.env, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0, done.stderr
            migrated_s = time.monotonic() - began
            new.start()
            here.portico = new
            time.sleep(1)
            assert old.stop() == 0, old.log()
            time.sleep(2)
        here.settles_down()
        failed = [one for one in here.ended if one.status != 200 or not one.whole]
        assert not failed, failed[:5]
        assert len(here.ended) > 50
        print(f"{len(here.ended)} requests, 0 failed; set-up and migrations took {migrated_s:.1f} s")
    finally:
        for portico in (old, new):
            portico.close()
