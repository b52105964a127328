"""What ``mesh policy explain`` proposes, pasted into the file as it was printed, permits the call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from mesh.cli import cli

NAMES = "groups:\n  team: [x, y]\nservices:\n  a: {}\n  x: {}\n  y: {}\n"
ALLOWED = "    allow:\n    - principals: ['*']\n      paths: ['*']\n"
#: What stands below the service that is called.
RULES = {
    "a deny rule": f"{ALLOWED}    deny:\n    - principals: ['*']\n      paths: [/p.S/*]\n",
    "a deny rule with a condition": (
        f"{ALLOWED}    deny:\n    - principals: ['*']\n      when: metadata['k'] == '1' # why\n"
        "      paths: ['*']\n"
    ),
    "a deny rule in braces": f"{ALLOWED}    deny:\n    - {{principals: ['*'], paths: [/p.S/M, /p.S/N]}}\n",
    "a deny rule in braces with a condition": (
        f"{ALLOWED}    deny:\n    - {{when: \"metadata['k'] in ['1']\", principals: ['*'], paths: ['*']}}\n"
    ),
    "a deny rule for this alone, before another": (
        f"{ALLOWED}    deny:\n    - principals: [a]\n      paths: [/p.S/M]\n"
        "    - principals: ['group:team', a]\n      paths: ['*']\n"
    ),
    "a mode": "    mode: enforce\n",
    "only a deny rule": "    deny:\n    - principals: [a]\n      paths: ['*/M', /p.S/N]\n",
    "another caller": "    allow:\n    - principals:\n      - x\n      - y\n      paths: [/p.S/M]\n",
    "another method": "    allow:\n    - principals: [a]\n      paths: [/p.S/N]\n",
    "another header": (
        "    allow:\n    - principals: [x]\n      paths: [/p.S/N]\n      headers: [{key: k, values: ['1']}]\n"
    ),
}
POLICIES = {what: f"{NAMES}  b:\n{rules}" for what, rules in RULES.items()} | {
    "no rule": f"{NAMES}  b: {{}}\n",
    "no caller": "services:\n  b:\n    allow:\n    - principals: [b]\n      paths: [/p.S/N]\n",
    "no callee": "services:\n  a: {}\n",
    "neither": "mode: audit\nservices:\n  x:\n    mode: audit\n",
    "nothing": "services: {}\n",
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_what_is_pasted_permits(tmp_path: Path, policy: str) -> None:
    """Of each kind of change, whatever stands there before, in blocks and in braces."""
    said = explained(tmp_path, policy)
    assert ": deny: " in said.splitlines()[0]
    changed = policy
    for where, lines in proposed(said):
        changed = pasted(changed, where, lines)
    assert ": allow: " in explained(tmp_path, changed).splitlines()[0]


def explained(tmp_path: Path, policy: str) -> str:
    (tmp_path / "policy.yaml").write_text(policy)
    asked = ["policy", "explain", "a", "b", "/p.S/M", "-m", "k=1", "--policy", str(tmp_path / "policy.yaml")]
    done = CliRunner().invoke(cli, asked)
    assert done.exit_code == 0, done.output
    return done.stdout


def proposed(said: str) -> list[tuple[str, list[str]]]:
    """Give each place with what is to be pasted there."""
    found: list[tuple[str, list[str]]] = []
    for line in said.partition("smallest change:\n")[2].splitlines():
        if line.startswith("    "):
            found[-1][1].append(line[4:])
        elif line.startswith(("  add to ", "  replace in ", "  remove ")):
            found.append((line.strip(" :"), []))
    return found


def pasted(text: str, where: str, lines: list[str]) -> str:
    """Put lines where they are said to go, as an editor does: only their indentation is changed."""
    do, _, place = where.removesuffix(":").partition(" ")
    *steps, last = place.removeprefix("to ").removeprefix("in ").replace("[", ".").replace("]", "").split(".")
    if do == "remove":
        _, node = found(text, steps)
        return without(text, node.value[int(last)], node.value[int(last)])
    _, node = found(text, [] if place.endswith("the document") else [*steps, last])
    if do == "replace":
        key, value = next(pair for pair in node.value if pair[0].value == lines[0].partition(":")[0])
        if node.flow_style:
            return text[: key.start_mark.index] + lines[0] + text[value.end_mark.index :]
        text = without(text, key, value)
        return inserted(text, key.start_mark.line, key.start_mark.column, lines)
    if node.flow_style:
        end = node.end_mark.index - 1
        return f"{text[:end]}, {lines[0]}{text[end:]}"
    first = node.value[0]
    mark = node.start_mark if isinstance(node, yaml.SequenceNode) else first[0].start_mark
    return inserted(text, mark.line, mark.column, lines)


def found(text: str, steps: list[str]) -> tuple[Any, Any]:
    key: Any = None
    node: Any = yaml.compose(text, yaml.SafeLoader)
    for step in steps:
        if isinstance(node, yaml.SequenceNode):
            node = node.value[int(step)]
        else:
            key, node = next(pair for pair in node.value if pair[0].value == step)
    return key, node


def inserted(text: str, line: int, column: int, lines: list[str]) -> str:
    # Before what stands there; a dash before the first key of a rule stays where it is.
    kept = text.splitlines(keepends=True)
    before, rest = (kept[line][:column], kept[line][column:]) if line < len(kept) else (" " * column, "")
    blank = " " * column
    put = "".join(f"{before if n == 0 else blank}{one}\n" for n, one in enumerate(lines))
    return "".join([*kept[:line], put, f"{blank}{rest}" if rest else "", *kept[line + 1 :]])


def without(text: str, first: yaml.Node, last: yaml.Node) -> str:
    end = last.end_mark
    kept = text.splitlines(keepends=True)
    after = (
        end.line
        if end.column == 0 or (isinstance(last, yaml.CollectionNode) and not last.flow_style)
        else end.line + 1
    )
    gone = "".join(kept[: first.start_mark.line])
    dash = kept[first.start_mark.line][: first.start_mark.column]
    if dash.strip() and first is not last and after < len(kept):
        # The key that follows takes the place beside the dash.
        return gone + dash + kept[after][len(dash) :] + "".join(kept[after + 1 :])
    return gone + "".join(kept[after:])
