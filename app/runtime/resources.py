"""What the processes of this host use, and what the host has left, for `/metrics`. Read when asked; costs nothing else.

Processes are the one that answers, its siblings and its parent: gunicorn's workers and their master. Linux tells them in
/proc; elsewhere only the disk is known.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

PROC = Path("/proc")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Places in /proc/<pid>/stat after the name in parentheses.
_PARENT, _CPU, _CPU_OF_DEAD_CHILDREN, _RESIDENT = 1, slice(11, 13), slice(13, 15), 21


class Resources(Collector):
    """A collector for one scrape. `folder` is where Portico keeps its files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        if (PROC / "self" / "stat").exists():
            yield from _processes()
            yield from _host()
        usage = shutil.disk_usage(self._folder)
        yield _gauge("portico_disk_free_bytes", "Room left where Portico keeps its files.", usage.free)
        yield _gauge("portico_disk_size_bytes", "All room where Portico keeps its files.", usage.total)


def _processes() -> Iterator[Metric]:
    master = os.getppid()
    workers, resident, files, ticks = 0, 0, 0, 0
    for folder in PROC.glob("[0-9]*"):
        pid = int(folder.name)
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(stat[_PARENT]) != master and pid != master:
                continue
            resident += int(stat[_RESIDENT]) * _PAGE
            ticks += sum(map(int, stat[_CPU]))
            if pid == master:  # what its dead workers used is its own from then on, so that the sum never falls
                ticks += sum(map(int, stat[_CPU_OF_DEAD_CHILDREN]))
            else:
                workers += 1
            files += len(os.listdir(folder / "fd"))
        except (OSError, IndexError, ValueError):  # it ended meanwhile, or belongs to somebody else
            continue
    yield _gauge("portico_web_workers", "Web workers of this host.", workers)
    yield _gauge("portico_web_resident_bytes", "Memory of the web workers and their master.", resident)
    yield _gauge("portico_web_open_files", "Open files and sockets of the web workers and their master.", files)
    used = CounterMetricFamily("portico_web_cpu_seconds", "Processor time of the web workers and their master.")
    used.add_metric([], ticks * _TICK_S)
    yield used


def _host() -> Iterator[Metric]:
    memory = dict(line.split(":", 1) for line in (PROC / "meminfo").read_text().splitlines() if ":" in line)
    kilobytes = {name: int(memory[name].split()[0]) for name in ("MemTotal", "MemAvailable")}
    yield _gauge("portico_host_memory_bytes", "Memory of this host.", kilobytes["MemTotal"] * 1024)
    yield _gauge("portico_host_memory_free_bytes", "Memory that programs can have.", kilobytes["MemAvailable"] * 1024)
    yield _gauge("portico_host_cpus", "Processors of this host.", os.cpu_count() or 1)
    yield _gauge("portico_host_load", "Load of this host, mean of a minute.", os.getloadavg()[0])


def _gauge(name: str, documentation: str, value: float) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, documentation)
    gauge.add_metric([], value)
    return gauge
