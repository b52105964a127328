"""Decisions: against a slow twin, and against callers that try to gain by what they send."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.condition import Call, Condition
from mesh.core.errors import Denied
from mesh.core.groups import Groups
from mesh.core.index import PRINCIPALS
from mesh.core.matcher import REMEMBERED, WEIGHTY, Matcher, Permit
from mesh.core.metadata import Entries
from mesh.core.patterns import value_matches
from mesh.core.policy import Section
from tests.core.test_names import BAD_METHODS, BAD_SERVICES
from tests.core.test_patterns import methods, paths, principals, services, slow_path, slow_principal

M = "/shop.v1.Orders/Get"


def matcher(**section: object) -> Matcher:
    return Matcher(Section.parse(json.dumps(section)))


def rule(*principals: str, paths: tuple[str, ...] = ("*",), **more: object) -> dict[str, Any]:
    return {"principals": principals, "paths": paths, **more}


def header(key: str, *values: str) -> dict[str, Any]:
    return {"key": key, "values": values}


def decided(by: Matcher, source: str, method: str, entries: Entries = ()) -> str | None:
    """Give ``+rule`` for a permit, ``-rule`` for a denial by a rule, ``None`` for the default."""
    try:
        answer: Permit | Denied = by.permit(source, method, entries)
    except Denied as denied:
        answer = denied
    assert (answer.source, answer.method) == (source, method)
    sign = "+" if isinstance(answer, Permit) else "-"
    return answer.rule and f"{sign}{answer.rule}"


def test_default_deny() -> None:
    """Where there is no rule, nobody may call anything."""
    assert decided(matcher(), "frontend", M) is None
    assert decided(matcher(deny=[rule("*")]), "frontend", M) == "-deny/0"


def test_deny_wins() -> None:
    """A denial counts, wherever it stands and however exact the allowing rule is."""
    by = matcher(allow=[rule("frontend", paths=(M,))], deny=[rule("*", paths=("*/Get",))])
    assert decided(by, "frontend", M) == "-deny/0"


def test_first_rule_gives_its_name() -> None:
    """Of several rules that apply, the first of the document is named."""
    by = matcher(allow=[rule("evil"), rule("*"), rule("frontend"), rule("frontend", paths=(M,))])
    assert decided(by, "frontend", M) == "+allow/1"
    by = matcher(deny=[rule("*"), rule("frontend")])
    assert decided(by, "frontend", M) == "-deny/0"


def test_other_method_and_other_caller() -> None:
    """A rule gives leave for its methods to its principals and for nothing else."""
    by = matcher(allow=[rule("frontend", paths=("/shop.v1.Orders/*",))])
    assert decided(by, "frontend", M) == "+allow/0"
    for source, method in [
        ("frontends", M),
        ("frontend.a", M),
        ("front", M),
        ("frontend", "/shop.v1.Order/Get"),
        ("frontend", "/shop.v1.OrdersX/Get"),
        ("frontend", "/shop.v1/Orders"),
        ("frontend", M.replace("shop", "Shop")),
    ]:
        assert decided(by, source, method) is None


@pytest.mark.parametrize("method", BAD_METHODS.values(), ids=BAD_METHODS)
def test_methods_outside_the_grammar(method: str) -> None:
    """A method that is none is denied, even where all are allowed, and is not remembered."""
    by = matcher(allow=[rule("*")])
    assert decided(by, "frontend", method) is None
    assert not by._known


@pytest.mark.parametrize("source", BAD_SERVICES.values(), ids=BAD_SERVICES)
def test_sources_outside_the_grammar(source: str) -> None:
    """A caller without a name is denied, even where all are allowed, and is not remembered."""
    by = matcher(allow=[rule("*")])
    assert decided(by, source, M) is None
    assert not by._known


# Headers. Each row: what the rule wants of x-tenant, what is sent, whether an allow and a deny rule apply.

SENT: list[tuple[tuple[str, ...], Entries, bool, bool]] = [
    (("acme",), (), False, False),
    (("acme",), (("x-tenant", "acme"),), True, True),
    (("acme",), (("x-tenant", "other"),), False, False),
    (("acme",), (("x-tenant", "acme"), ("x-tenant", "other")), False, True),
    (("acme",), (("x-tenant", "other"), ("x-tenant", "acme")), False, True),
    (("acme",), (("x-tenant", "acme"), ("x-tenant", "acme")), True, True),
    (("acme", "other"), (("x-tenant", "acme"), ("x-tenant", "other")), True, True),
    (("acme",), (("x-tenant", "acme,other"),), False, False),
    (("acme",), (("x-tenant", "acme, acme"),), False, False),
    (("acme",), (("X-Tenant", "acme"),), False, False),
    (("acme",), (("x-tenants", "acme"),), False, False),
    (("acme",), (("x-tenant", "ACME"),), False, False),
    (("acme",), (("x-tenant", b"acme"),), True, True),
    (("acme",), (("x-tenant", b"acme\xff"),), False, False),
    (("ac*",), (("x-tenant", "acme"),), True, True),
    (("*me",), (("x-tenant", "acme"),), True, True),
    (("ac*",), (("x-tenant", "acme"), ("x-tenant", "x")), False, True),
    (("*",), (("x-tenant", ""),), True, True),
    (("*",), (("other", "x"),), False, False),
    (("*",), (("x-tenant", "a"), ("x-tenant", "b")), True, True),
]


@pytest.mark.parametrize(("wanted", "sent", "allowed", "denied"), SENT)
def test_header(wanted: tuple[str, ...], sent: Entries, allowed: bool, denied: bool) -> None:
    """All values of a key have to match for an allow rule to apply, one is enough for a deny rule."""
    conditional = rule("*", headers=[header("x-tenant", *wanted)])
    by = matcher(allow=[conditional])
    assert decided(by, "frontend", M, sent) == ("+allow/0" if allowed else None)
    by = matcher(allow=[rule("*")], deny=[conditional])
    assert decided(by, "frontend", M, sent) == ("-deny/0" if denied else "+allow/0")


def test_every_header_of_a_rule() -> None:
    """A rule with two headers applies only if both match, be it allow or deny."""
    conditional = rule("*", headers=[header("a", "1"), header("b", "2")])
    allowing, denying = matcher(allow=[conditional]), matcher(allow=[rule("*")], deny=[conditional])
    for sent, applies in [
        ((("a", "1"), ("b", "2")), True),
        ((("b", "2"), ("a", "1"), ("c", "3")), True),
        ((("a", "1"),), False),
        ((("a", "1"), ("b", "1")), False),
        ((("a", "1"), ("a", "2")), False),
    ]:
        assert decided(allowing, "frontend", M, sent) == ("+allow/0" if applies else None)
        assert decided(denying, "frontend", M, sent) == ("-deny/0" if applies else "+allow/0")


def test_later_rules_count() -> None:
    """Where the headers of one rule do not match, the next that applies decides."""
    by = matcher(
        allow=[
            rule("*", headers=[header("a", "1")]),
            rule("*", headers=[header("a", "2")]),
            rule("frontend"),
        ],
        deny=[rule("*", headers=[header("a", "3")]), rule("*", headers=[header("a", "4")])],
    )
    expected = {"1": "+allow/0", "2": "+allow/1", "3": "-deny/0", "4": "-deny/1", "5": "+allow/2"}
    for value, rule_name in expected.items():
        assert decided(by, "frontend", M, (("a", value),)) == rule_name
    assert decided(by, "evil", M, (("a", "5"),)) is None


def test_a_decision_on_headers_is_not_remembered() -> None:
    """What one call's metadata gained does not serve the next."""
    by = matcher(allow=[rule("*", headers=[header("a", "1")])])
    for _ in range(3):
        assert decided(by, "frontend", M, (("a", "1"),)) == "+allow/0"
        assert decided(by, "frontend", M) is None


