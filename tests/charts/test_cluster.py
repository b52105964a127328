"""The charts on a real Kubernetes API server: installed, upgraded, rolled back, and pods injected that join.

Run by ``make cluster``, by hand: it builds the API server first. What the fake one of the other tests
supposes is asked of the real one here: whether it takes the objects, what RBAC allows, whom TokenReview
vouches for, what pod security says of what was injected, and how a webhook that is away fails.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
import yaml

from tests.charts.api_server import ApiServer, api_server
from tests.charts.installed import Running, until
from tests.charts.kubelet import Pod
from tests.charts.rendered import CHART, merged, values

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

RULES = [{"namespace": "shop", "serviceAccount": "*", "service": "{serviceAccount}"}]
VALUES = merged(values("default"), {"rules": RULES})
HOOK = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/sealmesh-injector-mesh"
PATCH = "application/json-patch+json"
APP = {
    "name": "app",
    "image": "app",
    "ports": [{"name": "grpc", "containerPort": 9000}],
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with api_server(tmp_path_factory.mktemp("cluster")) as running:
        running.namespace("mesh")
        running.namespace("shop", **{"sealmesh.dev/inject": "enabled"})
        running.namespace("plain")
        yield running


@pytest.fixture(scope="module")
def release(api: ApiServer) -> Iterator[helm.Config]:
    """Give Helm, with the release installed."""
    config = helm.Config(kubeconfig_content=yaml.safe_dump(api.way()), namespace="mesh")
    try:
        made = config.install(CHART, "sealmesh", VALUES)
        assert made["status"] == "deployed", made
        yield config
    finally:
        config.close()


def pods(api: ApiServer, namespace: str, prefix: str) -> list[dict[str, Any]]:
    found = api.done("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]
    return [one for one in found if one["metadata"]["name"].startswith(prefix)]


class Parts:
    """The control plane's pods, as the controllers made them, running."""

    address = ""

    def __init__(self, api: ApiServer, running: Running, stack: ExitStack) -> None:
        self.api, self._running, self._stack = api, running, stack

    def pod(self, namespace: str, prefix: str) -> Pod:
        """Take a pod on, as a kubelet does."""
        until(lambda: bool(pods(self.api, namespace, prefix)), f"a pod {prefix}")
        return Pod(pods(self.api, namespace, prefix)[0], self.api, self._running.built, self._stack)

    def start(self) -> None:
        """Start auth, gatekeeper and injector."""
        auth = self.pod("mesh", "sealmesh-auth-0")
        assert auth.start("found").wait(120) == 0, auth.log("found")
        auth.start("auth")
        until(lambda: not auth.probe("auth", "readiness"), "auth is ready")
        join = "/api/v1/namespaces/mesh/configmaps/sealmesh-join"
        until(lambda: self.api.ask("GET", join).is_success, f"the join key: {auth.log('auth')}")
        gatekeeper = self.pod("mesh", "sealmesh-gatekeeper-0")
        gatekeeper.start("gatekeeper")
        until(lambda: not gatekeeper.probe("gatekeeper", "readiness"), gatekeeper.log("gatekeeper"))
        self.injector()

    def injector(self) -> None:
        """Start the injector, and have the API server find it: nothing leads to its service."""
        pod = self.pod("mesh", "sealmesh-injector-")
        pod.start("injector")
        until(lambda: "caBundle" in self.hook()["clientConfig"], "the webhook is trusted")
        self.address = f"https://localhost:{self.api.port(pod.name, 9443)}/inject"
        self.led(url=self.address)

    def led(self, **to: Any) -> None:
        """Have the API server call the webhook at an address (``url``), or at a service."""
        now = self.hook()["clientConfig"]
        made = {"caBundle": now["caBundle"], **to}
        self.api.done(
            "PATCH", HOOK, [{"op": "replace", "path": "/webhooks/0/clientConfig", "value": made}], PATCH
        )

    def hook(self) -> dict[str, Any]:
        """Give the webhook."""
        found: dict[str, Any] = self.api.done("GET", HOOK)["webhooks"][0]
        return found

    def line(self, pod: Pod) -> dict[str, Any]:
        """Start a pod's sidecar; give what it says when it has joined."""
        return self._running.line(pod.start("mesh-sidecar"))


@pytest.fixture(scope="module")
def parts(
    api: ApiServer,
    release: helm.Config,
    built: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Parts]:
    assert release is not None
    with ExitStack() as stack:
        made = Parts(api, Running(built, tmp_path_factory.mktemp("parts"), stack), stack)
        made.start()
        yield made


def deployment(name: str, **annotations: str) -> dict[str, Any]:
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": {"serviceAccountName": name, "containers": [APP]},
    }
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def account(api: ApiServer, namespace: str, name: str) -> None:
    api.done("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": name}})


