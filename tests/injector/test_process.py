"""The injector as a process: real HTTPS under a certificate that the API server was told to trust."""

from __future__ import annotations

import base64
import http.client
import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from services.injector.certificate import renewed
from services.injector.room import MAX_REVIEW
from services.injector.upkeep import utc_now
from tests.cli.command import environment, until
from tests.inject.pods import DOCUMENT
from tests.injector.reviews import POD, patched, review
from tests.kubernetes import HOOKS, WEBHOOKS, FakeApi, fake_api

NAME = "sealmesh-injector.mesh.svc"
HOOK = f"{HOOKS}/sealmesh-injector"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Client:
    """The API server's side of a webhook: trusts what it is told, asks for the service's name."""

    def __init__(self, port: int, authorities: bytes) -> None:
        self._port, self._context = port, ssl.create_default_context(cadata=authorities.decode())

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Ask once, on a connection of its own."""
        raw = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        with self._context.wrap_socket(raw, server_hostname=NAME) as tls:
            connection = http.client.HTTPConnection("127.0.0.1")
            connection.sock = tls
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def review(self, document: dict[str, Any]) -> dict[str, Any]:
        """Send a review."""
        status, body = self.ask("POST", "/inject", json.dumps(document).encode())
        assert status == 200, body
        found: dict[str, Any] = json.loads(body)["response"]
        return found


@contextmanager
def running(api: FakeApi, tmp_path: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    (tmp_path / "settings.yaml").write_text(json.dumps(DOCUMENT))
    port = free_port()
    arguments = ("--settings", str(tmp_path / "settings.yaml"), "--listen", f"127.0.0.1:{port}")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "services.injector",
            *arguments,
            "--name",
            NAME,
            "--namespace",
            "mesh",
            *options,
        ],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(KUBECONFIG=str(api.kubeconfig(tmp_path / "kubeconfig")), NO_PROXY="127.0.0.1"),
    )
    try:
        yield process, port
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as running:
        running.put(HOOK, webhooks=WEBHOOKS)
        running.namespace("shop")
        running.put("/api/v1/namespaces/mesh/configmaps/sealmesh-join", data={"join-key": "a"})
        yield running


def answers(client: Client) -> bool:
    try:
        return client.ask("GET", "/healthz")[0] == 200
    except OSError:
        return False


def test_it_makes_its_certificate_and_injects_over_https(api: FakeApi, tmp_path: Path) -> None:
    """From nothing: certificate, trust, join ConfigMap, and a pod's sidecar; SIGTERM ends it in order."""
    with running(api, tmp_path) as (process, port):
        until(lambda: "caBundle" in api.objects[HOOK]["webhooks"][0]["clientConfig"], "trust")
        bundle = base64.b64decode(api.objects[HOOK]["webhooks"][0]["clientConfig"]["caBundle"])
        client = Client(port, bundle)
        until(lambda: answers(client), "the webhook")
        made = patched(POD, client.review(review()))
        assert made["spec"]["initContainers"][0]["name"] == "mesh-sidecar"
        assert client.review(review(namespace="elsewhere"))["allowed"] is False
        until(lambda: "/api/v1/namespaces/shop/configmaps/sealmesh-join" in api.objects, "the ConfigMap")
        for method, path, body, status in (
            ("POST", "/inject", b"{}", 400),
            ("POST", "/inject", b"[" * 100_000, 400),
            ("POST", "/inject", b"\xff", 400),
            ("POST", "/inject", b" " * (MAX_REVIEW + 1), 413),
            ("GET", "/inject", b"", 405),
            ("GET", "/", b"", 404),
        ):
            assert client.ask(method, path, body)[0] == status
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
        assert process.returncode == 0
        assert {json.loads(line)["level"] for line in said.splitlines()} <= {"info", "warning"}


def test_it_takes_up_a_certificate_of_others_without_a_restart(api: FakeApi, tmp_path: Path) -> None:
    """As cert-manager renews it in the Secret that is mounted."""
    directory = tmp_path / "tls"
    directory.mkdir()

    def put() -> Client:
        made = renewed(NAME, utc_now())
        (directory / "tls.key").write_bytes(made.key)
        (directory / "tls.crt").write_bytes(made.chain)
        return Client(port, made.authorities)

    with running(api, tmp_path, "--certificate-dir", str(directory)) as (_, port):
        first = put()
        until(lambda: answers(first), "the first certificate")
        second = put()
        until(lambda: answers(second), "the second certificate")
        assert not answers(first)
        assert [path for method, path in api.verbs() if path == HOOK] == []


def test_settings_that_make_no_sense_are_told(api: FakeApi, tmp_path: Path) -> None:
    """In one line, with status 2."""
    with running(api, tmp_path, "--settings", str(tmp_path / "none")) as (process, _):
        _, said = process.communicate(timeout=30)
        assert process.returncode == 2
        assert said.startswith("error: cannot read")
        assert len(said.splitlines()) == 1
