"""The files of a deployment name what is there: commands, settings, files and metrics. What needs tools is a drill."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY, CollectorRegistry

import app.domain.identity
import app.gateway.metrics  # noqa: F401  with the other it declares every counter
from app.runtime.resources import Resources
from config import load
from tools.run import read_procfile

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PROGRAMS = read_procfile(ROOT / "Procfile")
SECRETS = {
    "CONFIG_SECURITY_SESSION_SECRET": "0123456789abcdef0123456789abcdef",
    "CONFIG_SECURITY_KEY_PEPPER": "fedcba9876543210fedcba9876543210",
    "CONFIG_SECURITY_ENCRYPTION_KEYS": "ZGV2ZWxvcG1lbnQga2V5IG9mIHRoZSBkcmlsbHMgMDE=",
    "CONFIG_AUTH_ADMIN_PASSWORD": "a long enough password",
}


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return found


def filled_in(text: str) -> str:
    """Compose's variables replaced: those that are required by a word, others by their default."""
    return re.sub(
        r"\$\{\w+(?::\?[^}]*|:-([^}]*))\}", lambda found: found[1] if found[1] is not None else "filled-in", text
    )


def test_compose_publishes_nginx_alone_and_gives_the_stores_no_way_out() -> None:
    services = compose()["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["nginx"]
    assert compose()["networks"]["stores"] == {"internal": True}
    assert all(services[name]["networks"] == ["stores"] for name in ("postgres", "valkey"))
    for name in ("setup", "web", "drainer", "worker", "clock", "nginx"):
        assert services[name]["read_only"] and services[name]["cap_drop"] == ["ALL"], name


def test_compose_runs_what_the_procfile_runs() -> None:
    services = compose()["services"]
    assert "command" not in services["web"]  # the image's own
    for name in ("drainer", "worker", "clock"):
        assert shlex.join(services[name]["command"]) == PROGRAMS[name]


def test_the_settings_of_compose_start_production() -> None:
    environment = {name: filled_in(text) for name, text in compose()["services"]["web"]["environment"].items()}
    config = load(environment | SECRETS | {"CONFIG_SERVER_PUBLIC_URL": "https://app.example.com",
                                           "CONFIG_SERVER_ENVIRONMENT": "production"})  # fmt: skip
    assert config.production
    assert config.secrets()


def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


def test_the_image_runs_what_the_procfile_runs_as_nobody() -> None:
    commands = re.findall(r"^CMD (\[.*\])$", dockerfile(), re.M)
    assert [shlex.join(json.loads(command)) for command in commands] == [PROGRAMS["web"]]
    assert "USER 10001:0" in dockerfile()
    assert len(re.findall(r"^FROM \$\{REGISTRY\}python:", dockerfile(), re.M)) == 2


@pytest.mark.slow
def test_what_the_image_holds_is_enough_to_start(tmp_path: Path) -> None:
    """The very files that the Dockerfile copies, in a folder of their own, and its very commands."""
    for line in re.findall(r"^COPY (?!--from|requirements)(.*)$", dockerfile(), re.M):
        *sources, target = line.split()
        for source in sources:
            into = tmp_path / target / ("" if (ROOT / source).is_dir() else Path(source).name)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, into, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                into.parent.mkdir(exist_ok=True)
                shutil.copy(ROOT / source, into)
    ignored = (ROOT / ".dockerignore").read_text()
    assert all(f"!{path.name}" in ignored for path in tmp_path.iterdir() if path.name != "tools")
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CONFIG_STORAGE_DATA_DIR": str(tmp_path / "data"),
    }
    web = shlex.split(PROGRAMS["web"])
    commands = [[*web[:-1], "--check-config", web[-1]], ["python", "-m", "app", "doctor"]]
    commands += [["python", "-c", f"import app.jobs.{name}, app.setup"] for name in ("drainer", "worker", "clock")]
    for command in commands:
        done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def test_units_run_what_the_procfile_runs() -> None:
    units = {path.name: path.read_text() for path in (DEPLOY / "systemd").iterdir()}
    assert f"ExecStart=/opt/portico/.venv/bin/{PROGRAMS['web']}\n" in units["portico-web.service"]
    for name in ("drainer", "worker", "clock"):
        command = "/opt/portico/.venv/bin/python -m app.jobs.%i".replace("%i", name)
        assert command.endswith(PROGRAMS[name].removeprefix("python "))
    assert "ExecStart=/opt/portico/.venv/bin/python -m app.jobs.%i\n" in units["portico-job@.service"]


