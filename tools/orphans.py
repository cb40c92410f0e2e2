"""No process outlives the one that started it: the kernel ends a child when its parent is gone, however that died.

Linux only; elsewhere these do nothing. The kernel goes by the thread that forked, so children are started by a thread
that lives as long as its process. The wish holds across exec, but a child's own children must ask for themselves.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from functools import partial

PR_SET_PDEATHSIG = 1

_prctl = ctypes.CDLL(None).prctl if sys.platform.startswith("linux") else None  # found now: a fork should do little
_forking = 0  # the process that is about to fork


def die_with_parent(with_signal: signal.Signals) -> Callable[[], None]:
    """What a child of this process calls first, to be sent `with_signal` when this process ends, even by SIGKILL."""
    return partial(_die_with, os.getpid(), with_signal)


def forks_die_with_us() -> None:
    """Have every child that this process forks from now on, and theirs, be killed when its parent ends."""
    os.register_at_fork(before=_note_parent, after_in_child=lambda: _die_with(_forking, signal.SIGKILL))


def _note_parent() -> None:
    global _forking
    _forking = os.getpid()


def _die_with(parent: int, with_signal: signal.Signals) -> None:
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, int(with_signal), 0, 0, 0)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(1)
