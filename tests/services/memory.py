"""Where tests keep what need not last: in memory where the machine has room for it, else where it keeps such things."""

import os
import shutil
from pathlib import Path

_MEMORY, _ROOM = Path("/dev/shm"), 4 * 1024**3

IN_MEMORY = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM
PLACE = str(_MEMORY) if IN_MEMORY else "/tmp"  # a short name: a socket's path may have about 100 characters