def test_remembered_permit_is_the_same() -> None:
    """Without headers in play a permit is worked out once and given again."""
    by = matcher(allow=[rule("*")])
    assert by.permit("frontend", M, ()) is by.permit("frontend", M, (("a", "1"),))
    assert by.permit("frontend", M, ()) == Permit("frontend", M, "allow/0")


def test_permit_cannot_be_changed() -> None:
    """A permit stays what it was given for, and takes nothing more on."""
    permit = Permit("frontend", M, "r")
    with pytest.raises(AttributeError):
        permit.source = "evil"  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        permit.more = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("section", [{"allow": [rule("*")]}, {}])
def test_memory_is_bounded(section: dict[str, Any]) -> None:
    """A caller that tries methods without end fills nothing past the bound, and the answers stay right."""
    by = matcher(**section)
    expected = "+allow/0" if section else None
    for number in range(2 * REMEMBERED + 10):
        assert decided(by, "evil", f"/p.S/M{number}") == expected
        assert len(by._known) <= REMEMBERED
    assert decided(by, "frontend", M) == expected


# The slow twin: the words of the documentation, rule by rule.

values = st.sampled_from(["1", "2", "12"])
header_data = st.fixed_dictionaries(
    {
        "key": st.sampled_from(["k", "l"]),
        "values": st.lists(st.sampled_from(["1", "2", "1*", "*2", "*"]), min_size=1, max_size=2),
    }
)
rules = st.lists(
    st.fixed_dictionaries(
        {
            "principals": st.lists(principals, min_size=1, max_size=2),
            "paths": st.lists(paths, min_size=1, max_size=2),
        },
        optional={
            "headers": st.lists(header_data, min_size=1, max_size=2, unique_by=lambda made: made["key"])
        },
    ),
    max_size=4,
)
sent_entries = st.lists(st.tuples(st.sampled_from(["k", "l"]), values), max_size=3).map(tuple)


