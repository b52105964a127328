"""``mesh policy check`` and ``schema``: auth's own judgement, the place of what is wrong, the schema."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from mesh import strict_yaml
from mesh.cli import cli
from mesh.cli.errors import CliError, Exit
from mesh.cli.policy_check import SHOWN, notes
from mesh.cli.policy_file import load_policy
from mesh.core.policy import Policy, PolicyError
from tests.core.test_policy import FULL, GOOD, REFUSED, json_values, sections
from tests.core.test_policy import names as service_names
from tests.core.test_traffic import FULL as FULL_TRAFFIC
from tests.core.test_traffic import REFUSED as REFUSED_TRAFFIC
from tests.core.test_traffic import SHORT as SHORT_TRAFFIC
from tests.core.test_traffic import document as with_traffic

ROOT = Path(__file__).parents[2]
SCHEMA: dict[str, Any] = json.loads((ROOT / "mesh" / "cli" / "policy.schema.json").read_text())
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)

#: Why a document is no policy though the schema takes it: what a schema cannot say, or JSON Schema says else.
BEYOND = re.compile(
    "twice|no service|no group|is a group, not|holds itself|not a condition|not the application's|holds bytes"
    "|not a number|bad name|bad service name 'orders\\\\n'|the mesh's own|61m is too long|all weights are 0"
    "|shorter than"
)


def check(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, ["policy", "check", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def test_a_good_policy(tmp_path: Path) -> None:
    """It is said what is in it; no mesh is needed, and no data directory."""
    (tmp_path / "a.yaml").write_text("services: {a: {allow: [{principals: [a], paths: ['*']}]}, b: {}}")
    (tmp_path / "b.json").write_text(json.dumps(FULL))
    status, said, _ = check(tmp_path / "a.yaml", tmp_path / "b.json")
    assert status == 0
    assert said.splitlines() == [
        f"{tmp_path}/a.yaml: good: 2 services, 0 groups, 1 rule",
        f"{tmp_path}/b.json: good: 3 services, 3 groups, 3 rules",
        "  note: groups.back: 'billing.*' matches no service of this policy",
        "  note: groups.unused: no rule refers to it",
        "  note: mode: audit: nothing is denied at frontend, orders",
    ]
    status, said, _ = check(tmp_path / "a.yaml", "-o", "json")
    expected = {"file": f"{tmp_path}/a.yaml", "services": 2, "groups": 0, "rules": 1, "notes": []}
    assert json.loads(said) == [expected]


def test_notes() -> None:
    """What may not be meant is said, and is no error."""
    all_audit = Policy.parse('{"mode": "audit", "services": {"a": {}}}')
    assert notes(all_audit) == ["mode: audit: nothing is denied anywhere"]


def test_a_time_zone_that_is_not_known() -> None:
    """A zone that this machine lacks is noted, in what is no file: a misspelt one is refused there."""
    rule = {"principals": ["a"], "paths": ["*"]}
    zones = ["Europe/Berlin", "Europe/Berln", "+02:00"]
    allow = [rule | {"when": f'time.getHours("{zone}") > 7'} for zone in zones]
    made = Policy.parse(json.dumps({"services": {"a": {"allow": allow}}}))
    assert notes(made) == [
        "services.a.allow[1]: cannot be judged where, as here, the time zone 'Europe/Berln' is not known"
    ]


def test_traffic_without_effect() -> None:
    """What traffic says and cannot do is noted."""
    document = '{"services": {"a": {}}, "traffic": {"a": {}}}'
    assert notes(Policy.parse(document)) == ["traffic.a: says nothing"]


def test_many_notes_are_cut(tmp_path: Path) -> None:
    """A policy with a hundred oddities does not fill the screen."""
    groups = {f"g{n}": ["*"] for n in range(SHOWN + 5)}
    (tmp_path / "p.json").write_text(json.dumps({"services": {}, "groups": groups}))
    _, said, _ = check(tmp_path / "p.json")
    assert said.splitlines()[-1] == "  note: and 5 more: see -o json"
    assert len(said.splitlines()) == SHOWN + 2


QUOTES = [
    ("services: {a: {allow: [{principals: [*], paths: [x]}]}}", "a text that begins with a star has to"),
    ("services: {a: {allow: [{principals: [a], paths: [1.0]}]}}", "a text, not a number: put it into quotes"),
    ("services: {a: {allow: [{principals: [a], paths: [*x]}]}}", "begins with a star has to stand in"),
    ("services: {a: @x}", "put a text that begins with such a sign into quotes"),
    ("services: {a: &b {}, c: *b}", "write it out; a text that begins with a star has to stand in"),
    ("services:\n a: b: c", "put a text with a colon and a blank in it into quotes"),
]


@pytest.mark.parametrize(("document", "advice"), QUOTES, ids=range(len(QUOTES)))
def test_what_wants_quotes(tmp_path: Path, document: str, advice: str) -> None:
    """What YAML takes for something else is refused with its place, and with what to do."""
    (tmp_path / "policy.yaml").write_text(document)
    status, _, said = check(tmp_path / "policy.yaml")
    assert status == Exit.REFUSED
    assert re.match(rf"error: {tmp_path}/policy.yaml:\d+:\d+: ", said)
    assert advice in said


_SHIFTED = "the indentation of this line or the one before does not fit the lines above"
INDENTED = [
    ("services:\n\ta: {}\n", 2, 1, "a tab: indent with blanks"),
    ("services:\n  a: {}\n\tb: {}\n", 3, 1, "a tab: indent with blanks"),
    ("services:\n  a:\n  \tdeny: []\n", 3, 3, "a tab: indent with blanks"),
    ("services:\n  a: {}\n b: {}\n", 3, 2, _SHIFTED),
    ("services:\n  a: {}\n   b: {}\n", 3, 4, _SHIFTED),
    ("services:\n  a: b\n   c: {}\n", 3, 5, _SHIFTED),
    ("services:\n  a:\n    deny:\n    - paths: []\n     mode: audit\n", 5, 6, _SHIFTED),
    ("services:\n  a:\n    deny:\n      - paths: []\n       mode: audit\n", 5, 8, _SHIFTED),
    ("services:\n  a:\n    deny:\n      - paths: []\n     - mode: audit\n", 5, 6, _SHIFTED),
]


@pytest.mark.parametrize(("document", "line", "column", "advice"), INDENTED, ids=range(len(INDENTED)))
@pytest.mark.parametrize("parent", ["SafeLoader", "CSafeLoader"])
def test_wrong_indentation(
    monkeypatch: pytest.MonkeyPatch, document: str, line: int, column: int, advice: str, parent: str
) -> None:
    """A tab is called a tab, and a line that fits nowhere badly indented, by either parser."""
    monkeypatch.setattr(strict_yaml, "_Loader", getattr(yaml, parent))
    with pytest.raises(strict_yaml.YamlError, match=advice) as refused:
        strict_yaml.compose(document)
    assert (refused.value.line, refused.value.column) == (line, column)


@pytest.mark.parametrize("document", ["a: b: c", "a: 'b' c\nd: 1", "a:\n  - b: c: d"])
def test_what_is_not_indentation(document: str) -> None:
    """What is wrong within a line is not blamed on its indentation."""
    with pytest.raises(strict_yaml.YamlError) as refused:
        strict_yaml.compose(document)
    assert _SHIFTED not in str(refused.value)


WRONG = [
    ("services:\n  a: {}\n  Bad: {}\n", 3, 3, "bad service name 'Bad'"),
    ("services:\n  a:\n    alow: []\n", 3, 5, "unknown field 'alow'"),
    ("services:\n  a.b:\n    allow:\n    - principals: [a.b]\n", 4, 7, "paths: is missing"),
    ("services:\n  a: {mod: off}\n", 2, 7, "unknown field 'mod'"),
    ("services:\n  a: {mode: off}\n", 2, 13, "bad mode"),
    ("services:\n  a: {}\n  a.b: {allow: [{principals: [a, c], paths: [x]}]}\n", 3, 46, "bad path 'x'"),
    ("services:\n  a: {}\n  a.b: {allow: [{principals: [a, c], paths: ['*']}]}\n", 3, 34, "no service 'c'"),
    ("services: {a: {}}\ngroups:\n  b: ['group:c']\n  c: ['group:b']\n", 3, 3, "holds itself"),
    ("services: {mesh.auth: {}}", 1, 12, "the mesh's own"),
    ("services:\n  orders: {}\n  \u043erders: {}\n", 3, 3, r"bad service name '\\u043erders'"),
    ("services: {}\ngroups: {A: []}", 2, 10, "bad group name"),
    ("- a\n", 1, 1, "has to be an object"),
    (
        (
            "services:\n  a:\n    deny:\n    - {principals: ['*'], paths: ['*']}\n"
            "    allow:\n    - {principals: [a], paths: ['*']}\n"
        ),
        6,
        7,
        "is never reached: the deny rule 'a/deny/0'",
    ),
    (
        "services:\n  a:\n    allow:\n    - principals: [a]\n      paths: ['*']\n      when: source ==\n",
        6,
        22,
        "not a condition",
    ),
    ('{"services": {\n "a": {"allow": [\n  {"principals": ["b"], "paths": ["*"]}]}}}', 3, 19, "no service"),
    (
        (
            "services:\n  a:\n    allow:\n    - principals: [a]\n      paths: ['*']\n"
            "      when: time.getHours('Europe/Berln') > 7\n"
        ),
        6,
        13,
        "there is no time zone 'Europe/Berln': did you mean 'Europe/Berlin'?",
    ),
    ("services: {a: {}, a.allow: {deny: [{}]}}", 1, 36, "principals: is missing"),
    ("services: {a.allow: {}, a: {allow: [{principals: [a], paths: ['*'], mode: x}]}}", 1, 75, "bad mode"),
]


@pytest.mark.parametrize(("document", "line", "column", "wrong"), WRONG, ids=range(len(WRONG)))
def test_where_it_is_wrong(tmp_path: Path, document: str, line: int, column: int, wrong: str) -> None:
    """File, line and column of what is wrong, be it YAML or JSON, in one line with status 3."""
    path = tmp_path / "policy.yaml"
    path.write_text(document)
    status, _, said = check(path)
    assert status == Exit.REFUSED
    assert said.startswith(f"error: {path}:{line}:{column}: policy")
    assert re.search(wrong, said) if "\\\\" in wrong else wrong in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(("_path", "_text", "document"), REFUSED + REFUSED_TRAFFIC)
def test_there_is_a_place_for_every_error(
    tmp_path: Path, _path: str, _text: str, document: dict[str, Any]
) -> None:
    """Whatever the core finds wrong, it has a line and a column."""
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(document, indent=1))
    with pytest.raises(CliError, match=r"policy\.json:\d+:\d+: "):
        load_policy(str(path))


def test_the_schema_is_shown() -> None:
    """What the command shows is the schema that these tests hold to the parser."""
    result = CliRunner().invoke(cli, ["policy", "schema"])
    assert json.loads(result.stdout) == SCHEMA
    jsonschema.Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("document", [GOOD, FULL, with_traffic(FULL_TRAFFIC), with_traffic(SHORT_TRAFFIC)])
def test_the_schema_takes_what_is_good(document: dict[str, Any]) -> None:
    """A policy that uses everything is one to an editor as well."""
    assert list(VALIDATOR.iter_errors(document)) == []


@pytest.mark.parametrize(("_path", "_text", "document"), REFUSED + REFUSED_TRAFFIC)
def test_the_schema_refuses_what_the_parser_refuses(_path: str, _text: str, document: dict[str, Any]) -> None:
    """Except for what no schema can say."""
    with pytest.raises(PolicyError) as refused:
        Policy.parse(json.dumps(document))
    assert list(VALIDATOR.iter_errors(document)) or BEYOND.search(str(refused.value)), refused.value


@given(st.dictionaries(service_names, sections, max_size=3), st.data())
def test_the_schema_refuses_nothing_good(services: dict[str, Any], data: st.DataObject) -> None:
    """What the parser takes, with anything in any place, the schema takes."""
    document: dict[str, Any] = {"services": services}
    places: list[tuple[Any, Any]] = [(document, "version"), (document, "mode"), (document, "groups")]
    for section in services.values():
        places.append((section, "mode"))
        for rule in (*section["allow"], *section["deny"]):
            places += [(rule, key) for key in ("name", "principals", "paths", "headers", "when", "mode")]
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = data.draw(
        json_values | st.sampled_from(["audit", "true", ["*"], ["group:a"], {"a": ["*"]}])
    )
    try:
        Policy.parse(json.dumps(document))
    except PolicyError:
        return
    assert list(VALIDATOR.iter_errors(document)) == []


@pytest.mark.parametrize("page", ["README.md", "docs/policy.md", "docs/traffic.md"])
def test_the_documentation_shows_good_policies(tmp_path: Path, page: str) -> None:
    """An example that is copied from the documentation is taken."""
    found = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    shown = [text for text in found if "services:" in text and "cases:" not in text]
    assert shown
    for text in shown:
        path = tmp_path / "policy.yaml"
        path.write_text(text)
        load_policy(str(path))


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob("examples/**/policy*.yaml")), ids=lambda path: path.parent.name
)
def test_the_examples_are_good_policies(path: Path) -> None:
    """Each example passes the check."""
    load_policy(str(path))


def test_a_policy_that_would_cost_nodes_too_much(tmp_path: Path) -> None:
    """It is refused where it is written, with its place."""
    rule = {"principals": ["a"], "paths": ["*"]}
    allow = [rule | {"headers": [{"key": "k", "values": [str(n)]}]} for n in range(257)]
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({"services": {"a": {"allow": allow}}}))
    status, _, said = check(path)
    assert status == Exit.REFUSED
    assert said.startswith(f"error: {path}:1:15: policy.services.a: calls of 'a' to '*' may meet 257 rules")
