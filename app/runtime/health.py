"""`/healthz`, `/readyz` and `/metrics`, which every door has.

They import no SQL: the cold side adds its own check.
"""

from __future__ import annotations

import ipaddress
import logging
import os
from collections.abc import Callable, Mapping

from flask import Blueprint, Flask, Response, current_app, request
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from redis import RedisError

from app import current, store
from app.runtime import heartbeats, timekeeping
from app.runtime.resources import Resources

log = logging.getLogger(__name__)

Check = Callable[[], bool]
Document = Callable[[Mapping[str, str]], Response]
FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Real-IP")

bp = Blueprint("health", __name__)
_flushes: set[Callable[[], None]] = set()  # one set for each process, as metrics are the process's


def register(app: Flask) -> None:
    app.register_blueprint(bp)


def add_check(app: Flask, name: str, check: Check) -> None:
    """Add `check` to `/readyz`; it returns whether `name` works."""
    app.extensions.setdefault("portico_checks", {})[name] = check


def add_collector(app: Flask, collector: Collector) -> None:
    """Have `/metrics` of `app` tell what `collector` collects, within the application's context."""
    app.extensions.setdefault("portico_collectors", []).append(collector)


def set_document(app: Flask, document: Document) -> None:
    """Have `/metrics` of `app` answer with `document`, given the query, whoever accepts JSON rather than text."""
    app.extensions["portico_document"] = document


def before_metrics(flush: Callable[[], None]) -> None:
    """Register a callback that flushes pending counters before `/metrics` is served."""
    _flushes.add(flush)


@bp.get("/healthz")
def healthz() -> Response:
    return _json({"status": "ok"})


@bp.get("/readyz")
def readyz() -> tuple[Response, int]:
    """503 when this process can serve nothing useful: Redis takes no writes, or SQL does not answer and this process has no
    /v1.

    Background processes that do not run and wrong clocks are named in `degraded` only: requests are served without them.
    """
    degraded = [] if _redis_takes_writes() else ["redis"]
    checks: dict[str, Check] = current_app.extensions.get("portico_checks", {})
    degraded += (failing := [name for name, check in checks.items() if not check()])
    serves_v1 = "v1" in current.config().server.doors
    if serves_v1 and not degraded and not _meter_is_open():
        degraded.append("meter")  # calls that cost money wait until the drainer has counted
    degraded += _out_of_order()
    ready = "redis" not in degraded and (serves_v1 or not failing)
    status = "ready" if not degraded else "degraded" if ready else "unavailable"
    return _json({"status": status, "degraded": degraded}), 200 if ready else 503


@bp.get("/metrics")
def metrics() -> Response:
    """Metrics in Prometheus's text format, or a summary in JSON, for loopback and the configured networks only."""
    if not _may_read_metrics():
        return Response(
            "Not allowed from this address; see metrics.allow in the settings.\n", 403, mimetype="text/plain"
        )
    document: Document | None = current_app.extensions.get("portico_document")
    if (
        document is not None
        and request.accept_mimetypes.best_match(["text/plain", "application/json"]) == "application/json"
    ):
        return document(request.args)
    for flush in _flushes:
        flush()
    registry = CollectorRegistry()
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(REGISTRY)
    registry.register(Resources(current.config().data_dir))
    for collector in current_app.extensions.get("portico_collectors", ()):
        registry.register(collector)
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def _may_read_metrics() -> bool:
    config = current.config()
    if not config.server.trusted_proxies and any(name in request.headers for name in FORWARDED):
        return False  # a loopback address is then the proxy's
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return False
    if address.is_loopback:
        return True
    return any(address in ipaddress.ip_network(text, strict=False) for text in config.metrics.allow)


def _redis_takes_writes() -> bool:
    """Whether Redis takes writes. A replica, or one without disk or memory left, still answers reads."""
    try:
        return bool(current.redis().set(store.PROBE, os.getpid(), ex=60))
    except RedisError as error:
        log.warning("Redis takes no writes: %s", error)
        return False


def _meter_is_open() -> bool:
    try:
        epoch, run_id = current.redis().hmget(store.METER, "epoch", "run_id")
        return epoch is not None and run_id == current.redis().info("server")["run_id"]
    except RedisError:
        return False


def _out_of_order() -> list[str]:
    """The names of background processes that do not run and, if clocks are wrong, `time`."""
    try:
        missing = heartbeats.missing(current.redis())
        return missing if timekeeping.look(current.redis()).are_right else [*missing, "time"]
    except RedisError:  # already reported as `redis`
        return []


def _json(body: dict[str, object]) -> Response:
    response = Response(current_app.json.dumps(body), mimetype="application/json")
    response.headers["Cache-Control"] = "no-store"
    return response