def slowly(section: dict[str, Any], source: str, method: str, entries: Entries) -> str | None:
    """Decide as the documentation says."""

    def applies(of: dict[str, Any], quantifier: Any) -> bool:
        named = any(slow_principal(p, source) for p in of["principals"])
        reached = any(slow_path(p, method) for p in of["paths"])
        for wanted in of.get("headers", ()):
            found = [str(value) for key, value in entries if key == wanted["key"]]
            if not found or not quantifier(value_matches(value, wanted["values"]) for value in found):
                return False
        return named and reached

    for sign, effect, quantifier in (("-", "deny", any), ("+", "allow", all)):
        for index, of in enumerate(section[effect]):
            if applies(of, quantifier):
                return f"{sign}{effect}/{index}"
    return None


@given(rules, rules, st.lists(st.tuples(services, methods, sent_entries), min_size=1, max_size=8))
def test_like_the_twin(
    allow: list[dict[str, Any]], deny: list[dict[str, Any]], calls: list[tuple[str, str, Entries]]
) -> None:
    """For any rules and calls, in any order and repeated, matcher and twin decide alike."""
    section = {"allow": allow, "deny": deny}
    by = matcher(**section)
    for source, method, entries in [*calls, *calls]:
        assert decided(by, source, method, entries) == slowly(section, source, method, entries)


def test_ten_thousand_rules() -> None:
    """In a large section the one rule that applies is found among those of its pattern, not by search."""
    by = matcher(allow=[rule(f"s{n % 100}", paths=(f"/p{n // 100}.S/*",)) for n in range(10_000)])
    for number in (0, 99, 100, 4711, 9999):
        method = f"/p{number // 100}.S/M"
        assert decided(by, f"s{number % 100}", method) == f"+allow/{number}"
        assert decided(by, f"s{number % 100}", "/other.S/M") is None


# Modes. A verdict in audit is shown as "rule?what would have denied".


def tried(by: Matcher, source: str = "frontend", method: str = M, now_ms: int | None = None) -> str:
    """Give the rule of a permit, and after a question mark what would have denied it."""
    permit = by.permit(source, method, (), now_ms)
    return permit.rule + (f"?{permit.audited.rule}" if permit.audited else "")


def test_a_section_in_audit_permits_and_tells() -> None:
    """Whatever would be denied is permitted, and what would have denied it is told."""
    by = matcher(
        mode="audit", allow=[rule("frontend", paths=("*/Get",))], deny=[rule("*", paths=("*/Drop",))]
    )
    assert tried(by) == "allow/0"
    assert tried(by, "evil") == "?None"
    assert tried(by, method="/p.S/Drop") == "?deny/0"
    assert decided(by, "no name", M) is None


def test_a_deny_rule_on_trial_denies_nothing() -> None:
    """It is told where it would have denied, and the others count as ever."""
    by = matcher(
        allow=[rule("frontend", "other")],
        deny=[rule("frontend", mode="audit"), rule("*", paths=("*/Drop",)), rule("other", mode="enforce")],
    )
    assert tried(by) == "allow/0?deny/0"
    assert decided(by, "frontend", "/p.S/Drop") == "-deny/1"
    assert decided(by, "other", M) == "-deny/2"
    assert decided(by, "evil", M) is None


def test_a_deny_rule_in_earnest_denies_in_audit() -> None:
    """The mode of a rule goes before that of its section."""
    by = matcher(mode="audit", deny=[rule("evil", mode="enforce"), rule("frontend")])
    assert decided(by, "evil", M) == "-deny/0"
    assert tried(by) == "?deny/1"


