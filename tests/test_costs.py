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
    large = {f"tests/a.py::test_large[{number}]": ALLOWANCE_S * 1.5 for number in range(6)}
    assert chosen({**cheap, **large}) == {"tests/a.py::test_large": 1}


def test_the_cheaper_half_of_a_file_is_run_whatever_it_costs() -> None:
    each = {f"tests/a.py::test_{number}": 1.0 + number for number in range(4)}
    assert chosen(each) == {"tests/a.py::test_2": 0, "tests/a.py::test_3": 0}
    assert chosen({"tests/a.py::test_alone": 9.0}) == {}
    assert chosen({f"tests/test_house.py::test_{number}": 9.0 for number in range(4)}) == {}


def test_what_a_case_cost_is_the_cpu_since_the_last_report() -> None:
    costs = Costs()
    sum(range(200_000))
    assert costs.since_last_s() > costs.since_last_s() >= 0


def test_each_test_that_is_named_is_there() -> None:
    named = allowed_cases()
    assert named == {without_case(name): cases for name, cases in named.items()}
    gone = []
    for name in {*named, *ALWAYS}:
        path, _, test = name.partition("::")
        if not (ROOT / path).exists() or (test and f"def {test.rpartition('::')[2]}(" not in (ROOT / path).read_text()):
            gone.append(name)
    assert gone == [], "take their lines out of tests/costs.txt and tests/costs.py"
