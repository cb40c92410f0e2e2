"""How gunicorn serves Portico: gevent workers, limits of a request's head, and an orderly end of every connection.

Everything an operator may want to change comes from `asset/config.yml`; what is left here belongs to the code.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent)]

import gevent
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger as GunicornLogger
from gunicorn.http.errors import NoMoreData
from gunicorn.workers.ggevent import GeventWorker

import config as settings
from app.runtime import logs
from tools.orphans import die_with_parent

MEETING_S = 5.0  # at most, for providers before the first call
TOLD_BY = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}  # a worker is told to end by one of these
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h

_config = settings.load()
_metrics_dir = _config.data_dir / "metrics"
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_metrics_dir)  # read when a worker imports the client

try:  # a connection is a file; the usual soft limit of 1,024 is soon used up by idle streams
    _, _most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_most_files, _most_files))
except (ValueError, OSError):  # macOS answers "unlimited", and then refuses it
    pass


class Logger(GunicornLogger):
    """What gunicorn says goes where the application's logs go: as JSON, with secrets masked. Workers inherit it."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        logs.configure(_config, "web")
        for logger in (self.error_log, self.access_log):
            logger.handlers.clear()
            logger.propagate = True


class Idle(dict[gevent.Greenlet, float]):
    """Connections between two requests, or within the head of one, and since when. Each enters it for that while."""

    def __enter__(self) -> None:
        self[gevent.getcurrent()] = time.monotonic()

    def __exit__(self, *raised: object) -> None:
        del self[gevent.getcurrent()]

    def hang_up(self, after_s: float) -> None:
        """End those that have been idle for longer."""
        latest = time.monotonic() - after_s
        loop = gevent.get_hub().loop
        for connection in [connection for connection, since in self.items() if since <= latest]:
            loop.run_callback(self._end, connection)

    def _end(self, connection: gevent.Greenlet) -> None:
        if connection in self:  # no request has come meanwhile
            connection.throw(NoMoreData())


class Worker(GeventWorker):
    """gunicorn's gevent worker, with one look a second at its idle connections instead of a timer for each request.

    Once told to stop, the original would also wait for them as if for work.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle = Idle()
        self._told_at: float | None = None
        self._born = time.monotonic()
        self.told = False  # the master's note that it has told this one to end

    @property
    def is_ready(self) -> bool:
        """Whether it has loaded the application: it has written into the file that it shares with the master."""
        return os.fstat(self.tmp.fileno()).st_size > 0

    @property
    def is_loading(self) -> bool:
        """Whether it loads the application, and for no longer than one that stands still is borne with."""
        return not self.is_ready and time.monotonic() - self._born < self.cfg.timeout

    def timeout_ctx(self) -> Idle:
        return self._idle

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """The busiest routes of /v1 take the fast path around WSGI."""
        fast_path = getattr(self.wsgi, "fast_path", None)  # any WSGI application may be served
        if fast_path is None or not fast_path.takes(req):
            super().handle_request(listener_name, req, sock, addr)
            return
        self.nr += 1
        try:
            keep = fast_path.serve(req, sock, keep=self.alive)
        except (gevent.GreenletExit, SystemExit):  # the worker ends
            keep = False
        if not keep:
            raise StopIteration  # gunicorn's word for: close the connection

    def notify(self) -> None:
        """Called each second: once the end was told, idle connections have a second to ask, and streams their time."""
        super().notify()
        if self.alive:
            self._idle.hang_up(self.cfg.keepalive)
        elif self._told_at is None:
            self._told_at = time.monotonic()
        else:
            self._idle.hang_up(0)
            if "v1" in _config.server.doors and time.monotonic() - self._told_at > _config.server.drain_s:
                from app.gateway import runtime

                runtime.drain()


class Master(Arbiter):
    """gunicorn's master, whose reload takes nothing away before there is something in its place.

    The original tells old workers to end as soon as new ones are forked, though these have everything to load yet, and
    then looks after nobody until the old are gone. Here a former worker ends for each new one that is ready, the rest goes
    on serving, and the master goes on looking. A reload that comes meanwhile waits; code that cannot be loaded changes
    nothing. Every signal finds its worker, however young.
    """

    former = 0  # the age of the last worker of the former code
    again = False

    def handle_hup(self) -> None:
        if self._is_loading():
            self.again = True
            self.log.info("The reload under way is finished first")
            return
        self.again = False
        super().handle_hup()

    def reload(self) -> None:
        """Read the settings anew and begin with new workers; `manage_workers` does the rest."""
        before = self.cfg.address
        self.app.reload()
        self.setup(self.app)
        self.log.reopen_files()
        if self.cfg.address != before:
            self.log.error("The address to listen on changes with a restart only")
        self.former = self.worker_age
        self.manage_workers()

    def manage_workers(self) -> None:
        """Have as many workers of the present code as there should be, and former ones as long as they are needed."""
        workers = self._kept()
        present = [worker for worker in workers if worker.age > self.former]
        for _ in range(self.num_workers - len(present)):
            self.spawn_worker()
        ready = sum(worker.is_ready for worker in present)
        replaced = [worker for worker in workers if worker.age <= self.former and not worker.is_loading]
        former = [worker for worker in replaced if worker.is_ready]
        hanging = [worker for worker in replaced if worker not in former]
        self._tell_to_end(hanging, signal.SIGKILL)  # they serve nobody, and would not hear another word
        self._tell_to_end(present[: max(0, len(present) - self.num_workers)])
        self._tell_to_end(former[: max(0, len(former) + ready - self.num_workers)])
        if self.again and not self._is_loading():
            self.handle_hup()

    def reap_workers(self) -> None:
        """A worker that cannot load the code ends the master only when nobody serves any more."""
        try:
            super().reap_workers()
        except HaltServer as error:
            workers = self._kept()
            if not any(worker.is_ready for worker in workers):
                raise
            former = [worker for worker in workers if worker.age <= self.former]
            if former:
                self.log.error("The new code cannot be loaded; the former goes on serving: %s", error.reason)
                self._tell_to_end([worker for worker in workers if worker not in former])
                self.former, self.again = 0, False

    def _kept(self) -> list[Worker]:
        """The workers that have not been told to end, the oldest first."""
        return sorted((one for one in self.WORKERS.values() if not one.told), key=lambda worker: worker.age)

    def _is_loading(self) -> bool:
        """Whether there are new workers to be waited for."""
        return any(worker.age > self.former and worker.is_loading for worker in self._kept())

    def _tell_to_end(self, workers: list[Worker], number: signal.Signals = signal.SIGTERM) -> None:
        for worker in workers:
            worker.told = True
            self.kill_worker(worker.pid, number)

    def spawn_worker(self) -> int:
        """No signal is lost between a worker's birth and its own handlers (see `post_fork`)."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, TOLD_BY)
        try:
            pid: int = super().spawn_worker()
            return pid
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


