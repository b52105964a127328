"""The library chart writes what the injector would; the shop's chart, its user, is valid and restricted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml

from mesh.core.workloads import Rules, Workload
from mesh.inject.pod import inject
from mesh.inject.settings import Settings
from tests.charts.rendered import CHARTS, HERE, ROOT, manifests, merged, pods, render, values
from tests.charts.restricted import faults

KUBERNETES = ("1.29", kubernetes_validate.latest_version())
RULES = [{"namespace": "shop", "serviceAccount": "*", "service": "{serviceAccount}"}]


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the chart with the library in it, as ``helm dependency build`` does."""
    place = tmp_path_factory.mktemp("charts")
    for name in ("shop", "sealmesh-lib"):
        shutil.copytree(CHARTS / name, place / name)
    helm.dependency_update(place / "shop", skip_refresh=True)
    return place / "shop"


@pytest.fixture(scope="module")
def texts(chart: Path) -> dict[str, str]:
    return render({}, chart, "shop")


@pytest.fixture(scope="module")
def objects(texts: dict[str, str]) -> list[dict[str, Any]]:
    return list(manifests(texts))


def deployment(objects: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = [one for one in objects if one["kind"] == "Deployment" and one["metadata"]["name"] == name]
    return found


def test_it_renders_as_before(texts: dict[str, str]) -> None:
    """Byte for byte; ``GOLDEN=write`` writes it anew."""
    text = "".join(f"# {path}\n{made.strip()}\n" for path, made in texts.items())
    golden = HERE / "golden" / "shop.yaml"
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


TOLD = {"OTEL_METRICS_EXPORTER": "prometheus,otlp", "OTEL_EXPORTER_PROMETHEUS_PORT": "9400"}


@pytest.mark.parametrize("env", [{}, TOLD])
@pytest.mark.parametrize("name", ["frontend", "inventory"])
def test_the_library_writes_what_the_injector_would(chart: Path, name: str, env: dict[str, str]) -> None:
    """Sidecar, volumes, environment and mounts: one description of a sidecar, however it gets there."""
    objects = list(manifests(render({"mesh": {"env": env}}, chart, "shop")))
    template = deployment(objects, name)["spec"]["template"]
    shop = yaml.safe_load((CHARTS / "shop" / "values.yaml").read_text())["mesh"]
    document = {"image": shop["image"], "auth": shop["auth"], "audience": shop["audience"], "rules": RULES}
    document["env"] = env
    spec = template["spec"]
    app = spec["containers"][0]
    ours = {"mesh-run", "mesh-token", "mesh-join"}
    plain = {
        **spec,
        "initContainers": [],
        "terminationGracePeriodSeconds": 30,
        "volumes": [one for one in spec["volumes"] if one["name"] not in ours],
        "containers": [
            {
                **app,
                "env": [],
                "volumeMounts": [one for one in app["volumeMounts"] if one["name"] not in ours],
            }
        ],
    }
    pod = {"metadata": {"name": f"{name}-1", "annotations": {}}, "spec": plain}
    made = inject(pod, "shop", Settings.parse(document))
    assert made["spec"]["initContainers"] == spec["initContainers"]
    assert made["spec"]["terminationGracePeriodSeconds"] == spec["terminationGracePeriodSeconds"]
    assert made["metadata"]["annotations"].items() >= template["metadata"]["annotations"].items()
    for key in ("env", "volumeMounts"):
        assert by_name(made["spec"]["containers"][0][key]) == by_name(app[key])
    assert by_name(made["spec"]["volumes"]) == by_name(spec["volumes"])


def by_name(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(entries, key=lambda one: str(one["name"]))


def test_the_log_of_its_test_is_there_when_helm_asks_for_it(objects: list[dict[str, Any]]) -> None:
    """It is read after the hook: a pod that is deleted when it succeeded has none."""
    (test,) = [one for one in objects if "helm.sh/hook" in one["metadata"].get("annotations", {})]
    assert test["metadata"]["annotations"]["helm.sh/hook-delete-policy"] == "before-hook-creation"


def test_the_shops_pods_are_the_services_of_its_policy() -> None:
    """By the rule that the notes give."""
    rules = Rules.parse(RULES)
    named = yaml.safe_load((ROOT / "examples/shop/policy.yaml").read_text())["services"]
    for service in ("frontend", "inventory", "orders", "payments", "pricing"):
        assert service in named
        assert rules.service_of(Workload("shop", service, f"{service}-1")) == service


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_it(objects: list[dict[str, Any]], version: str) -> None:
    """Each object, strictly by the API's own schema."""
    assert len(objects) == 17
    for one in objects:
        kubernetes_validate.validate(one, version, strict=True)


def test_every_pod_is_restricted(objects: list[dict[str, Any]]) -> None:
    """The service in Lua, too: its jail needs no privileges."""
    specs = dict(pods(objects))
    assert len(specs) == 6
    assert {pod: faults(spec) for pod, spec in specs.items()} == {pod: [] for pod in specs}


def test_lint_finds_nothing(chart: Path) -> None:
    """Strictly, but for an icon."""
    said = helm.lint(chart, {}, strict=True, namespace="shop")["messages"]
    assert [one["error"] for one in said if "icon" not in one["error"]] == []


def test_the_control_planes_chart_takes_the_rule_of_the_notes(texts: dict[str, str]) -> None:
    """It is copied from there."""
    noted = texts["NOTES.txt"].partition("rules:\n")[2].partition("\n\n")[0]
    assert yaml.safe_load(noted) == RULES
    assert render(merged(values("default"), {"rules": RULES}))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"mesh": {"auth": "auth"}}, "'/mesh/auth': 'auth' does not match"),
        ({"mesh": {"token": "x"}}, "additional properties 'token' not allowed"),
        ({"mesh": {"audience": ""}}, "'/mesh/audience': '' does not match"),
    ],
)
def test_bad_values_are_refused(chart: Path, change: dict[str, Any], why: str) -> None:
    """With the place and what is wrong."""
    with pytest.raises(helm.HelmError, match=why):
        render(change, chart, "shop")
