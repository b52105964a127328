"""The control plane's chart: golden renderings, valid for each Kubernetes it is for, restricted, strict."""

from __future__ import annotations

import json
import os
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import helm_python as helm
import jsonschema
import kubernetes_validate
import pytest
import yaml

from mesh.cli.check import check
from mesh.core.names import GATEKEEPER, OPERATOR
from mesh.core.workloads import Rules, Workload
from mesh.inject.pod import inject
from mesh.inject.settings import Settings
from mesh.node import DRAIN
from services.probe.__main__ import PATIENCE
from tests.charts.rendered import CHART, HERE, ROOT, VALUES, manifests, merged, pods, render, values
from tests.charts.restricted import faults

SETS = [*VALUES, "ha"]
#: The oldest that has native sidecars by default, and the newest there are schemas for.
KUBERNETES = ("1.29", kubernetes_validate.latest_version())
#: Kinds that are not Kubernetes' own.
FOREIGN = {"Issuer", "Certificate"}


#: The label of each pod of a StatefulSet.
POD = "statefulset.kubernetes.io/pod-name"
PARTS = {"auth": "StatefulSet", "gatekeeper": "StatefulSet", "injector": "Deployment"}
POSTGRESQL = {"database": {"existingSecret": "pg"}}
KEK = {"kek": {"existingSecret": "kek"}}


@cache
def objects(name: str) -> list[dict[str, Any]]:
    return list(manifests(render(values(name))))


def found(name: str, kind: str, part: str) -> dict[str, Any]:
    (one,) = [o for o in objects(name) if o["kind"] == kind and o["metadata"]["name"].endswith(part)]
    return one


@pytest.mark.parametrize("name", SETS)
def test_it_renders_as_before(name: str) -> None:
    """Byte for byte; ``GOLDEN=write`` writes them anew, to be read in the difference."""
    text = "".join(f"# {path}\n{made.strip()}\n" for path, made in render(values(name)).items())
    golden = HERE / "golden" / f"{name}.yaml"
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


@pytest.mark.parametrize("name", SETS)
def test_twice_gives_the_same(name: str) -> None:
    """Nothing is made by chance: no key, no certificate, no time. That is also what makes a rollback one."""
    assert render(values(name)) == render(values(name))


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("name", SETS)
def test_kubernetes_takes_it(name: str, version: str) -> None:
    """Each object, strictly by the API's own schema."""
    made = [one for one in objects(name) if one["kind"] not in FOREIGN]
    assert len(made) > 8
    for one in made:
        kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("name", SETS)
def test_lint_finds_nothing(name: str) -> None:
    """Strictly, but for an icon."""
    said = helm.lint(CHART, values(name), strict=True, namespace="mesh")["messages"]
    assert [one["error"] for one in said if "icon" not in one["error"]] == []


@pytest.mark.parametrize("name", SETS)
def test_every_pod_is_restricted(name: str) -> None:
    """Not root, no privileges, a root file system that is read only."""
    specs = dict(pods(objects(name)))
    assert len(specs) >= 2
    assert {pod: faults(spec) for pod, spec in specs.items()} == {pod: [] for pod in specs}


def test_a_pod_that_is_not_restricted_is_seen() -> None:
    """The test above can fail."""
    spec = {"hostPID": True, "volumes": [{"name": "v", "hostPath": {}}], "containers": [{"name": "c"}]}
    assert len(faults(spec)) == 8


@pytest.mark.parametrize("name", SETS)
def test_every_object_has_the_standard_labels(name: str) -> None:
    """By which tools find what belongs together; a namespaced one names its namespace."""
    for one in objects(name):
        labels = one["metadata"]["labels"]
        for key in ("name", "instance", "component", "version", "managed-by", "part-of"):
            assert labels[f"app.kubernetes.io/{key}"]
        is_cluster = one["kind"].startswith("Cluster") or one["kind"] == "MutatingWebhookConfiguration"
        assert is_cluster or one["metadata"]["namespace"] == "mesh"


