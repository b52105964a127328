"""Charts as Helm renders them, by its own code (helm-python-sdk)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

ROOT = Path(__file__).parents[2]
CHARTS = ROOT / "charts"
HERE = Path(__file__).parent
CHART = CHARTS / "sealmesh"
#: Sets of values, by name, with which the chart is rendered and judged.
VALUES = {path.stem: path for path in sorted((HERE / "values").glob("*.yaml"))}


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge values as Helm merges files: mappings key by key."""
    made = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(made.get(key), dict)
        made[key] = merged(made[key], value) if both else value
    return made


def values(name: str) -> dict[str, Any]:
    """Give a set of values; ``ha`` is the chart's own, and what cannot be left out."""
    if name == "ha":
        return merged(values("default"), yaml.safe_load((CHART / "values-ha.yaml").read_text()))
    found: dict[str, Any] = yaml.safe_load(VALUES[name].read_text())
    return found


def render(given: dict[str, Any], chart: Path = CHART, namespace: str = "mesh") -> dict[str, str]:
    """Give the text of each template, by its path in the chart; raise ``helm.HelmError``."""
    with helm.Chart.load(chart) as loaded:
        made: dict[str, str] = loaded.render(given, name="sealmesh", namespace=namespace)
    return {path.partition("/templates/")[2]: text for path, text in sorted(made.items()) if text.strip()}


def manifests(texts: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Give each object of a rendering."""
    for path, text in texts.items():
        if path.endswith(".yaml"):
            yield from (one for one in yaml.safe_load_all(text) if one)


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the specification of each pod, with the name of what makes it."""
    for one in objects:
        spec = one["spec"] if one["kind"] == "Pod" else one.get("spec", {}).get("template", {}).get("spec")
        if spec and "containers" in spec:
            yield f"{one['kind']}/{one['metadata']['name']}", spec
