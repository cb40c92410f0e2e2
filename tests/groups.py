"""Which test files run in one process of pytest-xdist: those that share what is dear to start, such as a whole Portico.

xdist's own mark for it, `xdist_group`, is a part of the test's name, and does nothing under pytest 9.2, which keeps names
elsewhere. A file is told by its path alone.
"""

from xdist.scheduler import LoadGroupScheduling

PORTICO = "the shared Portico"
GROUPS = {
    "tests/journeys/test_account.py": PORTICO,
    "tests/journeys/test_admins.py": PORTICO,
    "tests/journeys/test_connect.py": PORTICO,
    "tests/journeys/test_first_path.py": PORTICO,
    "tests/journeys/test_keys.py": PORTICO,
    "tests/journeys/test_lists.py": PORTICO,
    "tests/journeys/test_menu.py": PORTICO,
    "tests/journeys/test_search.py": PORTICO,
    "tests/journeys/test_sign_out.py": PORTICO,
    "tests/journeys/test_teams.py": PORTICO,
    "tests/faults/test_slow_clients.py": PORTICO,
    "tests/faults/test_faults.py": "faults",
    "tests/faults/test_processes.py": "faults",
    "tests/journeys/test_every_page.py": "every page",
    "tests/blueprints/v1/test_budget_alerts.py": "alerts",
    "tests/blueprints/v1/test_teams.py": "teams",
    "tests/blueprints/v1/test_full_stores.py": "full stores",
    "tests/metering/test_races.py": "races",
    "tests/gateway/test_triton_served.py": "triton",
}


def group_of(nodeid: str) -> str:
    """The group of a test; it is alone in it when its file has none."""
    return GROUPS.get(nodeid.partition("::")[0], nodeid)


class ByGroup(LoadGroupScheduling):
    """The groups begin, the largest first; each is for one process."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
