"""A quick run is quick: it has of each costly test what fits, and no file without tests."""

from __future__ import annotations

from pathlib import Path

from tests.costs import ALLOWANCE_S, ALWAYS, Costs, allowed_cases, chosen, without_case

ROOT = Path(__file__).resolve().parents[1]


def test_of_a_costly_test_as_many_cases_are_run_as_fit() -> None:
    cheap = {f"tests/a.py::test_cheap_{number}": ALLOWANCE_S / 10 for number in range(3)}
    many = {f"tests/a.py::test_many[{number}]": ALLOWANCE_S / 2.5 for number in range(6)}
    assert chosen({**cheap, **many, "tests/a.py::test_costly": ALLOWANCE_S * 2}) == {
        "tests/a.py::test_many": 2,
        "tests/a.py::test_costly": 0,
    }


def test_the_cheaper_half_of_a_file_is_run_whatever_it_costs() -> None:
    each = {f"tests/a.py::test_{number}": 1.0 + number for number in range(4)}
    assert chosen(each) == {"tests/a.py::test_2": 0, "tests/a.py::test_3": 0}
    assert chosen({"tests/a.py::test_alone": 9.0}) == {}
    assert chosen({f"{ALWAYS[0]}::test_{number}": 9.0 for number in range(4)}) == {}


def test_what_a_case_cost_is_the_cpu_since_the_last_report() -> None:
    costs = Costs()
    sum(range(200_000))
    assert costs.since_last_s() > costs.since_last_s() >= 0


def test_each_test_that_is_named_is_there() -> None:
    named = allowed_cases()
    assert named == {without_case(name): cases for name, cases in named.items()}
    gone = [
        name
        for name in named
        if not (file := ROOT / name.partition("::")[0]).exists()
        or f"def {name.rpartition('::')[2]}(" not in file.read_text()
    ]
    assert gone == [], "take their lines out of tests/costs.txt"