@pytest.mark.parametrize("name", SETS)
def test_selectors_find_their_pods_and_nothing_else(name: str) -> None:
    """A label that changes with a version would make an upgrade impossible."""
    made = objects(name)
    templates = [
        one["spec"]["template"]["metadata"]["labels"] for one in made if "template" in one.get("spec", {})
    ]
    for one in made:
        spec = one.get("spec", {})
        selector = spec.get("selector") or spec.get("podSelector")
        if one["kind"] in ("Service", "Deployment", "StatefulSet", "NetworkPolicy", "PodDisruptionBudget"):
            wanted = dict(selector.get("matchLabels") or selector)
            assert "app.kubernetes.io/version" not in wanted
            pod = wanted.pop(POD, None)  # a StatefulSet gives it to each pod
            assert pod in (None, one["metadata"]["name"])
            assert len([labels for labels in templates if wanted.items() <= labels.items()]) == 1


@pytest.mark.parametrize("name", SETS)
def test_every_replica_has_an_address_of_its_own_and_all_are_told(name: str) -> None:
    """Nodes are registered with each gatekeeper and go from one auth to the next, ready or not."""
    alone = {
        one["metadata"]["name"]: one["spec"]
        for one in objects(name)
        if one["kind"] == "Service" and POD in one["spec"]["selector"]
    }
    auth = found(name, "StatefulSet", "-auth")
    (container,) = auth["spec"]["template"]["spec"]["containers"]
    for part, option, port in (("auth", "--auths", 7701), ("gatekeeper", "--gatekeeper", 7702)):
        ends = found(name, "StatefulSet", f"-{part}")
        told = next(one for one in container["args"] if one.startswith(f"{option}=")).partition("=")[2]
        hosts = [f"{ends['metadata']['name']}-{number}" for number in range(ends["spec"]["replicas"])]
        assert told.split(",") == [f"{host}.mesh.svc:{port}" for host in hosts]
        for host in hosts:
            spec = alone.pop(host)
            assert port in [one["port"] for one in spec["ports"]]
            assert spec["publishNotReadyAddresses"] is True
    assert alone == {}


@pytest.mark.parametrize("name", SETS)
def test_no_secret_is_in_it(name: str) -> None:
    """Neither in values nor in what is made of them."""
    assert [one for one in objects(name) if one["kind"] == "Secret"] == []
    text = "".join(render(values(name)).values())
    assert not re.search(r"PRIVATE KEY|mesh1\.|caBundle: \S", text)


@pytest.mark.parametrize("name", [name for name in SETS if name != "bare"])
def test_the_programs_read_what_the_chart_writes(name: str) -> None:
    """The injector's settings by the injector's parser; the rules lead to gatekeeper and operators."""
    data = found(name, "ConfigMap", "-config")["data"]
    settings = Settings.parse(yaml.safe_load(data["sidecars.yaml"]))
    rules = Rules.parse(yaml.safe_load(data["auth.yaml"])["rules"])
    accounts = {one["metadata"]["name"] for one in objects(name) if one["kind"] == "ServiceAccount"}
    (gatekeeper,) = [one for one in accounts if one.endswith("-gatekeeper")]
    (operator,) = [one for one in accounts if one.endswith("-operator")]
    assert rules.service_of(Workload("mesh", gatekeeper, "x")) == GATEKEEPER
    assert rules.service_of(Workload("mesh", operator, "")) == OPERATOR
    assert rules.service_of(Workload("elsewhere", gatekeeper, "x")) is None
    assert settings.auth == json.loads(data["addresses.json"])["join"]


def test_an_injected_pod_is_restricted_and_valid() -> None:
    """What the injector adds by the chart's settings does not take a pod out of the standard."""
    data = found("full", "ConfigMap", "-config")["data"]
    settings = Settings.parse(yaml.safe_load(data["sidecars.yaml"]))
    app = {"name": "app", "image": "x", "resources": {}, "securityContext": {}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "orders-1", "namespace": "shop"},
        "spec": {"serviceAccountName": "orders", "containers": [app]},
    }
    made = inject(pod, "shop", settings)
    for version in KUBERNETES:
        kubernetes_validate.validate(made, version, strict=True)
    assert [fault for fault in faults(made["spec"]) if fault.startswith("mesh-sidecar")] == []
    assert faults(made["spec"]) != []  # the app is its owner's to restrict


