"""The policy document: what is refused and where it says so, and what a policy lets whom know."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core import policy as policy_module
from mesh.core.document import MAX_DOCUMENT
from mesh.core.names import AUTH, ServiceName
from mesh.core.patterns import source_patterns
from mesh.core.policy import MAX_VERSION, HeaderRule, Mode, Policy, PolicyError, Rule, Section
from tests.core.test_patterns import paths, principals, slow_path, slow_principal

GOOD: dict[str, Any] = {
    "version": 4,
    "services": {
        "frontend": {},
        "billing.ledger": {"allow": [], "deny": []},
        "orders": {
            "allow": [
                {
                    "name": "frontend-orders",
                    "principals": ["frontend", "billing.*"],
                    "paths": ["/shop.v1.Orders/*", "*/Get"],
                    "headers": [{"key": "x-tenant", "values": ["acme", "ac*", "*me", "*"]}],
                },
                {"principals": ["mesh.operator"], "paths": ["*"]},
            ],
            "deny": [{"principals": ["*.ledger"], "paths": ["/shop.v1.Orders/Delete"]}],
        },
    },
}
RULE: dict[str, Any] = {"principals": ["frontend"], "paths": ["*"]}
FRONTEND, ORDERS, LEDGER = ServiceName("frontend"), ServiceName("orders"), ServiceName("billing.ledger")


def policy(**services: object) -> Policy:
    return Policy.parse(json.dumps({"services": services}))


def refused(document: bytes | str | dict[str, Any]) -> PolicyError:
    text = json.dumps(document) if isinstance(document, dict) else document
    with pytest.raises(PolicyError) as caught:
        Policy.parse(text)
    message = str(caught.value)
    assert message.startswith(f"{caught.value.path}: ")
    assert "\n" not in message
    assert len(message) < 600
    return caught.value


def in_orders(section: object) -> dict[str, Any]:
    return {"services": {"frontend": {}, "orders": section}}


def with_rule(**changes: object) -> dict[str, Any]:
    """Give a document whose one rule has some fields changed, or left out where they are ``None``."""
    rule = {name: value for name, value in (RULE | changes).items() if value is not None}
    return in_orders({"allow": [rule]})


def test_good() -> None:
    """A document that uses everything is read as it stands."""
    read = Policy.parse(json.dumps(GOOD))
    assert read.version_guard == 4
    assert set(read.services) == {FRONTEND, ORDERS, LEDGER}
    assert read.section(FRONTEND) == read.section(LEDGER) == Section()
    assert read.section(ORDERS) == Section(
        (
            Rule(
                "frontend-orders",
                ("frontend", "billing.*"),
                ("/shop.v1.Orders/*", "*/Get"),
                (HeaderRule("x-tenant", ("acme", "ac*", "*me", "*")),),
            ),
            Rule("orders/allow/1", ("mesh.operator",), ("*",)),
        ),
        (Rule("orders/deny/0", ("*.ledger",), ("/shop.v1.Orders/Delete",)),),
    )


def test_text_or_bytes() -> None:
    """A document may come as text or as UTF-8."""
    text = json.dumps(GOOD)
    assert Policy.parse(text) == Policy.parse(text.encode())


def test_there_and_back() -> None:
    """The canonical encoding reads as the same policy, and has one form."""
    read = Policy.parse(json.dumps(GOOD))
    encoded = read.encode()
    assert Policy.parse(encoded) == read
    assert Policy.parse(encoded).encode() == encoded
    shuffled = {"services": dict(reversed(GOOD["services"].items())), "version": 4}
    assert Policy.parse(json.dumps(shuffled, indent=3)).encode() == encoded


def test_canonical_form() -> None:
    """The encoding has sorted keys, no blanks, and no name that is the default where it stands."""
    given = policy(orders={"deny": [], "allow": [RULE | {"name": "orders/allow/0"}]}, frontend={})
    rule = b'{"paths":["*"],"principals":["frontend"]}'
    assert given.encode() == b'{"services":{"frontend":{},"orders":{"allow":[' + rule + b"]}}}"


def test_rules_can_be_inserted_after_get() -> None:
    """A document as it was given back takes a new first rule without a clash of names."""
    data = json.loads(policy(orders={"allow": [RULE]}, frontend={}).encode())
    data["services"]["orders"]["allow"].insert(0, RULE)
    names = [rule.name for rule in Policy.parse(json.dumps(data)).section(ORDERS).allow]
    assert names == ["orders/allow/0", "orders/allow/1"]


def test_section_there_and_back() -> None:
    """A section in a slice keeps the names that its rules have in the policy."""
    section = Policy.parse(json.dumps(GOOD)).section(ORDERS)
    assert Section.parse(section.encode()) == section
    assert Section.parse(section.encode().decode()) == section
    assert Section.parse(Section().encode()) == Section.parse("{}") == Section()


def test_section_alone() -> None:
    """A section by itself numbers its rules, and says where it is wrong."""
    assert Section.parse(json.dumps({"deny": [RULE]})).deny[0].name == "deny/0"
    with pytest.raises(PolicyError, match=r"^section\.allow\[0\]\.paths: is missing: add it$"):
        Section.parse('{"allow": [{"principals": ["*"]}]}')


def test_policy_does_not_change() -> None:
    """What was read cannot be changed afterwards."""
    read = policy(orders={})
    with pytest.raises(TypeError):
        read.services[FRONTEND] = Section()  # type: ignore[index]
    with pytest.raises(AttributeError):
        read.version_guard = 1  # type: ignore[misc]


# What is refused. Each row: where, what the text says of it, and the document.

AT = "policy.services.orders.allow[0]"
REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("policy.services", "is missing", {}),
    ("policy.service", "unknown field", {"service": {}}),
    ("policy.extra", "unknown field", {"services": {}, "extra": 1}),
    ("policy", "unknown field 'a\\nb'", {"services": {}, "a\nb": 1}),
    ("policy.services", "has to be an object", {"services": []}),
    ("policy.services", "not null", {"services": None}),
    ("policy.version", "between 1 and", {"services": {}, "version": 0}),
    ("policy.version", "between 1 and", {"services": {}, "version": -1}),
    ("policy.version", "between 1 and", {"services": {}, "version": MAX_VERSION + 1}),
    ("policy.version", "not true or false", {"services": {}, "version": True}),
    ("policy.version", "not a number", {"services": {}, "version": 1.0}),
    ("policy.version", "not a text", {"services": {}, "version": "1"}),
    ("policy.version", "not null", {"services": {}, "version": None}),
    ("policy.version", "not an object", {"services": {}, "version": {}}),
    ("policy.services", "bad service name 'Orders'", {"services": {"Orders": {}}}),
    ("policy.services", "bad service name 'orders\\n'", {"services": {"orders\n": {}}}),
    ("policy.services", "bad service name ''", {"services": {"": {}}}),
    ("policy.services", "bad service name '*'", {"services": {"*": {}}}),
    ("policy.services", "bad service name '\\ud800'", {"services": {"\ud800": {}}}),
    ("policy.services.mesh", "the mesh's own", {"services": {"mesh": {}}}),
    ("policy.services.mesh.auth", "the mesh's own", {"services": {"mesh.auth": {}}}),
    ("policy.services.mesh.other", "the mesh's own", {"services": {"mesh.other": {}}}),
    ("policy.services.orders", "not null", in_orders(None)),
    ("policy.services.orders", "not a list", in_orders([])),
    ("policy.services.orders.alow", "unknown field", in_orders({"alow": []})),
    ("policy.services.orders.allow", "has to be a list", in_orders({"allow": {}})),
    ("policy.services.orders.deny", "not null", in_orders({"deny": None})),
    (AT, "not a text", in_orders({"allow": ["frontend"]})),
    (AT, "not a list", in_orders({"allow": [[]]})),
    (f"{AT}.principals", "is missing", with_rule(principals=None)),
    (f"{AT}.paths", "is missing", with_rule(paths=None)),
    (f"{AT}.principals", "is empty", with_rule(principals=[])),
    (f"{AT}.paths", "is empty", with_rule(paths=[])),
    (f"{AT}.principals", "has to be a list", with_rule(principals="frontend")),
    (f"{AT}.principals[0]", "a text, not a number: put it into quotes", with_rule(principals=[1])),
    (f"{AT}.principals[0]", "a text, not true or false: put it into quotes", with_rule(principals=[True])),
    (f"{AT}.paths[0]", "a text, not a list", with_rule(paths=[["*"]])),
    (f"{AT}.principals[1]", "not null", with_rule(principals=["frontend", None])),
    (f"{AT}.principals[1]", "bad principal 'te*m'", with_rule(principals=["frontend", "te*m"])),
    (f"{AT}.principals[1]", "no service 'fronted'", with_rule(principals=["frontend", "fronted"])),
    (f"{AT}.principals[0]", "no service 'mesh.other'", with_rule(principals=["mesh.other"])),
    (f"{AT}.paths[0]", "bad path '/p.S/Get*'", with_rule(paths=["/p.S/Get*"])),
    (f"{AT}.paths[0]", "not true or false", with_rule(paths=[True])),
    (f"{AT}.methods", "unknown field", with_rule(methods=["*"])),
    (f"{AT}.condition", "unknown field", with_rule(condition="true")),
    (f"{AT}.condition", "unknown field", with_rule(condition={}, principals=[])),
    (f"{AT}.when", "not true or false", with_rule(when=True)),
    (f"{AT}.when", "not a condition: something is missing at its end", with_rule(when="source ==")),
    (f"{AT}.when", "no service 'fronted'", with_rule(when='source == "fronted"')),
    (f"{AT}.when", "no service 'inventory'", with_rule(when='!(destination in ["orders", "inventory"])')),
    (f"{AT}.mode", "bad mode 'Audit'", with_rule(mode="Audit")),
    (f"{AT}.mode", "not an object", with_rule(mode={})),
    ("policy.services.orders.mode", "bad mode 'off'", in_orders({"mode": "off"})),
    ("policy.services.orders.groups", "unknown field", in_orders({"groups": {}})),
    ("policy.services.orders.service", "unknown field", in_orders({"service": "orders"})),
    ("policy.mode", "not null", {"services": {}, "mode": None}),
    (f"{AT}.principals[0]", "there is no group 'friends'", with_rule(principals=["group:friends"])),
    (f"{AT}.principals[0]", "bad group 'group:'", with_rule(principals=["group:"])),
    (f"{AT}.principals[0]", "bad group 'group:a.*'", with_rule(principals=["group:a.*"])),
    (f"{AT}.principals[0]", "bad principal 'Group:a'", with_rule(principals=["Group:a"])),
    ("policy.groups", "not a list", {"services": {}, "groups": []}),
    ("policy.groups", "bad group name 'A'", {"services": {}, "groups": {"A": ["*"]}}),
    ("policy.groups", "bad group name 'group:a'", {"services": {}, "groups": {"group:a": ["*"]}}),
    ("policy.groups.a", "is empty", {"services": {}, "groups": {"a": []}}),
    (
        f"{AT}.principals[1]",
        "'back' is a group, not a service: write 'group:back'",
        with_rule(principals=["frontend", "back"]) | {"groups": {"back": ["frontend"]}},
    ),
    (
        "policy.groups.b[0]",
        "'a' is a group, not a service: write 'group:a'",
        {"services": {"c": {}}, "groups": {"a": ["c"], "b": ["a"]}},
    ),
    ("policy.groups.a[1]", "no service 'b'", {"services": {"c": {}}, "groups": {"a": ["c", "b"]}}),
    ("policy.groups.a[0]", "there is no group 'b'", {"services": {}, "groups": {"a": ["group:b"]}}),
    ("policy.groups.a", "holds itself (a holds a)", {"services": {}, "groups": {"a": ["group:a"]}}),
    (
        "policy.groups.b",
        "holds itself (b holds c holds b)",
        {"services": {}, "groups": {"a": ["group:b"], "b": ["group:c"], "c": ["*", "group:b"]}},
    ),
    (f"{AT}.name", "bad name ''", with_rule(name="")),
    (f"{AT}.name", "bad name", with_rule(name="a\nb")),
    (f"{AT}.name", "bad name", with_rule(name="a\n")),
    (f"{AT}.name", "bad name", with_rule(name="\u00e9")),
    (f"{AT}.name", "bad name", with_rule(name="-a")),
    (f"{AT}.name", "bad name", with_rule(name="a" * 161)),
    (f"{AT}.name", "not a number", with_rule(name=1)),
    (f"{AT}.headers", "is empty", with_rule(headers=[])),
    (f"{AT}.headers", "has to be a list", with_rule(headers={"x": "y"})),
    (f"{AT}.headers[0]", "not a text", with_rule(headers=["x-tenant"])),
    (f"{AT}.headers[0].key", "is missing", with_rule(headers=[{"values": ["a"]}])),
    (f"{AT}.headers[0].values", "is missing", with_rule(headers=[{"key": "a"}])),
    (f"{AT}.headers[0].value", "unknown field", with_rule(headers=[{"key": "a", "value": "b"}])),
    (f"{AT}.headers[0].values", "is empty", with_rule(headers=[{"key": "a", "values": []}])),
    (f"{AT}.headers[0].values[0]", "bad value 'a*b'", with_rule(headers=[{"key": "a", "values": ["a*b"]}])),
    (f"{AT}.headers[0].values[0]", "not a number", with_rule(headers=[{"key": "a", "values": [1]}])),
    (
        f"{AT}.headers",
        "'a' is there twice",
        with_rule(headers=[{"key": "a", "values": ["1"]}, {"key": "a", "values": ["2"]}]),
    ),
    (
        "policy.services.orders",
        "the name 'orders/deny/0' is there twice",
        in_orders({"allow": [RULE | {"name": "orders/deny/0"}], "deny": [RULE]}),
    ),
    (
        "policy.services.orders.deny[1].paths",
        "is missing",
        in_orders({"deny": [RULE, {"principals": ["*"]}]}),
    ),
    (
        "policy.services.orders.deny[0].principals[0]",
        "no service 'fronted'",
        in_orders({"deny": [RULE | {"principals": ["fronted"]}]}),
    ),
]


@pytest.mark.parametrize(("path", "text", "document"), REFUSED)
def test_refused(path: str, text: str, document: dict[str, Any]) -> None:
    """A document with anything wrong is refused whole, with the field's path and what is wrong."""
    error = refused(document)
    assert error.path == path
    assert text in str(error)


