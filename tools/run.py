"""Starts a complete Portico: the embedded Valkey, the first-start set-up, then every process of the Procfile.

A process that dies is started again. One that keeps dying ends everything. On Ctrl-C all processes end together, and
Valkey last, because the others still write to it.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]  # this file is run as a script

import config as settings
from tools.embedded_valkey import EmbeddedValkey, NoServer
from tools.orphans import die_with_parent

RESTARTS_A_MINUTE = 5  # per process, before we give up
FIRST_PAUSE_S = 0.5  # before a restart; doubled for each further death within a minute
CHECK_S = 0.1  # between two checks whether a process has ended
HEARTBEATS_WITHIN_S = 15.0  # for the background processes to report, once the portal takes traffic
RELOADED = ("*.py", "*.html", "*.lua", "*.yml")


_printing = threading.Lock()


class CannotStart(Exception):
    """Why Portico cannot start, as a sentence."""


def say(text: str) -> None:
    show(f"portico: {text}")


def show(line: str) -> None:
    """Prints one line in one write, because several threads print."""
    with _printing:
        print(line, flush=True)


def hold_data_folder(folder: Path) -> int:
    """Creates and locks the data folder. Returns the lock's file descriptor, which must stay open. Raises
    `CannotStart`.

    Valkey inherits the lock, so a start right after a kill waits until the old server has closed its files.
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
    """Raises `CannotStart` if the port is not free: a sentence now instead of a traceback in a web process later."""
    deadline = time.monotonic() + 1  # processes of a start that was just killed may need a moment to end
    while True:
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, kind, protocol, _, address = addresses[0]
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
    """Migrates the database and creates what a first start needs, in a separate process. Raises `CannotStart`."""
    result = subprocess.run(shlex.split(command), cwd=ROOT, env=environ, preexec_fn=die_with_parent(signal.SIGKILL))
    if result.returncode != 0:
        raise CannotStart(f"The set-up failed: `{command}` ended with {result.returncode}.")


class Process:
    """A program that should always run: it is started, polled, and started again when it ends.

    Only the main thread may call `spawn`, because a child dies with the thread that started it.
    """

    def __init__(self, name: str, spawn: Callable[[], subprocess.Popen[bytes]]) -> None:
        self.name = name
        self.spawn = spawn
        self.child: subprocess.Popen[bytes] | None = None
        self.due: float | None = 0.0  # when to start it; None while it runs, and when it must not start again
        self.deaths: list[float] = []  # within the last minute

    def start(self) -> None:
        """Starts the program. Raises `OSError` if that fails."""
        self.due = None
        self.child = self.spawn()
        say(f"{self.name} started (process {self.child.pid})")

    def ended(self) -> int | None:
        """Returns the exit status if the program has just ended, else None."""
        if self.child is None or self.child.poll() is None:
            return None
        status, self.child = self.child.returncode, None
        return status

    def schedule_restart(self, now: float) -> float | None:
        """Returns the seconds until the restart, longer after each death; None if the program died too often."""
        self.deaths = [at for at in self.deaths if now - at < 60] + [now]
        if len(self.deaths) > RESTARTS_A_MINUTE:
            return None
        pause = float(FIRST_PAUSE_S * 2 ** (len(self.deaths) - 1))
        self.due = now + pause
        return pause

    def send(self, number: signal.Signals) -> None:
        if self.child is not None:
            self.child.send_signal(number)


