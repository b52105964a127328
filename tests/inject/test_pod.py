"""A pod gets its sidecar, once, as Kubernetes runs native ones; a pod that could get around it is refused."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from mesh.inject.errors import RefusedError
from mesh.inject.pod import inject
from mesh.inject.settings import Settings
from tests.inject.pods import DOCUMENT, SETTINGS, annotated, pod


def injected(made: dict[str, Any]) -> dict[str, Any]:
    return inject(made, "shop", SETTINGS)


def sidecar(made: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = made["spec"]["initContainers"][0]
    assert found["name"] == "mesh-sidecar"
    return found


def option(made: dict[str, Any], name: str) -> str:
    arguments = sidecar(made)["args"]
    value: str = arguments[arguments.index(name) + 1]
    return value


def app_env(made: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in made["spec"]["containers"][0].get("env", [])}


def test_a_pod_gets_a_native_sidecar() -> None:
    """It starts before the app and its init containers, and its app stays the default for kubectl."""
    made = injected(pod(initContainers=[{"name": "migrate", "image": "x"}]))
    assert [one["name"] for one in made["spec"]["initContainers"]] == ["mesh-sidecar", "migrate"]
    assert sidecar(made)["restartPolicy"] == "Always"
    assert sidecar(made)["startupProbe"]["grpc"]["port"] == 7802
    assert sidecar(made)["readinessProbe"]["grpc"]["service"] == "ready"
    assert sidecar(made)["lifecycle"]["preStop"]["exec"]["command"] == ["python", "-m", "sidecar.drain"]
    annotations = made["metadata"]["annotations"]
    assert annotations["kubectl.kubernetes.io/default-container"] == "app"
    assert annotations["sealmesh.dev/injected"] == option(made, "--service") == "orders"
    assert option(made, "--app-port") == "9000"
    assert app_env(made) == {"MESH_OUTBOUND": "127.0.0.1:7801"}


def test_no_token_and_no_key_is_in_the_specification() -> None:
    """The proof is a projected token with the mesh's own audience, which the app's containers do not see."""
    made = injected(pod())
    volumes = {one["name"]: one for one in made["spec"]["volumes"]}
    source = volumes["mesh-token"]["projected"]["sources"][0]["serviceAccountToken"]
    assert source == {"path": "token", "audience": "sealmesh", "expirationSeconds": 600}
    assert volumes["mesh-join"]["configMap"]["name"] == "sealmesh-join"
    assert "volumeMounts" not in made["spec"]["containers"][0]


@pytest.mark.parametrize(("before", "after"), [(None, 40), (0, 40), (30, 40), (40, 40), (300, 300)])
def test_a_pod_has_time_for_its_end(before: int | None, after: int) -> None:
    """As long as a drain takes, or as long as it asks for itself if that is longer."""
    made = injected(pod() if before is None else pod(terminationGracePeriodSeconds=before))
    assert made["spec"]["terminationGracePeriodSeconds"] == after


def test_a_sidecar_tells_of_itself_where_the_settings_say() -> None:
    """Its variables and its port are of the cluster; the app's own are left alone."""
    env = {"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_PROMETHEUS_HOST": "0.0.0.0"}
    settings = Settings.parse({**DOCUMENT, "env": env})
    made = inject(pod(), "shop", settings)
    assert {one["name"]: one["value"] for one in sidecar(made)["env"]}.items() >= env.items()
    assert sidecar(made)["ports"][-1] == {"name": "mesh-metrics", "containerPort": 9464, "protocol": "TCP"}
    assert "OTEL_METRICS_EXPORTER" not in app_env(made)
    with pytest.raises(RefusedError, match="port 9464 is the sidecar's"):
        inject(pod(containers=[{"name": "app", "ports": [{"containerPort": 9464}]}]), "shop", settings)


def told(**variables: str) -> dict[str, Any]:
    """Give a pod that says where its sidecar tells of itself."""
    made = pod()
    made["metadata"]["annotations"] = {f"sealmesh.dev/{name}": text for name, text in variables.items()}
    return made