BAD_KEYS = {
    "": "bad metadata key",
    "X-Tenant": "bad metadata key",
    ":path": "bad metadata key",
    ":authority": "bad metadata key",
    "x tenant": "bad metadata key",
    "x-tenant\n": "bad metadata key",
    "x-\u00e9": "bad metadata key",
    "*": "bad metadata key",
    "k" * 129: "bad metadata key",
    "x-bytes-bin": "holds bytes",
    "mesh-call-bin": "holds bytes",
    "mesh-peer": "not the application's",
    "mesh-": "not the application's",
    "grpc-timeout": "not the application's",
    "grpc-anything": "not the application's",
    "user-agent": "not the application's",
    "te": "not the application's",
    "host": "not the application's",
}


@pytest.mark.parametrize(("key", "text"), BAD_KEYS.items(), ids=range(len(BAD_KEYS)))
def test_header_keys(key: str, text: str) -> None:
    """A rule cannot speak of a key that is no text key of the application's: it would never match."""
    error = refused(with_rule(headers=[{"key": key, "values": ["a"]}]))
    assert error.path == f"{AT}.headers[0].key"
    assert text in str(error)


NOT_JSON: dict[str, bytes | str] = {
    "empty": b"",
    "YAML": b"services: {}",
    "cut": b'{"services": {',
    "two documents": b"{} {}",
    "comment": b'{"services": {} /* */}',
    "trailing comma": b'{"services": {},}',
    "single quotes": b"{'services': {}}",
    "NaN": b'{"services": {}, "version": NaN}',
    "Infinity": b'{"services": {}, "version": Infinity}',
    "minus Infinity": b'{"services": {}, "version": -Infinity}',
    "raw newline in a text": b'{"services": {"a\nb": {}}}',
    "byte order mark": b'\xef\xbb\xbf{"services": {}}',
    "byte order mark in text": '\ufeff{"services": {}}',
    "UTF-16": '{"services": {}}'.encode("utf-16"),
    "UTF-16 without mark": '{"services": {}}'.encode("utf-16-le"),
    "Latin-1": b'{"services": {"\xe9": {}}}',
    "encoded surrogate": b'{"services": {"\xed\xa0\x80": {}}}',
    "NUL": b'{"services": {}}\0',
    "number of a million digits": b'{"services": {}, "version": ' + b"9" * 1_000_000 + b"}",
    "deep list": b"[" * 200_000,
    "deep object": b'{"a":' * 200_000,
    "list": b"[]",
    "null": b"null",
    "text": b'"services"',
    "number": b"1",
    "oversized": b" " * MAX_DOCUMENT + b"{}",
}