class Output:
    """Prints the programs' output line by line, each with the time and the name of the program.

    A thread reads the output of one start of a program. Nobody waits for these threads, because a child of the program
    may keep the pipe open after the program has ended.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._width = max(map(len, names), default=0)

    def follow(self, name: str, pipe: IO[bytes]) -> None:
        threading.Thread(target=self._copy, args=(name, pipe), daemon=True).start()

    def _copy(self, name: str, pipe: IO[bytes]) -> None:
        with pipe:
            for line in pipe:
                text = line.decode("utf-8", "replace").rstrip("\r\n")
                show(f"{time.strftime('%H:%M:%S')} {name.ljust(self._width)} | {text}")


class Launcher:
    """Starts the processes, restarts those that end, and leaves none behind.

    A process that keeps dying ends everything. When told to stop, the programs end together, and Valkey after them
    because they still write to it.
    """

    def __init__(
        self,
        programs: Mapping[str, str],
        environ: Mapping[str, str],
        valkey: EmbeddedValkey | None,
        grace_s: float,
        announce: Callable[[], None],
    ) -> None:
        self._environ = environ
        self._output = Output(programs)
        self._programs = [Process(name, partial(self._spawn, name, command)) for name, command in programs.items()]
        self._valkey = Process("the embedded Valkey", valkey.spawn) if valkey is not None else None
        if self._valkey is not None and valkey is not None:
            self._valkey.child, self._valkey.due = valkey.process, None  # started before the set-up
        self._grace_s = grace_s
        self._announce = announce
        self._wake = threading.Event()
        self._stopping_since: float | None = None  # when we started to stop
        self._kill_now = False
        self._status = 0

    def run(self) -> int:
        """Runs until told to stop. Returns 0 then, and a non-zero exit status if a process kept dying."""
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        threading.Thread(target=self._announce, daemon=True).start()
        while self._stopping_since is None:
            self._restart_ended([self._valkey, *self._programs] if self._valkey else self._programs)
            self._wake.wait(CHECK_S)
        say("stopping; Ctrl-C again to stop immediately")
        for program in self._programs:
            program.send(signal.SIGTERM)
        killed = False
        while any(program.ended() is None and program.child is not None for program in self._programs):
            if not killed and (self._kill_now or time.monotonic() - self._stopping_since > self._grace_s):
                killed = True
                for program in self._programs:
                    program.send(signal.SIGKILL)
            if self._valkey is not None:
                self._restart_ended([self._valkey])
            time.sleep(CHECK_S)
        return self._status

    def _on_signal(self, *_: object) -> None:
        now = time.monotonic()
        if self._stopping_since is None:
            self._stopping_since = now
        elif now - self._stopping_since > 1:  # one Ctrl-C may arrive twice, from the terminal and from a wrapper
            self._kill_now = True
        self._wake.set()

    def _restart_ended(self, processes: Sequence[Process]) -> None:
        now = time.monotonic()
        for process in processes:
            status = process.ended()
            if status is not None:
                how = f"ended with {status}" if status >= 0 else f"was ended by {_signal_name(-status)}"
                self._on_death(process, how, status, now)
            if process.due is not None and now >= process.due:
                try:
                    process.start()
                except OSError as error:
                    self._on_death(process, f"could not be started ({error})", 127, now)

    def _on_death(self, process: Process, how: str, status: int, now: float) -> None:
        pause = process.schedule_restart(now)
        if pause is not None:
            say(f"{process.name} {how}; starting it again in {pause:g} s")
        elif self._stopping_since is None:
            say(f"{process.name} {how}, {len(process.deaths)} times within a minute; ending everything")
            self._status = status if status > 0 else 128 - status if status < 0 else 1
            self._stopping_since = now

    def _spawn(self, name: str, command: str) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            shlex.split(command),
            cwd=ROOT,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal is for us; we signal them
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
        assert child.stdout is not None
        self._output.follow(name, child.stdout)
        return child


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def read_procfile(path: Path) -> dict[str, str]:
    """Returns each program's command by its name. A command is plain words, without shell variables and operators.
    Raises `CannotStart`."""
    programs = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        name, colon, command = line.partition(":")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not colon or not name.strip() or not command.strip():
            raise CannotStart(f"{path}: line {number} is not `name: command`.")
        programs[name.strip()] = command.strip()
    return programs


def announce(probe_url: str, base_url: str) -> None:
    """Waits until the portal takes traffic and every process has reported, then prints the portal's address."""
    deadline = None
    while True:
        try:
            with urllib.request.urlopen(f"{probe_url}/readyz", timeout=5) as answer:
                all_reported = b'"degraded": []' in (body := answer.read()) or b"degraded" not in body
                if all_reported or deadline is not None and time.monotonic() > deadline:
                    break
                deadline = deadline or time.monotonic() + HEARTBEATS_WITHIN_S
        except OSError:
            pass
        time.sleep(0.1)
    say(f"ready at {base_url} - stop with Ctrl-C")


def launch(procfile: Path, set_up_command: str, reload: bool) -> int:
    os.umask(0o077)
    config = settings.load()
    lock = hold_data_folder(config.data_dir)
    check_port(config.server.host, config.server.port)
    config.secrets()
    environ = dict(os.environ, PYTHONUNBUFFERED="1")
    environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", os.defpath)])
    valkey = None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so Valkey is stopped, whatever we are doing
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
        programs = read_procfile(procfile)
        if reload:
            watch = f"{shlex.quote(sys.executable)} {shlex.quote(__file__)} again"
            programs = {name: f"{watch} {command}" for name, command in programs.items()}
        ready = partial(announce, probe_url, config.base_url)
        return Launcher(programs, environ, valkey, config.server.drain_s + 15, ready).run()
    finally:
        if valkey is not None:
            valkey.stop()
        os.close(lock)


def rerun_on_change(command: list[str]) -> NoReturn:
    """Runs `command` and restarts it whenever the code changes. After it fails, it waits for the next change."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    signal.signal(signal.SIGINT, lambda *_: stopping.set())
    while not stopping.is_set():
        version = _newest_change()
        child = subprocess.Popen(command, preexec_fn=die_with_parent(signal.SIGKILL))
        ended = False
        while not stopping.wait(0.5) and _newest_change() == version:
            if child.poll() is not None and not ended:
                ended = True
                print(f"ended with {child.returncode}; waiting for a code change", flush=True)
        child.terminate()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
    sys.exit(0)


def _newest_change() -> tuple[int, int]:
    """Returns how many code files there are, and when one last changed, in nanoseconds."""
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
        rerun_on_change(arguments[1:])
    parser = argparse.ArgumentParser(description="Start a whole Portico.")
    parser.add_argument("--reload", action="store_true", help="restart every process when the code changes")
    parser.add_argument("--procfile", type=Path, default=ROOT / "Procfile", help="another Procfile")
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