def manifests(name: str) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all((DEPLOY / "kustomize" / "base" / name).read_text()) if one]


def containers() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for one in manifests("portico.yaml"):
        spec = one.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        for container in spec.get("template", {}).get("spec", {}).get("containers", ()):
            yield one, container


def test_manifests_run_what_the_procfile_runs() -> None:
    commands = {container["name"]: container.get("command") for _, container in containers()}
    assert commands["web"] is None
    for name in ("drainer", "worker", "clock"):
        assert shlex.join(commands[name]) == PROGRAMS[name]


def test_manifests_have_probes_replicas_and_bare_containers() -> None:
    replicas = {
        one["metadata"]["name"]: one["spec"]["replicas"]
        for one in manifests("portico.yaml")
        if one["kind"] == "Deployment"
    }
    assert replicas == {"portico-gateway": 3, "portico-portal": 3, "portico-worker": 2, "portico-clock": 1}
    for one, container in containers():
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and context["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        if container["name"] == "web":
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys(), one["metadata"]["name"]


def test_doors_are_split_between_gateway_and_portal() -> None:
    doors = {}
    for one, container in containers():
        for variable in container.get("env", ()):
            if variable["name"] == "CONFIG_SERVER_DOORS":
                doors[one["metadata"]["name"]] = variable["value"]
    assert doors == {"portico-gateway": "v1", "portico-portal": "portal,admin,api,public"}


def test_the_settings_of_the_manifests_start_production_and_its_placeholders_do_not() -> None:
    [settings] = [one["data"] for one in manifests("portico.yaml") if one["kind"] == "ConfigMap"]
    placeholders = dict(
        line.split("=", 1)
        for line in (DEPLOY / "kustomize/base/secrets.env").read_text().splitlines()
        if line and line[0] != "#"
    )
    environ = settings | placeholders | {"CONFIG_SERVER_ENVIRONMENT": "production"}
    with pytest.raises(Exception, match=r"admin_password|session_secret"):
        load(environ)
    assert load(environ | SECRETS).secrets()


def test_no_file_names_a_registry() -> None:
    for path in (ROOT / "compose.yaml", ROOT / "Dockerfile", *DEPLOY.rglob("*")):
        if path.is_file():
            text = path.read_text()
            assert not re.search(
                r"(docker|quay|ghcr|gcr|registry|k8s)\.(io|com|dev)/[a-z]", text.replace("k8s.io/v1", "")
            ), path


def metric_names() -> set[str]:
    """The samples that `/metrics` may have, as the code declares them."""
    from app.workflows import figures

    samples = {"up"}
    registry = CollectorRegistry()
    registry.register(Resources(ROOT))
    for family in (*REGISTRY.collect(), *registry.collect()):
        samples |= {family.name, f"{family.name}_total", f"{family.name}_bucket"}
    return samples | set(re.findall(r'"(portico_\w+)"', Path(str(figures.__file__)).read_text()))


def test_dashboards_and_alerts_ask_for_metrics_that_there_are() -> None:
    known = metric_names()
    rules = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
    asked = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    for path in (DEPLOY / "grafana").glob("*.json"):
        board = json.loads(path.read_text())
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        asked += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(asked) > 30
    for expression in asked:
        names = set(re.findall(r"\bportico_\w+", expression))
        assert names <= known, f"{names - known} in {expression}"
