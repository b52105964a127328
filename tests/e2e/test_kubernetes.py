"""A mesh as in a cluster: processes without a token, whom an API server vouches for."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.auth.test_kubernetes import AUDIENCE, true_token
from tests.cli.command import command, environment, run, until
from tests.injector.test_process import free_port
from tests.kubernetes import FakeApi, fake_api

RULES = [
    {"namespace": "mesh", "serviceAccount": "gatekeeper", "service": "mesh.gatekeeper"},
    {"namespace": "mesh", "serviceAccount": "operator", "service": "mesh.operator"},
    {"namespace": "shop", "serviceAccount": "orders", "service": "orders"},
]
MAP = "/api/v1/namespaces/mesh/configmaps/sealmesh-join"


class Cluster:
    """Auth and gatekeeper as the chart starts them, and pods beside them."""

    def __init__(self, api: FakeApi, path: Path, stack: ExitStack) -> None:
        self.api, self.path, self._stack = api, path, stack
        join, auth, gatekeeper = (f"127.0.0.1:{free_port()}" for _ in range(3))
        self.join = join
        self.operator = path / "operator"
        self.operator.mkdir(mode=0o700)
        addresses = {"join": join, "auth": auth, "gatekeeper": gatekeeper}
        (self.operator / "addresses.json").write_text(json.dumps(addresses))
        settings = {"audience": AUDIENCE, "namespace": "mesh", "configMap": "sealmesh-join", "rules": RULES}
        (path / "auth.yaml").write_text(json.dumps(settings))
        for _ in range(2):  # as each start of the pod does
            made = run("init", path / "data", "--trust-domain", "shop.example", "--unless-made")
            assert made.returncode == 0, made.stderr
        listen = ("--join-listen", join, "--listen", auth, "--gatekeeper", gatekeeper)
        kubeconfig = str(api.kubeconfig(path / "kubeconfig"))
        words = [sys.executable, "-m", "services.auth", "--data", str(path / "data"), *listen]
        self.start([*words, "--kubernetes", str(path / "auth.yaml")], KUBECONFIG=kubeconfig)
        until(lambda: MAP in api.objects, "the join key")
        (path / "join-key").write_text(api.objects[MAP]["data"]["join-key"])
        (self.operator / "join-key").write_text(api.objects[MAP]["data"]["join-key"])
        words = [sys.executable, "-m", "services.gatekeeper", "--auth", join, "--listen", gatekeeper]
        self.start(words, **self.pod("mesh", "gatekeeper"))

    def token(self, namespace: str, account: str, *, pod: bool = True) -> str:
        """Have the API server vouch for a new token."""
        text = f"token-{len(self.api.tokens)}"
        user: dict[str, Any] = {"username": f"system:serviceaccount:{namespace}:{account}"}
        if pod:
            user["extra"] = {"authentication.kubernetes.io/pod-name": [f"{account}-1"]}
        self.api.tokens[text] = true_token(user=user)
        return text

    def pod(self, namespace: str, account: str) -> dict[str, str]:
        """Give the environment of a pod."""
        file = self.path / f"{namespace}-{account}"
        file.write_text(self.token(namespace, account) + "\n")
        return {
            "MESH_SERVICE_ACCOUNT_TOKEN_FILE": str(file),
            "MESH_JOIN_KEY_FILE": str(self.path / "join-key"),
        }

    def start(self, words: list[str], **more: str) -> subprocess.Popen[str]:
        """Start a process for as long as the cluster is there."""
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(**more)
        )
        self._stack.callback(process.communicate)
        self._stack.callback(process.kill)
        return process

    def mesh(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Operate it with a token that kubectl made."""
        (self.operator / "token").write_text(self.token("mesh", "operator", pod=False))
        return run(*arguments, MESH_DATA=str(self.operator))


class Forward:
    """A forwarded port, as ``kubectl port-forward`` makes one: an address that leads to another."""

    def __init__(self, to: str, stack: ExitStack) -> None:
        host, _, port = to.rpartition(":")
        self._to = host, int(port)
        self._listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed with the test
            while True:
                near, _ = self._listening.accept()
                self.connections += 1
                far = socket.create_connection(self._to)
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    @staticmethod
    def _carry(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError), one, other:
            while data := one.recv(65536):
                other.sendall(data)


@contextmanager
def cluster(path: Path) -> Iterator[Cluster]:
    with fake_api() as api, ExitStack() as stack:
        yield Cluster(api, path, stack)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Cluster]:
    with cluster(tmp_path) as made:
        yield made


def test_an_operator_elsewhere_goes_by_forwarded_ports(running: Cluster) -> None:
    """The addresses in his directory count, and not those that are told within the cluster."""
    until(lambda: running.mesh("status").returncode == 0, "auth and gatekeeper")
    file = running.operator / "addresses.json"
    with ExitStack() as stack:
        forwards = {name: Forward(to, stack) for name, to in json.loads(file.read_text()).items()}
        file.write_text(json.dumps({name: one.address for name, one in forwards.items()}))
        assert running.mesh("status").returncode == 0
        assert {name: one.connections > 0 for name, one in forwards.items()} == dict.fromkeys(forwards, True)
    (running.operator / "token").unlink()
    lost = run("status", MESH_DATA=str(running.operator))
    assert (lost.returncode, lost.stderr.count("\n")) == (5, 1)
    assert "make one with kubectl create token" in lost.stderr
    (running.operator / "token").write_text("expired")
    refused = run("status", MESH_DATA=str(running.operator))
    assert (refused.returncode, refused.stderr.count("\n")) == (3, 1)
    assert "an expired token is made anew by kubectl create token" in refused.stderr


def test_a_mesh_without_a_token(running: Cluster) -> None:
    """Gatekeeper, a sidecar and an operator join on Kubernetes' word; who is another is refused."""
    until(lambda: running.mesh("status").returncode == 0, "auth and gatekeeper")
    words = command("sidecar", "--auth", running.join, "--service", "orders")
    pod = running.start(words, **running.pod("shop", "orders"))
    assert pod.stdout is not None
    assert json.loads(pod.stdout.readline())["service"] == "orders"
    nodes = json.loads(running.mesh("status", "-o", "json").stdout)["nodes"]
    assert [node["service"] for node in nodes] == ["orders"]

    asked = [body["spec"] for _, path, body in running.api.asked if path.endswith("tokenreviews")]
    assert {tuple(spec["audiences"]) for spec in asked} == {(AUDIENCE,)}

    stranger = run("sidecar", "--auth", running.join, "--service", "orders", **running.pod("other", "orders"))
    assert stranger.returncode == 3
    assert "join refused" in stranger.stderr
    another = run("sidecar", "--auth", running.join, "--service", "payments", **running.pod("shop", "orders"))
    assert another.returncode == 3
    assert "is for orders, not payments" in another.stderr

    said = running.mesh("audit", "query", "--kind", "token", "--kind", "join", "-o", "json").stdout
    assert '"shop/orders/orders-1"' in said
    assert "no rule for other/orders/orders-1" in said
    for token in running.api.tokens:
        assert f'"{token}"' not in said
