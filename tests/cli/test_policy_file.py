"""Policy files: YAML as people mean it, and an error in one line for everything doubtful."""

from __future__ import annotations

import json
import math
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mesh.cli.errors import CliError, Exit
from mesh.cli.policy_file import read_policy, write_policy
from mesh.cli.yaml_file import load_yaml

GOOD = """\
# the shop
services:
  frontend: {}
  orders:
    allow:
      - name: front
        principals: [frontend]
        paths: ["/shop.v1.Orders/*"]
        headers: [{key: x-on, values: [no, 2026-01-01, on, 0x10, 010, "1"]}]
"""


def refused(path: Path, document: str | bytes) -> str:
    path.write_bytes(document if isinstance(document, bytes) else document.encode())
    with pytest.raises(CliError) as error:
        read_policy(str(path))
    assert error.value.exit_code == Exit.REFUSED
    said = error.value.message
    assert "\n" not in said
    assert said.startswith(str(path))
    return said.removeprefix(str(path))


def test_yaml_becomes_canonical_json(tmp_path: Path) -> None:
    """What looks like a text is one: no, on, dates and odd numbers are not turned into something else."""
    path = tmp_path / "policy.yaml"
    path.write_text(GOOD)
    rule = json.loads(read_policy(str(path)))["services"]["orders"]["allow"][0]
    assert rule["headers"][0]["values"] == ["no", "2026-01-01", "on", "0x10", "010", "1"]


def test_standard_input_is_a_dash(monkeypatch: pytest.MonkeyPatch) -> None:
    """``-`` reads from standard input."""
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"services: {a: {}}")))
    assert read_policy("-") == b'{"services":{"a":{}}}'


def test_json_is_read_as_well(tmp_path: Path) -> None:
    """JSON is YAML, and a policy that was shown as JSON can be applied again."""
    path = tmp_path / "policy.json"
    path.write_text('{\n  "version": 4,\n  "services": {"a": {}}\n}')
    assert read_policy(str(path)) == b'{"services":{"a":{}},"version":4}'


def test_what_is_shown_can_be_applied_again(tmp_path: Path) -> None:
    """``policy get`` and ``policy apply`` fit together."""
    path = tmp_path / "policy.yaml"
    path.write_text(GOOD)
    document = read_policy(str(path))
    path.write_text(write_policy(document))
    assert read_policy(str(path)) == document


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("services: {a: {}, b: {}, a: {}}", ":1:26: 'a' is there twice: remove one"),
        ("services:\n  a: {}\n  b:\n    allow: []\n    allow: []\n", ":5:5: 'allow' is there twice"),
        ('{"services": {"a": {}, "a": {}}}', ":1:24: 'a' is there twice: remove one"),
        ("services: {true: {}}", ":1:12: a key has to be a text: put it into quotes"),
        ("services: {? [a] : {}}", ":1:14: a key has to be a text"),
        ("a: &x {}\nb: *x", ":1:4: aliases are not supported: write it out"),
        ("services: &x {a: *x}", ":1:11: aliases are not supported"),
        ("services: !!binary aGk=", ":1:11: tags are not supported: write it without !!binary"),
        ("services: !!set {a, b}", ":1:11: tags are not supported: write it without !!set"),
        (
            "services: !!python/object/apply:os.system [id]",
            "write it without !!python/object/apply:os.system",
        ),
        ('version: !!int ""\nservices: {}', ":1:10: tags are not supported: write it without !!int"),
        ('version: !!bool "foo"\nservices: {}', ":1:10: tags are not supported"),
        ('version: !!int "1:30"\nservices: {}', ":1:10: tags are not supported"),
        ("version: !!float .inf\nservices: {}", ":1:10: tags are not supported"),
        ("services: {a: ! b}", ":1:15: tags are not supported: write it without !"),
        ("services: {!!str a: {}}", ":1:12: tags are not supported: write it without !!str"),
        ("services: !!map {}", ":1:11: tags are not supported: write it without !!map"),
        ("services: !other {}", ":1:11: tags are not supported: write it without !other"),
        ("services: {}\nversion: 1e400", ":2:10: the number is too large"),
        ("services: {}\nversion: [1, -1e400]", ":2:14: the number is too large"),
        ("services: {}\nversion: " + "1" * 5000, ":2:10: the number is too large"),
        ('{"services": {},\n "version": 1e400}', ":2:13: the number is too large"),
        ("services: [", ":2:1: did not find"),
        ("services: {}\n---\nservices: {}", ":2:1: "),
        ("a: b: c", ":1:5: "),
        ("", ": is empty"),
        ("# nothing\n", ": is empty"),
        ("services: {orders: {alow: []}}", ": policy.services.orders.alow: unknown field"),
        ("services: {Orders: {}}", "bad service name 'Orders'"),
        (
            "services: {a: {allow: [{principals: [b], paths: ['*']}]}}",
            "policy.services.a.allow[0].principals[0]: ",
        ),
        ("services: {a: {allow: [{principals: [1], paths: ['*']}]}}", "principals[0]: has to be a text"),
        ("version: 1.5\nservices: {}", "policy.version: has to be a whole number"),
        ("- services", "policy: has to be an object"),
        (b"services: {\xff: {}}", ": not UTF-8"),
        ("services: {a: \x00}", ": not YAML: "),
    ],
)
def test_doubtful_documents_are_refused(tmp_path: Path, document: str | bytes, said: str) -> None:
    """In one line that says where, and what to do."""
    assert said in refused(tmp_path / "policy.yaml", document)


