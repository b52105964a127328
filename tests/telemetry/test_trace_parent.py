"""W3C Trace Context: read strictly, written as it is read, and garbage is none."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.metadata import Entries
from mesh.telemetry.spans import _remote
from mesh.telemetry.trace_parent import MAX_STATE, TraceParent, read, written

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (GOOD, True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", True),
    ],
)
def test_read(text: str, sampled: bool) -> None:
    """A context of this version, or of a later one that begins like it, is taken."""
    found = read((("x", "1"), ("traceparent", text), ("tracestate", "a=1"), ("tracestate", "b=2")))
    assert found == TraceParent(int(TRACE, 16), int(SPAN, 16), sampled, "a=1,b=2")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        GOOD.upper(),
        GOOD + "-",
        GOOD + "\n",
        f" {GOOD}",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"00-\uff14{TRACE[1:]}-{SPAN}-01",
        "0" * 100_000,
    ],
)
def test_malformed(text: str) -> None:
    """What is not to the letter is no context."""
    assert read((("traceparent", text),)) is None


def test_twice_is_none() -> None:
    """Of two contexts neither can be believed; bytes are none either."""
    assert read((("traceparent", GOOD), ("traceparent", GOOD))) is None
    assert read((("traceparent", GOOD.encode()),)) is None


def test_state_is_bounded() -> None:
    """More state than everybody has to carry is not carried; the trace is."""
    found = read((("traceparent", GOOD), ("tracestate", "a=" + "1" * MAX_STATE)))
    assert found is not None
    assert found.state == ""


THIRTY_TWO = ",".join(f"k{n}=1" for n in range(32))


@pytest.mark.parametrize(
    ("state", "carried"),
    [
        ("a=1", "a=1"),
        (" a=1 ,\t,b=2", "a=1,b=2"),
        ("1a-_*/@b=x y", "1a-_*/@b=x y"),
        ("secret", ""),
        ("a=1,b", ""),
        ("A=1", ""),
        ("a=1=2", ""),
        ("a=", ""),
        ("a=\x1b[31m", ""),
        ("a=\u00e9", ""),
        (THIRTY_TWO, THIRTY_TWO),
        (",".join(f"k{n}=1" for n in range(33)), ""),
    ],
)
def test_state_that_is_none(state: str, carried: str, caplog: pytest.LogCaptureFixture) -> None:
    """What is no state is not carried, and does not get into the log: the trace is taken."""
    entries = (("traceparent", GOOD), ("tracestate", state))
    found = read(entries)
    assert found is not None
    assert found.state == carried
    _remote(found)
    assert caplog.records == []


@given(st.text("ab=, 1@*\t\x1b\u00e9"))
def test_no_state_is_logged(state: str) -> None:
    """Whatever a caller sends, the API that is given what is carried says nothing about it."""
    found = read((("traceparent", GOOD), ("tracestate", state)))
    assert found is not None
    with pytest.MonkeyPatch.context() as patched:
        said: list[object] = []
        api = logging.getLogger("opentelemetry.trace.span")
        patched.setattr(api, "warning", lambda *what: said.append(what))
        _remote(found)
    assert said == []


@given(
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.booleans(),
    st.sampled_from(["", "a=1", "a=1,b=2"]),
)
def test_written_is_read(trace: int, span: int, sampled: bool, state: str) -> None:
    """What is written is read as the same, in the place of what was there."""
    parent = TraceParent(trace, span, sampled, state)
    before: Entries = (("traceparent", GOOD), ("x", "1"), ("tracestate", "old=1"))
    entries = written(before, parent)
    assert read(entries) == parent
    assert ("x", "1") in entries


@given(st.lists(st.tuples(st.sampled_from(["traceparent", "tracestate", "x"]), st.text() | st.binary())))
def test_garbage_in(entries: list[tuple[str, str | bytes]]) -> None:
    """Whatever comes gives a context or none, and never an exception."""
    found = read(entries)
    assert found is None or found.trace_id
