"""The W3C Trace Context of a call: ``traceparent`` and ``tracestate``, read strictly and written.

``traceparent`` is ``version-traceid-parentid-flags`` in lower-case hex (W3C Trace Context, section 3.2).
One that is malformed, all zeros, or there twice is none: the call begins a trace of its own.
``tracestate`` is carried, within bounds, if it is one (section 3.3.1): the API of OpenTelemetry would write
what is none into the log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mesh.core.metadata import Entries, Value

PARENT: Final = "traceparent"
STATE: Final = "tracestate"
#: Flags of which only the first is defined for version 00: the caller may have recorded the trace.
SAMPLED: Final = 1
#: What the specification has every vendor carry at least (section 3.3.1.5); we carry no more.
MAX_STATE: Final = 512
_PATTERN: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_INVALID: Final = "ff"
_KEY: Final = r"[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}"
_VALUE: Final = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
_MEMBER: Final = re.compile(rf"(?:{_KEY})={_VALUE}", re.ASCII)
_MAX_MEMBERS: Final = 32


@dataclass(frozen=True, slots=True)
class TraceParent:
    """Whose child a call is: a trace, a span in it, and whether that is recorded."""

    trace_id: int
    span_id: int
    sampled: bool
    state: str = ""

    def entries(self) -> Entries:
        """Give it as metadata."""
        parent = (PARENT, f"00-{self.trace_id:032x}-{self.span_id:016x}-{'01' if self.sampled else '00'}")
        return (parent, (STATE, self.state)) if self.state else (parent,)


def read(entries: Iterable[tuple[str, Value]]) -> TraceParent | None:
    """Read the trace context of a call's metadata; ``None`` if there is none that makes sense."""
    found, states = None, []
    for key, value in entries:
        if key == PARENT:
            if found is not None:
                return None
            found = value
        elif key == STATE and isinstance(value, str):
            states.append(value)
    return None if found is None else _parsed(found, ",".join(states))


def written(entries: Entries, parent: TraceParent) -> Entries:
    """Give metadata with this trace context in the place of any other."""
    kept = tuple(entry for entry in entries if entry[0] not in (PARENT, STATE)) if entries else ()
    return (*kept, *parent.entries())


def _parsed(value: Value, state: str) -> TraceParent | None:
    match = _PATTERN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    version, trace, span, flags, rest = match.groups()
    if version == _INVALID or (version == "00" and rest):
        return None
    trace_id, span_id = int(trace, 16), int(span, 16)
    if not trace_id or not span_id:
        return None
    return TraceParent(trace_id, span_id, bool(int(flags, 16) & SAMPLED), _clean(state))


def _clean(text: str) -> str:
    # Without what may stand around members, of which an older API writes into the log as well.
    members = [one for member in text.split(",") if (one := member.strip(" \t"))]
    if len(text) > MAX_STATE or len(members) > _MAX_MEMBERS or not all(map(_MEMBER.fullmatch, members)):
        return ""
    return ",".join(members)