RULE = "services:\n  a:\n    allow:\n    - principals: ['*']\n      paths: ['*']\n      when:"


@pytest.mark.parametrize(
    ("when", "line", "column"),
    [
        (' source == "a" and true', 6, 27),
        (" 'source == \"a\" and true'", 6, 28),
        (" |\n        true &&\n          true and false", 8, 16),
        (" |\n\n        true and false", 8, 14),
        ("\n        true and false", 7, 14),
        # Where it is not as it stands in the file, where it begins.
        (" true &&\n        true and false", 6, 13),
        (" >\n        true and false", 6, 13),
        (' "\\x74rue and false"', 6, 13),
        (" 'source == ''a'' and true'", 6, 13),
        (" ''", 6, 13),
    ],
)
def test_a_mistake_in_a_condition_has_its_place(tmp_path: Path, when: str, line: int, column: int) -> None:
    """Down to the column, in whichever way the text is written."""
    said = refused(tmp_path / "policy.yaml", f"{RULE}{when}\n")
    assert said.startswith(f":{line}:{column}: policy.services.a.allow[0].when: ")


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    """A document cannot exhaust the stack."""
    assert refused(tmp_path / "policy.yaml", "[" * 3_000 + "]" * 3_000)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    """With the reason of the system."""
    with pytest.raises(CliError, match="No such file"):
        read_policy(str(tmp_path / "nothing.yaml"))


def test_a_large_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    """More than auth takes is refused here already."""
    path = tmp_path / "policy.yaml"
    with path.open("wb") as file:
        file.truncate(11 * 1024 * 1024)
    with pytest.raises(CliError, match="larger than"):
        read_policy(str(path))


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\x85\u2028\u2029\ufeff")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(_JSON)
def test_json_is_read_as_what_it_says(value: object) -> None:
    """Every JSON value comes out of the YAML loader as JSON has it."""
    _, read = load_yaml(json.dumps(value, ensure_ascii=False))
    assert _like(read, value)


@given(_JSON)
def test_yaml_is_read_as_it_was_written(value: object) -> None:
    """What PyYAML writes in block style means the same here."""
    written = yaml.safe_dump(value, allow_unicode=True, sort_keys=False)
    assert _like(load_yaml(written)[1], value)


def _like(read: object, meant: object) -> bool:
    if isinstance(meant, list):
        return isinstance(read, list) and len(read) == len(meant) and all(map(_like, read, meant))
    if isinstance(meant, dict):
        return (
            isinstance(read, dict)
            and list(read) == list(meant)
            and all(_like(read[k], meant[k]) for k in meant)
        )
    if isinstance(meant, float):
        return isinstance(read, int | float) and math.isclose(read, meant, rel_tol=1e-12)
    return type(read) is type(meant) and read == meant
