"""Write each chart's README from its Chart.yaml and its values' ``# --`` comments; ``--check`` compares.

A comment that begins with ``# --`` tells of the key below it, and goes on in the lines of ``#`` after it. A
value without one is told of by its parts.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHARTS = Path(__file__).parents[1] / "charts"


def described(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Give each key that is told of, with dots, and what is told."""
    path: list[tuple[int, str]] = []
    told = ""
    for line in lines:
        comment = re.match(r"\s*# ?(.*)", line)
        if comment:
            told = (
                comment[1].removeprefix("-- ")
                if comment[1].startswith("-- ")
                else f"{told} {comment[1]}".strip()
            )
            continue
        key = re.match(r"( *)([A-Za-z]+):", line)
        if key:
            depth = len(key[1])
            path = [one for one in path if one[0] < depth] + [(depth, key[2])]
            if told:
                yield ".".join(name for _, name in path), told
        told = ""


def value_of(values: Any, key: str) -> str:
    """Give a default as YAML on one line."""
    for part in key.split("."):
        values = values[part]
    return (
        yaml.safe_dump(values, default_flow_style=True, width=1000, sort_keys=False)
        .removesuffix("...\n")
        .strip()
    )


def readme(chart: Path) -> str:
    """Give the text."""
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    text = (chart / "values.yaml").read_text() if (chart / "values.yaml").exists() else ""
    values = yaml.safe_load(text)
    rows = [f"| `{key}` | {told} | `{value_of(values, key)}` |" for key, told in described(text.splitlines())]
    table = ["## Values", "", "| value | meaning | default |", "|---|---|---|", *rows, ""] if rows else []
    head = [f"# {about['name']}", "", about["description"] + ".", ""]
    more = [
        "How to use it: [docs/kubernetes.md](../../docs/kubernetes.md). Made by `make charts-readme`.",
        "",
    ]
    return "\n".join([*head, *more, *table])


def main() -> int:
    """Write or compare; give the exit status."""
    stale = 0
    for chart in sorted(path.parent for path in CHARTS.glob("*/Chart.yaml")):
        file, text = chart / "README.md", readme(chart)
        if "--check" not in sys.argv:
            file.write_text(text)
        elif not file.exists() or file.read_text() != text:
            print(f"{file} is not what its values say: run make charts-readme", file=sys.stderr)
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
