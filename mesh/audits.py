"""What ``mode: audit`` let pass: told in the log, once for each caller, method and rule in a while.

A policy on trial may concern every call of a busy service, and a log that repeats itself is not read.
It is for reading: counts that add up are in the audit log (``reports``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from mesh.core.matcher import Permit

log = logging.getLogger("mesh")

#: Seconds for which the same is not told again.
QUIET: Final = 60.0
#: How many different ones are remembered before that starts afresh.
REMEMBERED: Final = 1024


class Audits:
    """Tells of calls that are permitted only because something is in audit."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Take a clock: seconds that never run backwards."""
        self._now = now
        self._told: dict[tuple[str, str, str | None], tuple[float, int]] = {}

    def note(self, permit: Permit, version: int, destination: str = "") -> None:
        """Take note of a permit in audit under a version of the policy, for a service if not one's own."""
        if permit.audited is None:
            return
        key = (f"{permit.source} {destination}", permit.method, permit.audited.rule)
        now = self._now()
        told, untold = self._told.get(key, (-QUIET, 0))
        if now - told < QUIET:
            self._told[key] = (told, untold + 1)
            return
        if len(self._told) >= REMEMBERED:
            self._told.clear()
        self._told[key] = (now, 0)
        log.warning(
            "audit: would be denied: source=%r method=%r destination=%s rule=%r by=%r policy=%d untold=%d",
            permit.source[:200],
            permit.method[:200],
            destination or "here",
            permit.rule or None,
            permit.audited.rule,
            version,
            untold,
        )
