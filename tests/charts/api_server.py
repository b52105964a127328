"""A real Kubernetes API server with its store and controllers, on loopback, as ``make cluster`` builds them.

There is no node: pods are made by the controllers, admitted, and stay pending; ``kubelet`` runs what is
wanted of them. There is no kube-proxy either, so the API server calls the webhook at an address.
"""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from tests.charts.loopback import Loopback, free_port

BINARIES = Path(__file__).parent / "go" / "bin"
ISSUER = "https://kubernetes.default.svc"
_CONTROLLERS = (
    "serviceaccount-controller,root-ca-certificate-publisher-controller,deployment-controller,"
    "replicaset-controller,statefulset-controller,namespace-controller,garbage-collector-controller"
)
_ADMIN = "the-administrator's-token"
_STARTS = 120.0


class ApiServer(Loopback):
    """The API server; paths are those of its REST interface. It is what a kubelet asks as well."""

    def __init__(self, path: Path, port: int) -> None:
        """Take a directory of its own, and the port where it serves."""
        super().__init__(replicas=1)
        self.path, self.url = path, f"https://127.0.0.1:{port}"
        self._client: httpx2.Client | None = None

    @property
    def authority(self) -> Path:
        """Where its certificate is."""
        return self.path / "certs" / "apiserver.crt"

    def ask(
        self, method: str, path: str, body: Any = None, kind: str = "application/json"
    ) -> httpx2.Response:
        """Ask as administrator."""
        if self._client is None:
            self._client = httpx2.Client(
                verify=ssl.create_default_context(cafile=self.authority), trust_env=False, timeout=30
            )
        headers = {"Authorization": f"Bearer {_ADMIN}", "Content-Type": kind}
        content = None if body is None else json.dumps(body).encode()
        return self._client.request(method, self.url + path, headers=headers, content=content)

    def done(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """Ask, and give what came of it."""
        answer = self.ask(method, path, body, kind)
        assert answer.is_success, f"{method} {path}: {answer.text}"
        return answer.json()

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()

    def namespace(self, name: str, **labels: str) -> None:
        """Make a namespace whose pods have to be restricted."""
        restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.done("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": restricted | labels}})

    def config(self, namespace: str, name: str) -> Mapping[str, str]:
        """Give the data of a ConfigMap."""
        data: Mapping[str, str] = self.done("GET", f"/api/v1/namespaces/{namespace}/configmaps/{name}")[
            "data"
        ]
        return data

    def secret(self, namespace: str, name: str) -> Mapping[str, bytes]:
        """Give the data of a Secret."""
        data = self.done("GET", f"/api/v1/namespaces/{namespace}/secrets/{name}")["data"]
        return {key: base64.b64decode(value) for key, value in data.items()}

    def token(self, pod: Mapping[str, Any], audience: str) -> str:
        """Have a token made that is bound to a pod, as a kubelet does; to none, if it has no name."""
        metadata, spec = pod["metadata"], {"audiences": [audience or ISSUER], "expirationSeconds": 600}
        bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata.get("uid")}
        if metadata["name"]:
            spec["boundObjectRef"] = bound
        account = (
            f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{pod['spec']['serviceAccountName']}"
        )
        made = self.done("POST", f"{account}/token", {"spec": spec})
        return str(made["status"]["token"])

    def kubeconfig(self, pod: Mapping[str, Any]) -> Path:
        """Give a pod's own way here."""
        path = self.path / f"{pod['metadata']['name']}.kubeconfig"
        path.write_text(json.dumps(self.way(self.token(pod, ""))))
        return path

    def way(self, token: str = _ADMIN) -> dict[str, Any]:
        """Give a kubeconfig."""
        cluster = {"server": self.url, "certificate-authority": str(self.authority)}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "it",
            "clusters": [{"name": "it", "cluster": cluster}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "users": [{"name": "it", "user": {"token": token}}],
        }

    def may(self, account: str, verb: str, resource: str, namespace: str = "", name: str = "") -> bool:
        """Say whether a service account (``namespace:name``) is allowed something."""
        group, _, resource = resource.rpartition("/")
        wanted = {"verb": verb, "group": group, "resource": resource, "namespace": namespace, "name": name}
        spec = {"user": f"system:serviceaccount:{account}", "resourceAttributes": wanted}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        return bool(self.done("POST", path, {"spec": spec})["status"]["allowed"])


@contextmanager
def api_server(path: Path) -> Iterator[ApiServer]:
    """Run one for the length of the block."""
    store, port, peers = free_port(), free_port(), free_port()
    subprocess.run(["openssl", "genrsa", "-out", path / "sa.key", "2048"], check=True, capture_output=True)
    (path / "tokens.csv").write_text(f"{_ADMIN},admin,admin,system:masters\n")
    at, peer = f"http://127.0.0.1:{store}", f"http://127.0.0.1:{peers}"
    served = ApiServer(path, port)
    with (
        _running(
            path,
            "etcd",
            *("--data-dir", path / "etcd", "--listen-client-urls", at, "--advertise-client-urls", at),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"default={peer}", "--unsafe-no-fsync"),
        ),
        _running(
            path,
            "kube-apiserver",
            *("--etcd-servers", at, "--bind-address", "127.0.0.1", "--secure-port", port),
            *("--cert-dir", path / "certs", "--service-account-issuer", ISSUER, "--api-audiences", ISSUER),
            *(
                "--service-account-key-file",
                path / "sa.key",
                "--service-account-signing-key-file",
                path / "sa.key",
            ),
            *("--token-auth-file", path / "tokens.csv", "--authorization-mode", "RBAC"),
            *("--service-cluster-ip-range", "10.96.0.0/16"),
        ),
    ):
        _until_ready(served)
        (path / "kubeconfig").write_text(json.dumps(served.way()))
        with _running(
            path,
            "kube-controller-manager",
            *("--kubeconfig", path / "kubeconfig", "--root-ca-file", served.authority),
            *("--service-account-private-key-file", path / "sa.key", "--controllers", _CONTROLLERS),
            *("--bind-address", "127.0.0.1", "--secure-port", free_port(), "--leader-elect=false"),
            *("--cert-dir", path / "manager"),
        ):
            try:
                yield served
            finally:
                served.close()


def _until_ready(served: ApiServer) -> None:
    deadline = time.monotonic() + _STARTS
    while True:
        try:
            if served.ask("GET", "/readyz").is_success:
                return
        except (OSError, httpx2.HTTPError):
            served.close()
            served._client = None
        assert time.monotonic() < deadline, "the API server does not start"
        time.sleep(0.2)  # a look, not a wait: nobody tells when another process has changed


@contextmanager
def _running(path: Path, name: str, *words: str | Path | int) -> Iterator[None]:
    binary = BINARIES / name
    assert binary.exists(), f"no {binary}: run make cluster"
    with (path / f"{name}.log").open("w") as log:
        process = subprocess.Popen([binary, *map(str, words)], stdout=log, stderr=log, cwd=path)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
