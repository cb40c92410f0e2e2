"""What has to be made before a run: the two C programs, environments for one interpreter, and a CA of our own."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import json
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app import clock
from bench.gateway.processes import CannotMeasure

BENCH = Path(__file__).resolve().parent.parent
ROOT = BENCH.parent
BUILD = BENCH / "build"

LITELLM = "litellm[proxy]==1.106.2"


def say(text: str) -> None:
    print(f"bench: {text}", flush=True)


def program(name: str) -> Path:
    """The C program of that name, compiled unless it is newer than its source."""
    source, made = BENCH / f"{name}.c", BUILD / name
    if made.exists() and made.stat().st_mtime >= source.stat().st_mtime:
        return made
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise CannotMeasure("There is no C compiler (cc, gcc or clang) on PATH, which upstream.c and load.c need.")
    BUILD.mkdir(parents=True, exist_ok=True)
    draft = made.with_suffix(".new")
    done = subprocess.run([compiler, "-O2", "-o", str(draft), str(source)], capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise CannotMeasure(f"{compiler} cannot compile {source.name}: {done.stderr.strip()[-500:]}")
    draft.replace(made)
    return made


def environment(name: str, python: str, arguments: list[str], within_s: float) -> Path:
    """The `bin` folder of a virtual environment of `python` into which `pip install` put the arguments.

    It is kept by interpreter and made again when the arguments, or the files among them, are others.
    """
    told = subprocess.run(
        [python, "-c", "import os, sys; print(os.path.realpath(sys.executable), sys.version)"],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    if told.returncode != 0:
        raise CannotMeasure(f"{python} is no Python that runs: {told.stderr.strip()[-200:]}")
    files = [hashlib.sha256(path.read_bytes()).hexdigest() for path in map(Path, arguments) if path.is_file()]
    wanted = json.dumps([told.stdout, arguments, files])
    folder = BUILD / f"{name}-{hashlib.sha256(told.stdout.encode()).hexdigest()[:8]}"
    stamp = folder / "installed.json"
    if stamp.exists() and stamp.read_text() == wanted:
        return folder / "bin"
    shutil.rmtree(folder, ignore_errors=True)
    BUILD.mkdir(parents=True, exist_ok=True)
    say(f"installing {name} for {python} into {folder} (once)")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in ([python, "-m", "venv", str(folder)], [*pip, "--no-input", *arguments]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=within_s)
        except subprocess.TimeoutExpired:
            raise CannotMeasure(f"installing {name} took longer than {within_s:.0f} s") from None
        if done.returncode != 0:
            raise CannotMeasure(f"{name} cannot be installed: {(done.stdout + done.stderr).strip()[-500:]}")
    stamp.write_text(wanted)
    return folder / "bin"


def portico_environment(python: str) -> Path:
    """What Portico runs on, from its own lock."""
    return environment("portico", python, ["--require-hashes", "-r", str(ROOT / "requirements.txt")], 900)


def litellm_environment(python: str) -> Path:
    return environment("litellm", python, [LITELLM], 1800)


class Trust(NamedTuple):
    """A CA that nobody else trusts, and what a server for `localhost` shows, in files."""

    ca: Path
    certificate: Path
    key: Path


def trust(folder: Path) -> Trust:
    """Made anew for each run, for a day."""
    begin = clock.now() - datetime.timedelta(hours=1)
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Portico benchmark CA")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def builder(name: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(public)
        made = made.serial_number(x509.random_serial_number()).not_valid_before(begin)
        return made.not_valid_after(begin + datetime.timedelta(days=1))

    ca = builder(issuer, ca_key.public_key()).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    leaf = builder(subject, key.public_key()).add_extension(names, False)
    made = Trust(folder / "ca.pem", folder / "localhost.pem", folder / "localhost.key")
    made.ca.write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    made.certificate.write_bytes(leaf.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    made.key.touch(mode=0o600)
    made.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return made