def test_the_webhook_fails_closed_for_namespaces_that_asked_alone() -> None:
    """Nobody else's pods hang on the injector, its own least of all."""
    (hook,) = found("default", "MutatingWebhookConfiguration", "-mesh")["webhooks"]
    assert hook["failurePolicy"] == "Fail"
    assert hook["namespaceSelector"]["matchLabels"] == {"sealmesh.dev/inject": "enabled"}
    assert "mesh" in hook["namespaceSelector"]["matchExpressions"][0]["values"]
    assert "caBundle" not in hook["clientConfig"]


def test_each_part_may_do_what_it_does_and_no_more() -> None:
    """The verbs of every role, all of them."""
    allowed = {
        (
            one["metadata"]["name"],
            tuple(rule["resources"]),
            tuple(rule.get("resourceNames", ())),
            tuple(rule["verbs"]),
        )
        for one in objects("default")
        if one["kind"] in ("Role", "ClusterRole")
        for rule in one["rules"]
    }
    assert allowed == {
        ("sealmesh-auth-mesh", ("tokenreviews",), (), ("create",)),
        ("sealmesh-auth", ("configmaps",), (), ("create",)),
        ("sealmesh-auth", ("configmaps",), ("sealmesh-join",), ("get", "update")),
        ("sealmesh-injector-mesh", ("namespaces",), (), ("list",)),
        ("sealmesh-injector-mesh", ("configmaps",), (), ("create",)),
        ("sealmesh-injector-mesh", ("configmaps",), ("sealmesh-join",), ("get", "update")),
        (
            "sealmesh-injector-mesh",
            ("mutatingwebhookconfigurations",),
            ("sealmesh-injector-mesh",),
            ("get", "patch"),
        ),
        ("sealmesh-injector", ("secrets",), (), ("create",)),
        ("sealmesh-injector", ("secrets",), ("sealmesh-injector-tls",), ("get", "update")),
    }


def test_notes_end_with_how_to_ask_whether_all_is_well() -> None:
    """The last line is a command."""
    assert noted({}).strip().splitlines()[-1].strip() == "mesh check"


@pytest.mark.parametrize("injector", [True, False])
@pytest.mark.parametrize("operator", [True, False])
def test_notes_count_their_steps(*, injector: bool, operator: bool) -> None:
    """Whatever is turned off; and without an operator by RBAC there is the credential on the volume."""
    text = noted({"injector": {"enabled": injector}, "operator": {"enabled": operator}})
    steps = [int(number) for number in re.findall(r"^([0-9]+)\. ", text, re.MULTILINE)]
    assert steps == list(range(1, 3 + injector))
    assert ("sealmesh.dev/inject=enabled" in text) == injector
    assert ("create token" in text, "operator.json" in text) == (operator, not operator)
    assert ("helm test" in text) == operator
    assert text.strip().endswith("mesh check")


def test_what_the_notes_write_is_for_its_owner_alone() -> None:
    """The key files that mesh takes are, and a shell makes others unless it is told."""
    for step in re.split(r"^[0-9]+\. ", noted({}), flags=re.MULTILINE)[1:]:
        assert " > " not in step.partition("umask 077")[0]


def noted(change: dict[str, Any]) -> str:
    return render(merged(values("default"), change))["NOTES.txt"]


def test_the_log_of_a_test_is_there_when_helm_asks_for_it() -> None:
    """``helm test --logs`` reads it after the hook: a pod that is deleted when it succeeded has none."""
    annotations = found("default", "Pod", "-test")["metadata"]["annotations"]
    assert annotations["helm.sh/hook-delete-policy"] == "before-hook-creation"


def test_helm_test_runs_the_check() -> None:
    """With the operator's token, and time for a mesh that has just been installed."""
    (container,) = found("default", "Pod", "-test")["spec"]["containers"]
    assert container["command"][:2] == ["mesh", "check"]
    given = check.make_context("check", container["command"][2:]).params
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted["operator"] == str(given["data"])
    assert given["wait"] > 0


