"""gunicorn's settings, with a stand-in application: how a web process ends and is renewed under its clients."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.services.portico import ROOT
from tests.services.upstream import unused_port
from tests.services.waiting import PATIENCE_S, until

pytestmark = pytest.mark.slow

APPLICATION = """
import os, time
import gevent

VERSION = "1"
time.sleep(float(os.environ.get("LOADS_FOR_S", "0")))  # a real one has much to import

def application(environ, start_response):
    if environ["PATH_INFO"] == "/broken":
        raise ValueError("password=hunter2")
    if environ["PATH_INFO"] == "/lost":
        gevent.spawn(int, "password=hunter2").join()
    if environ["PATH_INFO"] == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        def pieces():
            for _ in range(15):
                time.sleep(0.1)
                yield b"x"
        return pieces()
    body = {"/pid": str(os.getpid()), "/version": VERSION, "/metrics_dir": os.environ["PROMETHEUS_MULTIPROC_DIR"],
            "/scheme": environ["wsgi.url_scheme"]}.get(environ["PATH_INFO"], "ok").encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


class Web:
    def __init__(self, folder: Path, **settings: str) -> None:
        self.code = folder / "stand_in.py"
        self.code.write_text(APPLICATION)
        self.port = unused_port()
        self.data_dir = folder / "data"
        environ = os.environ | {
            "CONFIG_SERVER_PORT": str(self.port),
            "CONFIG_SERVER_WORKERS": "1",
            "CONFIG_SERVER_DRAIN_S": "60",
            "CONFIG_STORAGE_DATA_DIR": str(self.data_dir),
            "PYTHONDONTWRITEBYTECODE": "1",  # code that is changed within a second would be taken for the former
        } | settings  # fmt: skip
        gunicorn = [sys.executable, "-m", "gunicorn", "-c", str(ROOT / "gunicorn.conf.py"), "--chdir", str(folder)]
        self.log = folder / "log"
        with open(self.log, "ab") as log:
            self.master = subprocess.Popen([*gunicorn, "stand_in:application"], env=environ, stdout=log, stderr=log)
        until(self.answers, self.log.read_text)

    def answers(self) -> bool:
        assert self.master.poll() is None, self.log.read_text()
        try:
            return self.get("/") == "ok"
        except OSError:
            return False

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def get(self, path: str, connection: http.client.HTTPConnection | None = None, **headers: str) -> str:
        one = connection or self.connect()
        try:
            one.request("GET", path, headers=headers)
            return one.getresponse().read().decode()
        finally:
            if connection is None:
                one.close()

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.master.pid).children()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Web]]:
    made: list[Web] = []

    def start(**settings: str) -> Web:
        made.append(Web(tmp_path, **settings))
        return made[-1]

    yield start
    for web in made:
        web.master.kill()
        web.master.wait()


def test_what_is_raised_and_not_caught_is_logged_as_json_without_its_secrets(serve: Callable[..., Web]) -> None:
    web = serve()
    web.get("/lost")
    web.get("/broken")
    lines = [json.loads(line) for line in web.log.read_text().splitlines()]
    lost, broken = (line for line in lines if line["level"] == "error")
    assert lost["event"] == "an exception was not caught"
    assert "/broken" in broken["event"]
    for line in (lost, broken):
        assert "ValueError" in line["exception"]
        assert line["process"] == "web"
    assert "hunter2" not in web.log.read_text()


def test_an_idle_kept_alive_connection_does_not_hold_up_the_end(serve: Callable[..., Web]) -> None:
    web = serve()
    idle = web.connect()
    web.get("/", idle)
    web.master.terminate()
    assert web.master.wait(30) == 0  # it would be given a minute
    idle.close()


def test_a_stream_runs_to_its_end_while_the_worker_stops(serve: Callable[..., Web]) -> None:
    web = serve()
    stream = web.connect()
    stream.request("GET", "/stream")
    answer = stream.getresponse()
    assert answer.read(1) == b"x"
    web.master.terminate()
    assert answer.read() == b"x" * 14
    assert web.master.wait(60) == 0
    stream.close()


def test_a_connection_that_asks_nothing_is_hung_up_on_and_a_stream_is_not(serve: Callable[..., Web]) -> None:
    web = serve(GUNICORN_CMD_ARGS="--keep-alive 1")
    idle, silent, stream = web.connect(), web.connect(), web.connect()
    web.get("/", idle)
    silent.connect()
    stream.request("GET", "/stream")
    with stream.getresponse() as answer:
        assert answer.read() == b"x" * 15
    for connection in (idle, silent):
        assert connection.sock.recv(1) == b""
        connection.close()
    stream.close()


class Load:
    """Clients that ask short questions all the time, on connections that they keep."""

    def __init__(self, web: Web, clients: int = 8) -> None:
        self.web = web
        self.failures: list[OSError] = []
        self.served: list[str] = []
        self.longest_s = 0.0
        self._stop = threading.Event()
        self._clients = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Load:
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop.set()
        for client in self._clients:
            client.join()

    def _ask(self) -> None:
        connection = self.web.connect()
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                self.served.append(self.web.get("/pid", connection))
            except OSError as error:
                self.failures.append(error)
                connection = self.web.connect()
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            time.sleep(0.002)
        connection.close()


LOADS_FOR_S = 3.0


