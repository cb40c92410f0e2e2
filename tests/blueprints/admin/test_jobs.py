"""The page of background jobs: what waits, runs, failed and comes next, also while Redis is away."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis
from rq import SimpleWorker
from rq.serializers import JSONSerializer

from app import queue as queue_module
from app.jobs.clock import Clock
from app.workflows import background_jobs
from config import Config
from tests.blueprints.admin.conftest import READ_ONLY
from tests.blueprints.portal.conftest import Browser
from tests.house import People

SignedIn = Callable[[str], Browser]


@pytest.fixture
def connection(people: People, wire: redis.Redis, config: Config) -> redis.Redis:
    wire.flushdb()
    return queue_module.connect(config.redis_url)


def fail(connection: redis.Redis, *arguments: object) -> str:
    box = queue_module.queue(connection)
    job = box.enqueue("json.loads", args=arguments, failure_ttl=queue_module.KEEP_FAILED_S)
    SimpleWorker([box], connection=connection, serializer=JSONSerializer).work(burst=True, logging_level="CRITICAL")
    return str(job.id)


def test_without_worker_and_clock_it_says_so(connection: redis.Redis, signed_in: SignedIn) -> None:
    page = signed_in("auditor").page("/admin/jobs")
    assert [alert.heading for alert in page.alerts] == ["No worker is running", "The clock is not running"]
    assert page.menu.link("Jobs").is_current
    assert (page.definition("Waiting"), page.definition("Failed")) == ("0", "0")
    assert "No failed jobs" in page.section("Failed jobs").empty


def test_the_schedule_is_listed_with_its_runs(connection: redis.Redis, signed_in: SignedIn) -> None:
    clock = Clock(connection)
    clock.register_birth()
    clock.enqueue_jobs()
    clock.save()
    page = signed_in("auditor").page("/admin/jobs")
    assert page.definition("Waiting") == "7"
    jobs = page.table("Periodic jobs")
    assert jobs.column("Job") == ["rollups", "quotas", "encryption", "litellm", "provider_lists", "backups", "watch"]
    assert jobs.column("Last run") == ["Not known"] * 7
    assert "Now" not in [cell.text for cell in jobs.column("Next run")]


def test_a_failed_job_is_read_retried_and_removed(connection: redis.Redis, signed_in: SignedIn) -> None:
    id = fail(connection, "<b>")
    admin = signed_in("admin")
    [row] = admin.page("/admin/jobs").table("Failed jobs, newest first").rows
    assert "JSONDecodeError" in row.cell("Error")
    assert "Traceback" in row.cell("Error")
    assert '"<b>"' in row.cell("Job")
    assert [button.text for button in row.buttons] == ["Copy trace", "Retry json.loads", "Remove json.loads"]
    assert admin.post(f"/admin/jobs/{id}/retry").status_code == 303
    assert admin.page("/admin/jobs").toast == "The job json.loads is in the queue again."
    admin.post(f"/admin/jobs/{id}/removal")
    assert admin.page("/admin/jobs").toast == "This job was retried or removed in the meantime."
    other = fail(connection, "y")
    admin.post(f"/admin/jobs/{other}/removal")
    assert admin.page("/admin/jobs").toast == "The failed job json.loads is removed."
    admin.post("/admin/jobs/none/retry")
    assert admin.page("/admin/jobs").toast == "This job does not exist."


def test_who_only_reads_changes_nothing(connection: redis.Redis, signed_in: SignedIn) -> None:
    id = fail(connection, "x")
    auditor = signed_in("auditor")
    [row] = auditor.page("/admin/jobs").table("Failed jobs, newest first").rows
    assert {button.reason for button in row.buttons if button.disabled} == {READ_ONLY}
    for act in ("retry", "removal"):
        assert auditor.post(f"/admin/jobs/{id}/{act}").status_code == 403
    assert queue_module.queue(connection).failed_job_registry.count == 1


def test_while_redis_is_away_the_page_says_so(
    connection: redis.Redis, signed_in: SignedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(url: str, **_: object) -> redis.Redis:
        return redis.Redis(unix_socket_path="/nowhere/to/be/found.sock")

    monkeypatch.setattr(background_jobs.queue_module, "connect", away)
    admin = signed_in("admin")
    assert "The jobs could not be read" in admin.page("/admin/jobs").empty
    assert admin.post("/admin/jobs/x/retry").status_code == 503
