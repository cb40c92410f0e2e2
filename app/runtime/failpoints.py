"""Places where tests make a process die or stand still, at an exact step; nothing happens at one that is not named.

`PORTICO_FAILPOINTS=spooled=kill,committed=stop` arms them at the start of a process. A failpoint acts once a data
folder when `PORTICO_FAILPOINTS_ONCE` names a folder: the process that follows then goes on.
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
    """The step `name` is reached."""
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