@pytest.mark.usefixtures("release")
def test_every_account_may_what_it_needs_and_nothing_near_it(api: ApiServer) -> None:
    """By RBAC's own word."""
    auth, gatekeeper, injector, operator = (
        f"mesh:sealmesh-{name}" for name in ("auth", "gatekeeper", "injector", "operator")
    )
    allowed = [
        (auth, "create", "authentication.k8s.io/tokenreviews", "", ""),
        (auth, "create", "configmaps", "mesh", ""),
        (auth, "update", "configmaps", "mesh", "sealmesh-join"),
        (injector, "list", "namespaces", "", ""),
        (injector, "update", "configmaps", "shop", "sealmesh-join"),
        (injector, "update", "secrets", "mesh", "sealmesh-injector-tls"),
        (
            injector,
            "patch",
            "admissionregistration.k8s.io/mutatingwebhookconfigurations",
            "",
            "sealmesh-injector-mesh",
        ),
    ]
    refused = [
        (auth, "update", "configmaps", "mesh", "sealmesh-config"),
        (auth, "get", "secrets", "mesh", "sealmesh-injector-tls"),
        (auth, "create", "configmaps", "shop", ""),
        (auth, "get", "pods", "shop", ""),
        (injector, "get", "secrets", "shop", "any"),
        (injector, "list", "secrets", "mesh", ""),
        (injector, "update", "configmaps", "shop", "kube-root-ca.crt"),
        (injector, "delete", "configmaps", "shop", "sealmesh-join"),
        (injector, "patch", "admissionregistration.k8s.io/mutatingwebhookconfigurations", "", "other"),
        (injector, "create", "authentication.k8s.io/tokenreviews", "", ""),
        (gatekeeper, "get", "configmaps", "mesh", "sealmesh-join"),
        (operator, "get", "configmaps", "mesh", "sealmesh-join"),
        (operator, "create", "serviceaccounts/token", "mesh", "sealmesh-operator"),
    ]
    assert {one: api.may(*one) for one in allowed} == dict.fromkeys(allowed, True)
    assert {one: api.may(*one) for one in refused} == dict.fromkeys(refused, False)


