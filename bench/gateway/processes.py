"""The processes of a run: started below us, kept to their cores, read for their CPU and memory, stopped by their ids."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tools.orphans import die_with_parent


class CannotMeasure(Exception):
    """What keeps the benchmark, or one of its peers, from running, in a sentence."""


class Cores(NamedTuple):
    """Who may run where. The books (drainer, worker, clock) get a core of their own only where there are three."""

    gateway: int
    load: int
    books: int


def cores() -> Cores:
    """The first of the cores that we may use."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise CannotMeasure("The gateway and the load need a core each, and there is only one.")
    return Cores(allowed[0], allowed[1], allowed[min(2, len(allowed) - 1)])


def unused_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def tree(roots: Iterable[int]) -> list[int]:
    """These processes and all below them."""
    below: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat(int(name))):
            below.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.append(pid)
            waiting += below.get(pid, [])
    return found


def _stat(pid: int) -> list[str]:
    """What /proc/<pid>/stat says after the name; nothing once the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def words_of(pid: int) -> str:
    """The command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def find_below(root: int, words: str) -> list[int]:
    """Those below `root` whose command line holds `words`, without those below one that is found already."""
    found = [pid for pid in tree([root]) if words in words_of(pid)]
    inner = {pid for one in found for pid in tree([one]) if pid != one}
    return [pid for pid in found if pid not in inner]


def cpu_s(roots: Iterable[int]) -> float:
    """User and system seconds that these trees have used, in the kernel's own nanoseconds rather than ticks; those of
    children that have ended are in ticks."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0.0
    for pid in tree(roots):
        fields = _stat(pid)
        if not fields:
            continue
        try:
            total += time.clock_gettime((~pid << 3) | 2)  # the process's CPU clock: clock_getcpuclockid(3)
        except OSError:
            total += (int(fields[11]) + int(fields[12])) / ticks
        total += (int(fields[13]) + int(fields[14])) / ticks
    return total


def memory_kb(roots: Iterable[int]) -> int:
    """The proportional share of memory of these trees."""
    total = 0
    for pid in tree(roots):
        try:
            found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        except OSError:
            continue
        total += int(found[1]) if found else 0
    return total


def pin(roots: Iterable[int], core: int) -> None:
    """Keep these trees, every thread of them, to one core."""
    _each_thread(roots, lambda thread: os.sched_setaffinity(thread, {core}))


@contextmanager
def halted(roots: Iterable[int]) -> Iterator[None]:
    """Nothing of these trees runs meanwhile; they go on afterwards, whatever happens.

    Least weight and SCHED_IDLE are not enough: Linux shares a core out between sessions before it looks at what is in
    them, and takes it from whoever computes only at the next tick, which are 4 ms of somebody else's latency.
    """
    pids = tree(roots)
    for pid in pids:
        _send(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            _send(pid, signal.SIGCONT)


def _each_thread(roots: Iterable[int], change: Callable[[int], None]) -> None:
    for pid in tree(roots):
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except OSError:
            continue
        for thread in threads:
            with suppress(ProcessLookupError):
                change(int(thread))


class Children:
    """What we have started. Each dies with us, even if we are killed; `stop` ends them in turn, the last one first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[tuple[subprocess.Popen[bytes], signal.Signals, float]] = []

    def log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def start(
        self,
        name: str,
        command: Sequence[object],
        core: int,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        ended_by: signal.Signals = signal.SIGTERM,
        within_s: float = 10.0,
    ) -> int:
        """Start a program on a core; its pid. `ended_by` asks it to end, which it has `within_s` to do."""
        die = die_with_parent(signal.SIGKILL)

        def begin() -> None:
            die()
            os.sched_setaffinity(0, {core})

        with open(self.log(name), "wb") as log:
            process = subprocess.Popen(
                [str(word) for word in command],
                cwd=cwd or self._folder,
                env=dict(env) if env is not None else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=begin,
            )
        self._started.append((process, ended_by, within_s))
        return process.pid

    def runs(self, pid: int) -> bool:
        return any(process.pid == pid and process.poll() is None for process, _, _ in self._started)

    def stop(self, pid: int | None = None) -> None:
        """End one of them, or all."""
        for entry in reversed(self._started.copy()):
            process, ended_by, within_s = entry
            if pid is not None and process.pid != pid:
                continue
            below = tree([process.pid]) if process.poll() is None else []
            if below:
                process.send_signal(ended_by)
                try:
                    process.wait(within_s)
                except subprocess.TimeoutExpired:
                    process.kill()
            for left in below:
                if _stat(left)[3:4] == [str(process.pid)]:  # of the session that it began: nobody else has that id
                    _send(left, signal.SIGKILL)
            process.wait(10)
            self._started.remove(entry)


def _send(pid: int, what: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, what)


def wait_until(is_so: Callable[[], bool], within_s: float, every_s: float = 0.2) -> bool:
    """Whether it came to be so in time."""
    deadline = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True