_host = f"[{_config.server.host}]" if ":" in _config.server.host else _config.server.host
bind = f"{_host}:{_config.server.port}"
workers = _config.workers
worker_class = Worker
logger_class = Logger
worker_connections = 20_000
backlog = 4096
preload_app = False  # gRPC does not survive a fork
control_socket_disable = True  # its default path is one per user, so two Porticos would collide

timeout = 60  # a worker whose loop stands still for this long is replaced
keepalive = 75
graceful_timeout = int(_config.server.drain_s) + 10  # streams end by our own, earlier deadline: this one kills

limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 16_380
# Which addresses are proxies is counted in hops by the application; gunicorn need only not contradict it. So it does not
# look at addresses, and believes what they say of the scheme only where there are proxies.
forwarded_allow_ips = "*"
forwarder_headers = ""
if not _config.server.trusted_proxies:
    secure_scheme_headers: dict[str, str] = {}

umask = 0o077
accesslog = None  # the application writes its own, with request ids
loglevel = _config.log.level
if os.access("/dev/shm", os.W_OK):  # noqa: S108 - the heartbeat files: a slow disk must not look like a dead worker
    worker_tmp_dir = "/dev/shm"  # noqa: S108


def on_starting(server: Any) -> None:
    """Counters of an earlier start are not ours. And gunicorn has no setting for the class of its master."""
    server.__class__ = Master
    shutil.rmtree(_metrics_dir, ignore_errors=True)
    _metrics_dir.mkdir(mode=0o700, parents=True)


def post_fork(server: Any, worker: Any) -> None:
    _die_with_master()
    for number in TOLD_BY:  # until it has handlers of its own, the word to end ends it at once
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, TOLD_BY)


def post_worker_init(worker: Any) -> None:
    _fix_settings(worker.cfg)
    logs.begin()
    gevent.get_hub().print_exception = _log_lost_greenlet
    if "v1" in _config.server.doors:
        _load_vocabulary()
        _meet_providers(worker.wsgi)
    _keep_what_is_loaded()
    os.write(worker.tmp.fileno(), b"1")  # see `Worker.is_ready`


def _fix_settings(cfg: Any) -> None:
    """gunicorn looks each setting up through three functions, seventeen times in a request. A worker's never change: a
    reload makes new workers. As plain attributes they are found at once."""
    vars(cfg).update((name, setting.get()) for name, setting in cfg.settings.items())


def _load_vocabulary() -> None:
    """Here, where nobody waits for it yet. Without it tokens are guessed, which each such call logs."""
    from app.providers import tokens

    with contextlib.suppress(tokens.VocabularyError, OSError):
        tokens.load()


def _meet_providers(application: Any) -> None:
    """Make the adapters before anybody is served: some load much, such as gRPC, and try whether they can use it. Without a
    store they are made at the first call."""
    from hiredis import ReplyError

    from app.gateway.redis_wire import RedisAway
    from app.gateway.runtime import of_process

    config = getattr(application, "config", None)  # any WSGI application may be served
    if config is not None:
        with gevent.Timeout(MEETING_S, False), contextlib.suppress(RedisAway, ReplyError):
            of_process(config).routes.begin()


def _log_lost_greenlet(context: Any, *raised: Any) -> None:
    """gevent would write to standard error what a greenlet raised and nobody caught."""
    logs.log_uncaught(*raised)


def _keep_what_is_loaded() -> None:
    """What is loaded by now stays for good, and caches grow beside it. Walking them in a full collection holds up whoever
    is served then, so these are a hundred times rarer than Python would have them. Young collections are ten times rarer:
    a call makes hundreds of objects, and nearly all of them go without a collector."""
    gc.collect()
    gc.freeze()
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young * 10, middle, old * 10)
    _keep_memory()


def _keep_memory() -> None:
    """glibc hands large blocks back to the kernel at once, and the next large body pays a page fault for each 4 KB."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries have none
        mallopt(_M_TRIM_THRESHOLD, 64 << 20)
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)


def child_exit(server: Any, worker: Any) -> None:
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)


_die_with_master = die_with_parent(signal.SIGKILL)  # a killed master leaves no worker on its port
