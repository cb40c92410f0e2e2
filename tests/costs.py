"""What tests cost, and how many cases of the costly ones `make check` runs: `costs.txt` says it, a test a line.

A test may cost a quick run `ALLOWANCE_S`: of one that costs more, as many cases as fit into it are run, or none. Half of the
tests of each file are run whatever they cost, the cheaper half. CPU is measured, for clocks say how busy a machine is; what
others do for a test, such as Valkey and a browser, does not count. `make check ARGS=--measure-costs` measures all that a quick
run could run and writes the file again; a test that it does not name is run.
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path

FILE = Path(__file__).with_name("costs.txt")
ALLOWANCE_S = 0.15
ALWAYS = ("tests/test_house.py", "tests/test_migrations.py")  # which fail for reasons that stand in any file


def without_case(nodeid: str) -> str:
    """The test of which this is a case."""
    return nodeid.partition("[")[0]


def allowed_cases() -> dict[str, int]:
    """How many cases of a costly test a quick run may have."""
    lines = (line.split(" ", 1) for line in FILE.read_text().splitlines())
    return {name: int(cases) for cases, name in lines}


class Costs:
    """The CPU seconds of each case, from one report of this process to the next."""

    def __init__(self) -> None:
        self._seen_s = time.process_time()
        self._of_case: dict[str, float] = defaultdict(float)

    def since_last_s(self) -> float:
        before, self._seen_s = self._seen_s, time.process_time()
        return self._seen_s - before

    def add(self, nodeid: str, cpu_s: float) -> None:
        self._of_case[nodeid] += cpu_s

    def write(self) -> None:
        FILE.write_text("".join(f"{cases} {name}\n" for name, cases in sorted(chosen(self._of_case).items())))


def chosen(of_case: dict[str, float]) -> dict[str, int]:
    """How many cases of each test that costs more than its allowance are run, by what each case costs in seconds."""
    tests: dict[str, list[float]] = defaultdict(list)
    for nodeid, cpu_s in of_case.items():
        tests[without_case(nodeid)].append(cpu_s)
    files: dict[str, list[str]] = defaultdict(list)
    for name in sorted(tests, key=lambda name: sum(tests[name])):
        files[name.partition("::")[0]].append(name)
    fits = {}
    for file, names in files.items():
        for name in [] if file in ALWAYS else names[(len(names) + 1) // 2 :]:
            if (total_s := sum(tests[name])) > ALLOWANCE_S:
                fits[name] = int(len(tests[name]) * ALLOWANCE_S / total_s)
    return fits