def test_a_pod_may_say_for_itself_where_its_sidecar_tells() -> None:
    """In the place of what the cluster says; a port that comes of it is the sidecar's, and twice is once."""
    cluster = Settings.parse({**DOCUMENT, "env": {"OTEL_TRACES_SAMPLER": "always_on", "OTEL_BSP_MAX": "1"}})
    wanted = {"OTEL_TRACES_SAMPLER": "always_off", "OTEL_METRICS_EXPORTER": "prometheus"}
    made = inject(told(**wanted), "shop", cluster)
    env = {one["name"]: one["value"] for one in sidecar(made)["env"]}
    assert env.items() >= {**wanted, "OTEL_BSP_MAX": "1"}.items()
    assert "mesh-metrics" in [port["name"] for port in sidecar(made)["ports"]]
    assert inject(deepcopy(made), "shop", cluster) == made


@pytest.mark.parametrize(
    ("variable", "text", "why"),
    [
        ("OTEL_EXPORTER_OTLP_HEADERS", "key=x", "is not for a pod to say: have a collector"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "key=x", "is not for a pod to say"),
        ("OTEL_SERVICE_NAME", "payments", "is not for a pod to say"),
        ("OTEL_", "x", "env: 'OTEL_': OTEL_"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "7801", "is '7801': use a port of its own"),
        ("OTEL_EXPORTER_PROMETHEUS_PORT", "no", "is 'no': use a port of its own"),
    ],
)
def test_what_a_pod_may_not_say_of_its_telemetry(variable: str, text: str, why: str) -> None:
    """No secret, no other name, nothing that makes no sense."""
    with pytest.raises(RefusedError, match=why):
        injected(told(**{variable: text}))


def test_twice_is_once() -> None:
    """What is injected already comes out as it went in."""
    once = injected(pod(initContainers=[{"name": "migrate", "image": "x"}], volumes=[{"name": "v"}]))
    assert injected(deepcopy(once)) == once


def test_the_input_stays_as_it_is() -> None:
    """A pod that is refused later must not be half changed."""
    given = pod()
    before = deepcopy(given)
    injected(given)
    assert given == before


def test_a_sidecar_of_ones_own_is_replaced() -> None:
    """Who brings a container of that name gets the mesh's in its place."""
    own = {"name": "mesh-sidecar", "image": "evil", "restartPolicy": "Always"}
    made = injected(pod(initContainers=[own]))
    assert [one["image"] for one in made["spec"]["initContainers"]] == ["sidecar:1"]
    assert made == injected(pod())


def test_a_change_of_settings_reaches_an_injected_pod() -> None:
    """An upgrade injects with the new image."""
    newer = replace(SETTINGS, image="sidecar:2")
    assert sidecar(inject(injected(pod()), "shop", newer))["image"] == "sidecar:2"


@pytest.mark.parametrize("where", ["annotations", "labels"])
def test_a_pod_may_opt_out(where: str) -> None:
    """By annotation or label; then nothing at all is changed."""
    given = pod(hostNetwork=True)
    given["metadata"][where] = {"sealmesh.dev/inject": "disabled"}
    assert injected(given) == given


def test_tuning() -> None:
    """Ports and resources are the pod's to choose."""
    made = injected(annotated(app_port="9001", outbound_port="4000", memory_limit="128Mi", cpu_limit="1"))
    assert option(made, "--app-port") == "9001"
    assert app_env(made)["MESH_OUTBOUND"] == "127.0.0.1:4000"
    assert sidecar(made)["resources"] == {
        "limits": {"memory": "128Mi", "cpu": "1"},
        "requests": {"cpu": "20m", "memory": "64Mi"},
    }


@pytest.mark.parametrize(
    ("request_", "limit"),
    [("512Mi", "0.5Gi"), ("1k", "1Ki"), ("999m", "1"), ("1", "1M"), ("268435456", "256Mi")],
)
def test_a_request_up_to_its_limit_is_taken(request_: str, limit: str) -> None:
    """In whatever units the two are."""
    made = injected(annotated(memory_request=request_, memory_limit=limit))
    assert sidecar(made)["resources"]["limits"]["memory"] == limit


