"""Patterns: their grammar, and that looking up finds what a slow search would."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.patterns import (
    checked_path,
    checked_principal,
    checked_value,
    covered,
    method_patterns,
    source_patterns,
    value_matches,
)

GOOD_PRINCIPALS = [
    "a",
    "orders",
    "billing.ledger",
    "*",
    "team.*",
    "*.ledger",
    "a.b.c.d.*",
    "*.b.c.d.e",
    "mesh.*",
]
BAD_PRINCIPALS = [
    "",
    " ",
    "**",
    "*.*",
    "*.",
    ".*",
    "*orders",
    "orders*",
    "or*ders",
    "team.*.x",
    "*.team.*",
    "team.**",
    "team..*",
    "*..team",
    "team*.x",
    "team.x*",
    "*team.x",
    "Team",
    "Team.*",
    "*.Team",
    "a.b.c.d.e.*",
    "*.a.b.c.d.e",
    "a.b.c.d.e.f",
    "orders\n",
    "team.*\n",
    "*\n",
    "orders/x",
    "spiffe://shop.example/orders",
    "\uff0a",
    "a\u0661",
    "?",
    "a" * 64,
]
GOOD_PATHS = ["*", "/p.S/M", "/S/M", "/p.S/*", "*/M", "/S/*", "*/_m"]
BAD_PATHS = [
    "",
    "/",
    "**",
    "*/*",
    "/*",
    "/*/*",
    "/*/M",
    "*/",
    "/p.*",
    "/p.*/M",
    "/p.S/M*",
    "/p.S/*M",
    "/p.S*",
    "/p.S/**",
    "/p.S/*/",
    "/p.S/*/M",
    "*M",
    "*/p.S/M",
    "**/M",
    "*/M*",
    "*/M/*",
    "p.S/M",
    "p.S/*",
    "/p.S/",
    "/p.S//M",
    "/p.S/../M",
    "/p.S%2FM",
    "/p.S/M ",
    "/p.S/*\n",
    "*\n",
    "*/M\n",
    "*/M\0",
    "/p.S/M?x",
    "http://h/p.S/M",
    "/p..S/*",
    "/p.S/" + "M" * 600,
]
GOOD_VALUES = ["a", "*", "a*", "*a", "a b", "a b*", "a *", "* a", "a,b", "~!@#$%^&()", "x" * 1000]
BAD_VALUES = [
    "",
    " ",
    " a",
    "a ",
    "**",
    "*a*",
    "a*b",
    "a**",
    "**a",
    "* ",
    " *",
    "a\n",
    "a\0",
    "\u00e9",
    "a\t",
    "*\n",
    "\x7f",
]


@pytest.mark.parametrize("text", GOOD_PRINCIPALS)
def test_principal(text: str) -> None:
    """A principal is a service name, or has one star for all labels on one side, or is the star."""
    assert checked_principal(text) == text


@pytest.mark.parametrize("text", BAD_PRINCIPALS)
def test_bad_principal(text: str) -> None:
    """Anything else is refused, above all a star inside a label."""
    with pytest.raises(ValueError, match=r"^bad principal"):
        checked_principal(text)


@pytest.mark.parametrize("text", GOOD_PATHS)
def test_path(text: str) -> None:
    """A path is a method, or has one star for one side of its last slash, or is the star."""
    assert checked_path(text) == text


@pytest.mark.parametrize("text", BAD_PATHS)
def test_bad_path(text: str) -> None:
    """Anything else is refused, above all a star that is not at the slash."""
    with pytest.raises(ValueError, match=r"^bad path"):
        checked_path(text)


@pytest.mark.parametrize("text", GOOD_VALUES)
def test_value(text: str) -> None:
    """A value is printable ASCII, with at most one star, at an end."""
    assert checked_value(text) == text


@pytest.mark.parametrize("text", BAD_VALUES)
def test_bad_value(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match=r"^bad value"):
        checked_value(text)


def slow_principal(pattern: str, name: str) -> bool:
    """Say by the words of the documentation whether a pattern of principals matches."""
    if pattern == "*":
        return True
    if pattern.endswith(".*"):
        return name.startswith(pattern[:-1])
    if pattern.startswith("*."):
        return name.endswith(pattern[1:])
    return name == pattern


def slow_path(pattern: str, method: str) -> bool:
    """Say by the words of the documentation whether a pattern of paths matches."""
    if pattern == "*":
        return True
    if pattern.endswith("/*"):
        return method.startswith(pattern[:-1])
    if pattern.startswith("*/"):
        return method.endswith(pattern[1:])
    return method == pattern


labels = st.lists(st.sampled_from(["a", "b", "aa", "ab"]), min_size=1, max_size=4)
services = labels.map(".".join)
principals = st.just("*") | services | services.map("{}.*".format) | services.map("*.{}".format)
service_parts = st.sampled_from(["p.S", "p.SS", "q.S", "S", "p"])
method_names = st.sampled_from(["M", "MM", "N"])
methods = st.builds("/{}/{}".format, service_parts, method_names)
paths = st.just("*") | methods | service_parts.map("/{}/*".format) | method_names.map("*/{}".format)


@given(principals, services)
def test_principals_match_like_the_twin(pattern: str, name: str) -> None:
    """A pattern of principals is among those of a name if the slow twin says that it matches."""
    assert checked_principal(pattern) == pattern
    assert (pattern in source_patterns(name)) == slow_principal(pattern, name)


@given(paths, methods)
def test_paths_match_like_the_twin(pattern: str, method: str) -> None:
    """A pattern of paths is among those of a method if the slow twin says that it matches."""
    assert checked_path(pattern) == pattern
    assert (pattern in method_patterns(method)) == slow_path(pattern, method)


def test_label_boundary() -> None:
    """A star for labels never matches part of one, nor none."""
    assert "team.*" not in source_patterns("teams.a")
    assert "team.*" not in source_patterns("team")
    assert "*.ledger" not in source_patterns("billing.subledger")
    assert "*.ledger" not in source_patterns("ledger")
    assert "/p.S/*" not in method_patterns("/p.SS/M")
    assert "*/M" not in method_patterns("/p.S/MM")


@given(paths, st.lists(paths, max_size=4))
def test_covered_like_the_twin(path: str, by: list[str]) -> None:
    """A pattern is covered exactly if nothing that it matches escapes the others."""
    # More names than any list here speaks of stand for "endlessly many".
    parts, names = ["p.S", "p.SS", "q.S", "S", "p", "new.S"], ["M", "MM", "N", "New"]
    all_methods = [f"/{part}/{name}" for part in parts for name in names]
    matched = [method for method in all_methods if slow_path(path, method)]
    escaped = [method for method in matched if not any(slow_path(other, method) for other in by)]
    assert covered(path, by) == (not escaped)


@pytest.mark.parametrize(
    ("pattern", "value", "expected"),
    [
        ("acme", "acme", True),
        ("acme", "Acme", False),
        ("acme", "acme,other", False),
        ("acme", "acme ", False),
        ("acme", "", False),
        ("ac*", "acme", True),
        ("ac*", "ac", True),
        ("ac*", "xac", False),
        ("*me", "acme", True),
        ("*me", "me", True),
        ("*me", "acme,other", False),
        ("*me", "other,acme", True),
        ("*", "", True),
        ("*", "\u00ff", True),
    ],
)
def test_values(pattern: str, value: str, expected: bool) -> None:
    """A value is compared as a whole: nothing in it is split, folded or trimmed."""
    assert value_matches(value, ["no", pattern]) is expected


def test_no_pattern() -> None:
    """Nothing matches where there is no pattern."""
    assert not value_matches("a", [])
