"""The launcher, with stand-ins for the processes of the Procfile: who ends when, and what a next start finds."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from tests.services.memory import PLACE
from tests.services.portico import ROOT, Portico
from tests.services.waiting import PATIENCE_S, until
from tools import run

pytestmark = pytest.mark.slow

STAND_IN = """
import http.server, os, signal, subprocess, sys, time
import redis

name = sys.argv[1]
valkey = redis.Redis.from_url("unix://" + os.environ["CONFIG_STORAGE_DATA_DIR"] + "/valkey/valkey.sock")

def end(*_):
    time.sleep(float(sys.argv[2]) if len(sys.argv) > 2 else 0)
    valkey.rpush("ended", name)  # Valkey must still be there
    os._exit(0)

signal.signal(signal.SIGTERM, end)
valkey.rpush("started", name)
print(name, "has begun")
if name != "web":
    while True:
        time.sleep(60)

class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *_):
        pass

http.server.HTTPServer(("127.0.0.1", int(os.environ["CONFIG_SERVER_PORT"])), Ready).serve_forever()
"""


class Launched(Portico):
    """A launcher over stand-ins."""

    def __init__(self, data_dir: Path, environ: dict[str, str], *arguments: str, **commands: str) -> None:
        stand_in = data_dir / "stand_in.py"
        data_dir.mkdir(exist_ok=True)
        stand_in.write_text(STAND_IN)
        lines = {name: f"python {stand_in} {name}" for name in ("web", "drainer", "worker", "clock")} | commands
        procfile = data_dir / "Procfile"
        procfile.write_text("".join(f"{name}: {command}\n" for name, command in lines.items() if command))
        environ.setdefault("CONFIG_SERVER_DRAIN_S", "1")
        super().__init__(environ, ["--procfile", str(procfile), "--set-up", "", *arguments], data_dir)

    def launch(self) -> None:
        self.before = len(self.log())  # what earlier starts have said
        super().launch()

    def wait_ready(self, within_s: float = PATIENCE_S) -> None:
        """Until every stand-in has begun and the launcher has said so: `readyz` alone may be the web of an earlier start."""
        stand_ins = [line for line in (self.data_dir / "Procfile").read_text().splitlines() if "stand_in.py" in line]
        deadline = time.monotonic() + within_s
        while self.process.poll() is None and time.monotonic() < deadline:
            said = self.log()[self.before :]
            if "ready at" in said and all(f"{line.split(':')[0]} has begun" in said for line in stand_ins):
                return
            time.sleep(0.02)
        raise AssertionError(f"not ready:\n{self.log()}")

    def wait_exit(self, within_s: float = PATIENCE_S) -> int:
        assert self.process is not None
        return self.process.wait(within_s)

    @property
    def valkey(self) -> redis.Redis:
        return redis.Redis.from_url(self.redis_url, decode_responses=True)


def gone(processes: list[psutil.Process], within_s: float = PATIENCE_S) -> bool:
    return not psutil.wait_procs(processes, timeout=within_s)[1]


@pytest.fixture
def launch() -> Iterator[Callable[..., Launched]]:
    made: list[Launched] = []
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=PLACE))  # short, so that Valkey's socket lies in it

    def make(*arguments: str, environ: dict[str, str] | None = None, **commands: str) -> Launched:
        made.append(Launched(folder / "data", dict(environ or {}), *arguments, **commands))
        return made[-1]

    yield make
    for one in made:
        one.kill()
    shutil.rmtree(folder, ignore_errors=True)


def test_ctrl_c_ends_everything_with_0_and_valkey_last(launch: Callable[..., Launched]) -> None:
    portico = launch().start()
    processes = portico.processes()
    with portico.valkey as valkey:
        assert sorted(valkey.lrange("started", 0, -1)) == ["clock", "drainer", "web", "worker"]
    assert portico.stop() == 0, portico.log()
    assert gone(processes)
    assert f"ready at http://localhost:{portico.port} - stop with Ctrl-C" in portico.log()
    portico.start()
    with portico.valkey as valkey:  # what was written in the last moment has been kept
        assert sorted(valkey.lrange("ended", 0, -1)) == ["clock", "drainer", "web", "worker"]


def test_sigterm_ends_everything_with_0(launch: Callable[..., Launched]) -> None:
    portico = launch().start()
    processes = portico.processes()
    portico.process.terminate()
    assert portico.wait_exit() == 0
    assert gone(processes)


@pytest.mark.parametrize("moment", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
def test_ctrl_c_at_any_moment_of_the_start_leaves_nothing(launch: Callable[..., Launched], moment: float) -> None:
    portico = launch()
    portico.launch()
    time.sleep(moment)
    processes = portico.processes()
    portico.process.send_signal(signal.SIGINT)
    portico.wait_exit()
    assert gone(processes)
    assert not [
        p for p in psutil.process_iter(["cmdline"]) if str(portico.data_dir) in " ".join(p.info["cmdline"] or [])
    ]


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("name", ["web", "drainer", "worker", "clock"])
def test_one_that_is_killed_is_started_again_and_the_others_go_on(launch: Callable[..., Launched], name: str) -> None:
    portico = launch().start()
    [killed] = portico.pids(f" {name}")
    others = {process.pid for process in portico.processes()} - {killed}
    os.kill(killed, signal.SIGKILL)
    until(lambda: portico.log().count(f"{name} has begun") == 2, portico.log)
    assert f"{name} was ended by SIGKILL; starting it again in 0.5 s" in portico.log()
    assert others < {process.pid for process in portico.processes()}
    assert portico.stop() == 0, portico.log()


def test_a_child_that_holds_the_output_open_hides_no_death(launch: Callable[..., Launched], tmp_path: Path) -> None:
    """The child of a killed worker kept the pipe, and nobody noticed for as long as it lived."""
    program = tmp_path / "mother.py"
    program.write_text(
        "import os, subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('mother', os.getpid(), flush=True)\n"
        "time.sleep(600)\n"
    )
    portico = launch(worker=f"python {program}").start()
    until(lambda: portico.pids("mother.py"), portico.log)
    [mother] = portico.pids("mother.py")
    [child] = psutil.Process(mother).children()
    os.kill(mother, signal.SIGKILL)
    until(lambda: portico.pids("mother.py") not in ([], [mother]), portico.log)
    assert alive(child.pid)  # such a child knows nothing of us
    assert portico.stop() == 0, portico.log()
    child.kill()


def test_one_that_dies_again_and_again_ends_everything_with_its_status(launch: Callable[..., Launched]) -> None:
    portico = launch(clock="python -c 'exit(7)'")
    portico.launch()
    until(lambda: "web has begun" in portico.log(), portico.log)
    processes = portico.processes()
    assert portico.wait_exit() == 7
    assert gone(processes)
    pauses = [line.split(" in ")[1] for line in portico.log().splitlines() if "starting it again" in line]
    assert pauses == ["0.5 s", "1 s", "2 s", "4 s", "8 s"]
    assert "clock ended with 7, 6 times within a minute; ending everything" in portico.log()


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("true", 1, "one ended with 0, 6 times"),
        ("no-such-program", 127, "one could not be started"),
        ("python -c 'import os; os.kill(os.getpid(), 11)'", 139, "one was ended by SIGSEGV, 6 times"),
    ],
)
def test_an_end_that_nobody_asked_for_is_a_failure_whatever_its_status(
    command: str, status: int, said: str,
    handlers: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(run, "FIRST_PAUSE_S", 0.001)
    assert run.Launcher({"one": command}, os.environ, None, 5, lambda: None).run() == status
    assert said in capsys.readouterr().out


def test_what_died_long_ago_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    process = run.Process("one", lambda: None)  # type: ignore[arg-type, return-value]
    assert [process.schedule_restart(float(at)) for at in range(5)] == [0.5, 1, 2, 4, 8]
    assert process.schedule_restart(61.0) == 4  # of the minute before it, three
    assert [process.schedule_restart(61.0) for _ in range(3)] == [8, None, None]


def test_a_procfile_that_says_nothing_of_use_is_told_in_a_sentence(launch: Callable[..., Launched]) -> None:
    portico = launch()
    (portico.data_dir / "Procfile").write_text("web gunicorn\n")
    portico.launch()
    assert portico.wait_exit() == 2
    assert "line 1 is not `name: command`" in portico.log()


def test_a_process_that_will_not_end_is_killed_after_its_grace(launch: Callable[..., Launched]) -> None:
    stubborn = "python -c 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)'"
    portico = launch(clock=stubborn).start()
    processes = portico.processes()
    portico.process.send_signal(signal.SIGINT)
    time.sleep(1.5)
    portico.process.send_signal(signal.SIGINT)  # the impatient, second Ctrl-C
    portico.wait_exit()
    assert gone(processes)


def test_kill_9_of_the_launcher_leaves_nobody(launch: Callable[..., Launched]) -> None:
    portico = launch(worker="python -c 'import time; time.sleep(600)'").start()
    until(lambda: len(portico.processes()) >= 6)  # launcher, Valkey, four programs
    processes = portico.processes()
    portico.process.kill()
    assert gone(processes)


def test_a_second_start_right_after_kill_9_works(launch: Callable[..., Launched]) -> None:
    portico = launch().start()
    with portico.valkey as valkey:
        valkey.set("kept", "1")
    for hard in (portico.process.kill, portico.kill):
        hard()
        portico.start()
        with portico.valkey as valkey:
            assert valkey.get("kept") == "1"
    assert portico.stop() == 0, portico.log()


def test_a_second_start_on_the_same_folder_is_refused_in_a_sentence(launch: Callable[..., Launched]) -> None:
    first = launch().start()
    second = launch()
    second.launch()
    assert second.wait_exit() == 2
    assert f"Portico already runs on {first.data_dir} (process {first.process.pid})" in second.log()
    assert first.process.poll() is None


def test_a_port_in_use_is_told_in_a_sentence(launch: Callable[..., Launched]) -> None:
    portico = launch()
    with socket.create_server(("127.0.0.1", portico.port)):
        portico.launch()
        assert portico.wait_exit() == 2
    assert f"Cannot listen on 127.0.0.1 port {portico.port}: Address already in use" in portico.log()
    assert "Traceback" not in portico.log()


def test_a_wrong_setting_is_told_in_a_sentence(launch: Callable[..., Launched]) -> None:
    portico = launch(environ={"CONFIG_SERVER_WORKERS": "many"})
    portico.launch()
    assert portico.wait_exit() == 2
    assert portico.log().startswith("portico: server.workers: ")
    assert "Traceback" not in portico.log()


def test_a_valkey_that_dies_is_started_again_with_its_data(launch: Callable[..., Launched]) -> None:
    portico = launch().start()
    with portico.valkey as valkey:
        valkey.set("kept", "1")
    [first] = portico.pids("valkey-server")
    os.kill(first, signal.SIGKILL)
    until(lambda: portico.pids("valkey-server") not in ([], [first]), portico.log)

    def kept() -> bool:
        try:
            with portico.valkey as valkey:
                return valkey.get("kept") == "1"
        except redis.RedisError:  # it may still be reading its files
            return False

    until(kept, portico.log)
    assert portico.stop() == 0, portico.log()


def test_no_valkey_is_started_when_another_is_configured(launch: Callable[..., Launched], redis_url: str) -> None:
    waiting = "python -c 'import time; time.sleep(600)'"
    portico = launch(
        environ={"CONFIG_REDIS_URL": redis_url}, web=waiting, drainer=waiting, worker=waiting, clock=waiting
    )
    portico.launch()
    until(lambda: "clock started" in portico.log(), portico.log)
    assert portico.pids("valkey-server") == []
    assert portico.stop() == 0, portico.log()


def test_the_set_up_runs_before_the_processes_and_its_failure_stops_the_start(tmp_path: Path) -> None:
    portico = Launched(tmp_path / "data", {})
    portico.arguments[portico.arguments.index("--set-up") + 1] = f"{sys.executable} -c 'print(12345); exit(3)'"
    portico.launch()
    assert portico.wait_exit() == 2
    assert "12345" in portico.log() and "The set-up failed" in portico.log()
    assert "started" not in portico.log()


def test_data_folder_is_for_its_owner_alone(launch: Callable[..., Launched]) -> None:
    portico = launch().start()
    for folder in (portico.data_dir, portico.data_dir / "valkey"):
        assert folder.stat().st_mode & 0o077 == 0
    assert (portico.data_dir / "valkey" / "valkey.sock").stat().st_mode & 0o077 == 0


def test_reload_starts_a_program_again_when_the_code_changes(tmp_path: Path) -> None:
    """`again` watches the folder that the launcher lies in, so this one lies in a copy."""
    for name in ("tools/__init__.py", "tools/run.py", "tools/embedded_valkey.py", "tools/orphans.py", "config.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "app").mkdir()
    code = tmp_path / "app" / "thing.py"
    program = "import runpy, time; runpy.run_path('app/thing.py'); time.sleep(600)"
    code.write_text("print('first', flush=True)")
    with subprocess.Popen(
        [sys.executable, "tools/run.py", "again", sys.executable, "-c", program],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as watcher:  # fmt: skip
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "first\n"
        code.write_text("nonsense(")
        assert "waiting for a code change" in watcher.stdout.readline()
        code.write_text(textwrap.dedent("print('second', flush=True)"))
        assert watcher.stdout.readline() == "second\n"
        watcher.terminate()
        assert watcher.wait(PATIENCE_S) == 0