def test_what_is_no_quantity_is_left_to_the_api_server() -> None:
    """Of the settings, whose resources have no schema but the chart's."""
    settings = replace(SETTINGS, resources={"requests": {"memory": "1Ei"}, "limits": {"memory": "1"}})
    assert sidecar(inject(pod(), "shop", settings))["resources"]["requests"] == {"memory": "1Ei"}


def test_a_pod_may_keep_its_app_from_being_asked() -> None:
    """For its health."""
    assert "--no-app-health" not in sidecar(injected(annotated(app_health="enabled")))["args"]
    assert sidecar(injected(annotated(app_health="disabled")))["args"][-1] == "--no-app-health"


def test_a_pod_without_a_grpc_port_only_calls() -> None:
    """Nothing is guessed."""
    made = injected(pod(containers=[{"name": "app", "image": "x", "ports": [{"containerPort": 80}]}]))
    assert "--app-port" not in sidecar(made)["args"]


@pytest.mark.parametrize("place", ["pod", "container"])
def test_an_app_of_the_same_user_gets_the_sockets(place: str) -> None:
    """The sidecar runs as the app's user if that is known and not root."""
    given = pod()
    where = given["spec"] if place == "pod" else given["spec"]["containers"][0]
    where["securityContext"] = {"runAsUser": 1000}
    made = injected(given)
    assert sidecar(made)["securityContext"]["runAsUser"] == 1000
    assert app_env(made)["MESH_RUN_DIR"] == option(made, "--run-dir") == "/run/mesh/sockets"
    assert made["spec"]["containers"][0]["volumeMounts"] == [{"name": "mesh-run", "mountPath": "/run/mesh"}]
    assert injected(made) == made


def test_an_app_of_root_does_not_make_a_sidecar_of_root() -> None:
    """It uses the loopback port."""
    made = injected(pod(securityContext={"runAsUser": 0}))
    assert sidecar(made)["securityContext"]["runAsUser"] == 65532
    assert "MESH_RUN_DIR" not in app_env(made)


def test_a_name_that_is_not_made_yet_begins_as_it_will() -> None:
    """A ReplicaSet's pods are named by the API server, after admission."""
    given = pod(serviceAccountName="default")
    given["metadata"] = {"generateName": "frontend-7d9f-"}
    assert option(injected(given), "--service") == "frontend"


def container(**fields: Any) -> dict[str, Any]:
    return {"containers": [{"name": "app", "image": "x", **fields}]}


def proof(audience: str) -> dict[str, Any]:
    token = {"path": "token", "audience": audience}
    return {"name": "p", "projected": {"sources": [{"configMap": {}}, {"serviceAccountToken": token}]}}


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"hostNetwork": True}, "hostNetwork"),
        ({"hostPID": True}, "hostPID"),
        ({"hostIPC": True}, "hostIPC"),
        ({"shareProcessNamespace": True}, "shareProcessNamespace"),
        (container(securityContext={"privileged": True}), "privileged"),
        (container(securityContext={"capabilities": {"add": ["CAP_SYS_PTRACE"]}}), "SYS_PTRACE"),
        (container(securityContext={"capabilities": {"add": ["all"]}}), "ALL"),
        (container(securityContext={"capabilities": {"add": ["SYS_MODULE"]}}), "SYS_MODULE"),
        (
            container(securityContext={"capabilities": {"add": ["KILL", "CAP_DAC_READ_SEARCH"]}}),
            "has DAC_READ",
        ),
        (container(securityContext={"procMount": "Unmasked"}), "procMount"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/var/log"}}]}, "volume v is the node's files"),
        ({"volumes": [proof("sealmesh")]}, "volume p is a proof for auth"),
        (container(name="mesh-sidecar"), "that name is the sidecar's"),
        (container(ports=[{"containerPort": 1, "hostPort": 1}]), "hostPort"),
        (container(volumeMounts=[{"name": "mesh-token", "mountPath": "/t"}]), "mounts a volume"),
        ({"initContainers": [{"name": "i", "securityContext": {"privileged": True}}]}, "privileged"),
        (container(ports=[{"containerPort": 7800}]), "port 7800 is the sidecar's"),
        ({"containers": []}, "no containers"),
        ({"serviceAccountName": "stranger"}, "no rule makes service account stranger"),
    ],
)
def test_pods_that_would_get_around_it_are_refused(spec: dict[str, Any], why: str) -> None:
    """With what to change."""
    with pytest.raises(RefusedError, match=why):
        injected(pod(**spec))