def test_an_allow_rule_on_trial_is_told_where_nothing_else_allows() -> None:
    """So it shows who still needs it."""
    by = matcher(allow=[rule("*", mode="audit"), rule("other", mode="audit"), rule("frontend")])
    assert tried(by) == "allow/2"
    assert tried(by, "other") == "allow/0?None"
    assert tried(by, "other") == "allow/0?None"


# Conditions. They read the call as a whole; what cannot be judged denies.

NOON, NIGHT = 1_700_046_000_000, 1_700_002_800_000


def test_conditions_of_allow_rules() -> None:
    """An allow rule applies if its condition is true; false and not to be judged are both no."""
    by = matcher(
        allow=[
            rule("*", when='metadata["x-tenant"] == "acme"'),
            rule("*", when='method.startsWith("/pub.") && source != "evil"'),
        ]
    )
    assert decided(by, "frontend", M, (("x-tenant", "acme"),)) == "+allow/0"
    assert decided(by, "frontend", M, (("x-tenant", "other"),)) is None
    assert decided(by, "frontend", M) is None
    assert decided(by, "frontend", M, (("x-tenant", "acme"), ("x-tenant", "acme"))) is None
    assert decided(by, "frontend", "/pub.S/M") == "+allow/1"
    assert decided(by, "evil", "/pub.S/M") is None


def test_conditions_of_deny_rules() -> None:
    """A deny rule applies unless its condition is false."""
    by = matcher(allow=[rule("*")], deny=[rule("*", when='metadata["x-from"] == "abroad"')])
    assert decided(by, "frontend", M, (("x-from", "abroad"),)) == "-deny/0"
    assert decided(by, "frontend", M, (("x-from", "home"),)) == "+allow/0"
    assert decided(by, "frontend", M) == "-deny/0"
    assert decided(by, "frontend", M, (("x-from", "home"), ("x-from", "home"))) == "-deny/0"
    guarded = matcher(
        allow=[rule("*")], deny=[rule("*", when='"x-from" in metadata && metadata["x-from"] == "abroad"')]
    )
    assert decided(guarded, "frontend", M) == "+allow/0"


def test_conditions_about_time() -> None:
    """Time is judged call by call, and without a clock it is not known."""
    by = matcher(allow=[rule("*", when="time.getHours() >= 8 && time.getHours() < 18")])
    assert tried(by, now_ms=NOON) == "allow/0"
    for now_ms in (NIGHT, None):
        with pytest.raises(Denied):
            by.permit("frontend", M, (), now_ms)
    assert tried(by, now_ms=NOON) == "allow/0"


def test_conditions_with_headers() -> None:
    """Headers and condition have to apply both."""
    both = rule("*", headers=[header("a", "1")], when='metadata["b"] == "2"')
    by, denying = matcher(allow=[both]), matcher(allow=[rule("*")], deny=[both])
    for sent, applies in [
        ((("a", "1"), ("b", "2")), True),
        ((("a", "1"), ("b", "3")), False),
        ((("a", "2"), ("b", "2")), False),
    ]:
        assert decided(by, "frontend", M, sent) == ("+allow/0" if applies else None)
        assert decided(denying, "frontend", M, sent) == ("-deny/0" if applies else "+allow/0")


def test_a_condition_knows_the_destination() -> None:
    """A section by itself says whose it is."""
    by = matcher(service="orders", allow=[rule("*", when='destination == "orders"')])
    assert decided(by, "frontend", M) == "+allow/0"


def test_groups() -> None:
    """A rule that names a group applies to all that are in it, at any depth."""
    by = matcher(
        groups={"all": ["group:some", "orders"], "some": ["front.*"]},
        allow=[rule("group:some", paths=("*/Get",)), rule("group:all", paths=("*/List",))],
    )
    assert decided(by, "front.a", M) == "+allow/0"
    assert decided(by, "front.a", "/p.S/List") == "+allow/1"
    assert decided(by, "orders", "/p.S/List") == "+allow/1"
    assert decided(by, "orders", M) is None
    assert decided(by, "front", "/p.S/List") is None


# The twin once more, with all of the language.