@pytest.mark.usefixtures("release")
def test_the_control_planes_pods_are_admitted_as_restricted(api: ApiServer) -> None:
    """By the API server's own admission: in this namespace it lets no other in."""
    for name in ("sealmesh-auth-0", "sealmesh-gatekeeper-0", "sealmesh-injector-"):
        until(partial(pods, api, "mesh", name), name)
    rejected = {"metadata": {"name": "loose"}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
    answer = api.ask("POST", "/api/v1/namespaces/mesh/pods", rejected)
    assert (answer.status_code, "restricted" in answer.text) == (403, True)


def test_a_pod_is_injected_joins_and_is_nobody_when_it_is_gone(parts: Parts) -> None:
    """A real deployment, a real token; once the pod is deleted, its token vouches for nothing."""
    api = parts.api
    account(api, "shop", "orders")
    api.done("POST", "/apis/apps/v1/namespaces/shop/deployments", deployment("orders"))
    until(lambda: bool(pods(api, "shop", "orders-")), "the replica set's pod")
    (made,) = pods(api, "shop", "orders-")
    (sidecar,) = made["spec"]["initContainers"]
    assert (sidecar["name"], sidecar["restartPolicy"]) == ("mesh-sidecar", "Always")
    assert made["metadata"]["annotations"]["sealmesh.dev/injected"] == "orders"
    until(
        lambda: api.ask("GET", "/api/v1/namespaces/shop/configmaps/sealmesh-join").is_success, "the join key"
    )
    pod = parts.pod("shop", "orders-")
    assert parts.line(pod)["service"] == "orders"

    late = parts.pod("shop", "orders-")
    pod.running["mesh-sidecar"].kill()
    process = late.start("mesh-sidecar")
    assert json.loads((process.stdout or [""]).readline())["service"] == "orders"  # type: ignore[union-attr]
    token = (late.path / "mesh-token" / "token").read_text()
    review = {"spec": {"token": token, "audiences": ["sealmesh/shop.example"]}}
    reviews = "/apis/authentication.k8s.io/v1/tokenreviews"
    assert api.done("POST", reviews, review)["status"]["authenticated"] is True
    api.done("DELETE", "/apis/apps/v1/namespaces/shop/deployments/orders")
    api.done("DELETE", f"/api/v1/namespaces/shop/pods/{made['metadata']['name']}?gracePeriodSeconds=0")
    until(lambda: not api.done("POST", reviews, review)["status"].get("authenticated"), "the token is void")


def test_the_webhook_refuses_with_a_reason_and_fails_closed(parts: Parts) -> None:
    """What is wrong is told to who makes the pod; without an injector nothing starts, elsewhere all does."""
    api = parts.api
    account(api, "shop", "payments")
    bare: dict[str, Any] = {
        "metadata": {"name": "p"},
        "spec": {"serviceAccountName": "payments", "containers": [APP]},
    }
    wrong = copy.deepcopy(bare)
    wrong["metadata"]["annotations"] = {"sealmesh.dev/app-prot": "1"}
    answer = api.ask("POST", "/api/v1/namespaces/shop/pods", wrong)
    assert answer.status_code == 403
    assert "sealmesh: unknown annotation sealmesh.dev/app-prot" in answer.json()["message"]
    otel = copy.deepcopy(bare)
    otel["metadata"]["annotations"] = {"sealmesh.dev/OTEL_TRACES_SAMPLER": "always_off"}
    made = api.done("POST", "/api/v1/namespaces/shop/pods?dryRun=All", otel)
    assert {"name": "OTEL_TRACES_SAMPLER", "value": "always_off"} in made["spec"]["initContainers"][0]["env"]

    nowhere = [
        {"op": "replace", "path": "/webhooks/0/clientConfig/url", "value": "https://localhost:1/inject"}
    ]
    api.done("PATCH", HOOK, nowhere, PATCH)
    answer = api.ask("POST", "/api/v1/namespaces/shop/pods", bare)
    assert (answer.status_code, "failed calling webhook" in answer.text) == (500, True)
    account(api, "plain", "payments")
    assert api.done("POST", "/api/v1/namespaces/plain/pods", bare)["spec"].get("initContainers") is None
    opted = copy.deepcopy(bare)
    opted["metadata"]["labels"] = {"sealmesh.dev/inject": "disabled"}
    assert api.done("POST", "/api/v1/namespaces/shop/pods?dryRun=All", opted)["spec"]["containers"]
    parts.led(url=parts.address)


def test_what_somebody_changes_is_put_back(parts: Parts) -> None:
    """The ConfigMap that pods join with."""
    api, path = parts.api, "/api/v1/namespaces/shop/configmaps/sealmesh-join"
    until(lambda: api.ask("GET", path).is_success, "the join key")
    wanted = api.config("mesh", "sealmesh-join")
    api.done("PATCH", path, [{"op": "replace", "path": "/data/join-key", "value": "mine"}], PATCH)
    until(lambda: api.config("shop", "sealmesh-join") == wanted, "put back")


def test_upgrade_and_rollback(parts: Parts, release: helm.Config) -> None:
    """To another version of the values, to three of each on PostgreSQL, and back: the API server takes each.

    What the injector has written into the webhook stays, and no object is replaced.
    """
    api = parts.api
    service = {"name": "sealmesh-injector", "namespace": "mesh", "path": "/inject", "port": 443}
    parts.led(service=service)
    trusted = parts.hook()["clientConfig"]["caBundle"]
    sets = "/apis/apps/v1/namespaces/mesh/statefulsets"
    before = {one["metadata"]["name"]: one["metadata"]["uid"] for one in api.done("GET", sets)["items"]}
    release.upgrade(CHART, "sealmesh", merged(VALUES, {"auth": {"svidSeconds": 600}}))
    assert "--svid-seconds=600" in str(api.done("GET", f"{sets}/sealmesh-auth"))
    assert parts.hook()["clientConfig"]["caBundle"] == trusted
    release.upgrade(CHART, "sealmesh", merged(values("ha"), {"rules": RULES}))
    assert api.done("GET", f"{sets}/sealmesh-auth")["spec"]["replicas"] == 3
    until(lambda: len(pods(api, "mesh", "sealmesh-auth-")) == 3, "all three at once, though none is ready")
    budgets = api.done("GET", "/apis/policy/v1/namespaces/mesh/poddisruptionbudgets")["items"]
    assert len(budgets) == 3
    release.rollback("sealmesh", version=1)
    assert "--svid-seconds=3600" in str(api.done("GET", f"{sets}/sealmesh-auth"))
    assert api.done("GET", "/apis/policy/v1/namespaces/mesh/poddisruptionbudgets")["items"] == []
    after = {one["metadata"]["name"]: one["metadata"]["uid"] for one in api.done("GET", sets)["items"]}
    assert after == before
    assert parts.hook()["clientConfig"]["caBundle"] == trusted


def test_what_must_not_be_lost_outlives_the_release(api: ApiServer, release: helm.Config) -> None:
    """Auth's claim, which holds the mesh. It is the last test: the release is gone then."""
    release.uninstall("sealmesh")
    claims = api.done("GET", "/api/v1/namespaces/mesh/persistentvolumeclaims")["items"]
    assert "data-sealmesh-auth-0" in [one["metadata"]["name"] for one in claims]
    assert api.ask("GET", HOOK).status_code == 404