def rule(service: str) -> dict[str, str]:
    return {"namespace": "a", "serviceAccount": "b", "service": service}


@pytest.mark.parametrize("word", ["123", "1e3", "null", "on", "y", "true"])
def test_a_name_that_yaml_takes_for_something_else_is_a_name(word: str) -> None:
    """A namespace, a release, a Secret or a storage class may be called so."""
    change: dict[str, Any] = {
        "joinConfigMap": word,
        "audience": word,
        "nameOverride": word if word.isalpha() else "x",
        "database": {"existingSecret": word, "key": word, "caSecret": word, "caKey": word},
        "auth": {
            "kek": {"existingSecret": word, "key": word},
            "persistence": {"storageClass": word},
            "priorityClassName": word,
            "env": {word: word} if word.isalpha() else {},
        },
    }
    given = merged(merged(values("default"), change), {"fullnameOverride": "mesh"})
    for made in manifests(render(given, namespace=word)):
        kubernetes_validate.validate(made, KUBERNETES[0], strict=True)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"trustDomain": ""}, "trustDomain is missing: set it"),
        ({"trustDomain": "Shop"}, "'/trustDomain': 'Shop' does not match pattern"),
        ({"auth": {"replicas": 3}}, "auth.replicas: several auths need PostgreSQL, and SQLite is one's: set"),
        ({"auth": {"replicas": 17}}, "'/auth/replicas': maximum: got 17, want 16"),
        ({"auth": {"kek": {"existingSecret": "kek"}}}, "are for PostgreSQL: set database.existingSecret"),
        ({"database": {"caSecret": "ca"}}, "are for PostgreSQL: set database.existingSecret"),
        ({"database": {"existingSecret": "pg"}}, "auth.kek.existingSecret is missing: auths on PostgreSQL"),
        ({"database": {"password": "x"}}, "additional properties 'password' not allowed"),
        ({"database": {"existingSecret": "Pg"}}, "'/database/existingSecret': 'Pg' does not match pattern"),
        ({**POSTGRESQL, "auth": {**KEK, "kms": "aws:alias/mesh"}}, "auth.kms: with database.existingSecret"),
        (
            {**POSTGRESQL, "auth": {**KEK, "replicas": 2, "persistence": {"existingClaim": "a"}}},
            "auth.persistence.existingClaim: each of several auths has a volume of its own",
        ),
        (
            {"gatekeeper": {"replicas": 2, "decisions": {"persistence": {"existingClaim": "a"}}}},
            "gatekeeper.decisions.persistence.existingClaim: each of several gatekeepers",
        ),
        ({"gatekeeper": {"minAvailable": 1}}, "gatekeeper.minAvailable: it has to be less than gatekeeper"),
        ({**POSTGRESQL, "auth": {**KEK, "minAvailable": 1}}, "auth.minAvailable: it has to be less than"),
        ({"gatekeeper": {"leaseSeconds": 5}}, "'/gatekeeper/leaseSeconds': minimum: got 5, want 10"),
        ({"gatekeeper": {"decisions": {"days": 400}}}, "days': maximum: got 400, want 366"),
        ({"auth": {"svidSeconds": 86400, "caSeconds": 86400}}, "auth.caSeconds: a CA has to last six times"),
        ({"auth": {"kms": "vault:mesh"}}, "'/auth/kms': 'vault:mesh' does not match pattern"),
        ({"injector": {"minAvailable": 1}}, "injector.minAvailable: it has to be less"),
        (
            {"injector": {"certManager": {"enabled": False, "issuerRef": {"name": "x"}}}},
            "injector.certManager.issuerRef: cert-manager is not asked: set injector.certManager.enabled",
        ),
        (
            {"operator": {"enabled": False, "subjects": [{"kind": "User", "name": "x"}]}},
            "operator.subjects: there is no account for them: set operator.enabled",
        ),
        ({"injector": {"sidecar": {"tokenSeconds": 60}}}, "tokenSeconds': minimum: got 60, want 600"),
        ({"injector": {"sidecar": {"uid": 0}}}, "uid': minimum: got 0, want 1"),
        ({"telemetry": {"env": {"OTEL_EXPORTER_OTLP_HEADERS": "key=x"}}}, "OTEL_EXPORTER_OTLP_HEADERS"),
        ({"telemetry": {"env": {"PATH": "/"}}}, "additional properties 'PATH' not allowed"),
        ({"telemetry": {"otlpEndpoint": "http://me:word@host"}}, "'/telemetry/otlpEndpoint': "),
        (
            {"telemetry": {"prometheus": {"enabled": True, "port": 7801}}},
            "telemetry.prometheus.port: another",
        ),
        ({"rules": [{"namespace": "a", "service": "b"}]}, "missing property 'serviceAccount'"),
        ({"rules": [{"namespace": "a*b", "serviceAccount": "a", "service": "b"}]}, "does not match pattern"),
        ({"rules": [rule("{pod}")]}, "'/rules/0/service': '{pod}' does not match pattern"),
        ({"rules": [rule("{serviceAccount}-{namespace}")]}, "does not match pattern"),
        ({"rules": [rule("mesh.auth")]}, "rules: mesh.auth is a name of the mesh itself"),
        ({"auth": {"priorityClassName": "x\nhostNetwork: true"}}, "'/auth/priorityClassName': "),
        ({"fullnameOverride": "x\nkind: Secret"}, "'/fullnameOverride': "),
        ({"nameOverride": "Mesh"}, "'/nameOverride': 'Mesh' does not match pattern"),
        ({"audience": "a: b"}, "'/audience': 'a: b' does not match pattern"),
        ({"auth": {"persistence": {"existingClaim": "a}, {b"}}}, "existingClaim': 'a}, {b' does not match"),
        ({"commonLabels": {"app.kubernetes.io/name": "x"}}, "'app.kubernetes.io/name'"),
        ({"commonLabels": {"sealmesh.dev/inject": "enabled"}}, "'sealmesh.dev/inject'"),
        ({"auth": {"podAnnotations": {"checksum/config": "x"}}}, "'checksum/config'"),
        ({"auth": {"env": {"MESH_DATABASE": "postgresql://me:word@host/mesh"}}}, "'MESH_DATABASE'"),
        ({"auth": {"env": {"AWS_SECRET_ACCESS_KEY": "x"}}}, "'AWS_SECRET_ACCESS_KEY'"),
        ({"gatekeeper": {"env": {"OTEL_EXPORTER_OTLP_HEADERS": "key=x"}}}, "'OTEL_EXPORTER_OTLP_HEADERS'"),
        ({"auth": {"env": {"POD_NAME": "x"}}}, "'POD_NAME'"),
        ({"injector": {"sidecar": {"outboundPort": 7800}}}, "injector.sidecar: inboundPort, outboundPort"),
        ({"injector": {"certManager": {"issuerRef": {"kind": "Issuer"}}}}, "/injector/certManager/issuerRef"),
        ({"joinConfigMap": "sealmesh-config"}, "joinConfigMap: sealmesh-config is another ConfigMap"),
        ({"operator": {"subjects": [{"kind": "ServiceAccount", "name": "x"}]}}, "x: add its namespace"),
        ({"replicas": 3}, "additional properties 'replicas' not allowed"),
        ({"images": {"sidecar": {"digest": "latest"}}}, "digest': 'latest' does not match pattern"),
    ],
)
def test_bad_values_are_refused(change: dict[str, Any], why: str) -> None:
    """With the place and what is wrong."""
    with pytest.raises(helm.HelmError, match=re.escape(why)):
        render(merged(values("default"), change))


