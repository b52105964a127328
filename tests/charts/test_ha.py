"""What values-ha.yaml renders, run from what the images hold: three of each, on one PostgreSQL.

The commands, variables and files are the rendering's; addresses are loopback ones, one for each pod.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from mesh.inject.pod import inject
from mesh.inject.settings import Settings
from services.auth.founding import new_kek
from tests.auth.test_kubernetes import true_token
from tests.charts.installed import Running, until
from tests.charts.kubelet import Pod
from tests.charts.loopback import Loopback, free_port
from tests.charts.rendered import manifests, merged, render, values
from tests.kubernetes import FakeApi, fake_api
from tests.postgres import Server

pytestmark = pytest.mark.timeout(600)

RULES = [{"namespace": "shop", "serviceAccount": "*", "service": "{serviceAccount}"}]
MAP = "/api/v1/namespaces/mesh/configmaps/sealmesh-join"
POLICY = {
    "services": {
        "orders": {},
        "inventory": {"allow": [{"name": "all", "principals": ["orders"], "paths": ["*"]}]},
    }
}
METHOD = "/test.v1.Echo/Unary"


class Rendered(Loopback):
    """The rendering, as a cluster gives it to pods, and a network of loopback addresses."""

    def __init__(self, api: FakeApi, url: str, path: Path) -> None:
        super().__init__(replicas=3)
        self._api, self._path = api, path
        made = list(manifests(render(merged(values("ha"), {"rules": RULES}))))
        self.objects = {(one["kind"], one["metadata"]["name"]): one for one in made}
        new_kek(path / "kek", "")
        self._names = itertools.count()
        self._secrets = {
            "sealmesh-database": {"url": url.encode()},
            "sealmesh-kek": {"kek": (path / "kek").read_bytes()},
        }

    # What a kubelet asks for: see kubelet.Cluster.

    def config(self, _namespace: str, name: str) -> Mapping[str, str]:
        """Give a ConfigMap of the rendering, or what auth has published."""
        made = self.objects.get(("ConfigMap", name))
        data: Mapping[str, str] = (made or self._api.objects[MAP])["data"]
        return data

    def secret(self, _namespace: str, name: str) -> Mapping[str, bytes]:
        """Give a Secret, as an administrator has made it."""
        return self._secrets[name]

    def token(self, pod: Mapping[str, Any], _audience: str) -> str:
        """Have the API server vouch for a new token."""
        text, metadata = f"token-{len(self._api.tokens)}", pod["metadata"]
        user: dict[str, Any] = {
            "username": f"system:serviceaccount:{metadata['namespace']}:{pod['spec']['serviceAccountName']}"
        }
        user["extra"] = {"authentication.kubernetes.io/pod-name": [metadata["name"]]}
        self._api.tokens[text] = true_token(user=user)
        return text

    def kubeconfig(self, _pod: Mapping[str, Any]) -> Path:
        """Give the way to the API server."""
        return self._api.kubeconfig(self._path / "kubeconfig")

    def pods(self, part: str) -> list[dict[str, Any]]:
        """Give the pods that a StatefulSet makes."""
        ends = self.objects["StatefulSet", f"sealmesh-{part}"]
        template = ends["spec"]["template"]
        return [
            {"metadata": {"namespace": "mesh", "name": f"sealmesh-{part}-{number}"}, "spec": template["spec"]}
            for number in range(ends["spec"]["replicas"])
        ]

    def service(self, name: str, outbound: int, app_port: int | None) -> dict[str, Any]:
        """Give a pod with the sidecar that the injector puts into it."""
        settings = Settings.parse(yaml.safe_load(self.config("mesh", "sealmesh-config")["sidecars.yaml"]))
        annotations = {"sealmesh.dev/outbound-port": str(outbound)}
        if app_port:
            annotations["sealmesh.dev/app-port"] = str(app_port)
        metadata = {"namespace": "shop", "name": f"{name}-{next(self._names)}", "annotations": annotations}
        app = {"name": "app", "image": "app"}
        return inject(
            {"metadata": metadata, "spec": {"serviceAccountName": name, "containers": [app]}},
            "shop",
            settings,
        )


class Mesh:
    """All of it, running."""

    def __init__(self, cluster: Rendered, running: Running, stack: ExitStack) -> None:
        self._cluster, self._running, self._stack = cluster, running, stack
        self.auths = [self._pod(one) for one in cluster.pods("auth")]
        self.gatekeepers: list[Pod] = []
        self.operator = running.path / "operator"
        self.operator.mkdir(mode=0o700)

    def _pod(self, pod: dict[str, Any]) -> Pod:
        return Pod(pod, self._cluster, self._running.built, self._stack)

    def start(self) -> None:
        """Start everything as a cluster does: each part at once."""
        for process in [one.start("found") for one in self.auths]:
            assert process.wait(120) == 0, [one.log("found") for one in self.auths]
        for one in self.auths:
            one.start("auth")
        self.ready(self.auths, "auth")
        self.gatekeepers = [self._pod(one) for one in self._cluster.pods("gatekeeper")]
        for one in self.gatekeepers:
            one.start("gatekeeper")
        self.ready(self.gatekeepers, "gatekeeper")

    def ready(self, pods: list[Pod], name: str) -> None:
        """Wait until the probes of all say so."""
        for one in pods:
            until(partial(_says, one, name, ""), f"{one.name} is ready: {one.log(name)}")
            assert one.probe(name, "liveness") == ""

    def mesh(self, *words: str | Path) -> str:
        """Operate it."""
        pod = {
            "metadata": {"namespace": "mesh", "name": ""},
            "spec": {"serviceAccountName": "sealmesh-operator"},
        }
        (self.operator / "token").write_text(self._cluster.token(pod, ""))
        (self.operator / "join-key").write_text(self._cluster.config("mesh", "sealmesh-join")["join-key"])
        config = self._cluster.config("mesh", "sealmesh-config")["addresses.json"]
        (self.operator / "addresses.json").write_text(
            self._cluster.located(config, {"metadata": {"namespace": ""} | {"name": ""}})
        )
        return self._running.run("control", "mesh", *words, MESH_DATA=str(self.operator))

    def join(self, name: str, app_port: int | None = None) -> int:
        """Start a service; give the port at which its app calls."""
        outbound = free_port()
        pod = self._pod(self._cluster.service(name, outbound, app_port))
        process = pod.start("mesh-sidecar")
        assert self._running.line(process)["service"] == name, pod.log("mesh-sidecar")
        return outbound


def _says(pod: Pod, name: str, word: str) -> bool:
    said = pod.probe(name, "readiness")
    return word in said if word else not said


@pytest.fixture
def mesh(running: Running, postgres: Server, tmp_path: Path) -> Iterator[Mesh]:
    with fake_api() as api, ExitStack() as stack:
        made = Mesh(Rendered(api, postgres.url(postgres.database()), tmp_path), running, stack)
        made.start()
        yield made


@pytest.fixture
def echo() -> Iterator[int]:
    """Give the port of an app."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
            echoed: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
                lambda request, _: request
            )
            return echoed if details.method == METHOD else None

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Handler()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None).wait()


