"""Log records as lines of JSON on standard error, with the event's name and the trace that it belongs to.

One record is one line, whatever is in it: nothing that a peer or a script says can pass for a line of its
own. An exception is its type and where it came from; its text may hold what an application was sent, and
is left out.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from opentelemetry import trace

from mesh.telemetry.events import AUDITED, event_of

VARIABLE: Final = "MESH_LOG"
#: Characters of a message that are kept.
MAX_MESSAGE: Final = 4096
#: Frames of an exception that are told, from where it was raised.
MAX_FRAMES: Final = 12
#: A placeholder with a name before it, and without.
_PLACES: Final = re.compile(r"(?:\b(\w+)=)?%(?:\.\d+)?[rsdf]")


def set_up() -> None:
    """Have a daemon log on standard error: as JSON, unless that is a terminal or ``MESH_LOG`` says so.

    Raises ``ValueError`` if it is neither ``json`` nor ``text``.
    """
    form = os.environ.get(VARIABLE) or ("text" if sys.stderr.isatty() else "json")
    formatter = {"json": JsonLines, "text": TextLines}.get(form)
    if formatter is None:
        msg = f"{VARIABLE} is {form!r:.40}: use json or text"
        raise ValueError(msg)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class JsonLines(logging.Formatter):
    """A record as an object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line."""
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": event_of(record.name, str(record.msg)),
            "logger": record.name,
            "message": _message(record)[:MAX_MESSAGE],
            **_fields(record),
            **_trace(),
        }
        if told["event"] == AUDITED:
            # The entry itself, and not a text that holds it.
            told |= {"message": AUDITED, "entry": json.loads(record.getMessage())}
        if record.exc_info and record.exc_info[1] is not None:
            told["exception"] = exception(record.exc_info[1])
        return json.dumps(told)


class TextLines(logging.Formatter):
    """A record as a line for a person."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line."""
        text = f"{record.levelname} {record.name} {_message(record)[:MAX_MESSAGE]}"
        if record.exc_info and record.exc_info[1] is not None:
            found = exception(record.exc_info[1])
            text += f" [{found['type']} at {' < '.join(found['at'][::-1])}]"
        return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001  logging would print it in many lines, with whatever was to be in it
        return f"a message that cannot be made: {record.msg!r}"


def exception(error: BaseException) -> dict[str, Any]:
    """Say what an exception is and where it was raised, outermost first."""
    frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
    at = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return {"type": type(error).__name__, "at": at}


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    # What a message calls "method=%r" is a field, too. Names of the line itself are not to be had.
    args = record.args if isinstance(record.args, tuple) else ()
    named = zip(_PLACES.findall(str(record.msg)), args, strict=False)
    return {
        name: value if isinstance(value, (int, float)) else str(value)[:MAX_MESSAGE]
        for name, value in named
        if name and name not in ("time", "level", "event", "logger", "message")
    }


def _trace() -> Mapping[str, str]:
    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        return {}
    return {"trace_id": f"{found.trace_id:032x}", "span_id": f"{found.span_id:016x}"}