@pytest.mark.parametrize("document", NOT_JSON.values(), ids=NOT_JSON)
def test_not_json(document: bytes | str) -> None:
    """What is not one object of strict JSON in UTF-8 is refused, and never with another kind of error."""
    assert refused(document).path == "policy"


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ('{"services": {}, "services": {}}', "policy.services"),
        ('{"services": {"orders": {}, "orders": {}}}', "policy.services.orders"),
        ('{"services": {"orders": {"allow": [], "allow": []}}}', "policy.services.orders.allow"),
        ('{"services": {"orders": {}, "\\u006frders": {}}}', "policy.services.orders"),
        (
            '{"services": {"orders": {"allow": [{"principals": ["*"], "paths": ["*"], "paths": ["*"]}]}}}',
            "policy.services.orders.allow[0].paths",
        ),
    ],
)
def test_duplicate_keys(document: str, path: str) -> None:
    """A key that comes twice, of which Python would take the last, is refused wherever it stands."""
    error = refused(document)
    assert "twice" in str(error)
    assert error.path == path


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, st.data())
def test_anything_in_any_place(value: object, data: st.DataObject) -> None:
    """Whatever stands in whatever place gives a policy or a ``PolicyError``."""
    document = json.loads(json.dumps(GOOD))
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in pairs:
            places.append((node, key))
            walk(child)

    walk(document)
    node, key = data.draw(st.sampled_from(places))
    node[key] = value
    try:
        read = Policy.parse(json.dumps(document))
    except PolicyError:
        return
    assert Policy.parse(read.encode()) == read


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_garbage(document: bytes | str) -> None:
    """Random documents give a policy that can be written again, or a ``PolicyError``, and nothing else."""
    try:
        read = Policy.parse(document)
    except PolicyError:
        return
    assert Policy.parse(read.encode()) == read