def test_old_workers_serve_until_new_ones_have_loaded(serve: Callable[..., Web]) -> None:
    web = serve(CONFIG_SERVER_WORKERS="2", LOADS_FOR_S=str(LOADS_FOR_S))
    with Load(web) as load:
        for _ in range(2):
            former = {worker.pid for worker in web.workers()}
            web.master.send_signal(signal.SIGHUP)
            until(lambda before=former: not before & {worker.pid for worker in web.workers()}, web.log.read_text)
            assert len(web.workers()) == 2
        until(lambda: set(load.served) & {str(worker.pid) for worker in web.workers()})
    assert load.failures == []
    assert load.longest_s < LOADS_FOR_S / 2  # nobody waited for code to be loaded
    assert len(set(load.served)) >= 5


def test_reloads_in_quick_succession_lose_nobody_and_end_with_the_newest_code(serve: Callable[..., Web]) -> None:
    web = serve(CONFIG_SERVER_WORKERS="2", LOADS_FOR_S="0.5")
    with Load(web) as load:
        for version in range(2, 12):
            web.code.write_text(APPLICATION.replace('VERSION = "1"', f'VERSION = "{version}"'))
            web.master.send_signal(signal.SIGHUP)
            time.sleep(0.2)
        until(lambda: len(web.workers()) == 2 and {web.get("/version") for _ in range(8)} == {"11"}, web.log.read_text)
    assert load.failures == []
    assert "Perhaps out of memory" not in web.log.read_text()  # gunicorn's word for a worker that had to be killed


def test_code_that_cannot_be_loaded_leaves_the_former_serving(serve: Callable[..., Web]) -> None:
    web = serve(CONFIG_SERVER_WORKERS="2")
    former = {worker.pid for worker in web.workers()}
    web.code.write_text("nonsense(")
    web.master.send_signal(signal.SIGHUP)
    until(lambda: "The new code cannot be loaded" in web.log.read_text())
    until(lambda: {worker.pid for worker in web.workers()} == former, web.log.read_text)
    assert web.get("/version") == "1"
    web.code.write_text(APPLICATION.replace('VERSION = "1"', 'VERSION = "2"'))
    web.master.send_signal(signal.SIGHUP)
    until(lambda: {web.get("/version") for _ in range(8)} == {"2"}, web.log.read_text)


def test_code_that_hangs_while_it_is_loaded_leaves_the_former_serving(serve: Callable[..., Web]) -> None:
    web = serve(CONFIG_SERVER_WORKERS="2", GUNICORN_CMD_ARGS="--timeout 3")
    former = {str(worker.pid) for worker in web.workers()}
    with Load(web) as load:
        web.code.write_text(APPLICATION.replace("time.sleep(", "time.sleep(600 + "))
        web.master.send_signal(signal.SIGHUP)
        until(lambda: len(web.workers()) == 4)
        web.code.write_text(APPLICATION.replace('VERSION = "1"', 'VERSION = "2"'))
        web.master.send_signal(signal.SIGHUP)
        until(lambda: "The reload under way is finished first" in web.log.read_text())
        assert load.served and set(load.served) <= former
        until(lambda: {web.get("/version") for _ in range(8)} == {"2"}, web.log.read_text)
        until(lambda: len(web.workers()) == 2)
    assert load.failures == []


def test_a_long_stream_of_a_former_worker_keeps_the_master_from_nothing(serve: Callable[..., Web]) -> None:
    web = serve()
    [former] = web.workers()
    stream = web.connect()
    stream.request("GET", "/stream")
    answer = stream.getresponse()
    assert answer.read(1) == b"x"
    web.master.send_signal(signal.SIGHUP)
    until(lambda: web.get("/pid") != str(former.pid), web.log.read_text)
    [present] = [worker for worker in web.workers() if worker != former]
    present.kill()
    until(lambda: int(web.get("/pid")) not in (former.pid, present.pid), web.log.read_text)
    assert answer.read() == b"x" * 14
    stream.close()


@pytest.mark.parametrize("after_s", [0.0, 0.05, 0.1, 0.3])
def test_the_word_to_end_finds_a_worker_that_is_just_being_born(serve: Callable[..., Web], after_s: float) -> None:
    web = serve(LOADS_FOR_S="0.5")
    web.master.send_signal(signal.SIGHUP)
    time.sleep(after_s)
    web.master.terminate()
    assert web.master.wait(30) == 0  # it would be given a minute


def test_kill_9_of_the_master_leaves_no_worker_on_the_port(serve: Callable[..., Web]) -> None:
    web = serve(CONFIG_SERVER_WORKERS="2")
    workers = web.workers()
    assert len(workers) == 2
    web.master.kill()
    assert psutil.wait_procs(workers, timeout=PATIENCE_S)[1] == []
    with socket.create_server(("127.0.0.1", web.port)):
        pass


def test_metrics_of_an_earlier_start_are_swept_away(serve: Callable[..., Web], tmp_path: Path) -> None:
    old = tmp_path / "data" / "metrics" / "counter_1.db"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    web = serve()
    assert web.get("/metrics_dir") == str(old.parent)
    assert not old.exists()


@pytest.mark.parametrize(("proxies", "scheme"), [("0", "http"), ("1", "https")])
def test_a_clients_word_about_tls_counts_only_behind_a_proxy(
    serve: Callable[..., Web], proxies: str, scheme: str
) -> None:
    web = serve(CONFIG_SERVER_TRUSTED_PROXIES=proxies)
    assert web.get("/scheme", **{"X-Forwarded-Proto": "https"}) == scheme


def test_a_worker_may_hold_thousands_of_connections(serve: Callable[..., Web]) -> None:
    web = serve()
    soft, hard = web.workers()[0].rlimit(psutil.RLIMIT_NOFILE)
    assert soft == hard