def test_an_upgrade_replaces_nothing_that_cannot_be() -> None:
    """Selectors, claims and names stay through a change of version and values, so rollback is one, too."""
    before, after = (
        objects("default"),
        list(manifests(render(merged(values("ha"), {"images": {"control": {"tag": "9"}}})))),
    )
    old, new = ({(o["kind"], o["metadata"]["name"]): o for o in made} for made in (before, after))
    assert old.keys() <= new.keys()
    for key, one in old.items():
        spec, later = one.get("spec", {}), new[key].get("spec", {})
        if one["kind"] in ("Deployment", "StatefulSet"):
            for fixed in ("selector", "serviceName", "volumeClaimTemplates", "podManagementPolicy"):
                assert spec.get(fixed) == later.get(fixed)


def test_the_pod_that_restores_is_restricted_and_finds_the_claim() -> None:
    """The one in docs/kubernetes.md: it runs as auth does, on auth's volume."""
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "kubernetes.md").read_text(), re.DOTALL)
    (pod,) = [one for one in map(yaml.safe_load, blocks) if one.get("kind") == "Pod"]
    for version in KUBERNETES:
        kubernetes_validate.validate(pod, version, strict=True)
    auth = found("default", "StatefulSet", "-auth")
    spec = auth["spec"]["template"]["spec"]
    assert faults(pod["spec"]) == []
    assert pod["spec"]["securityContext"] == spec["securityContext"]
    assert pod["spec"]["serviceAccountName"] == spec["serviceAccountName"]
    (claim,) = auth["spec"]["volumeClaimTemplates"]
    named = pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert named == f"{claim['metadata']['name']}-{auth['metadata']['name']}-0"


