"""Recorded calls judged again: exactly as the mesh would, or not at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.condition import Call
from mesh.core.observed import Observation
from mesh.core.policy import Policy
from mesh.core.retrial import PERMITTED, REMEMBERED, TRIED, UNKNOWN, Outcome, Retrial
from mesh.core.verdict import Judge

M, N = "/p.S/M", "/p.S/N"
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def rule(*principals: str, **more: object) -> dict[str, Any]:
    return {"principals": principals or ("*",), "paths": ("*",), **more}


def header(key: str, *values: str) -> dict[str, Any]:
    return {"headers": [{"key": key, "values": values}]}


def policy(**section: object) -> Policy:
    return Policy.parse(json.dumps({"services": {"a": {}, "b": {}, "orders": section}}))


def seen(first: int = 0, last: int = 0, count: int = 1, **metadata: tuple[str, ...]) -> Observation:
    recorded = tuple(sorted((key.replace("_", "-"), values) for key, values in metadata.items()))
    return Observation("a", "orders", M, first, last, count, metadata=recorded)


def outcome(calls: Observation, **section: object) -> Outcome:
    return Retrial(policy(**section)).outcome(calls)


TENANT = header("x-tenant", "acme")
WHEN = {"when": 'metadata["x-tenant"] == "acme"'}
BY_NAME = {"when": 'source == "a" || metadata["x-tenant"] == "acme"'}
NOT_BY_NAME = {"when": 'source == "b" && metadata["x-tenant"] == "acme"'}

# What was recorded of x-tenant (None: nothing), the rules, the word, and what the reason names.
CASES: list[tuple[str, tuple[str, ...] | None, dict[str, Any], str, str]] = [
    ("an allow rule", None, {"allow": [rule()]}, "allow", ""),
    ("no rule", None, {}, "deny", ""),
    ("a deny rule", None, {"allow": [rule()], "deny": [rule(name="no")]}, "deny", "rule 'no' denies it"),
    ("a header", ("acme",), {"allow": [rule(**TENANT)]}, "allow", ""),
    ("another value", ("beta",), {"allow": [rule(**TENANT)]}, "deny", ""),
    ("not sent", (), {"allow": [rule(**TENANT)]}, "deny", ""),
    (
        "not recorded",
        None,
        {"allow": [rule(name="t", **TENANT)]},
        UNKNOWN,
        "rule 't' looks at metadata x-tenant,",
    ),
    ("not needed", None, {"allow": [rule(**TENANT), rule()]}, "allow", "allow/0' allows it or rule"),
    ("not needed to deny", None, {"allow": [rule(**TENANT)], "deny": [rule()]}, "deny", ""),
    ("of another caller", None, {"allow": [rule("b", **TENANT)]}, "deny", ""),
    (
        "a deny rule's header",
        None,
        {"allow": [rule()], "deny": [rule(name="t", **TENANT)]},
        UNKNOWN,
        "rule 't'",
    ),
    ("denied anyway", None, {"deny": [rule(**TENANT)]}, "deny", "or no rule"),
    ("a condition", ("acme",), {"allow": [rule(**WHEN)]}, "allow", ""),
    ("a condition that is false", ("beta",), {"allow": [rule(**WHEN)]}, "deny", ""),
    ("a condition's key not sent", (), {"allow": [rule()], "deny": [rule(**WHEN)]}, "deny", ""),
    (
        "a condition's key not recorded",
        None,
        {"allow": [rule(name="w", **WHEN)]},
        UNKNOWN,
        "rule 'w' looks at meta",
    ),
    # Were the key there twice, the condition could not be judged, so that true is no answer for an allow
    # rule, and false none for a deny rule.
    ("true whatever came", None, {"allow": [rule(**BY_NAME)]}, UNKNOWN, "x-tenant"),
    ("true, so denied", None, {"allow": [rule()], "deny": [rule(**BY_NAME)]}, "deny", ""),
    ("false whatever came", None, {"allow": [rule(**NOT_BY_NAME)]}, "deny", ""),
    ("false, so not denied", None, {"allow": [rule()], "deny": [rule(**NOT_BY_NAME)]}, UNKNOWN, "x-tenant"),
    ("came twice", ("acme", "acme"), {"allow": [rule(**(WHEN | header("x-other", "b")))]}, "deny", ""),
    (
        "came twice, beside what is missing",
        ("a", "a"),
        {"allow": [rule(when='metadata["x-tenant"] == "a" || metadata["x-other"] == "b"')]},
        "deny",
        "",
    ),
    ("audit", None, {"mode": "audit", "allow": [rule(**TENANT)]}, PERMITTED, "x-tenant"),
    ("on trial", None, {"allow": [rule()], "deny": [rule(**TENANT, mode="audit")]}, PERMITTED, "x-tenant"),
    (
        "on trial, and not allowed all the same",
        None,
        {"allow": [rule(**header("x-other", "b"))], "deny": [rule(**TENANT, mode="audit")]},
        UNKNOWN,
        "x-other",
    ),
    (
        "audit all the same",
        None,
        {"mode": "audit", "deny": [rule(name="t", **TENANT)]},
        "audit",
        "rule 't' denies or",
    ),
    (
        "audit by two",
        None,
        {
            "mode": "audit",
            "deny": [rule(), rule(**TENANT)],
            "allow": [rule(**TENANT, mode="audit"), rule(mode="audit")],
        },
        "audit",
        "",
    ),
]


@pytest.mark.parametrize(
    ("recorded", "section", "word", "why"), [row[1:] for row in CASES], ids=[c[0] for c in CASES]
)
def test_metadata(recorded: tuple[str, ...] | None, section: dict[str, Any], word: str, why: str) -> None:
    """Metadata that was not recorded leaves a verdict open only where it could change it."""
    found = outcome(seen() if recorded is None else seen(x_tenant=recorded), **section)
    assert found.word == word
    assert why in found.why


DAYTIME = {"allow": [rule(name="day", when="time.getHours() >= 8 && time.getHours() < 18")]}
UNTIL = {"allow": [rule(when="time < timestamp('1970-01-01T12:00:00.500Z')")]}
BUT_AT = {"allow": [rule(when="time != timestamp('1970-01-01T12:00:00.500Z')")]}
SECONDS = {"allow": [rule(name="s", when="time.getSeconds() < 30")]}
NEVER = {"allow": [rule(when="source == 'b' && time.getSeconds() < 30")]}
NOON = 12 * HOUR

TIMES: list[tuple[str, dict[str, Any], tuple[int, int, int], str]] = [
    ("by day", DAYTIME, (NOON, NOON, 1), "allow"),
    ("by night", DAYTIME, (HOUR, HOUR, 9), "deny"),
    ("a day long", DAYTIME, (9 * HOUR, 17 * HOUR, 9), "allow"),
    ("two, of which both are known", DAYTIME, (NOON, NOON + DAY, 2), "allow"),
    ("two, of which one is late", DAYTIME, (NOON, NOON + DAY // 2, 2), UNKNOWN),
    ("over night", DAYTIME, (NOON, NOON + DAY, 3), UNKNOWN),
    ("past the hour", DAYTIME, (18 * HOUR - 5, 18 * HOUR, 3), UNKNOWN),
    ("up to the hour", DAYTIME, (18 * HOUR - 5, 18 * HOUR - 1, 3), "allow"),
    (
        "more than a day",
        {"allow": [rule(when="time.getFullYear() == 1970")]},
        (NOON, NOON + DAY + MINUTE, 3),
        UNKNOWN,
    ),
    ("before a moment", UNTIL, (NOON, NOON + 499, 3), "allow"),
    ("up to a moment", UNTIL, (NOON, NOON + 500, 3), UNKNOWN),
    ("from a moment on", UNTIL, (NOON + 500, NOON + 501, 3), "deny"),
    ("around a moment", BUT_AT, (NOON, NOON + 900, 3), UNKNOWN),
    ("either side of a moment", BUT_AT, (NOON, NOON + 900, 2), "allow"),
    ("one, of which it is not known when", BUT_AT, (NOON, NOON + 900, 1), UNKNOWN),
    ("finer than minutes", SECONDS, (NOON, NOON + 9, 3), UNKNOWN),
    ("finer than minutes, of which all are known", SECONDS, (NOON, NOON + 9, 2), "allow"),
    ("finer than minutes, for others", NEVER, (NOON, NOON + 9, 3), "deny"),
]


@pytest.mark.parametrize(
    ("section", "when", "word"), [row[1:] for row in TIMES], ids=[row[0] for row in TIMES]
)
def test_time(section: dict[str, Any], when: tuple[int, int, int], word: str) -> None:
    """Time leaves a verdict open only where it changes it between the first call and the last."""
    found = outcome(seen(*when), **section)
    assert found.word == word
    assert ("looks at the time" in found.why) is (word == UNKNOWN)


def test_many_doubts() -> None:
    """What would take too long to try cannot be told; what is decided before is."""
    doubtful = [rule(when=f'metadata["x-{n}"] == "{n}"', mode="audit") for n in range(99)]
    found = outcome(seen(), mode="audit", deny=doubtful, allow=doubtful)
    assert (found.word, found.because) == (UNKNOWN, "more than can be tried was not recorded")
    assert outcome(seen(), deny=[rule(), *doubtful]).word == "deny"


def test_unknown_services() -> None:
    """What the policy does not have is denied, as it would be."""
    retrial = Retrial(policy(allow=[rule()]))
    assert retrial.outcome(Observation("a", "nobody", M, 0, 0)).why == "no rule allows it"
    assert retrial.outcome(Observation("stranger", "orders", M, 0, 0)).word == "allow"


def test_remembering_is_bounded() -> None:
    """Ever new calls do not fill the memory, and time is not remembered."""
    retrial = Retrial(policy(**DAYTIME))
    assert [retrial.outcome(seen(when, when)).word for when in (NOON, HOUR, NOON)] == [
        "allow",
        "deny",
        "allow",
    ]
    assert not retrial._known
    retrial._known = dict.fromkeys(range(REMEMBERED), Outcome("deny", ()))
    assert retrial.outcome(Observation("a", "b", M, 0, 0)).word == "deny"
    assert len(retrial._known) == 1


# Against the truth: calls that were made in full, recorded in part.

_KEYS, _VALUES = ("x-a", "x-b"), ("1", "2")
_conditions = st.sampled_from(
    [
        'metadata["x-a"] == "1"',
        '"x-b" in metadata && metadata["x-b"] != "1"',
        'source == "a" || metadata["x-a"] == metadata["x-b"]',
        "has(metadata.x) ? true : time.getMinutes() == 1",
        "time.getSeconds() < 30",
        "time < timestamp('1970-01-01T00:01:00.500Z')",
        'time.getHours() == 0 && (metadata["x-b"] == "2" || source == "b")',
    ]
)
_rules = st.fixed_dictionaries(
    {"principals": st.sampled_from([("*",), ("a",), ("b",)]), "paths": st.sampled_from([("*",), (M,)])},
    optional={
        "headers": st.lists(
            st.builds(header, st.sampled_from(_KEYS), st.sampled_from(_VALUES)).map(
                lambda found: found["headers"][0]
            ),
            min_size=1,
            max_size=2,
            unique_by=lambda found: str(found["key"]),
        ),
        "when": _conditions,
        "mode": st.sampled_from(["audit", "enforce"]),
    },
)
_sections = st.fixed_dictionaries(
    {"allow": st.lists(_rules, max_size=3), "deny": st.lists(_rules, max_size=3)},
    optional={"mode": st.sampled_from(["audit", "enforce"])},
)
_entries = st.lists(st.tuples(st.sampled_from(_KEYS), st.sampled_from(_VALUES)), max_size=3).map(tuple)
_times = st.lists(st.integers(0, 3 * MINUTE), min_size=1, max_size=4).map(sorted)


@settings(deadline=None)
@given(_sections, _entries, _times, st.sets(st.sampled_from([*_KEYS, "x"])), st.sampled_from("ab"))
def test_never_a_guess(
    section: dict[str, Any],
    entries: tuple[tuple[str, str], ...],
    times: list[int],
    recorded: set[str],
    source: str,
) -> None:
    """Whatever is told is what the mesh would have said of every one of the calls, rule and all."""
    another = policy(**section)
    judge = Judge(another)
    truth = [judge.verdict(Call(source, "orders", M, entries, moment)) for moment in times]
    metadata = tuple((key, tuple(v for k, v in entries if k == key)) for key in sorted(recorded))
    partly = Observation(source, "orders", M, times[0], times[-1], len(times), metadata=metadata)
    found = Retrial(another).outcome(partly)
    if found.word == UNKNOWN:
        assert found.because
    elif found.word == PERMITTED:
        assert found.because
        assert all(verdict.permitted for verdict in truth)
        assert set(truth) <= set(found.verdicts)
    else:
        assert {verdict.word for verdict in truth} == {found.word}
        assert set(truth) <= set(found.verdicts)
    if recorded == {*_KEYS, "x"} and len(times) <= 2:
        assert set(found.verdicts) == set(truth)


def test_there_are_enough_tries() -> None:
    """A day of minutes can be looked at, each of them under both answers to a doubt."""
    assert (
        outcome(
            seen(0, DAY - 1, 9), mode="audit", deny=[rule(**TENANT), rule(when="time.getFullYear() == 1970")]
        ).word
        == "audit"
    )
    assert TRIED >= 2 * 24 * 60
