"""What tests cost, and how many cases of the costly ones `make check` runs: `costs.txt` says it, a test a line.

A test may cost a quick run `ALLOWANCE_S`: of one that costs more, as many cases as fit into it are run. It is left out if it
has one case, or if one costs twice as much. The cheaper half of the tests of each file is run whatever it costs. CPU is
measured, for clocks say how busy a machine is; what others do for a test, such as Valkey and a browser, does not count. `make
check ARGS=--measure-costs` measures all that a quick run could run and writes the file again; a test that it does not name is
run.
"""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path

FILE = Path(__file__).with_name("costs.txt")
ALLOWANCE_S = 0.15
# What a quick run has whatever it costs: what fails for reasons that stand in any file, and what asks before it does harm,
# says who sees what, and counts money.
ALWAYS = frozenset(
    [
        "tests/test_house.py",
        "tests/test_migrations.py",
        "tests/blueprints/admin/test_approvals.py::test_many_are_decided_each_by_itself",
        "tests/blueprints/admin/test_door.py::test_read_only_admins_change_nothing_and_are_told_why",
        "tests/blueprints/admin/test_models.py::test_a_change_of_price_is_a_new_dated_price",
        "tests/blueprints/admin/test_models.py::test_a_model_is_made_with_price_and_deployments",
        "tests/blueprints/admin/test_models.py::test_deleting_counts_whom_it_hits_and_asks_for_the_name",
        "tests/blueprints/admin/test_models.py::test_restricting_asks_first_and_then_puts_access_up_for_decision",
        "tests/blueprints/admin/test_people.py::test_a_deactivation_says_what_stops_and_stops_it",
        "tests/blueprints/admin/test_providers.py::test_a_provider_is_added_listed_and_changed",
        "tests/blueprints/admin/test_providers.py::test_a_secret_never_comes_back",
        "tests/blueprints/api/test_providers.py::test_secrets_come_back_masked_and_are_kept_sealed",
        "tests/blueprints/api/test_teams.py::test_budgets_of_a_team_are_read_by_its_members_and_changed_by_who_may",
        "tests/blueprints/api/test_users_and_budgets.py::test_budgets_of_every_scope_are_set_read_and_cleared",
        "tests/blueprints/portal/test_budgets.py::test_nobody_else_decides",
        "tests/blueprints/portal/test_catalog.py::test_an_open_model_is_active_at_once_and_leads_to_a_key",
        "tests/blueprints/portal/test_keys.py::test_a_key_is_shown_once_and_a_repeated_form_makes_no_second_one",
        "tests/blueprints/portal/test_key_settings.py::test_the_form_shows_what_is_and_changes_only_what_is_given",
        "tests/blueprints/portal/test_teams.py::test_a_key_is_made_for_a_team_with_the_team_s_models",
        "tests/blueprints/portal/test_teams.py::test_a_member_asks_for_a_model_and_only_who_may_ends_it",
        "tests/blueprints/portal/test_teams.py::test_an_owner_invites_by_name_or_address_and_the_person_answers",
        "tests/blueprints/portal/test_teams.py::test_everybody_in_it_sees_every_tab_and_strangers_none",
        "tests/blueprints/portal/test_usage.py::test_a_filter_narrows_everything_and_can_be_taken_out",
        "tests/domain/test_keys.py::test_a_key_names_the_scopes_that_pay_for_its_calls_innermost_first",
        "tests/domain/test_subscriptions.py::test_the_gateway_learns_of_every_step_at_once",
        "tests/ledger/test_posting.py::test_for_any_order_and_any_redelivery_sums_equal_entries",
        "tests/ledger/test_rollups.py::test_days_weeks_and_months_equal_the_entries",
        "tests/metering/test_model.py::test_the_meter_says_and_counts_what_the_reference_does",
        "tests/pages/test_search.py::test_each_finds_only_what_they_can_see",
        "tests/reports/test_usage.py::test_usage_by_period_equals_the_entries",
    ]
)


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
        for name in names[(len(names) + 1) // 2 :]:
            many, total_s = len(tests[name]), sum(tests[name])
            if total_s > ALLOWANCE_S and not {file, name} & ALWAYS:
                one_s = total_s / many
                fits[name] = max(int(ALLOWANCE_S / one_s), int(many > 1 and one_s <= 2 * ALLOWANCE_S))
    return fits
