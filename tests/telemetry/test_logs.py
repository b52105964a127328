"""Logs: one line for each record whatever is in it, with a name that stays and the trace it belongs to."""

from __future__ import annotations

import ast
import json
import logging
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import context

from mesh.node import warn_if_apart
from mesh.telemetry.events import EVENTS
from mesh.telemetry.logs import JsonLines, TextLines, set_up
from mesh.telemetry.spans import _remote
from mesh.telemetry.trace_parent import TraceParent
from tests.test_structure import MODULES, ROOT

REJECTED = "call rejected: id=%s cause=%r detail=%r method=%r peer=%s"
LEVELS = frozenset({"debug", "info", "warning", "error", "exception", "critical"})


def record(
    message: str, *args: object, name: str = "mesh", error: BaseException | None = None
) -> logging.LogRecord:
    exc_info = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord(name, logging.WARNING, __file__, 1, message, args, exc_info)


def told(*args: Any, **more: Any) -> dict[str, Any]:
    line = JsonLines().format(record(*args, **more))
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line() -> None:
    """What is named in a message is a field; the event has a name of its own."""
    line = told(REJECTED, "0123456789abcdef", "bad mac", "", "/a.B/C", "orders/00")
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "event": "call.rejected",
        "logger": "mesh",
        "message": REJECTED % ("0123456789abcdef", "bad mac", "", "/a.B/C", "orders/00"),
        "id": "0123456789abcdef",
        "cause": "bad mac",
        "detail": "",
        "method": "/a.B/C",
        "peer": "orders/00",
    }


def test_the_trace() -> None:
    """A line that is logged inside a call says which trace that is."""
    token = context.attach(_remote(TraceParent(5, 6, sampled=False)))
    try:
        line = told("drained")
    finally:
        context.detach(token)
    assert (line["trace_id"], line["span_id"]) == (f"{5:032x}", f"{6:016x}")
    assert "trace_id" not in told("drained")


@given(st.text())
def test_nothing_said_is_a_line_of_its_own(text: str) -> None:
    """Whatever is logged, a record is one line of printable characters, with its own level."""
    line = JsonLines().format(record("%s", text, name="mesh.lua.evil"))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["level"] == "warning"
    assert TextLines().format(record("no socket for %s: %s", text, text)).isprintable()


def test_an_audit_entry() -> None:
    """What auth writes into the audit log is in its own log as it is, and not as a text in a text."""
    assert told("%s", '{"event": "joined"}', name="mesh.auth")["entry"] == {"event": "joined"}


@pytest.mark.parametrize("name", ["py.warnings", "mesh", "mesh.authority", "mesh.luaparser"])
def test_what_libraries_log(name: str) -> None:
    """A library that logs a text alone is no audit entry and no script: a line, and no traceback for it."""
    assert told("%s", "x\nERROR forged", name=name)["event"] == "log"
    forged = told("%s", '{"event": "joined"}', name=name)
    assert "entry" not in forged


@pytest.mark.parametrize("form", [JsonLines, TextLines])
def test_a_message_that_cannot_be_made(form: type[logging.Formatter]) -> None:
    """A record whose message and arguments do not fit is one line too, without the arguments."""
    line = form().format(record("for %d calls", "x\nERROR forged"))
    assert "cannot be made: 'for %d calls'" in line
    assert "\n" not in line


def test_no_field_is_taken_over() -> None:
    """A message cannot give the line another level, nor another event."""
    line = told("level=%s event=%s", "error", "audit.entry")
    assert (line["level"], line["event"]) == ("warning", "log")


@pytest.mark.parametrize("form", [JsonLines, TextLines])
def test_an_exception_without_its_text(form: type[logging.Formatter]) -> None:
    """An exception is told by type and place: its text may be what an application was sent."""
    with pytest.raises(KeyError) as caught:
        os.environ["CARD 4111 1111"]
    line = form().format(record("handler of %s failed", "/a.B/C", error=caught.value))
    assert "4111" not in line
    assert "KeyError" in line
    assert "test_logs.py" in line


@pytest.mark.parametrize(
    ("form", "begins"), [("json", '{"time": "'), ("text", "WARNING mesh drained"), ("", "{")]
)
def test_set_up(form: str, begins: str) -> None:
    """Where standard error is no terminal lines are JSON, unless ``MESH_LOG`` says text."""
    code = (
        "import logging; from mesh.telemetry.logs import set_up; "
        "set_up(); logging.getLogger('mesh').warning('drained')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"MESH_LOG": form},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.startswith(begins)
    assert done.stderr.count("\n") == 1


def test_another_form_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are two forms."""
    monkeypatch.setenv("MESH_LOG", "xml")
    with pytest.raises(ValueError, match="use json or text"):
        set_up()


def logged() -> set[str]:
    found = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LEVELS
            ):
                of = ast.unparse(node.func.value)
                if of == "log" or "getLogger" in of:
                    assert node.args, f"{path}: {ast.unparse(node)}"
                    assert isinstance(node.args[0], ast.Constant), f"{path}: {ast.unparse(node)}"
                    found.add(str(node.args[0].value))
    return found


def test_every_event_has_a_name() -> None:
    """What is logged has a stable name, one of its own, and no name is of what is not logged any more."""
    assert logged() == set(EVENTS)
    assert len(set(EVENTS.values())) == len(EVENTS)


@pytest.mark.parametrize(
    ("machine_ms", "said"),
    [
        (1_000_000, None),
        (1_005_000, None),
        (1_600_000, "600 s ahead of auth's"),
        (400_000, "600 s behind auth's"),
    ],
)
def test_a_clock_that_is_off_is_said(
    caplog: pytest.LogCaptureFixture, machine_ms: int, said: str | None
) -> None:
    """TLS fails where a node's clock is off, and tells only its own half of it: the node says which clock."""
    warn_if_apart(1_000_000, machine_ms)
    assert [EVENTS[str(one.msg)] for one in caplog.records] == ["clock.apart"] * bool(said)
    assert (said or "") in caplog.text
