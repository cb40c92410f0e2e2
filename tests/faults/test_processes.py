"""Every process of a whole Portico dies, or stands still: it is named, it comes back, and nothing is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import psutil
import pytest
import requests

from tests.faults.conftest import World
from tests.services.waiting import PATIENCE_S, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# What to look for in the command line of each process that the launcher starts.
WORDS = {
    "web": "gunicorn", "drainer": "app.jobs.drainer", "worker": "app.jobs.worker", "clock": "app.jobs.clock",
    "valkey": "valkey-server",
}  # fmt: skip


def started(world: World, name: str) -> list[int]:
    """The processes of that name which are the launcher's own children."""
    launcher = world.portico.process
    assert launcher is not None
    return [pid for pid in world.portico.pids(WORDS[name]) if psutil.Process(pid).ppid() == launcher.pid]


def degraded(world: World) -> list[str] | None:
    """What `/readyz` names; None while it does not say that requests are served."""
    try:
        answer = requests.get(f"{world.portico.url}/readyz", timeout=5)
    except requests.RequestException:
        return None
    return list(answer.json()["degraded"]) if answer.status_code == 200 else None


def test_every_process_that_is_killed_comes_back_and_nothing_is_lost(world: Callable[..., World]) -> None:
    here = world()
    with here.load(clients=3):
        for name in WORDS:
            here.is_under_way()
            [killed] = started(here, name)
            below = psutil.Process(killed).children(recursive=True)
            os.kill(killed, signal.SIGKILL)
            assert psutil.wait_procs(below, timeout=PATIENCE_S)[1] == []  # what it had started died with it
            until(lambda name=name, killed=killed: started(here, name) not in ([], [killed]), here.portico.log)
            here.works_again()
            until(lambda: degraded(here) == [], lambda: f"{degraded(here)}\n{here.portico.log()}")
    here.settles_down()
    assert here.portico.stop() == 0, here.portico.log()


@pytest.mark.parametrize("name", ["drainer", "worker", "clock"])
def test_a_process_that_stands_still_is_named_while_requests_are_served(world: Callable[..., World], name: str) -> None:
    here = world()
    until(lambda: degraded(here) == [], here.portico.log)
    [still] = started(here, name)
    os.kill(still, signal.SIGSTOP)
    began = time.monotonic()
    until(lambda: degraded(here) == [name], lambda: f"{degraded(here)}\n{here.portico.log()}")
    assert time.monotonic() - began < 20
    assert here.ask(stream=False).status == 200
    os.kill(still, signal.SIGCONT)
    until(lambda: degraded(here) == [], lambda: f"{degraded(here)}\n{here.portico.log()}")
    here.settles_down()
