"""Redis: the name of every key that Portico keeps there, and the cold side's client.

All keys of an organisation share one hash tag, so that a script's keys lie in one slot of a Redis Cluster.
The hot side's own connection is `app.gateway.redis_wire`.
"""

from __future__ import annotations

from functools import cache
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ClusterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from config import is_sentinel, sentinels

ORGANISATION = "default"
TAG = f"{{org:{ORGANISATION}}}"

# The directory (see app.directory).
DIRECTORY = f"{TAG}:directory"  # the document, JSON
DIRECTORY_VERSION = f"{TAG}:directory:version"

# The meter (see app.metering.reservations).
METER = (
    f"{TAG}:meter"  # hash: epoch and run_id while it is open, counting; clock, patient, step_ms and step_at: clock.lua
)
LEASES = f"{TAG}:leases"  # sorted set: request id -> when its lease ends, ms
USAGE = f"{TAG}:usage"  # stream of usage events
USAGE_GROUP = "drainer"
EXHAUSTED = f"{TAG}:exhausted"  # set: "<kind>:<id>" of scopes whose budget was too small for a short answer

LOGS = f"{TAG}:logs"  # stream of log lines on their way to the database, JSON

# Upstreams (see app.gateway.breakers and app.gateway.traffic).
BREAKERS = f"{TAG}:breakers"  # hash: breaker -> `app.gateway.breakers.Trip` as JSON, of those that are not closed
BREAKERS_VERSION = f"{BREAKERS}:version"  # another after each change of the hash


def caller(digest: str) -> str:
    """The record of a caller, by the digest of its bearer text."""
    return f"{TAG}:caller:{digest}"


def scope(kind: str, id: str) -> str:
    """Hash of a scope's limits (limit, spec, rpm, tpm, parallel) and the levels of its token buckets."""
    return f"{TAG}:scope:{kind}:{id}"


def spent(kind: str, id: str, period: str) -> str:
    """Hash of one period's counters of a scope: spent and held, in nano-units."""
    return f"{TAG}:spent:{kind}:{id}:{period}"


def counter_of(key: str) -> tuple[str, str, str]:
    """The scope kind, scope id and period name in a key that `spent` returned. A member's id contains a colon."""
    kind, _, rest = key.removeprefix(f"{TAG}:spent:").partition(":")
    id, _, period = rest.rpartition(":")
    return kind, id, period


def slots(kind: str, id: str) -> str:
    """Sorted set of the requests in flight in a scope: request id -> when its lease ends, ms."""
    return f"{TAG}:slots:{kind}:{id}"


def hold(request_id: str) -> str:
    """Hash of one hold: its amount, its scopes, its progress."""
    return f"{TAG}:hold:{request_id}"


def tombstone(request_id: str) -> str:
    """The mark that a settled or released hold leaves, so that a second settle changes nothing."""
    return f"{TAG}:done:{request_id}"


def last_calls(key_id: str) -> str:
    """Hash of how a key's calls began: "ok:<agent>" or "refused:<agent>" -> `app.metering.usage.LastCall` as JSON."""
    return f"{TAG}:last_calls:{key_id}"


def probe(breaker: str) -> str:
    """Exists while one call tries whether what a half-open breaker keeps away is well again."""
    return f"{TAG}:probe:{breaker}"


def traffic(slot: int) -> str:
    """Hash of the attempts in five minutes of Unix time: "<deployment id>:requests", ":errors" and ":cost"."""
    return f"{TAG}:traffic:{slot}"


def went(deployment_id: str) -> str:
    """Hash of how attempts at a deployment went last: row (failures in a row), since (ms), reason (of the last failure)."""
    return f"{TAG}:went:{deployment_id}"


def origin(conversation: str) -> str:
    """The id of the deployment that served a conversation last, if it is not the one that its hash leads to."""
    return f"{TAG}:origin:{conversation}"


def outputs(caller_id: str, model: str) -> str:
    """List of the lengths of the last answers of a model to a caller's requests without an output limit, tokens."""
    return f"{TAG}:outputs:{caller_id}:{model}"


def prompt(id: str) -> str:
    """Hash of a prompt: owner (`app.directory.PromptOwner`), "latest" and each version by its number
    (`app.directory.PromptText`), all as JSON."""
    return f"{TAG}:prompt:{id}"


DENIALS = (
    f"{TAG}:denials"  # list: `app.gateway.denials.Told` as JSON, until the cold side writes them into the audit log
)


DENIALS_TURN = f"{DENIALS}:turn"  # who writes them down now


def denials(hour: int) -> str:
    """Hash of the denials of an hour of Unix time: kind as JSON -> "<already reported>:<all>"."""
    return f"{TAG}:denials:{hour}"


