"""Files of manifests: each pod in them is injected, all else stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mesh.inject.documents import inject_text, load_settings
from mesh.inject.errors import RefusedError
from tests.cli.command import run
from tests.inject.pods import DOCUMENT, SETTINGS, pod

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: orders, namespace: shop}
spec:
  template:
    metadata: {labels: {app: orders, on: "on"}}
    spec:
      serviceAccountName: orders
      containers:
        - name: app
          image: orders:1
      volumes: [{name: v, configMap: {name: c, defaultMode: 0440}}]
"""
SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: no, annotations: {at: 2026-01-01}}\n"


def injected(text: str) -> list[Any]:
    return list(yaml.safe_load_all(inject_text(text, "shop", SETTINGS)))


def test_each_pod_of_a_file_is_injected() -> None:
    """A deployment's template is, and a service stays as it says."""
    deployment, service = injected(DEPLOYMENT + "---\n" + SERVICE)
    template = deployment["spec"]["template"]
    assert template["spec"]["initContainers"][0]["name"] == "mesh-sidecar"
    assert template["metadata"]["labels"] == {"app": "orders", "on": "on"}
    assert "generateName" not in template["metadata"]
    assert template["spec"]["volumes"][0]["configMap"]["defaultMode"] == 0o440
    assert service["metadata"] == {"name": "no", "annotations": {"at": "2026-01-01"}}


def test_twice_is_once() -> None:
    """The text that comes out goes in again unchanged."""
    once = inject_text(DEPLOYMENT + "---\n" + SERVICE, "shop", SETTINGS)
    assert inject_text(once, "shop", SETTINGS) == once


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("12:30", "12:30"),
        ("0b1:30", "0b1:30"),
        ("1e3", 1000.0),
        ("'1e3'", "1e3"),
        ("'12e4567'", "12e4567"),
        ('"y"', "y"),
        ("'0440'", "0440"),
        ("'1_000'", "1_000"),
        ("0x1f", 31),
        ("1_000", 1000),
        (".5", 0.5),
        ("'-.5'", "-.5"),
        ("'2026-01-01'", "2026-01-01"),
        ("off", "off"),
        ("~", None),
    ],
)
def test_a_text_stays_one_and_a_number_too(written: str, read: object) -> None:
    """A time is no number to the base of sixty; a text that Kubernetes would take for a number is quoted."""
    made = inject_text(f"kind: ConfigMap\ndata: {{key: {written}}}\n", "shop", SETTINGS)
    assert inject_text(made, "shop", SETTINGS) == made
    line = made.splitlines()[-1].strip()
    is_quoted = line.partition(": ")[2].startswith(("'", '"'))
    assert yaml.safe_load(line)["key"] == read
    if isinstance(read, str) and read[:1] in "0123456789-.y":
        assert is_quoted
    else:
        assert is_quoted is (read == "off")


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("Pod", []),
        ("StatefulSet", ["spec", "template"]),
        ("DaemonSet", ["spec", "template"]),
        ("Job", ["spec", "template"]),
        ("CronJob", ["spec", "jobTemplate", "spec", "template"]),
    ],
)
def test_every_kind_with_pods(kind: str, path: list[str]) -> None:
    """Wherever the pod stands; in a list of objects, too."""
    inner: Any = pod()
    for key in reversed(path):
        inner = {key: inner}
    document = {"kind": kind, **inner, "metadata": {"name": "orders-1"}}
    for text in (json.dumps(document), json.dumps({"kind": "List", "items": [document]})):
        (found,) = injected(text)
        found = found["items"][0] if "items" in found else found
        for key in path:
            found = found[key]
        assert found["spec"]["initContainers"][0]["args"][2] == "orders"


def test_a_workload_names_its_pods() -> None:
    """A rule by pod name holds for those that a deployment will make."""
    text = DEPLOYMENT.replace("name: orders, ", "name: frontend, ").replace(
        "serviceAccountName: orders", "x: y"
    )
    (made,) = injected(text)
    assert made["spec"]["template"]["metadata"]["annotations"]["sealmesh.dev/injected"] == "frontend"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("kind: [", "not YAML"),
        ("a: &x 1\nb: *x\n", "line 2: aliases"),
        ("kind: Pod\nkind: Pod\n", "line 2: 'kind' is there twice"),
        ("- 1\n", "no mapping"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested too deep"),
        ("? [a]\n: b\n", "line 1: a key that is no text"),
        ("kind: List\nitems: 3\n", "items of a List have to be a list"),
        ("kind: Pod\nmetadata: x\n", "Pod: metadata has to be a mapping"),
        (
            "kind: Pod\nspec: {containers: [{image: x}]}\n",
            r"Pod \?: spec.containers\[0\].name is missing: add it",
        ),
        ("kind: Pod\nspec: {containers: [null]}\n", r"spec.containers\[0\] is empty"),
        ("kind: Pod\nspec: {containers: x}\n", "spec.containers has to be a list"),
        (
            "kind: Pod\nmetadata: {annotations: {a: 1}}\n",
            "metadata.annotations.a has to be a text: put it in quotes",
        ),
        ("kind: Deployment\nmetadata: {name: d}\n", "Deployment d: spec.template is missing"),
        (DEPLOYMENT.replace("orders\n      cont", "other\n      cont"), "Deployment orders: no rule"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, why: str) -> None:
    """With the place."""
    with pytest.raises(RefusedError, match=why):
        injected(text)


@pytest.mark.parametrize("text", ["", "{}", "a: b\n---\nc: d\n", "image: [", "[]"])
def test_settings_that_make_no_sense(text: str) -> None:
    """One document, with all that is needed."""
    with pytest.raises(RefusedError):
        load_settings(text)


def test_the_command(tmp_path: Path) -> None:
    """It reads a file or standard input, writes the manifests, and says in a line why it does not."""
    settings = tmp_path / "settings.yaml"
    settings.write_text(json.dumps(DOCUMENT))
    done = run("inject", "-", "--settings", settings, stdin=DEPLOYMENT)
    assert done.stdout == inject_text(DEPLOYMENT, "default", SETTINGS)
    assert run("inject", "-", "--settings", settings, "-o", tmp_path / "o", stdin=DEPLOYMENT).stdout == ""
    assert (tmp_path / "o").read_text() == done.stdout
    refused = run("inject", "-", "--settings", settings, stdin=DEPLOYMENT.replace("namespace: shop", "a: b"))
    assert refused.returncode == 3
    assert refused.stderr.startswith("error: -: Deployment orders: no rule makes")
    assert refused.stdout == ""
    bad = run("inject", "-", "--settings", "-", stdin="image: 1")
    assert (bad.returncode, bad.stderr) == (
        3,
        "error: -: image: has to be of type str (docs/cli.md#mesh-inject)\n",
    )
