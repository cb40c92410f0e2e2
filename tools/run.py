"""Starts a whole Portico: the embedded Valkey, the first-start set-up, then every process of the Procfile.

All of them end together, on Ctrl-C or when one of them dies, and Valkey ends last, because the others still write to it.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import multiprocessing
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]  # this file is run as a script

import honcho.manager
import honcho.process
from honcho.environ import parse_procfile

import config as settings
from tools.embedded_valkey import EmbeddedValkey, NoServer, die_with_parent

RESTARTS_A_MINUTE = 5  # of the embedded Valkey, before we give up
RELOADED = ("*.py", "*.html", "*.lua", "*.yml")


class CannotStart(Exception):
    """What keeps Portico from starting, in a sentence."""


def say(text: str) -> None:
    print(f"portico: {text}", flush=True)


def hold_data_folder(folder: Path) -> int:
    """Make the data folder and lock it; answers the lock's descriptor, to be kept open.

    Valkey inherits the lock, so that a start right after a kill waits until the old one has let go of its files.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        lock = os.open(folder / "portico.lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise CannotStart(f"storage.data_dir: cannot use {folder}: {error.strerror}") from None
    deadline = time.monotonic() + 10
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            owner = os.pread(lock, 32, 0).decode().strip()
            if _is_alive(owner):
                raise CannotStart(f"Portico already runs on {folder} (process {owner}). Stop it first, or give this"
                                  " one its own folder with CONFIG_STORAGE_DATA_DIR.") from None  # fmt: skip
            if time.monotonic() > deadline:
                raise CannotStart(f"Processes of an earlier start still use {folder}; end them first.") from None
            time.sleep(0.05)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True


def check_port(host: str, port: int) -> None:
    """Say so now, in a sentence, rather than in the traceback of a web process."""
    deadline = time.monotonic() + 1  # processes of a start that was just killed may need an instant to vanish
    while True:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, protocol, _, address = found[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
            return
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise CannotStart(
                    f"Cannot listen on {host} port {port}: {error.strerror}. Choose another with CONFIG_SERVER_PORT"
                    " or CONFIG_SERVER_HOST."
                ) from None
        time.sleep(0.05)


def set_up(command: str, environ: dict[str, str]) -> None:
    """Migrate and make what a first start needs, in a process of its own."""
    done = subprocess.run(shlex.split(command), cwd=ROOT, env=environ, preexec_fn=die_with_parent(signal.SIGKILL))
    if done.returncode != 0:
        raise CannotStart(f"The set-up failed: `{command}` ended with {done.returncode}.")


class Program(honcho.process.Process):
    """One process of the Procfile, and its keeper: the small process of ours that reads what it prints."""

    def __init__(self, cmd: str, **options: Any) -> None:
        super().__init__(cmd, **options)
        self._die_with_launcher = die_with_parent(signal.SIGKILL)

    def run(self, events: Any = None, ignore_signals: bool = False) -> None:
        self._die_with_launcher()  # and the program dies with us, so that it, too, does not outlive the launcher
        # Before the program is there, not after: a Ctrl-C in between would leave it without a keeper.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        die_with_keeper = die_with_parent(signal.SIGKILL)

        def begin() -> None:
            die_with_keeper()
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

        def start(command: str, **options: Any) -> honcho.process.Popen:
            # `exec`: no shell stays between us and the program, so that signals reach the program itself
            return honcho.process.Popen(f"exec {command}", preexec_fn=begin, stdin=subprocess.DEVNULL, **options)

        self._child_ctor = start
        super().run(events, ignore_signals=False)


class Launcher(honcho.manager.Manager):
    """honcho's manager, which also looks after Valkey, and which leaves nothing behind."""

    def __init__(self, valkey: EmbeddedValkey | None, probe_url: str, base_url: str, grace_s: float) -> None:
        super().__init__()
        honcho.manager.KILL_WAIT = grace_s
        self._process_ctor = Program
        self._valkey = valkey
        self._valkey_deaths: list[float] = []
        self._probe_url = probe_url
        self._base_url = base_url
        self._grace_s = grace_s
        self._asked_at: float | None = None  # when we were told to stop
        self._hurry = False
        self._failed = False

    def _start(self) -> None:
        # honcho's own handlers do their work inside the handler, and trip over a signal that comes early.
        signal.signal(signal.SIGINT, self._ask)
        signal.signal(signal.SIGTERM, self._ask)
        super()._start()
        threading.Thread(target=self._announce, daemon=True).start()

    def _ask(self, *_: object) -> None:
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
        elif now - self._asked_at > 1:  # the same Ctrl-C may arrive twice, from a terminal and from a wrapper
            self._hurry = True

    def _all_started(self) -> bool:
        """honcho asks this ten times a second, which makes it the place for what must be looked at all the time."""
        self._notice_lost_keepers()
        started: bool = super()._all_started()
        if not started:
            return False
        if self._asked_at is None and self._any_stopped():
            self._failed = True
        elif self._asked_at is not None and not self._all_stopped():
            if not self._terminating:
                say("stopping; Ctrl-C again to stop at once")
                self.terminate()
            if self._hurry or time.monotonic() - self._asked_at > self._grace_s:
                self._hurry, self._grace_s = False, float("inf")
                self.kill()
        if self._valkey is not None and self._valkey.died():
            self._restart_valkey(self._valkey)
        return True

    def _notice_lost_keepers(self) -> None:
        """A keeper that was killed took its program along, and nobody else would tell."""
        for process in self._processes.values():
            if process["process"].exitcode and "returncode" not in process:
                process.setdefault("pid", process["process"].pid)
                process["returncode"] = 1

    def _restart_valkey(self, valkey: EmbeddedValkey) -> None:
        """A Valkey that died comes back with its files; one that keeps dying ends us all."""
        now = time.monotonic()
        self._valkey_deaths = [at for at in self._valkey_deaths if now - at < 60] + [now]
        if len(self._valkey_deaths) <= RESTARTS_A_MINUTE:
            say("the embedded Valkey died; starting it again")
            valkey.spawn()
        elif not self._failed:
            say(f"the embedded Valkey keeps dying; see {valkey.folder / 'valkey.log'}")
            self._failed = True
            self.terminate()

    def _announce(self) -> None:
        """Wait until the portal takes traffic, then say where it is."""
        while True:
            try:
                with urllib.request.urlopen(f"{self._probe_url}/readyz", timeout=5) as answer:
                    if answer.status == 200:
                        break
            except OSError:
                pass
            time.sleep(0.1)
        say(f"ready at {self._base_url} - stop with Ctrl-C")

    def exit_code(self) -> int:
        """0 when we were asked to stop, else that of the process that died by itself, which is never 0."""
        if not self._failed:
            return 0
        code = int(self.returncode or 1)
        return code if code > 0 else 128 - code


def launch(procfile: Path, set_up_command: str, reload: bool) -> int:
    os.umask(0o077)
    if sys.platform.startswith("linux"):
        multiprocessing.set_start_method("fork", force=True)  # a keeper must be our own child, to die with us
    config = settings.load()
    lock = hold_data_folder(config.data_dir)
    check_port(config.server.host, config.server.port)
    config.secrets()
    environ = dict(os.environ, PYTHONUNBUFFERED="1")
    environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", os.defpath)])
    valkey = None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that Valkey is stopped, whatever we are at
    try:
        if config.redis_embedded:
            valkey = EmbeddedValkey(config.redis_socket, config.data_dir / "valkey", lock)
            valkey.start()
            say(f"embedded Valkey on {config.redis_socket}")
        if set_up_command:
            set_up(set_up_command, environ)
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(config.server.host, config.server.host)
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        probe_url = f"http://{host}:{config.server.port}"
        launcher = Launcher(valkey, probe_url, config.base_url, config.server.drain_s + 15)
        for name, command in parse_procfile(procfile.read_text()).processes.items():
            if reload:
                command = f"{shlex.quote(sys.executable)} {shlex.quote(__file__)} again {command}"
            launcher.add_process(name, command, env=environ, cwd=str(ROOT))
        launcher.loop()
        return launcher.exit_code()
    finally:
        if valkey is not None:
            valkey.stop()
        os.close(lock)


def again(command: list[str]) -> NoReturn:
    """Run `command` and run it anew whenever the code changes; one that fails waits for the next change."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, lambda *_: stopping.set())
    while not stopping.is_set():
        seen = _newest_change()
        child = subprocess.Popen(command, preexec_fn=die_with_parent(signal.SIGKILL))
        ended = False
        while not stopping.wait(0.5) and _newest_change() == seen:
            if child.poll() is not None and not ended:
                ended = True
                print(f"ended with {child.returncode}; waiting for a change of the code", flush=True)
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    sys.exit(0)


def _newest_change() -> tuple[int, int]:
    """How many files the code has and when one was last changed, in nanoseconds."""
    files = [ROOT / "config.py", ROOT / "wsgi.py", ROOT / "gunicorn.conf.py"]
    files += [path for pattern in RELOADED for folder in ("app", "asset") for path in (ROOT / folder).rglob(pattern)]
    times = []
    for path in files:
        try:
            times.append(path.stat().st_mtime_ns)
        except OSError:
            continue
    return len(times), max(times, default=0)


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["again"]:
        again(arguments[1:])
    parser = argparse.ArgumentParser(description="Start a whole Portico.")
    parser.add_argument("--reload", action="store_true", help="restart every process when the code changes")
    parser.add_argument("--procfile", type=Path, default=ROOT / "Procfile", help="another list of processes")
    parser.add_argument("--set-up", default="python -m app.setup", help="what runs first; empty for nothing")
    options = parser.parse_args(arguments)
    try:
        return launch(options.procfile, options.set_up, options.reload)
    except (settings.ConfigError, CannotStart, NoServer) as error:
        print(f"portico: {error}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
