"""Recorded calls as lines: what is read, and what is refused with its field."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.document import PolicyError
from mesh.core.observed import MAX_COUNT, MAX_LINE, MAX_TIME, Gap, Observation, check, merged, parse, timeless
from tests.core.test_names import BAD_METHODS, BAD_SERVICES
from tests.core.test_patterns import methods, services

DOCS = Path(__file__).parents[2] / "docs" / "policy.md"
LEAST: dict[str, Any] = {"source": "acme", "destination": "orders", "method": "/p.S/M", "time": 5}


def line(**more: Any) -> bytes:
    return json.dumps({name: value for name, value in (LEAST | more).items() if value is not None}).encode()


def test_least() -> None:
    """Who, whom, what and when is enough."""
    assert parse(line()) == Observation("acme", "orders", "/p.S/M", 5, 5)


def test_all() -> None:
    """Everything that can be said of calls; times are numbers or texts."""
    read = parse(
        line(
            time=None,
            first="1970-01-01T00:00:00Z",
            last=7,
            count=3,
            verdict="audit",
            rule="partners",
            by="not yet",
            policy=4,
            metadata={"x-b": ["1", "2"], "x-a": "one", "x-c": []},
        )
    )
    metadata = (("x-a", ("one",)), ("x-b", ("1", "2")), ("x-c", ()))
    assert read == Observation(
        "acme", "orders", "/p.S/M", 0, 7, 3, "audit", "partners", "not yet", 4, metadata
    )
    assert isinstance(read, Observation)
    assert read.entries == (("x-a", "one"), ("x-b", "1"), ("x-b", "2"))
    assert read.keys == ("x-a", "x-b", "x-c")


def test_gap() -> None:
    """Calls of which nothing but their number is known."""
    assert parse(b'{"destination": "orders", "unrecorded": 3, "time": 9}') == Gap("orders", 9, 9, 3)


@settings(deadline=None)
@given(
    st.builds(
        Observation,
        services,
        st.just("orders"),
        methods,
        st.integers(0, 9),
        st.integers(10**10, MAX_TIME),
        st.integers(1, MAX_COUNT),
        st.just("audit"),
        st.sampled_from([None, "a rule"]),
        st.sampled_from([None, "another"]),
        st.integers(0, 2**63 - 1),
        st.sampled_from([(), (("x-a", ()),), (("x-a", ("b", "c")), ("x-b", ("",)))]),
    )
)
def test_round_trip(seen: Observation) -> None:
    """What is written is read as it was."""
    assert parse(seen.encode().encode()) == seen
    gap = Gap(seen.destination, seen.first_ms, seen.last_ms, seen.count)
    assert parse(gap.encode().encode()) == gap


BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"source": None}, "call.source", "is missing"),
    ({"destination": None}, "call.destination", "is missing"),
    ({"method": None}, "call.method", "is missing"),
    ({"time": None}, "call.first", "is missing"),
    ({"time": None, "first": 3}, "call.last", "is missing"),
    ({"time": None, "last": 3}, "call.first", "is missing"),
    ({"first": 3}, "call.time", "is there beside"),
    ({"time": None, "first": 4, "last": 3}, "call.first", "is later than last"),
    ({"time": "yesterday"}, "call.time", "bad time"),
    ({"time": 1.5}, "call.time", "has to be a time"),
    ({"time": 1799064000}, "call.time", "1799064000 looks like seconds: use milliseconds since 1970"),
    ({"time": 100_000_000}, "call.time", "looks like seconds"),
    ({"time": 9_999_999_999}, "call.time", "looks like seconds"),
    ({"time": True}, "call.time", "has to be a time"),
    ({"time": []}, "call.time", "has to be a time"),
    ({"time": -1}, "call.time", "between the years"),
    ({"time": MAX_TIME + 1}, "call.time", "between the years"),
    ({"source": 1}, "call.source", "has to be a text"),
    ({"source": "mesh.auth.x"}, "call.source", "is no service"),
    ({"destination": "mesh.auth"}, "call.destination", "the code does"),
    ({"destination": "*"}, "call.destination", "bad service name"),
    ({"method": "/p.S/*"}, "call.method", "bad method"),
    ({"count": 0}, "call.count", "between 1"),
    ({"count": -1}, "call.count", "between 1"),
    ({"count": 1.0}, "call.count", "whole number"),
    ({"count": "1"}, "call.count", "whole number"),
    ({"count": MAX_COUNT + 1}, "call.count", "between 1"),
    ({"verdict": "permit"}, "call.verdict", "use allow, deny or audit"),
    ({"verdict": "allow", "rule": "\x1b[2J"}, "call.rule", "bad name"),
    ({"rule": "a"}, "call.rule", "without a verdict"),
    ({"verdict": "deny", "by": "a"}, "call.by", "audit alone"),
    ({"policy": -1}, "call.policy", "between 1"),
    ({"metadata": []}, "call.metadata", "has to be an object"),
    ({"metadata": {"X-A": "b"}}, "call.metadata", "bad metadata key"),
    ({"metadata": {"x-bin": "b"}}, "call.metadata", "x-bin"),
    ({"metadata": {"mesh-peer": "b"}}, "call.metadata", "mesh-peer"),
    ({"metadata": {"x-a": 1}}, "call.metadata", "has to be a list"),
    ({"metadata": {"x-a": [1]}}, "call.metadata", "has to be a text"),
    ({"metadata": {"x-a": ["\n"]}}, "call.metadata", "printable ascii"),
    ({"metadata": {"x-a": ["\ud800"]}}, "call.metadata", "printable ascii"),
    ({"sauce": 1}, "call.sauce", "unknown field 'sauce'"),
    ({"unrecorded": 3}, "call.source", "unknown field 'source'"),
]


@pytest.mark.parametrize(("change", "path", "wrong"), BAD)
def test_refused(change: dict[str, Any], path: str, wrong: str) -> None:
    """What is doubtful is refused, with the field."""
    with pytest.raises(PolicyError, match=wrong) as refused:
        parse(line(**change))
    assert refused.value.path == path


@pytest.mark.parametrize("name", BAD_SERVICES.values(), ids=BAD_SERVICES)
def test_bad_names(name: str) -> None:
    """A name that is none is refused at either end."""
    for end in ("source", "destination"):
        with pytest.raises(PolicyError, match=rf"call\.{end}: bad service name"):
            parse(line(**{end: name}))


@pytest.mark.parametrize("name", BAD_METHODS.values(), ids=BAD_METHODS)
def test_bad_methods(name: str) -> None:
    """A method that is none is refused."""
    with pytest.raises(PolicyError, match=r"call\.method: bad method"):
        parse(line(method=name))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (b"", "not JSON"),
        (b"[]", "has to be an object"),
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8"),
        (b'{"time": NaN}', "NaN is no value"),
        (b'{"time": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"time": 1, "time": 1}', "'time' is there twice"),
        (line()[:-1] + b', "metadata": {"x-a": "", "x-a": ""}}', "'x-a' is there twice"),
        (b"[" * MAX_LINE, "nested too deeply"),
        (b" " * (MAX_LINE + 1), "longer than 65536 bytes"),
        (line() + line(), "not JSON"),
    ],
)
def test_no_line(text: bytes, wrong: str) -> None:
    """So is what is no line of JSON."""
    with pytest.raises(PolicyError, match=wrong):
        parse(text)


@settings(deadline=None)
@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.floats(), st.lists).map(repr).map(str.encode)
)
def test_garbage(text: bytes) -> None:
    """Garbage gives an observation or a ``PolicyError``, and nothing else."""
    with pytest.raises(PolicyError):
        parse(text)


def test_merging() -> None:
    """Calls that were alike at several times come to one, with all of their number."""
    one, other = (
        Observation("a", "b", "/p.S/M", 5, 6, 2, policy=1),
        Observation("a", "b", "/p.S/M", 1, 5, 3, policy=2),
    )
    assert timeless(one) == timeless(other) != timeless(Observation("a", "b", "/p.S/N", 5, 6))
    assert merged(one, other) == Observation("a", "b", "/p.S/M", 1, 6, 5, policy=1)
    gap = Gap("b", 5, 6, 2)
    assert timeless(gap) == timeless(Gap("b", 1, 1, 1))
    assert merged(gap, one) == Gap("b", 5, 6, 4)


OUT_OF_RANGE: list[Observation | Gap] = [
    Observation("A", "b", "/p.S/M", 1, 1),
    Observation("a", "B", "/p.S/M", 1, 1),
    Observation("mesh.x", "b", "/p.S/M", 1, 1),
    Observation("a", "mesh.auth", "/p.S/M", 1, 1),
    Observation("a", "b", "M", 1, 1),
    Observation("a", "b", "/p.S/M", 2, 1),
    Observation("a", "b", "/p.S/M", -1, 1),
    Observation("a", "b", "/p.S/M", 1, MAX_TIME + 1),
    Observation("a", "b", "/p.S/M", 1, 1, 0),
    Observation("a", "b", "/p.S/M", 1, 1, MAX_COUNT + 1),
    Observation("a", "b", "/p.S/M", 1, 1, verdict="perhaps"),
    Observation("a", "b", "/p.S/M", 1, 1, rule="a"),
    Observation("a", "b", "/p.S/M", 1, 1, verdict="deny", rule="\n"),
    Observation("a", "b", "/p.S/M", 1, 1, verdict="deny", by="a"),
    Observation("a", "b", "/p.S/M", 1, 1, verdict="audit", by=""),
    Observation("a", "b", "/p.S/M", 1, 1, policy=2**63),
    Observation("a", "b", "/p.S/M", 1, 1, metadata=(("X", ()),)),
    Observation("a", "b", "/p.S/M", 1, 1, metadata=(("x-a", ("\n",)),)),
    Observation("a", "b", "/p.S/M", 1, 1, metadata=(("x-b", ()), ("x-a", ()))),
    Observation("a", "b", "/p.S/M", 1, 1, metadata=(("x-a", ()), ("x-a", ()))),
    Gap("b", 1, 1, 0),
    Gap("B", 1, 1, 1),
]


@pytest.mark.parametrize("seen", OUT_OF_RANGE, ids=repr)
def test_what_no_line_says(seen: Observation | Gap) -> None:
    """What comes otherwise than by a line is held to the same."""
    with pytest.raises(ValueError, match=r"."):
        check(seen)


def test_what_a_line_says() -> None:
    """What a line gives is taken."""
    check(parse(line(verdict="audit", rule="a", by="b", policy=1, metadata={"x-b": [], "x-a": ["1", ""]})))
    check(parse(line()))
    check(Gap("b", 1, 1, 1))


def test_what_the_docs_show() -> None:
    """The lines in the documentation are such as are read."""
    [block] = re.findall(r"```json\n(\{\"source.*?)```", DOCS.read_text(), re.DOTALL)
    found = [parse(shown.encode()) for shown in block.splitlines()]
    assert [type(one) for one in found] == [Observation, Observation, Gap]