# Who may know of whom


ALLOW_ALL = {"principals": ["*"], "paths": ["*"]}
PAIRS: list[tuple[str, dict[str, Any], bool]] = [
    ("no rule", {}, False),
    ("no allow rule", {"deny": [ALLOW_ALL]}, False),
    ("allowed by name", {"allow": [RULE]}, True),
    ("allowed by a star", {"allow": [ALLOW_ALL]}, True),
    ("another is allowed", {"allow": [RULE | {"principals": ["orders"]}]}, False),
    ("allowed with a header", {"allow": [RULE | {"headers": [{"key": "a", "values": ["b"]}]}]}, True),
    ("denied everything", {"allow": [ALLOW_ALL], "deny": [RULE]}, False),
    ("others are denied", {"allow": [ALLOW_ALL], "deny": [RULE | {"principals": ["orders"]}]}, True),
    (
        "denied with a header",
        {"allow": [RULE], "deny": [RULE | {"headers": [{"key": "a", "values": ["b"]}]}]},
        True,
    ),
    ("denied something", {"allow": [RULE], "deny": [RULE | {"paths": ["*/M"]}]}, True),
    (
        "denied just that",
        {"allow": [RULE | {"paths": ["/p.S/M"]}], "deny": [RULE | {"paths": ["*/M"]}]},
        False,
    ),
    (
        "denied all but one",
        {"allow": [RULE | {"paths": ["/p.S/M", "/p.S/N"]}], "deny": [RULE | {"paths": ["/p.S/M"]}]},
        True,
    ),
    (
        "denied by two rules",
        {
            "allow": [RULE | {"paths": ["/p.S/M", "/q.S/*"]}],
            "deny": [RULE | {"paths": ["/q.S/*"]}, RULE | {"paths": ["*/M"]}],
        },
        False,
    ),
    *(
        (f"allowed when {when}", {"allow": [ALLOW_ALL | {"when": when}]}, known)
        for when, known in (
            ('source == "frontend"', True),
            ('source == "orders"', False),
            ('source != "frontend" || destination == "orders"', True),
            ('source == "orders" && metadata.k == "1"', False),
            ('source == "frontend" && metadata.k == "1"', True),
            ('source == "orders" || time.getHours() < 3', True),
            ('source == "orders" && method == "/p.S/M"', False),
            ('source == "frontend" && method == "/p.S/M"', True),
            ('method == "/p.S/M"', True),
            ('metadata.k == "1"', True),
            ("false", False),
            ("1 / 0 == 1", False),
        )
    ),
    *(
        (f"denied when {when}", {"allow": [RULE], "deny": [ALLOW_ALL | {"when": when}]}, known)
        for when, known in (
            ('source == "frontend"', False),
            ('source == "orders"', True),
            ('source != "orders" || metadata.k == "1"', False),
            ('source != "frontend" || method != "/p.S/M"', True),
            ('source != "orders" || method != "/p.S/M"', False),
            ("time.getHours() < 25", True),
            ("1 / 0 == 1", False),
        )
    ),
    (
        "denied by name in audit",
        {"allow": [RULE], "deny": [ALLOW_ALL | {"when": 'source == "frontend"', "mode": "audit"}]},
        True,
    ),
    (
        "denied by name and a header",
        {
            "allow": [RULE],
            "deny": [ALLOW_ALL | {"when": "true", "headers": [{"key": "a", "values": ["b"]}]}],
        },
        True,
    ),
    (
        "denied by name where all is in audit",
        {"mode": "audit", "deny": [ALLOW_ALL | {"when": 'source == "frontend"', "mode": "enforce"}]},
        False,
    ),
]


