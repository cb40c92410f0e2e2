"""Two gateway hosts and a portal host over one PostgreSQL (behind a pooler, where there is one) and one Valkey: each dies in
turn under load, and the others go on; then Valkey loses everything, and the counters know what every host has spent."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from tests.drills import tools
from tests.faults.conftest import World
from tests.services.portico import Portico
from tests.services.postgres import Postgres
from tests.services.upstream import Upstream, unused_port
from tests.services.valkey import ValkeyServer
from tests.services.waiting import until
from tools.orphans import die_with_parent

SECRETS = {
    "CONFIG_SECURITY_SESSION_SECRET": "a session secret of the drill, long enough",
    "CONFIG_SECURITY_KEY_PEPPER": "a pepper of the drill that is long enough",
    "CONFIG_SECURITY_ENCRYPTION_KEYS": "ZGV2ZWxvcG1lbnQga2V5IG9mIHRoZSBkcmlsbHMgMDE=",
}
GATEWAY = "web: gunicorn -c gunicorn.conf.py wsgi:application\ndrainer: python -m app.jobs.drainer\n"
PORTAL = f"{GATEWAY}worker: python -m app.jobs.worker\nclock: python -m app.jobs.clock\n"


class Balanced(World):
    """Asks the gateway hosts in turn, as a load balancer that leaves out those that are down."""

    hosts: list[Portico]
    portal: Portico

    def ask(self, stream: bool = True, words: int = 8) -> Any:
        self.portico = next(self._turns)
        return super().ask(stream, words)

    def spread(self, hosts: list[Portico]) -> None:
        self._turns = cycle(hosts)


@contextmanager
def pooler(postgres: Postgres, folder: Path) -> Iterator[str]:
    """The URL of a new database, by PgBouncer in transaction mode."""
    url = postgres.fresh()
    database, _, place = url.partition("portico@/")[2].partition("?host=")
    program = tools.debian("pgbouncer", "pgbouncer", "libc-ares2", "libevent-2.1-7")
    port = unused_port()
    (folder / "users").write_text('"portico" ""\n')
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{database} = host={place} user=portico\n[pgbouncer]\npool_mode = transaction\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nunix_socket_dir =\nauth_type = any\nauth_file = {folder}/users\nmax_client_conn = 500\n"
        "default_pool_size = 10\nignore_startup_parameters = extra_float_digits\n"
    )
    libraries = ":".join(str(path.parent) for path in (tools.CACHE / "pgbouncer").rglob("lib*.so*"))
    whom: dict[str, Any] = {}
    if os.geteuid() == 0:  # it refuses root
        nobody = pwd.getpwnam("nobody")
        whom = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        for path in (folder, *folder.iterdir()):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(
            [program, str(folder / "pgbouncer.ini")], env={"LD_LIBRARY_PATH": libraries}, stdout=log, stderr=log,
            preexec_fn=die_with_parent(signal.SIGTERM), **whom,
        )  # fmt: skip
    try:
        time.sleep(1)
        assert running.poll() is None, (folder / "log").read_text()
        yield f"postgresql://portico@127.0.0.1:{port}/{database}"
    finally:
        running.terminate()
        running.wait(10)


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    import shutil
    import tempfile

    folder = Path(tempfile.mkdtemp(prefix="ppb-", dir="/tmp"))  # where the pooler's own user may look
    try:
        with pooler(postgres, folder) as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_hosts_die_one_after_the_other_and_nothing_is_lost(
    database: str, tmp_path: Path, valkey_server: ValkeyServer, upstream: Upstream
) -> None:
    valkey_server.flush()
    shared = SECRETS | {
        "CONFIG_DATABASE_URL": database,
        "CONFIG_REDIS_URL": valkey_server.url,
        "CONFIG_DATABASE_POOLER": "true",
    }
    for name, programs in (("gateway", GATEWAY), ("portal", PORTAL)):
        (tmp_path / name).write_text(programs)

    def host(doors: str, procfile: str, *arguments: str) -> Portico:
        return Portico(shared | {"CONFIG_SERVER_DOORS": doors}, ["--procfile", str(tmp_path / procfile), *arguments])

    portal = host("portal,admin,api,public", "portal")
    gateways = [host("v1", "gateway", "--set-up", "") for _ in range(2)]
    try:
        here = Balanced(portal.start(), upstream)
        for gateway in gateways:
            gateway.start()
        here.furnish()
        here.spread(gateways)
        with here.load(clients=3):
            for dying, living in (gateways, gateways[::-1]):
                here.is_under_way()
                dying.kill()
                here.spread([living])  # as a balancer does at its next look
                before = len(here.ended)
                until(lambda before=before: len(here.ended) > before + 10)
                assert [one for one in here.ended[before + 5 :] if one.status not in (200, None)] == []
                dying.start()
                here.spread(gateways)
            portal.kill()
            without_portal = len(here.ended)
            until(lambda: len(here.ended) > without_portal + 20)
            portal.start()
            with_portal = len(here.ended)
            here.redis.flushall()
            here.works_again()
            until(lambda: len(here.ended) > with_portal + 30)
        assert {one.status for one in here.ended[without_portal:with_portal]} == {200}
        here.settles_down()
        refused = [one.status for one in here.ended[:with_portal] if one.status not in (200, None)]
        assert {one.status for one in here.ended[with_portal:]} <= {200, 503}  # until the counters were counted again
        cut = sum(one.status is None for one in here.ended)
        assert not refused, refused[:5]
        print(f"{len(here.ended)} requests, {cut} broken by the death of their host, none refused, nothing lost")
    finally:
        for one in (portal, *gateways):
            one.close()