def test_what_reaches_no_further_than_the_container_is_its_own() -> None:
    """Capabilities of the baseline standard, and tokens for others than auth."""
    security = {"procMount": "Default", "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]}}
    made = injected(pod(volumes=[proof("vault")], **container(securityContext=security)))
    assert made["spec"]["volumes"][0] == proof("vault")


@pytest.mark.parametrize(
    ("annotations", "why"),
    [
        ({"inject": "yes"}, "use enabled or disabled"),
        ({"app_prot": "1"}, "unknown annotation"),
        ({"app_port": "0"}, "use a port"),
        ({"app_port": "99999999999"}, "use a port"),
        ({"app_port": "٣"}, "use a port"),
        ({"app_port": "7801"}, "port 7801 is the sidecar's"),
        ({"outbound_port": "7800"}, "outbound-port 7800 is another of the sidecar's"),
        ({"outbound_port": "7802"}, "outbound-port 7802 is another of the sidecar's"),
        ({"app_health": "off"}, "app-health is 'off': use enabled or disabled"),
        ({"memory_limit": "lots"}, "use a quantity"),
        (
            {"memory_limit": "10Mi"},
            "ask for memory 64Mi, above its limit of 10Mi: annotate both memory-request",
        ),
        ({"memory_request": "0.5Gi"}, "ask for memory 0.5Gi, above its limit of 256Mi"),
        ({"cpu_request": "1.5", "cpu_limit": "1400m"}, "ask for cpu 1.5, above its limit of 1400m"),
        ({"service": "payments"}, "the rules make this pod orders"),
    ],
)
def test_annotations_are_read_strictly(annotations: dict[str, str], why: str) -> None:
    """A typing error is told, not ignored."""
    with pytest.raises(RefusedError, match=why):
        injected(annotated(**annotations))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"images": "x"}, "unknown key 'images'"),
        ({"image": 1}, "image: has to be of type str"),
        ({"tokenSeconds": "600"}, "tokenSeconds: has to be of type int"),
        ({"uid": True}, "uid: has to be of type int"),
        ({"ports": {"inbound": 1, "health": 1}}, "three different ones"),
        ({"ports": {"outbund": 1}}, "unknown key 'ports.outbund'"),
        ({"rules": [{}]}, "namespace is missing"),
        ({"env": {"PATH": "/"}}, "env: 'PATH': OTEL_"),
        ({"env": {"OTEL_TRACES_SAMPLER": 1}}, "env: 'OTEL_TRACES_SAMPLER'"),
        ({"env": {"OTEL_EXPORTER_PROMETHEUS_PORT": "7802"}}, "is '7802': use a port of its own"),
        ({"env": {"OTEL_EXPORTER_PROMETHEUS_PORT": "0x9"}}, "is '0x9': use a port of its own"),
        ({"env": {"OTEL_EXPORTER_PROMETHEUS_PORT": "65536"}}, "is '65536': use a port of its own"),
    ],
)
def test_settings_are_read_strictly(change: dict[str, Any], why: str) -> None:
    """With the name that the file has for it."""
    with pytest.raises(ValueError, match=why):
        Settings.parse({**DOCUMENT, **change})


def test_settings_need_what_has_no_default() -> None:
    """An image is not guessed."""
    with pytest.raises(ValueError, match="image is missing"):
        Settings.parse({key: value for key, value in DOCUMENT.items() if key != "image"})
    with pytest.raises(ValueError, match="have to be a mapping"):
        Settings.parse([])