conditions: dict[str, Callable[[str, dict[str, list[str]]], bool | None]] = {
    'source == "a"': lambda source, _: source == "a",
    'metadata["k"] == "1"': lambda _, sent: None if len(sent.get("k", [])) != 1 else sent["k"] == ["1"],
    '"k" in metadata': lambda _, sent: None if len(sent.get("k", [])) > 1 else "k" in sent,
    "1 / 0 == 1": lambda *_: None,
}
modes = st.sampled_from(["enforce", "audit"])
full_rules = st.lists(
    st.fixed_dictionaries(
        {
            "principals": st.lists(
                principals | st.sampled_from(["group:g", "group:h"]), min_size=1, max_size=2
            ),
            "paths": st.lists(paths, min_size=1, max_size=2),
        },
        optional={"when": st.sampled_from(sorted(conditions)), "mode": modes},
    ),
    max_size=4,
)
full_sections = st.fixed_dictionaries(
    {
        "allow": full_rules,
        "deny": full_rules,
        "groups": st.fixed_dictionaries(
            {"g": st.lists(principals, min_size=1, max_size=2), "h": st.just(["group:g", "b"])}
        ),
    },
    optional={"mode": modes},
)


def fully(section: dict[str, Any], source: str, method: str, entries: Entries) -> tuple[str | None, Any]:
    """Decide as the documentation says: the rule, and what would have denied (False for nothing)."""
    sent: dict[str, list[str]] = {}
    for key, value in entries:
        sent.setdefault(key, []).append(str(value))

    def matches(principal: str) -> bool:
        if principal.startswith("group:"):
            return any(map(matches, section["groups"][principal[6:]]))
        return slow_principal(principal, source)

    def reached(effect: str) -> list[tuple[str, dict[str, Any], bool | None]]:
        return [
            (f"{effect}/{index}", of, conditions[of["when"]](source, sent) if "when" in of else True)
            for index, of in enumerate(section[effect])
            if any(map(matches, of["principals"])) and any(slow_path(p, method) for p in of["paths"])
        ]

    mode = section.get("mode", "enforce")
    denying = [(name, of.get("mode", mode)) for name, of, held in reached("deny") if held is not False]
    allowing = [(name, of.get("mode", "enforce")) for name, of, held in reached("allow") if held is True]
    for name, its_mode in denying:
        if its_mode == "enforce":
            return f"-{name}", False
    would: Any = denying[0][0] if denying else False
    for name, its_mode in allowing:
        if its_mode == "enforce":
            return f"+{name}", would
    if allowing:
        return f"+{allowing[0][0]}", would or None
    return ("+", would or None) if mode == "audit" else (None, False)


@given(full_sections, st.lists(st.tuples(services, methods, sent_entries), min_size=1, max_size=8))
def test_like_the_full_twin(section: dict[str, Any], calls: list[tuple[str, str, Entries]]) -> None:
    """With groups, conditions and modes, too, matcher and twin decide alike, and audit the same."""
    by = matcher(**section)
    for source, method, entries in [*calls, *calls]:
        try:
            permit = by.permit(source, method, entries)
            found = f"+{permit.rule}", permit.audited.rule if permit.audited else False
        except Denied as denied:
            found = denied.rule and f"-{denied.rule}", False  # type: ignore[assignment]
        assert found == fully(section, source, method, entries)


