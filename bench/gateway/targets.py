"""What is measured: the upstream itself, nginx, LiteLLM and Portico, each with the addresses that lead to an upstream."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.gateway.builds import BENCH
from bench.gateway.processes import CannotMeasure, Children

KEY = "sk-bench"
PLAIN, SLOW, TLS = "plain", "slow", "tls"  # upstreams: 20 chunks a second, one chunk a second, the first behind TLS


@dataclass
class Way:
    """How a target's upstream is reached."""

    url: str
    model: str = "fake"


@dataclass
class Target:
    name: str
    ways: dict[str, Way]
    key: str = KEY
    gateway: list[int] = field(default_factory=list)  # processes whose CPU is the gateway's
    side: dict[str, list[int]] = field(default_factory=dict)


def nginx_program() -> str:
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/sbin")
    if found is None:
        raise CannotMeasure("there is no nginx on PATH or in /usr/sbin")
    return found


def filled(name: str, folder: Path, values: Mapping[str, object]) -> Path:
    """A peer's configuration with its @NAMES@ filled in."""
    text = (BENCH / "peers" / name).read_text()
    for word, value in values.items():
        text = text.replace(f"@{word}@", str(value))
    made = folder / name
    made.write_text(text)
    return made


def litellm_environ(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "LC_ALL", "TMPDIR")}
    return kept | {"HOME": str(home), "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}


def start_litellm(children: Children, bin: Path, core: int, folder: Path, port: int, plain: int) -> Target:
    config = filled("litellm.yaml", folder, {"PLAIN": plain})
    command = [bin / "litellm", "--host", "127.0.0.1", "--port", port, "--num_workers", 1, "--config", config]
    pid = children.start("litellm", command, core, env=litellm_environ(folder))
    return Target("litellm", {PLAIN: Way(f"http://127.0.0.1:{port}/v1")}, gateway=[pid])


def start_nginx(
    children: Children, core: int, folder: Path, ports: Mapping[str, int], values: Mapping[str, object]
) -> Target:
    """`ports` are its own, by the upstream that they lead to."""
    own = {f"PORT_{name.upper()}": port for name, port in ports.items()}
    config = filled("nginx.conf", folder, {"DIR": folder, **values, **own})
    pid = children.start("nginx", [nginx_program(), "-c", config, "-p", folder], core)
    return Target("nginx", {name: Way(f"http://127.0.0.1:{port}/v1") for name, port in ports.items()}, gateway=[pid])


def start_tls(children: Children, core: int, folder: Path, values: Mapping[str, object]) -> None:
    """TLS in front of the upstream, beside the load."""
    config = filled("tls.conf", folder, {"DIR": folder, **values})
    children.start("tls", [nginx_program(), "-c", config, "-p", folder], core)
