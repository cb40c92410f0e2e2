"""The primary of a Sentinel pair dies under load: calls that cost money are refused meanwhile, and nothing is overspent."""

from __future__ import annotations

import time

import redis

from tests.faults.conftest import World
from tests.services.portico import Portico
from tests.services.sentinel import DOWN_AFTER_MS, running_pair
from tests.services.upstream import Upstream
from tests.services.waiting import until

BACK_WITHIN_S = 5.0  # after the Sentinels have agreed on another primary


class Behind(World):
    """The world's looks at Redis go to whichever is primary."""

    pair = None

    @property
    def redis(self) -> redis.Redis:
        return self.pair.client(self.pair.primary)  # type: ignore[attr-defined,no-any-return]


def test_a_failover_under_load_overspends_nothing(upstream: Upstream) -> None:
    with running_pair() as pair:
        portico = Portico({"CONFIG_REDIS_URL": pair.url})
        here = Behind(portico.start(), upstream)
        here.pair = pair  # type: ignore[assignment]
        here.furnish()
        try:
            with here.load(clients=4):
                here.is_under_way()
                before = pair.kill_primary()
                killed = time.monotonic()
                until(lambda: pair.primary != before)
                agreed_s = time.monotonic() - killed
                back = here.works_again()
                refused = {one.status for one in here.ended} - {200, None}
                time.sleep(1)
            here.settles_down()
        finally:
            print(portico.log(3000))
            portico.close()
    assert refused <= {503}, refused  # never 401, and never let through
    assert back < BACK_WITHIN_S, back
    print(f"another primary after {agreed_s:.1f} s ({DOWN_AFTER_MS} ms until down), served again {back:.1f} s later")