@pytest.mark.parametrize(("section", "known"), [row[1:] for row in PAIRS], ids=[row[0] for row in PAIRS])
def test_permits_pair(section: dict[str, Any], known: bool) -> None:
    """A service may know of another exactly if there is a method that it may call there."""
    read = policy(frontend={}, orders=section)
    assert read.permits_pair(FRONTEND, ORDERS) is known
    assert read.destinations(FRONTEND) == ([ORDERS] if known else [])


def test_unknown_names() -> None:
    """A service that is not there permits nothing; nor does one of the mesh's own."""
    read = policy(frontend={}, orders={"allow": [RULE]})
    assert read.section(ServiceName("other")) == Section()
    assert not read.permits_pair(FRONTEND, ServiceName("other"))
    assert not read.permits_pair(FRONTEND, AUTH)
    assert read.destinations(ServiceName("other")) == []


def test_destinations_are_sorted() -> None:
    """Destinations come sorted by name."""
    section = {"allow": [ALLOW_ALL]}
    read = Policy.parse(json.dumps({"services": dict.fromkeys(("b", "a.b", "a", "ab"), section)}))
    assert [name.text for name in read.destinations(FRONTEND)] == ["a", "a.b", "ab", "b"]


names = st.sampled_from(["a", "b", "aa", "a.b", "a.aa", "b.ab", "a.b.aa"])
rule_data = st.fixed_dictionaries(
    {
        "principals": st.lists(principals, min_size=1, max_size=2),
        "paths": st.lists(paths, min_size=1, max_size=2),
    },
    optional={
        "headers": st.just([{"key": "k", "values": ["v"]}]),
        "when": st.sampled_from(['source.startsWith("a")', 'source.endsWith("b") && metadata.k == "v"']),
    },
)
sections = st.fixed_dictionaries(
    {"allow": st.lists(rule_data, max_size=3), "deny": st.lists(rule_data, max_size=2)}
)