def test_a_condition_on_names_alone_is_judged_once() -> None:
    """What hangs on source and method is remembered like a pattern; metadata and time are not."""
    by = matcher(
        allow=[rule("*", when='source.startsWith("front")'), rule("*", when='"a" in metadata')],
        deny=[
            rule("*", when='method.endsWith("/Drop")'),
            rule("*", when="int(source) == 1", paths=("*/Put",)),
        ],
    )
    assert by.permit("frontend", M, ()) is by.permit("frontend", M, ())
    assert decided(by, "frontend", "/p.S/Drop") == "-deny/0"
    assert decided(by, "frontend", "/p.S/Put") == "-deny/1"
    assert decided(by, "evil", M) is None
    assert decided(by, "evil", M, (("a", "1"),)) == "+allow/1"


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Give the calls that conditions are asked about from now on."""
    asked: list[Call] = []
    holds = Condition.holds

    def watched(self: Condition, call: Call) -> bool | None:
        asked.append(call)
        return holds(self, call)

    monkeypatch.setattr(Condition, "holds", watched)
    return asked


def test_the_same_metadata_is_judged_once(judged: list[Call]) -> None:
    """Whatever else is sent along; other values, callers and methods are judged for themselves."""
    by = matcher(
        allow=[rule("a", "b", when='metadata.k == "1"')], deny=[rule("*", headers=[header("l", "x")])]
    )
    cases: list[tuple[Entries, str | None]] = [
        ((("k", "1"),), "+allow/0"),
        ((("k", "2"),), None),
        ((("k", b"1"),), "+allow/0"),
        ((("k", "1"), ("k", "1")), None),
        ((("k", "1"), ("l", "x")), "-deny/0"),
        ((("k", "1"), ("l", "y")), "+allow/0"),
        ((), None),
    ]
    for sent, answer in cases:
        assert decided(by, "a", M, sent) == answer
        asked = len(judged)
        for other in ("1", "2", "3"):
            assert decided(by, "a", M, (("other", other), *sent, ("K", other))) == answer
        assert len(judged) == asked
    assert decided(by, "b", M, (("k", "1"),)) == "+allow/0"
    assert decided(by, "a", "/p.S/M", (("k", "2"),)) is None
    assert decided(by, "c", M, (("k", "1"),)) is None


def test_what_hangs_on_the_time_is_judged_anew(judged: list[Call]) -> None:
    """The same call is permitted at one time and denied at another."""
    by = matcher(allow=[rule("a", when='metadata.k == "1" && time.getHours() == 1')])
    sent = (("k", "1"),)
    assert by.permit("a", M, sent, 3_600_000).rule == "allow/0"
    with pytest.raises(Denied):
        by.permit("a", M, sent, 0)
    assert by.permit("a", M, sent, 3_600_000).rule == "allow/0"
    assert len(judged) == 3


def test_verdicts_take_no_more_memory_than_they_may() -> None:
    """Neither many values, nor long ones, nor many of them are all remembered."""
    by = matcher(allow=[rule("a", headers=[header("k", "1*")])])
    for number in range(REMEMBERED + 10):
        assert decided(by, "a", M, (("k", f"1{number}"),)) == "+allow/0"
        assert len(by._said) <= REMEMBERED
    remembered = len(by._said)
    for sent in ((("k", "1" * WEIGHTY),), (("k", "1"),) * (WEIGHTY // 64)):
        assert decided(by, "a", M, sent) == "+allow/0"
    assert len(by._said) == remembered


def test_groups_are_climbed_once_for_a_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that invents methods does not have its groups looked for again, be they many."""
    climbed = []
    holding = Groups.holding

    def watched(self: Groups, patterns: Any) -> tuple[str, ...]:
        climbed.append(patterns)
        return holding(self, patterns)

    monkeypatch.setattr(Groups, "holding", watched)
    chain = {f"g{n}": [f"group:g{n + 1}"] for n in range(99)} | {"g99": ["*"]}
    by = matcher(allow=[rule("group:g0", paths=(M,))], groups=chain)
    for number in range(20):
        assert decided(by, "a", f"/p.S/M{number}") is None
    assert decided(by, "a", M) == "+allow/0"
    assert len(climbed) == 1
    for number in range(PRINCIPALS // 100 + 10):
        assert decided(by, f"s{number}", M) == "+allow/0"
        known = by._matching._known.values()
    assert sum(map(len, known)) <= PRINCIPALS


TIMED = "time.getHours() < 18"
TENANT = 'metadata["x-tenant"] == "acme"'


@pytest.mark.parametrize(
    ("section", "timed"),
    [
        ({"allow": [{"principals": ["*"], "paths": ["*"]}]}, False),
        ({"allow": [{"principals": ["*"], "paths": ["*"], "when": TENANT}]}, False),
        ({"allow": [{"principals": ["*"], "paths": ["*"], "when": TIMED}]}, True),
        ({"allow": [{"principals": ["*"], "paths": ["*"], "when": f"{TENANT} && {TIMED}"}]}, True),
        (
            {
                "allow": [{"principals": ["*"], "paths": ["*"]}],
                "deny": [{"principals": ["*"], "paths": ["*"], "when": f"!({TIMED})"}],
            },
            True,
        ),
        (
            {
                "allow": [{"principals": ["*"], "paths": ["*"]}],
                "deny": [{"principals": ["other"], "paths": ["*"], "when": TIMED}],
            },
            False,
        ),
        ({"mode": "audit", "deny": [{"principals": ["*"], "paths": ["*"], "when": f"!({TIMED})"}]}, True),
    ],
)
def test_permits_say_whether_they_hang_on_time(section: dict[str, object], timed: bool) -> None:
    """Where a condition about time had a part in it, the same rules may say otherwise later."""
    judge = Matcher(Section.parse(json.dumps(section)))
    entries = (("x-tenant", "acme"),)
    for _ in range(2):
        assert judge.permit("caller", "/a.B/C", entries, 1_700_000_000_000 - 8 * 3_600_000).timed is timed
