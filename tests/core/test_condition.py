"""Conditions: what is taken, what is refused with a reason, and what a call makes of them."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.condition import MAX_CONDITION, MAX_VALUE, Call, Condition
from mesh.core.metadata import Entries

NOW = 1_700_000_000_123  # 2023-11-14, 22:13 in UTC, a Tuesday
CALL = Call("frontend", "orders", "/shop.v1.Orders/Get", (("x-tenant", "acme"),), NOW)

JUDGED: list[tuple[str, bool | None]] = [
    ("true", True),
    ('source == "frontend" && destination == "orders"', True),
    ('source in ["a", "frontend"]', True),
    ('!(source in ["a", "b.c"])', True),
    ("source == destination", False),
    ('method == "/shop.v1.Orders/Get"', True),
    ('method.startsWith("/shop.v1.") && method.endsWith("/Get") && method.contains("Orders")', True),
    ('metadata["x-tenant"] == "acme"', True),
    ('metadata["x-tenant"] == "*"', False),
    ('"x-tenant" in metadata', True),
    ('"x-other" in metadata', False),
    ("has(metadata.x_other)", False),
    ("metadata.x_other == 'a'", None),
    ('metadata["x-other"] == "a"', None),
    ('metadata["x-other"] == "a" || source == "frontend"', True),
    ('metadata["x-other"] == "a" && source == "other"', False),
    ('metadata["x-tenant"].size() == 4', True),
    ('size(metadata["x-tenant"]) == 1 / 0', None),
    ('int(metadata["x-tenant"]) == 1', None),
    ("dyn(source).name == 'a'", None),
    ("time.getHours() == 22 && time.getDayOfWeek() == 2", True),
    ('time.getHours("Europe/Berlin") == 23', True),
    ('time.getHours("Nowhere/Else") == 23', None),
    ('time.getHours("UTC") == 22 && time.getHours("Etc/GMT+5") == 17', True),
    ('time.getHours("+02:00") == 0 && time.getMinutes("-05:30") == 43 && time.getHours("01:00") == 23', True),
    ('time.getDayOfWeek("America/Argentina/Buenos_Aires") == 2', True),
    ('time == timestamp("2023-11-14T22:13:20.123Z")', True),
    ('time - timestamp("2023-11-14T00:00:00Z") > duration("8h")', True),
    ('source == "frontend" ? time.getFullYear() == 2023 : false', True),
    ('source == r"frontend" // a remark\n && true', True),
]


@pytest.mark.parametrize(("text", "outcome"), JUDGED)
def test_judged(text: str, outcome: bool | None) -> None:
    """A condition is true, false, or cannot be judged."""
    assert Condition.parse(text).holds(CALL) is outcome


REFUSED: list[tuple[str, str]] = [
    ("", "not printable ascii"),
    (" ", "something is missing at its end"),
    ("source == 1", "== does not take a text and a whole number"),
    ("source", "gives string"),
    ("1", "gives int"),
    ("dyn(true)", "gives dyn"),
    ("(" * 60 + "true" + ")" * 60, "nested too deeply"),
    ("true" + " && true" * 200, "characters are too many"),
    ('["a"].exists(x, x == source)', "loops"),
    ("[1, 2].all(x, [1, 2].all(y, x == y))", "loops"),
    ("[1].map(x, x)[0] == 1", "loops"),
    ("[1].filter(x, x > 1) == []", "loops"),
    ('["a"].exists_one(metadata, metadata == source)', "loops"),
    ('{"a": source}["a"] == "b"', "maps and messages"),
    ("google.protobuf.Struct{} == google.protobuf.Struct{}", "maps and messages"),
    ('source.matches("front.*")', "regular expressions"),
    ('metadata["a"].contains(metadata["b"])', "contains needs a text"),
    ('matches(source, "((a{100}){100}){100}")', "regular expressions"),
    ('time.getHours(metadata["x-tz"]) >= 0', "write the time zone out"),
    ("time.getFullYear(source) >= 0", "write the time zone out"),
    ('time.getSeconds("Europe/" + "Berlin") >= 0', "write the time zone out"),
    ('time.getHours("Europe/berlin") >= 0', "'Europe/berlin' is none: write the time zone out"),
    ('dyn(time).getHours(dyn("UTC")) >= 0', "write the time zone out"),
    *(
        (f'time.getDate("{zone}") >= 0', "write the time zone out")
        for zone in (
            "/etc/passwd",
            "/usr/share/zoneinfo/UTC",
            "file:/etc/passwd",
            "libc:UTC",
            "../UTC",
            "Europe/../UTC",
            "Europe//Berlin",
            "Europe/Berlin/",
            "A/B/C/D",
            "localtime",
            "posix/UTC",
            "UTC ",
            r"UTC\n",
            r"UTC\u0000",
            "",
            "+24:00",
            "+1:00",
            "+02:60",
            "+0200",
        )
    ),
    ('source == "front*"', "has a star"),
    ('source.startsWith("team.*")', "has a star"),
    ('method == "*/Get"', "has a star"),
    ('destination in ["orders", "*"]', "has a star"),
    ('method == "Get"', "bad method 'Get'"),
    ('"/p.S/M/" != method', "bad method '/p.S/M/'"),
    ('source == "Orders"', "bad service name 'Orders'"),
    ('source == ""', "bad service name ''"),
    ('source == "\u043erders"', "not printable ascii"),
    (r'source == "\u043erders"', r"\u043erders"),
    (r'metadata["x"] == "\u043erders"', "is not ascii"),
    ("size(metadata) > 0", "which key"),
    ("metadata == metadata", "which key"),
    ("metadata[source] == 'a'", "which key"),
    ('metadata["x-" + source] == "a"', "which key"),
    ('("x-" + source) in metadata', "which key"),
    ('metadata["x-bytes-bin"] == "a"', "holds bytes"),
    ('metadata["X-Tenant"] == "a"', "bad metadata key"),
    ('"mesh-peer" in metadata', "not the application's"),
    ("has(metadata.host)", "not the application's"),
    ("x" * (MAX_CONDITION + 1), "1025 characters are too many"),
    ("true\0", "not printable ascii"),
]


@pytest.mark.parametrize(("text", "said"), REFUSED, ids=range(len(REFUSED)))
def test_refused(text: str, said: str) -> None:
    """What could loop, explode or mean something else is refused when it is read, with the reason."""
    with pytest.raises(ValueError, match=r"^[^\n]{1,400}$") as caught:
        Condition.parse(text)
    assert said in str(caught.value)


def test_what_it_looks_at() -> None:
    """The keys and services that a condition names are known before any call."""
    read = Condition.parse(
        'metadata["b"] == "1" || "a" in metadata || source == "s" || destination in ["d", source]'
    )
    assert (read.keys, read.services) == (("a", "b"), ("d", "s"))
    assert read == Condition.parse(read.text)
    assert read != Condition.parse("true")
    zoned = 'time.getHours("UTC") < time.getHours("Europe/Berlin") || time.getHours() < 1'
    assert Condition.parse(zoned).zones == ("Europe/Berlin", "UTC")


KEYED = 'metadata["k"] == "1" || !("k" in metadata)'
SENT: list[tuple[Entries, bool | None]] = [
    ((), True),
    ((("k", "1"),), True),
    ((("k", "2"),), False),
    ((("k", b"1"),), True),
    ((("k", b"\xff"),), False),
    ((("k", "1"), ("k", "1")), None),
    ((("k", "1"), ("l", "1"), ("l", "2")), True),
    ((("K", "1"), ("k", "2")), False),
    ((("k", "\udcff"),), None),
    ((("k", "1" * MAX_VALUE),), False),
    ((("k", "1" * (MAX_VALUE + 1)),), None),
    ((("l", "1" * (MAX_VALUE + 1)),), True),
]


@pytest.mark.parametrize(("entries", "outcome"), SENT)
def test_metadata(entries: Entries, outcome: bool | None) -> None:
    """A key that comes twice cannot be judged; other keys do not matter."""
    assert Condition.parse(KEYED).holds(CALL._replace(entries=entries)) is outcome


def test_time_that_is_not_known() -> None:
    """Without a clock only what looks at it cannot be judged."""
    blind = CALL._replace(now_ms=None)
    assert Condition.parse("time.getHours() >= 0 || true").holds(blind) is None
    assert Condition.parse("true").holds(blind) is True


def test_the_costliest_condition_is_cheap() -> None:
    """As many searches as fit, each for a text that is nearly found everywhere, in the longest value."""
    part = f'metadata.k.contains("{"a" * 20}b")'
    text = " || ".join([part] * (MAX_CONDITION // (len(part) + 4)))
    call = CALL._replace(entries=(("k", "a" * MAX_VALUE),))
    read = Condition.parse(text)
    begun = perf_counter()
    for _ in range(10):
        assert read.holds(call) is False
    assert perf_counter() - begun < 0.5  # 0.4 ms each, and a machine may be busy


@given(st.text(max_size=40) | st.text("()[]{}.=!&|<>+-*/?:\"' \\abcsourcemetadatatime0123", max_size=60))
def test_any_text(text: str) -> None:
    """Whatever stands there is a condition or is refused with ``ValueError``."""
    try:
        read = Condition.parse(text)
    except ValueError:
        return
    assert read.holds(CALL) in (True, False, None)


@given(
    st.lists(st.tuples(st.sampled_from(["k", "l"]), st.text(max_size=3) | st.binary(max_size=3)), max_size=3)
)
def test_any_metadata(entries: list[tuple[str, str | bytes]]) -> None:
    """Whatever is sent gives an answer."""
    judge: Callable[[Call], bool | None] = Condition.parse(KEYED).holds
    assert judge(CALL._replace(entries=tuple(entries))) in (True, False, None)


ANYTHING = {True, False, None}
POSSIBLE: list[tuple[str, set[str], bool, set[bool | None]]] = [
    ('metadata["x-tenant"] == "acme"', set(), False, {True}),
    ('metadata["x-tenant"] == "acme"', {"x-other"}, False, {True}),
    ('metadata["x-tenant"] == "acme"', {"x-tenant"}, False, ANYTHING),
    ('"x-other" in metadata', {"x-other"}, False, ANYTHING),
    ('"x-other" in metadata && metadata["x-tenant"] == "b"', {"x-other"}, False, ANYTHING),
    ('source == "frontend" || "x-other" in metadata', {"x-other"}, False, {True, None}),
    ('source == "b" && "x-other" in metadata', {"x-other"}, False, {False, None}),
    ("time.getHours() == 22", set(), False, {True}),
    ("time.getHours() == 22", set(), True, ANYTHING),
    ('source == "frontend" || time.getHours() == 22', set(), True, {True}),
    ('metadata["x-tenant"] == "b" && time.getHours() == 22', set(), True, {False}),
    ('metadata["x-other"] == "b" && time.getHours() == 21', {"x-other"}, False, {False, None}),
    ('metadata["x-other"] == "b" && time.getHours() == 21', {"x-other"}, True, ANYTHING),
]


@pytest.mark.parametrize(("text", "unknown", "timeless", "outcomes"), POSSIBLE)
def test_possible(text: str, unknown: set[str], timeless: bool, outcomes: set[bool | None]) -> None:
    """What is not known leaves open what the rest does not decide."""
    assert Condition.parse(text).possible(CALL, unknown, timeless=timeless) == outcomes


def test_impossible() -> None:
    """What is known to come twice, or of which no time is known, cannot be judged whatever the rest is."""
    twice = CALL._replace(entries=(*CALL.entries, *CALL.entries))
    both = Condition.parse('metadata["x-tenant"] == "acme" || metadata["x-other"] == "b"')
    assert both.possible(twice, {"x-other"}, timeless=False) == {None}
    timed = Condition.parse('metadata["x-other"] == "b" || time.getHours() < 25')
    assert timed.possible(CALL._replace(now_ms=None), {"x-other"}, timeless=False) == {None}


EVER: list[tuple[str, set[bool | None]]] = [
    ('source == "frontend"', {True}),
    ('destination != "orders"', {False}),
    ("size(source) / 0 == 1", {None}),
    ('source == "frontend" || method == "/p.S/M"', {True, None}),
    ('source != "frontend" && metadata.k == "1"', {False, None}),
    ('source != "frontend" || time.getHours() == 3', ANYTHING),
    ("true || method == source", {True, None}),
    ('metadata.k == "1" || true', ANYTHING),
    ('method == "/p.S/M"', ANYTHING),
    ("true", {True}),
]


@pytest.mark.parametrize(("text", "outcomes"), EVER)
def test_ever(text: str, outcomes: set[bool | None]) -> None:
    """What may come of the calls from one service to another, whatever they are."""
    assert Condition.parse(text).ever("frontend", "orders") == outcomes