def slowly_known(section: dict[str, Any], source: str) -> bool:
    """Say by trying every method whether one is allowed, headers and metadata being as they please."""
    true = {
        "": True,
        'source.startsWith("a")': source.startswith("a"),
        'source.endsWith("b") && metadata.k == "v"': source.endswith("b"),
    }

    def applies(rule: dict[str, Any], method: str) -> bool:
        return (
            true[rule.get("when", "")]
            and any(slow_principal(p, source) for p in rule["principals"])
            and any(slow_path(p, method) for p in rule["paths"])
        )

    def pleases(rule: dict[str, Any]) -> bool:
        return "headers" not in rule and "metadata" not in rule.get("when", "")

    parts, ends = ["p.S", "p.SS", "q.S", "S", "p", "new.S"], ["M", "MM", "N", "New"]
    return any(
        any(applies(rule, f"/{part}/{end}") for rule in section["allow"])
        and not any(applies(r, f"/{part}/{end}") for r in section["deny"] if pleases(r))
        for part in parts
        for end in ends
    )


@given(st.dictionaries(names, sections, max_size=4), names)
def test_destinations_like_the_twin(services: dict[str, Any], source: str) -> None:
    """The index gives the destinations that a slow search over all methods gives."""
    for section in services.values():
        for rule in (*section["allow"], *section["deny"]):
            rule["principals"] = [p if p in services or "*" in p else "*" for p in rule["principals"]]
    read = Policy.parse(json.dumps({"services": services}))
    expected = sorted(name for name, section in services.items() if slowly_known(section, source))
    assert [name.text for name in read.destinations(ServiceName(source))] == expected


