"""Every file of a deployment is judged by the tool or the schema that will read it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from bench.gateway.builds import trust
from tests.drills import tools
from tests.services.upstream import unused_port
from tools.orphans import die_with_parent

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = ("1.31", "1.37")  # the oldest that we say, and a new one


def said(*command: str | Path, stdin: str | None = None) -> str:
    """What a tool says that has nothing against it."""
    done = subprocess.run(
        [str(word) for word in command], input=stdin, capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_dockerfile_by_hadolint() -> None:
    said(tools.python_tools() / "hadolint", "Dockerfile")


def test_compose_by_its_schema() -> None:
    code = "import json, sys, jsonschema; jsonschema.validate(json.load(sys.stdin), json.load(open(sys.argv[1])))"
    document = yaml.safe_load((ROOT / "compose.yaml").read_text())
    del document["name"]  # is younger than the schema that a package has
    text = json.dumps(document)
    said(tools.python_tools() / "python", "-c", code, tools.compose_schema(), stdin=text)


def rendered(*settings: str) -> str:
    more = [word for setting in settings for word in ("--set", setting)]
    return said(tools.helm(), "template", "portico", DEPLOY / "helm" / "portico", *more)


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("routes.enabled=true", "ingress.enabled=false", "fsGroup=null", "secrets.CONFIG_REDIS_URL=redis://x"),
        (
            "backup.passphraseSecret=phrase",
            "image.registry=mirror.example/",
            "image.tag=1",
            "backup.storageClassName=fast",
        ),
        ("backup.enabled=false", "networkPolicies.enabled=false", "image.pullSecrets[0].name=pull", "nodeSelector.a=b"),
    ],
)
@pytest.mark.parametrize("version", KUBERNETES)
def test_the_chart_by_helm_and_kubernetes_schemas(settings: tuple[str, ...], version: str, tmp_path: Path) -> None:
    said(tools.helm(), "lint", "--strict", DEPLOY / "helm" / "portico")
    by_schemas(rendered(*settings), version, tmp_path)


def by_schemas(text: str, version: str, folder: Path) -> None:
    """OpenShift's own kinds have no schema there."""
    known = [one for one in yaml.safe_load_all(text) if one and "openshift.io" not in one["apiVersion"]]
    assert len(known) > 10
    path = folder / "manifests.yaml"
    path.write_text(yaml.safe_dump_all(known))
    said(tools.python_tools() / "python", "-m", "kubernetes_validate", "-k", version, "--strict", path)


def test_kustomize_is_made_from_the_chart() -> None:
    assert rendered() == (DEPLOY / "kustomize/base/portico.yaml").read_text(), "run: make manifests"


@pytest.mark.parametrize("overlay", ["base", "openshift"])
def test_kustomize_by_kubectl_and_kubernetes_schemas(overlay: str, tmp_path: Path) -> None:
    text = said(tools.on_path("kubectl"), "kustomize", DEPLOY / "kustomize" / overlay)
    by_schemas(text, KUBERNETES[0], tmp_path)
    documents = [one for one in yaml.safe_load_all(text) if one]
    kinds = {one["kind"] for one in documents}
    assert ("Route" in kinds, "Ingress" in kinds) == (overlay == "openshift", overlay == "base")
    assert all(one["metadata"].get("namespace") == "portico" for one in documents if one["kind"] != "Namespace")
    assert ("fsGroup" in text) == (overlay == "base")


def test_rules_by_promtool() -> None:
    promtool = tools.debian("promtool", "prometheus")
    assert "rules found" in said(promtool, "check", "rules", DEPLOY / "prometheus" / "alerts.yml")
    said(promtool, "check", "config", DEPLOY / "prometheus" / "prometheus.yml")


