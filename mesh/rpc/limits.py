"""How many calls of each calling service a node takes: ``mesh.core.buckets``, at the rate in force."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mesh.core.buckets import Buckets
from mesh.core.errors import Reason
from mesh.core.traffic import Rate
from mesh.rpc.membership import Membership
from mesh.rpc.seldom import Seldom
from mesh.rpc.status import Outcome, mesh_outcome

log = logging.getLogger("mesh")


class Limits:
    """Of one node; asked once for each call that has a permit."""

    def __init__(self, membership: Membership, rate: Callable[[], Rate | None]) -> None:
        """Take the node, and what gives the rate in force, or ``None``."""
        self._membership, self._rate = membership, rate
        self._buckets: Buckets | None = None
        self._seldom = Seldom(membership.now)

    def __call__(self, source: str, method: str) -> Outcome | None:
        """Count a call; give what it ends with if it is one too many."""
        rate = self._rate()
        if rate is None:
            self._buckets = None
            return None
        if self._buckets is None or self._buckets.rate != rate:
            self._buckets = Buckets(rate)
        wait = self._buckets.take(source, self._membership.now())
        return self._refused(source, method, wait) if wait else None

    def _refused(self, source: str, method: str, wait: float) -> Outcome:
        self._membership.observer.limited(source)
        if count := self._seldom.count():
            log.warning(
                "calls beyond the rate of a caller, refused so far: %d, the last: source=%r method=%r",
                *(count, source, method),
            )
        return mesh_outcome(Reason.RATE_LIMITED, retry_after=wait)