def test_destinations_of_a_thousand_services() -> None:
    """With 1,000 services that all allow all, the index looks at no rule again but where one is denied."""
    open_to_all = {"allow": [ALLOW_ALL]}
    services: dict[str, Any] = {f"s{number}": open_to_all for number in range(1000)}
    services["s7"] = open_to_all | {"deny": [{"principals": ["s1"], "paths": ["*"]}]}
    read = Policy.parse(json.dumps({"services": services}))
    asked: list[ServiceName] = []
    judge: Callable[..., bool] = Policy.permits_pair

    class Watched(Policy):
        def permits_pair(self, source: ServiceName, destination: ServiceName) -> bool:
            asked.append(destination)
            return judge(self, source, destination)

    watched = Watched(read.services)
    assert len(watched.destinations(ServiceName("s0"))) == 1000
    assert asked == []
    assert len(watched.destinations(ServiceName("s1"))) == 999
    assert asked == [ServiceName("s7")]


def test_source_patterns_are_few() -> None:
    """The longest name has ten patterns, whatever the size of the policy."""
    assert len(source_patterns("a.b.c.d.e")) == 10


# Modes, groups and conditions in the document.

FULL: dict[str, Any] = {
    "mode": "audit",
    "groups": {"shop": ["frontend", "group:back"], "back": ["billing.*"], "unused": ["*"]},
    "services": {
        "frontend": {},
        "ledger": {"mode": "enforce"},
        "orders": {
            "allow": [
                RULE | {"principals": ["group:shop"], "when": 'destination == "orders"'},
                RULE | {"mode": "audit"},
            ],
            "deny": [RULE | {"paths": ["*/Drop"], "mode": "enforce"}],
        },
    },
}


def test_the_whole_language_there_and_back() -> None:
    """Groups, modes and conditions stand in the canonical form as they were written."""
    read = Policy.parse(json.dumps(FULL))
    assert json.loads(read.encode()) == FULL
    assert Policy.parse(read.encode()) == read
    assert Policy.parse(read.encode()) != Policy.parse(json.dumps(FULL | {"mode": "enforce"}))


def test_a_section_has_all_it_takes() -> None:
    """What a slice carries says mode, groups and name by itself, and only what concerns it."""
    section = Policy.parse(json.dumps(FULL)).section(ORDERS)
    assert section.mode is Mode.AUDIT
    assert set(section.groups.members) == {"shop", "back"}
    carried = json.loads(section.encode())
    assert (carried["mode"], carried["service"]) == ("audit", "orders")
    assert set(carried["groups"]) == {"shop", "back"}
    again = Section.parse(section.encode())
    assert (again, again.service) == (section, "orders")


def test_a_section_of_the_old_form_is_as_it_was() -> None:
    """Nodes of before this form read what gives no cause for anything new."""
    carried = json.loads(policy(frontend={}, orders={"allow": [RULE]}).section(ORDERS).encode())
    assert carried == {"allow": [RULE | {"name": "orders/allow/0"}]}


def test_a_section_defines_its_own_groups() -> None:
    """A group that a slice does not bring is refused."""
    with pytest.raises(PolicyError, match=r"^section\.allow\[0\]\.principals\[0\]: there is no group 'g'"):
        Section.parse(json.dumps({"allow": [RULE | {"principals": ["group:g"]}]}))


AUDITED: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    ("nothing is allowed", {}, {}, True),
    ("denied", {}, {"deny": [ALLOW_ALL]}, True),
    ("denied in earnest", {}, {"deny": [ALLOW_ALL | {"mode": "enforce"}]}, False),
    (
        "a method is denied in earnest",
        {},
        {"deny": [ALLOW_ALL | {"paths": ["*/M"], "mode": "enforce"}]},
        True,
    ),
    ("the service is enforced", {}, {"mode": "enforce"}, False),
    (
        "denied on trial",
        {"mode": "enforce"},
        {"allow": [RULE], "deny": [ALLOW_ALL | {"mode": "audit"}]},
        True,
    ),
    (
        "denied on condition",
        {"mode": "enforce"},
        {"allow": [RULE], "deny": [RULE | {"when": "'k' in metadata"}]},
        True,
    ),
    ("the service is in audit", {"mode": "enforce"}, {"mode": "audit"}, True),
]


@pytest.mark.parametrize(
    ("top", "section", "known"), [row[1:] for row in AUDITED], ids=[row[0] for row in AUDITED]
)
def test_audit_and_names(top: dict[str, Any], section: dict[str, Any], known: bool) -> None:
    """Who may call a service because it is in audit gets keys for it and learns of it."""
    read = Policy.parse(json.dumps({"mode": "audit", "services": {"frontend": {}, "orders": section}} | top))
    assert read.permits_pair(FRONTEND, ORDERS) is known
    assert (ORDERS in read.destinations(FRONTEND)) is known
    assert not read.permits_pair(FRONTEND, ServiceName("other"))


