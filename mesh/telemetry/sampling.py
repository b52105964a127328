"""Whether a call is traced: ``OTEL_TRACES_SAMPLER`` and its argument, decided before any SDK is touched.

The decision by ratio is that of OpenTelemetry's ``TraceIdRatioBased``: the lower 64 bits of the trace id
lie below the ratio's share of 2^64. So nodes with the same ratio decide alike, and whoever follows a
parent needs none.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from mesh.telemetry.trace_parent import TraceParent

SAMPLER: Final = "OTEL_TRACES_SAMPLER"
ARGUMENT: Final = "OTEL_TRACES_SAMPLER_ARG"
_LOW: Final = (1 << 64) - 1
_PREFIX: Final = "parentbased_"
#: What each sampler comes to as a ratio; ``None``: by the argument.
_RATIOS: Final[dict[str, float | None]] = {"always_on": 1.0, "always_off": 0.0, "traceidratio": None}


@dataclass(frozen=True, slots=True)
class Sampling:
    """The share of traces to record, and whether a caller's decision goes before it."""

    ratio: float = 1.0
    follows: bool = True

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Sampling:
        """Read the standard variables; raise ``ValueError`` for what is not one of the built-in samplers."""
        name = environ.get(SAMPLER) or "parentbased_always_on"
        kind = name.removeprefix(_PREFIX)
        if kind not in _RATIOS:
            known = ", ".join((*_RATIOS, *(f"{_PREFIX}{one}" for one in _RATIOS)))
            msg = f"no sampler {name!r:.60} ({SAMPLER}): use one of {known}"
            raise ValueError(msg)
        ratio = _RATIOS[kind]
        return cls(_ratio(environ.get(ARGUMENT)) if ratio is None else ratio, name.startswith(_PREFIX))

    def decide(self, parent: TraceParent | None) -> TraceParent:
        """Give the context to trace a call under, whose flag says whether it is recorded.

        Without a parent it is a fresh trace, and its span id is nobody's.
        """
        if parent is None:
            # Not secrets: they only have to differ.
            trace_id, span_id = random.getrandbits(128) | 1, random.getrandbits(64) | 1
            return TraceParent(trace_id, span_id, self._takes(trace_id))
        if self.follows:
            return parent
        return TraceParent(parent.trace_id, parent.span_id, self._takes(parent.trace_id), parent.state)

    def _takes(self, trace_id: int) -> bool:
        return (trace_id & _LOW) < round(self.ratio * (_LOW + 1))


def _ratio(text: str | None) -> float:
    try:
        ratio = float(text or 1.0)
    except ValueError:
        ratio = -1.0
    if not 0.0 <= ratio <= 1.0:
        msg = f"{ARGUMENT} is {text!r:.60}: give a share between 0 and 1, such as 0.01"
        raise ValueError(msg)
    return ratio