def test_a_kms_is_asked_by_what_makes_the_kek_and_by_auth() -> None:
    """Both have the environment that says where it is; without one nothing is said of it."""
    spec = found("full", "StatefulSet", "-auth")["spec"]["template"]["spec"]
    (first,), (auth,) = spec["initContainers"], spec["containers"]
    assert first["command"][-2:] == ["--kms", "aws:alias/mesh"]
    assert first["env"] == [{"name": "AWS_REGION", "value": "eu-central-1"}]
    assert first["env"][0] in auth["env"]
    default = found("default", "StatefulSet", "-auth")["spec"]["template"]["spec"]
    assert "--kms" not in default["initContainers"][0]["command"]


def test_gatekeeper_has_what_was_asked_for_alone() -> None:
    """A port for proxies and a volume for decisions, each with all that belongs to it, or nothing of it."""
    for name, there in (("default", False), ("full", True)):
        text = yaml.safe_dump(
            [one for one in objects(name) if one["metadata"]["name"].endswith("gatekeeper")]
        )
        for word in ("ext-authz=0.0.0.0:7703", "decisions=/data/decisions.db", "volumeClaimTemplates"):
            assert (word in text) is there, (name, word)
        service = found(name, "Service", "-gatekeeper")
        assert (7703 in [port["port"] for port in service["spec"]["ports"]]) is there


def test_metrics_are_there_for_who_may_have_them() -> None:
    """Variables for auth, gatekeeper and sidecars; a port of service and pod; a way in for the scraper."""
    told = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.observability:4318",
        "OTEL_METRICS_EXPORTER": "prometheus",
        "OTEL_EXPORTER_PROMETHEUS_HOST": "0.0.0.0",
        "OTEL_EXPORTER_PROMETHEUS_PORT": "9400",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
    }
    made = list(manifests(render(metrics())))
    scraper = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    for part, kind in (("auth", "StatefulSet"), ("gatekeeper", "StatefulSet")):
        mine = {one["kind"]: one for one in made if one["metadata"]["name"] == f"sealmesh-{part}"}
        (container,) = mine[kind]["spec"]["template"]["spec"]["containers"]
        assert {one["name"]: one.get("value") for one in container["env"]}.items() >= told.items()
        assert {"name": "metrics", "containerPort": 9400} in container["ports"]
        port = {"name": "http-metrics", "port": 9400, "targetPort": "metrics"}
        assert port in mine["Service"]["spec"]["ports"]
        way = {"ports": [{"port": 9400, "protocol": "TCP"}], "from": [scraper]}
        assert way in mine["NetworkPolicy"]["spec"]["ingress"]
    (data,) = [one["data"] for one in made if one["metadata"]["name"] == "sealmesh-config"]
    settings = Settings.parse(yaml.safe_load(data["sidecars.yaml"]))
    assert (settings.env, settings.metrics_port) == (told, 9400)


