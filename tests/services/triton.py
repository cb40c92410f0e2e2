"""A real Triton on the processor alone, out of NVIDIA's wheel, serving the models in `triton_models`.

The wheel needs an older numpy than Portico's tools and a Python of 3.11 or 3.12, so it lives in an environment of its own
below `.cache`, made when a test first asks. Where that can't be, `find_triton` says why.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.memory import PLACE
from tests.services.upstream import unused_port
from tests.services.waiting import PATIENCE_S
from tools.orphans import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".cache" / "triton"
LOCK = Path(__file__).with_name("triton.txt")
MODELS = Path(__file__).with_name("triton_models")
VERSIONS = ((3, 11), (3, 12))
ASK = "import sys, sysconfig; print(*sys.version_info[:2], sysconfig.get_config_var('Py_ENABLE_SHARED'),"
ASK += " sysconfig.get_config_var('LIBDIR'), sysconfig.get_path('purelib'))"


class NoTriton(Exception):
    """There is no Triton on this machine; the message says why."""


class Installed:
    """The wheel's environment."""

    def __init__(self, python: Path) -> None:
        said = subprocess.run([python, "-c", ASK], capture_output=True, text=True, check=True).stdout.split()
        self.python = python
        self.version = f"{said[0]}.{said[1]}"
        self.libraries, self.site = Path(said[3]), Path(said[4])

    @property
    def server(self) -> Path:
        return self.site / "pytriton" / "tritonserver"


def find_triton() -> Installed:
    """The environment with the server, made if it is not there yet. Raises `NoTriton`."""
    if not sys.platform.startswith("linux"):
        raise NoTriton("the wheel is for Linux alone")
    HOME.parent.mkdir(exist_ok=True)
    with open(HOME.parent / "triton.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (HOME / "whole").exists():
            _install()
    return Installed(HOME / "bin" / "python")


def _install() -> None:
    shutil.rmtree(HOME, ignore_errors=True)
    made = subprocess.run([_python(), "-m", "venv", HOME], capture_output=True, text=True)
    pip = [HOME / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    if made.returncode == 0:
        made = subprocess.run([*pip, "-r", LOCK], capture_output=True, text=True)
    if made.returncode != 0:
        shutil.rmtree(HOME, ignore_errors=True)
        raise NoTriton(f"its wheel can't be installed: {made.stderr.strip()[-300:]}")
    (HOME / "whole").touch()


def _python() -> str:
    """A Python that can host the server's models: of a version that the wheel knows, with a shared library."""
    names = [sys.executable, *(f"python{major}.{minor}" for major, minor in VERSIONS)]
    for name in names:
        path = shutil.which(name)
        said = subprocess.run([path, "-c", ASK], capture_output=True, text=True).stdout.split() if path else []
        if len(said) >= 3 and (int(said[0]), int(said[1])) in VERSIONS and said[2] == "1":
            return str(path)
    raise NoTriton("it needs a Python 3.11 or 3.12 with a shared library")


class Triton:
    """A server with ports of its own; `kill()` and `start()` keep them."""

    def __init__(self, installed: Installed, folder: Path) -> None:
        self._installed = installed
        self._folder = folder
        self._prefix = f"portico{os.getpid()}x{folder.name}"
        self.http_port, self.grpc_port, self.metrics_port = (unused_port() for _ in range(3))
        self.notes = folder / "notes"
        self._process: subprocess.Popen[bytes] | None = None
        backends = folder / "backends"
        shutil.copytree(installed.server / "backends", backends)
        stub = installed.server / "python_backend_stubs" / installed.version / "triton_python_backend_stub"
        shutil.copy(stub, backends / "python")

    @property
    def http(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc(self) -> str:
        return f"grpc://127.0.0.1:{self.grpc_port}"

    def start(self) -> Triton:
        installed, place = self._installed, "127.0.0.1"
        options = {
            "model-repository": MODELS, "backend-directory": self._folder / "backends", "http-address": place,
            "grpc-address": place, "metrics-address": place, "http-port": self.http_port, "grpc-port": self.grpc_port,
            "metrics-port": self.metrics_port, "allow-gpu-metrics": "false", "exit-timeout-secs": 3,
        }  # fmt: skip
        backend = {"shm-default-byte-size": 4 << 20, "shm-region-prefix-name": self._prefix}
        words = [f"--{name}={value}" for name, value in options.items()]
        words += [f"--backend-config=python,{name}={value}" for name, value in backend.items()]
        environ = {
            "LD_LIBRARY_PATH": f"{installed.site / 'nvidia_pytriton.libs'}:{installed.libraries}",
            "PATH": f"{installed.python.parent}:{os.environ['PATH']}",  # by which a model's process finds its numpy
            "PORTICO_TRITON_NOTES": str(self.notes),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with open(self._folder / "triton.log", "ab") as log:
            self._process = subprocess.Popen(
                [installed.server / "bin" / "tritonserver", *words],
                stdout=log, stderr=log, env=environ, start_new_session=True,
                preexec_fn=die_with_parent(signal.SIGKILL),
            )  # fmt: skip
        deadline = time.monotonic() + PATIENCE_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Triton did not start: {self.log()}")
            time.sleep(0.05)
        return self

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.http}/v2/health/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL, with the processes of its models."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for left in Path("/dev/shm").glob(f"{self._prefix}*"):
            left.unlink(missing_ok=True)

    def told(self) -> list[tuple[float, str]]:
        """What the generator noted: when, on the clock of `time.monotonic`, and what."""
        if not self.notes.exists():
            return []
        lines = [line.partition(" ") for line in self.notes.read_text().splitlines()]
        return [(float(at), text) for at, _, text in lines]

    def log(self) -> str:
        path = self._folder / "triton.log"
        return path.read_text(errors="replace")[-5000:] if path.exists() else ""


@contextmanager
def running_triton() -> Iterator[Triton]:
    """Raises `NoTriton`."""
    installed = find_triton()
    folder = Path(tempfile.mkdtemp(prefix="ptr-", dir=PLACE))
    server = Triton(installed, folder)
    try:
        yield server.start()
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