def calling(port: int) -> Callable[[], bool]:
    """Give what makes a call of an app, and says whether it succeeded."""

    def call() -> bool:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                unary: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
                return bool(unary(b"1", metadata=(("mesh-to", "inventory"),), timeout=10) == b"1")
            except grpc.RpcError:
                return False

    return call


def test_the_ha_rendering_serves_and_outlives_one_of_each(mesh: Mesh, echo: int, tmp_path: Path) -> None:
    """One mesh is founded by three; a node joins and calls, also with an auth and a gatekeeper gone."""
    held = [json.loads((one.path / "data" / "mesh" / "database.json").read_text()) for one in mesh.auths]
    assert len({one["replica"] for one in held}) == 3
    keks = {(one.path / "data" / "mesh" / "kek").read_bytes() for one in mesh.auths}
    assert len(keks) == 1

    (tmp_path / "policy.json").write_text(json.dumps(POLICY))
    mesh.mesh("policy", "apply", tmp_path / "policy.json")
    mesh.join("inventory", echo)
    first = calling(mesh.join("orders"))
    until(first, "a call")
    seen = json.loads(mesh.mesh("status", "-o", "json"))["nodes"]
    assert sorted(node["service"] for node in seen) == ["inventory", "orders"]

    mesh.auths[0].running["auth"].kill()
    mesh.gatekeepers[0].running["gatekeeper"].kill()
    assert first()
    until(calling(mesh.join("orders")), "a call of one that joined without them")

    # What was killed comes back as the pod does: its first container finds the directory, and auth its place.
    assert mesh.auths[0].start("found").wait(120) == 0
    mesh.auths[0].start("auth")
    mesh.ready(mesh.auths, "auth")
    assert mesh.auths[0].probe("auth", "startup") == ""


def test_auths_without_a_database_are_alive_and_not_ready(mesh: Mesh, postgres: Server) -> None:
    """No kubelet ends them, and nobody is sent to them; they are back when the database is."""
    postgres.stop()
    try:
        for one in mesh.auths:
            until(partial(_says, one, "auth", "database"), f"{one.name} is not ready")
            assert one.probe("auth", "liveness") == ""
    finally:
        postgres.start()
    mesh.ready(mesh.auths, "auth")