def test_without_a_word_nothing_is_told_and_nothing_listens() -> None:
    """No variable, no port."""
    assert not re.search(r"OTEL_|metrics", (HERE / "golden" / "default.yaml").read_text())


def test_a_service_monitor_is_there_if_the_cluster_knows_such(tmp_path: Path) -> None:
    """It finds the services with the port; the cluster that Helm supposes has Kubernetes' own alone."""
    kind = "monitoring.coreos.com/v1/ServiceMonitor"
    assert not [one for one in manifests(render(metrics())) if one["kind"] == "ServiceMonitor"]
    chart = shutil.copytree(CHART, tmp_path / "sealmesh")
    template = chart / "templates" / "servicemonitor.yaml"
    template.write_text(template.read_text().replace(kind, "apps/v1"))
    made = list(manifests(render(metrics(), chart)))
    (monitor,) = [one for one in made if one["kind"] == "ServiceMonitor"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    (labels, (rule,)) = monitor["spec"]["selector"].values()
    chosen = {
        one["metadata"]["name"]
        for one in made
        if one["kind"] == "Service"
        and labels.items() <= one["metadata"]["labels"].items()
        and one["metadata"]["labels"][rule["key"]] in rule["values"]
        and "http-metrics" in [port["name"] for port in one["spec"]["ports"]]
    }
    assert chosen == {"sealmesh-auth", "sealmesh-gatekeeper"}
    assert [one["port"] for one in monitor["spec"]["endpoints"]] == ["http-metrics"]


def metrics() -> dict[str, Any]:
    scraper = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    telemetry = {
        "otlpEndpoint": "http://collector.observability:4318",
        "prometheus": {
            "enabled": True,
            "port": 9400,
            "from": [scraper],
            "serviceMonitor": {"labels": {"release": "prometheus"}},
        },
        "env": {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio"},
    }
    return merged(values("default"), {"telemetry": telemetry})


def test_every_pod_has_time_for_its_end() -> None:
    """A drain, and leaving before it."""
    ends = {
        pod: spec["terminationGracePeriodSeconds"]
        for pod, spec in pods(objects("ha"))
        if not pod.startswith("Pod/")
    }
    assert len(ends) == 3
    assert min(ends.values()) >= DRAIN + 5


def test_nobody_is_without_the_mesh_while_it_is_upgraded() -> None:
    """One injector is never fewer than before; of several one ends at a time, and of the others likewise."""
    strategy = found("default", "Deployment", "-injector")["spec"]["strategy"]["rollingUpdate"]
    assert strategy == {"maxUnavailable": 0, "maxSurge": 1}
    for part, kind in PARTS.items():
        one = found("ha", kind, f"-{part}")["spec"]
        assert found("ha", "PodDisruptionBudget", f"-{part}")["spec"]["minAvailable"] == one["replicas"] - 1
        assert "updateStrategy" not in one  # of a StatefulSet: one at a time, ready before the next
    assert found("ha", "StatefulSet", "-gatekeeper")["spec"]["minReadySeconds"] == 15


@pytest.mark.parametrize("name", SETS)
def test_a_rollout_goes_on_where_there_is_no_node_to_spare(name: str) -> None:
    """No two on a node, as many nodes as replicas: then the next has no place before one has ended."""
    for one in objects(name):
        if one["kind"] == "Deployment":
            apart = "podAntiAffinity" in one["spec"]["template"]["spec"].get("affinity", {})
            strategy = one["spec"]["strategy"]["rollingUpdate"]
            assert strategy["maxUnavailable"] == (1 if apart else 0)
            assert strategy["maxUnavailable"] < one["spec"]["replicas"] or not apart


def test_a_budget_holds_nobody_that_serves_nobody() -> None:
    """Auth without its database is not ready; a drain that waits for it could be the database's own."""
    budgets = [one for one in objects("ha") if one["kind"] == "PodDisruptionBudget"]
    assert len(budgets) == 3
    assert {one["spec"]["unhealthyPodEvictionPolicy"] for one in budgets} == {"AlwaysAllow"}


@pytest.mark.parametrize("part", ["auth", "gatekeeper", "injector"])
def test_replicas_are_on_different_nodes_and_in_different_zones(part: str) -> None:
    """Nodes have to differ, zones if they can; each part counts its own pods alone."""
    one = found("ha", PARTS[part], f"-{part}")["spec"]
    labels = {"matchLabels": one["selector"]["matchLabels"]}
    spec = one["template"]["spec"]
    (zones,) = spec["topologySpreadConstraints"]
    (hosts,) = spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert (zones["labelSelector"], hosts["labelSelector"]) == (labels, labels)
    assert (zones["topologyKey"], hosts["topologyKey"]) == (
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    )


@pytest.mark.parametrize("name", SETS)
def test_probes_ask_what_the_programs_answer(name: str) -> None:
    """Where they are told to answer; what waits for another is not killed for it."""
    for part in ("auth", "gatekeeper"):
        (container,) = found(name, "StatefulSet", f"-{part}")["spec"]["template"]["spec"]["containers"]
        assert "--probe=/tmp/probe" in container["args"]
        assert "/tmp" in [one["mountPath"] for one in container["volumeMounts"]]
        asked = {
            kind: container[f"{kind}Probe"]["exec"]["command"]
            for kind in ("startup", "readiness", "liveness")
        }
        words = {kind: "ready" if kind == "readiness" else "alive" for kind in asked}
        assert asked == {
            kind: ["python", "-m", "services.probe", word, "/tmp/probe"] for kind, word in words.items()
        }
        assert container["readinessProbe"]["timeoutSeconds"] > PATIENCE


def test_the_way_to_the_database_is_a_secret_and_is_verified() -> None:
    """What makes the directory gets the URL, and auth finds it there; the server has to prove who it is."""
    spec = found("postgresql", "StatefulSet", "-auth")["spec"]["template"]["spec"]
    (first,), (auth,) = spec["initContainers"], spec["containers"]
    secret = {"secretKeyRef": {"name": "mesh-app", "key": "uri"}}
    assert {"name": "MESH_DATABASE", "valueFrom": secret} in first["env"]
    assert "MESH_DATABASE" not in str(auth["env"])
    assert first["command"][-2:] == ["--kek", "/etc/sealmesh/kek/kek"]
    for container in (first, auth):
        env = {one["name"]: one.get("value") for one in container["env"]}
        assert (env["PGSSLMODE"], env["PGAPPNAME"]) == ("verify-full", "mesh")
        assert env["PGSSLROOTCERT"] == "/etc/sealmesh/database/ca.crt"
        assert "/etc/sealmesh/database" in [one["mountPath"] for one in container["volumeMounts"]]
    assert "kek" not in [one["name"] for one in auth["volumeMounts"]]
    held = {one["name"]: one["secret"] for one in spec["volumes"] if "secret" in one}
    assert held["kek"] == {
        "secretName": "mesh-kek",
        "defaultMode": 0o400,
        "items": [{"key": "mesh.kek", "path": "kek"}],
    }
    assert held["database"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]


def test_the_schema_is_one_and_knows_the_defaults() -> None:
    """Every value of the chart is in it; nothing else is."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())

    def known(shape: dict[str, Any], found: Any, where: str) -> None:
        if "properties" in shape and isinstance(found, dict):
            assert shape["additionalProperties"] is False, where
            for key, value in found.items():
                known(shape["properties"][key], value, f"{where}.{key}")

    known(schema, defaults, "values")
    assert set(defaults) == set(schema["properties"]) - {"global"}


def test_no_chart_holds_an_address_of_ours() -> None:
    """Images come from wherever their user pushes them."""
    for path in Path(CHART).rglob("*"):
        if path.is_file() and path.suffix in (".yaml", ".tpl"):
            assert not re.search(r"docker\.io|ghcr\.io|quay\.io", path.read_text()), path
