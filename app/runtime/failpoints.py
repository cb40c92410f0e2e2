"""Exact steps at which tests kill or stop a process. A failpoint that is not armed does nothing.

`PORTICO_FAILPOINTS=spooled=kill,committed=stop` arms them when a process starts. If `PORTICO_FAILPOINTS_ONCE` names a
folder, each failpoint acts once for that folder, so that the next process goes on.
"""

from __future__ import annotations

import os
import signal

_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def _read(text: str) -> dict[str, signal.Signals]:
    pairs = (part.split("=") for part in text.split(",") if part)
    return {name: _SIGNALS[act] for name, act in pairs}


_armed = _read(os.environ.get("PORTICO_FAILPOINTS", ""))


def reach(name: str) -> None:
    """Kill or stop this process if the failpoint `name` is armed."""
    if name in _armed and _may_act(name):
        os.kill(os.getpid(), _armed[name])


def _may_act(name: str) -> bool:
    folder = os.environ.get("PORTICO_FAILPOINTS_ONCE")
    if folder is None:
        return True
    try:
        os.close(os.open(os.path.join(folder, f"failpoint-{name}"), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