def counted(count: str) -> str:
    """Set of the spool files whose writers have restored their holds for a recount."""
    return f"{TAG}:counted:{count}"


HOSTS = f"{TAG}:hosts"  # hash: host with a drainer -> its last beat


def hosts_counted(count: str) -> str:
    """Set of the hosts that have posted their spools and restored their holds for a recount."""
    return f"{TAG}:hosts_counted:{count}"


# The first word of replies that tell of the server's own trouble, and not of the command.
NOT_SERVING = frozenset(
    ("BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY", "TRYAGAIN")
)
_TROUBLE = (OutOfMemoryError, ReadOnlyError, ClusterDownError, TryAgainError)  # redis-py takes the word from these


def is_not_serving(error: Exception) -> bool:
    """Whether an error reply tells that the server serves nobody or takes no writes at the moment."""
    return isinstance(error, _TROUBLE) or str(error).partition(" ")[0] in NOT_SERVING


PROBE = f"{TAG}:probe"  # written to find out whether Redis takes writes


def heartbeat(process: str) -> str:
    """Exists while a process with that name in the Procfile runs; its value says which one beat last."""
    return f"portico:heartbeat:{process}"


# Hashes with the status of background processes and jobs.
DRAINER_STATUS, ROLLUPS_STATUS, QUOTAS_STATUS = "portico:drainer", "portico:rollups", "portico:quotas"

ALARMS = "portico:alarms"  # hash: name -> `app.workflows.watch.Alarm` as JSON

MODEL_LISTS = "portico:model_lists"  # hash: provider id -> `app.workflows.model_lists.ModelList` as JSON

# The portal's own.
SEEN = "seen"  # hash: person id -> when they last used the portal, Unix s; until the job `quotas` writes it into SQL


def session(digest: str) -> str:
    """Hash of a browser session, by the digest of its id."""
    return f"session:{digest}"


def sessions_of(person_id: str) -> str:
    """Set of the digests of a person's session ids."""
    return f"sessions:{person_id}"


def created_by_form(person_id: str, number: str) -> tuple[str, str]:
    """Two keys: the id of what a person's form of that number created and, for a minute, its sealed secret."""
    return f"made:{person_id}:{number}", f"made-text:{person_id}:{number}"


def shown_once(id: str, number: str) -> str:
    """The secret of an object until its page shows it, encrypted with the key of a browser's session."""
    return f"shown-once:{id}:{number}"


def throttle(kind: str, who: str) -> str:
    """Counter of failed sign-ins for an account or an address, or of requests of a kind (see app.domain.throttles)."""
    return f"throttle:{kind}:{who}"


def handoff(digest: str) -> str:
    """What a browser carries over a redirect, sealed; by the digest of its token (see app.domain.handoffs)."""
    return f"handoff:{digest}"


def sessions_of_provider(digest: str) -> str:
    """Set of the digests of the sessions that belong to an identity provider's own one, by a digest of its `sid`."""
    return f"sessions-of-provider:{digest}"


def logout_token(digest: str) -> str:
    """Exists while a logout token of this `jti` could be sent again."""
    return f"logout-token:{digest}"


def pool(url: str, **options: Any) -> redis.ConnectionPool:
    """Connections to the server at `url`. With `redis+sentinel://[user:password@]host:port,…/name[/db]` they lead to whatever
    primary the Sentinels name at the moment of connecting (`rediss+sentinel` for TLS to it)."""
    if not is_sentinel(url):
        return redis.ConnectionPool.from_url(url, **options)
    parts = urlsplit(url)
    name, _, database = parts.path.strip("/").partition("/")
    [sentinel_password] = parse_qs(parts.query).get("sentinel_password", [None])
    waits = {key: options[key] for key in ("socket_timeout", "socket_connect_timeout") if key in options}
    manager: Any = Sentinel(sentinels(url), sentinel_kwargs={**waits, "password": sentinel_password})  # type: ignore[no-untyped-call]
    options |= {"db": int(database or 0), "ssl": parts.scheme.startswith("rediss")}
    if parts.password is not None:
        options |= {"username": unquote(parts.username or "") or None, "password": unquote(parts.password)}
    return SentinelConnectionPool(name, manager, **options)  # type: ignore[no-untyped-call]


def connect_pool(url: str, **options: Any) -> redis.Redis:
    """A client of its own over `pool`."""
    return redis.Redis.from_pool(pool(url, **options))


@cache
def connect(url: str) -> redis.Redis:
    """Return the cold side's client, one for each process.

    A page must not hang while Redis is unreachable: the client retries once, quickly, instead of pausing for seconds.
    """
    return connect_pool(
        url,
        decode_responses=True,
        socket_timeout=5,
        socket_connect_timeout=5,
        retry=Retry(ConstantBackoff(0.05), 1),
    )