def test_units_by_systemd_analyze(tmp_path: Path) -> None:
    """With programs that exist: those of the image are not here."""
    units = []
    for path in (DEPLOY / "systemd").iterdir():
        if path.suffix != ".example":
            text = re.sub(r"/opt/portico/\.venv/bin/\w+", "/bin/true", path.read_text())
            units.append(tmp_path / path.name.replace("@", "@drainer"))
            units[-1].write_text(text.replace("%i", "drainer"))
            (tmp_path / path.name).write_text(text)
    done = subprocess.run(
        [tools.on_path("systemd-analyze"), "verify", "--man=no", *map(str, units)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and not done.stderr, done.stderr


class Behind(BaseHTTPRequestHandler):
    """Tells what the proxy asked, and streams a second piece only when the client has the first."""

    first_is_there = threading.Event()
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        seen = f"{self.path} {self.headers['X-Forwarded-For']} {self.headers['X-Forwarded-Proto']} {self.headers['Host']}\n"
        self._piece(seen.encode())
        if self.path.startswith("/v1/stream"):
            assert Behind.first_is_there.wait(10)
            self._piece(b"second")
        self.wfile.write(b"0\r\n\r\n")

    def _piece(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


def test_nginx_splits_the_hosts_and_buffers_no_stream(tmp_path: Path) -> None:
    """The real nginx with the real file; only addresses and folders are those of the test."""
    nginx = tools.debian("nginx", "nginx")
    made = trust(tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Behind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    plain, encrypted = unused_port(), unused_port()
    text = (DEPLOY / "nginx/nginx.conf").read_text()
    for before, after in (
        ("/etc/nginx/tls/tls.crt", str(made.certificate)), ("/etc/nginx/tls/tls.key", str(made.key)),
        ("/etc/nginx/mime.types", str(tmp_path / "mime.types")), ("web:8000", f"127.0.0.1:{server.server_port}"),
        ("/tmp/", f"{tmp_path}/"), ("[::]:8080", f"[::1]:{plain}"), ("[::]:8443", f"[::1]:{encrypted}"),
        ("listen 8080", f"listen 127.0.0.1:{plain}"), ("listen 8443", f"listen 127.0.0.1:{encrypted}"),
    ):  # fmt: skip
        assert before in text
        text = text.replace(before, after)
    (tmp_path / "mime.types").write_text("types { text/css css; }")
    (tmp_path / "nginx.conf").write_text(text)
    said(nginx, "-t", "-c", tmp_path / "nginx.conf", "-e", "stderr")
    running = subprocess.Popen(
        [nginx, "-c", str(tmp_path / "nginx.conf"), "-e", "stderr", "-g", "daemon off;"],
        preexec_fn=die_with_parent(signal.SIGTERM), stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _until_open(encrypted)

        def ask(host: str, path: str) -> tuple[int, bytes]:
            answer = _connection(encrypted, host, path)
            return answer.status, answer.read()

        forged = _connection(encrypted, "api.example.com", "/v1/models", {"X-Forwarded-For": "192.0.2.9"}).read()
        assert forged == b"/v1/models 127.0.0.1 https api.example.com\n"
        assert ask("api.example.com", "/home")[0] == 404
        assert ask("app.example.com", "/home")[1].startswith(b"/home 127.0.0.1 https app.example.com")
        assert ask("app.example.com", "/v1/models")[0] == ask("app.example.com", "/metrics")[0] == 404
        stream = _connection(encrypted, "api.example.com", "/v1/stream")
        assert stream.readline().startswith(b"/v1/stream")  # while nothing more is sent
        Behind.first_is_there.set()
        assert stream.read() == b"second"
        moved = http.client.HTTPConnection("127.0.0.1", plain, timeout=10)
        moved.request("GET", "/home?x=1", headers={"Host": "app.example.com"})
        answer = moved.getresponse()
        assert (answer.status, answer.headers["Location"]) == (308, "https://app.example.com/home?x=1")
    finally:
        os.kill(running.pid, signal.SIGTERM)
        running.wait(10)
        server.shutdown()


def _connection(port: int, host: str, path: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=ssl._create_unverified_context())
    connection.request("GET", path, headers={"Host": host} | (headers or {}))
    return connection.getresponse()


def _until_open(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