def test_groups_and_names() -> None:
    """A service knows what a group of groups may call that it is in."""
    read = Policy.parse(json.dumps(FULL | {"mode": "enforce"}))
    for source, known in [
        ("frontend", True),
        ("billing.ledger", True),
        ("billing", False),
        ("ledger", False),
    ]:
        assert read.permits_pair(ServiceName(source), ORDERS) is known
        assert (ORDERS in read.destinations(ServiceName(source))) is known


def test_too_many_conditions() -> None:
    """A policy cannot fill the memory with conditions; the same one may stand as often as it likes."""
    same = [RULE | {"when": "time.getHours() > 1"}] * 3
    assert len(policy(frontend={}, orders={"allow": same}).section(ORDERS).allow) == 3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(policy_module, "MAX_CONDITIONS", 1)
        error = refused(in_orders({"allow": [*same, RULE | {"when": "time.getHours() > 2"}]}))
    assert error.path == "policy.services"
    assert "2 different conditions" in str(error)


def test_look_alikes_are_shown_as_what_they_are() -> None:
    """A letter of another alphabet is told by its number, for to the eye it is the right one."""
    cyrillic = "\u043erders"
    documents: list[dict[str, Any]] = [
        {"services": {cyrillic: {}}},
        with_rule(principals=[cyrillic]),
        with_rule(paths=[f"/p.{cyrillic}/M"]),
    ]
    for document in documents:
        assert "\\u043erders" in str(refused(document))


def test_a_hundred_thousand_rules() -> None:
    """A document of 100,000 rules is read, and judged like any other."""
    rules = [RULE | {"paths": [f"/p{number}.S/M"]} for number in range(100_000)]
    read = policy(frontend={}, orders={"allow": rules})
    assert read.permits_pair(FRONTEND, ORDERS)
    assert len(read.section(ORDERS).allow) == 100_000


def test_kin_have_the_same_destinations() -> None:
    """Services that the same principals match may call the same; what no rule speaks of is not looked at."""
    policy = Policy.parse(
        json.dumps(
            {
                "groups": {"web": ["shop.*"], "unused": ["*"]},
                "services": {
                    "shop.cart": {"allow": [{"principals": ["group:web"], "paths": ["*"]}]},
                    "shop.order": {
                        "allow": [{"principals": ["*"], "paths": ["*"]}],
                        "deny": [{"principals": ["shop.cart"], "paths": ["*"]}],
                    },
                    "stock": {"mode": "audit"},
                },
            }
        )
    )
    kin = {name: policy.kin(ServiceName(name)) for name in ("shop.cart", "shop.order", "shop.new", "stock")}
    assert kin["shop.order"] == kin["shop.new"] == ("*", "group:web")
    assert (kin["shop.cart"], kin["stock"]) == (("shop.cart", "*", "group:web"), ("*",))
    destinations = {name: policy.destinations(ServiceName(name)) for name in kin}
    assert destinations["shop.order"] == destinations["shop.new"] != destinations["shop.cart"]


@pytest.mark.parametrize("effect", ["allow", "deny"])
def test_a_condition_on_names_parts_kin(effect: str) -> None:
    """It may tell apart services that the same principals match, and does."""
    told = RULE | {"principals": ["shop.*"], "when": 'source == "shop.cart"'}
    section = {"allow": [RULE | {"principals": ["*"]}]} | {effect: [told]}
    read = Policy.parse(json.dumps({"services": {"shop.cart": {}, "shop.order": {}, "orders": section}}))
    cart, order = ServiceName("shop.cart"), ServiceName("shop.order")
    assert read.kin(cart) != read.kin(order)
    assert (read.destinations(cart) == [ORDERS]) is (effect == "allow")
    assert (read.destinations(order) == [ORDERS]) is (effect == "deny")


def test_what_is_shared_by_all_sections() -> None:
    """Groups and the mode of the document concern how every section judges; the version and others do not."""
    plain: dict[str, object] = {"services": {"a": {}}}
    documents: list[dict[str, object]] = [
        plain,
        {**plain, "version": 7},
        {"services": {"a": {}, "b": {}}},
        {**plain, "mode": "audit"},
        {**plain, "groups": {"g": ["a"]}},
    ]
    shared = [Policy.parse(json.dumps(document)).shared for document in documents]
    assert shared[0] == shared[1] == shared[2]
    assert shared[0] not in shared[3:]
    assert shared[3] != shared[4]
