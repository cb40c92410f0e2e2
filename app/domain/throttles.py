"""Throttles of what costs more than a page: callbacks of identity providers, SCIM, tests of providers, exports.

They count requests of one person or address in a minute. Failed sign-ins are counted by `identity`, and calls of /v1 by
the meter.
"""

from __future__ import annotations

from redis import RedisError

from app import current, store
from app.domain.errors import Throttled

AN_ADDRESS, A_PERSON = 300, 120  # requests a minute


def count(kind: str, who: str, most: int) -> None:
    """Count one request of `who`. Raises `Throttled` beyond `most` in a minute. Without Redis nothing is refused."""
    name = store.throttle(kind, who)
    try:
        with current.redis().pipeline(transaction=True) as pipe:
            pipe.incr(name)
            pipe.expire(name, 60, nx=True)
            pipe.ttl(name)
            counted, _, ttl = pipe.execute()
    except RedisError:
        return
    if int(counted) > most:
        raise Throttled("Too many requests. Wait a minute and try again.", max(1, int(ttl)))
