"""Where in a YAML file the field is that an error of the core speaks of.

The core knows nothing of files: it says ``policy.services.orders.allow[0].paths``. A name may hold dots, so
such a path may be read in several ways; the one that leads furthest is meant.
"""

from __future__ import annotations

from typing import Any

import yaml

from mesh.core.document import PolicyError


def place(root: Any, error: PolicyError, document: str = "") -> tuple[int, int]:
    """Give line and column, each from 1: of the field, of what it is missing in, or of a mistake in its text.

    A mistake is found in the document if the text stands there as it is; where it has escapes, or its lines
    are joined, its beginning is given.
    """
    _, node, mark = _find(root, error.path.removeprefix(error.path.partition(".")[0]), error.key)
    # A wrong key stands at the end of the path, unless it is too odd to stand in one.
    for key, _ in _entries(node):
        if key.value == error.key:
            mark = key.start_mark
    line, column = _within(node, document.splitlines(), *error.within) if error.within else (0, 0)
    return (line, column) if line else (mark.line + 1, mark.column + 1)


def _within(node: Any, lines: list[str], row: int, column: int) -> tuple[int, int]:
    # A text between quotes or without any begins where its node does, the lines of a block below it.
    wanted = node.value.split("\n")[row - 1]
    mark = node.start_mark
    number = mark.line + (row if node.style == "|" else row - 1)
    written = lines[number] if number < len(lines) else ""
    begin = len(written) - len(wanted) if number > mark.line else mark.column + bool(node.style)
    return (number + 1, begin + column) if begin >= 0 and written.startswith(wanted, begin) else (0, 0)


def _find(node: Any, rest: str, wrong: str | None) -> tuple[int, Any, Any]:
    # Gives how much of the path leads nowhere, the node that the remainder leads to, and its mark.
    best = (len(rest), node, node.start_mark)
    for key, value, after in _steps(node, rest):
        found = _find(value, after, wrong)
        if not after and key is not None and (key.value == wrong or not isinstance(value, yaml.ScalarNode)):
            found = (0, value, key.start_mark)
        best = min(best, found, key=lambda one: one[0])
    return best


def _steps(node: Any, rest: str) -> list[tuple[Any, Any, str]]:
    if isinstance(node, yaml.SequenceNode) and rest.startswith("["):
        index, _, after = rest[1:].partition("]")
        return [(None, node.value[int(index)], after)]
    return [
        (key, value, rest[len(key.value) + 1 :])
        for key, value in _entries(node)
        if rest.startswith(f".{key.value}") and rest[len(key.value) + 1 :][:1] in ("", ".", "[")
    ]


def _entries(node: Any) -> list[tuple[Any, Any]]:
    return node.value if isinstance(node, yaml.MappingNode) else []
