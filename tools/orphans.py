"""No process outlives its parent: the kernel ends a child when its parent is gone, however the parent ended.

Linux only; elsewhere these functions do nothing. The kernel watches the thread that forked, so a child must be started
by a thread that lives as long as its process. The setting survives exec, but a child's own children must set it
themselves.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from functools import partial

PR_SET_PDEATHSIG = 1

# Looked up now, because a child should do little after a fork.
_prctl = ctypes.CDLL(None).prctl if sys.platform.startswith("linux") else None
_forking = 0  # the process that is about to fork


def die_with_parent(with_signal: signal.Signals) -> Callable[[], None]:
    """Returns a function for a new child to call first: it sends the child `with_signal` when this process ends, even
    by SIGKILL."""
    return partial(_die_with, os.getpid(), with_signal)


def forks_die_with_us() -> None:
    """Makes the kernel kill every child that this process forks from now on, and their children, when their parent
    ends."""
    os.register_at_fork(before=_note_parent, after_in_child=lambda: _die_with(_forking, signal.SIGKILL))


def _note_parent() -> None:
    global _forking
    _forking = os.getpid()


def _die_with(parent: int, with_signal: signal.Signals) -> None:
    if _prctl is not None:
        _prctl(PR_SET_PDEATHSIG, int(with_signal), 0, 0, 0)
        if os.getppid() != parent:  # the parent had already ended
            os._exit(1)
