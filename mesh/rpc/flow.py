"""One node's calls to one service: who has the next one, who is left out, and how many there may be.

It does what the policy says of the service at the moment (``follow``), by the engines of ``mesh.core``, and
tells of what it does. All of a node's channels to the service share one, whatever their limits are.
"""

from __future__ import annotations

import logging
import random
import secrets
from collections.abc import Callable, Collection, Sequence
from typing import Final

from mesh.core.balance import Balancer, C, LeastLoaded, balancer
from mesh.core.ejection import Ejected, Ejection
from mesh.core.errors import Reason
from mesh.core.names import InstanceId, ServiceName
from mesh.core.traffic import NONE, Traffic
from mesh.rpc.gate import Gate
from mesh.rpc.membership import Membership
from mesh.rpc.seldom import Seldom
from mesh.rpc.status import Outcome, mesh_outcome

log = logging.getLogger("mesh")

Known = Callable[[], Collection[InstanceId]]

_LEAST_LOADED: Final = LeastLoaded(random.sample)


class Flow:
    """Made for one service; follows what is said of it."""

    def __init__(self, membership: Membership, service: ServiceName) -> None:
        """Start as where a policy says nothing."""
        self.service, self._membership = service, membership
        self.traffic = NONE
        self._ejection: Ejection | None = None
        self._overloads = Seldom(membership.now)
        self.balancer: Balancer = _LEAST_LOADED
        self.gate = Gate()

    @property
    def ejects(self) -> bool:
        """Whether it wants to know how calls end."""
        return self._ejection is not None

    def follow(self, traffic: Traffic) -> None:
        """Do from now on as the policy says. What it says as before goes on as it was."""
        before, self.traffic = self.traffic, traffic
        if traffic.balance != before.balance:
            self.balancer = balancer(traffic.balance, secrets.token_bytes(16), random.sample)
        if traffic.eject != before.eject:
            self._ejection = Ejection(traffic.eject) if traffic.eject else None
        if traffic.breaker != before.breaker:
            self.gate.limit(traffic.breaker)

    def among(self, candidates: Sequence[C]) -> Sequence[C]:
        """Give those candidates that are not left out for failing."""
        if self._ejection is None:
            return candidates
        return self._ejection.among(candidates, self._membership.now())

    def chosen(self, instance: InstanceId) -> None:
        """Take note of who has a call."""
        if self._ejection is not None:
            self._ejection.chosen(instance, self._membership.now())

    def passed_over(self) -> None:
        """Take note of an instance that a call did not go to because it could not be reached."""
        self._membership.observer.passed_over(1)

    def ended(self, instance: InstanceId, answer: bool | None, known: Known) -> None:
        """Take note of how a call ended (``mesh.core.ejection.answered``); ``known``: all who are listed."""
        if self._ejection is None:
            return
        listed = known() if answer is False else ()
        told = self._ejection.ended(instance, answer, listed, self._membership.now())
        if isinstance(told, Ejected):
            self._membership.observer.ejected(self.service)
            log.warning(
                "left out: instance %s of %s, for %.0f s: %d calls in a row were not answered",
                instance,
                self.service,
                told.seconds,
                told.failures,
            )
        elif told is not None:
            log.info("not left out any more: instance %s of %s has answered", instance, self.service)

    def overloaded(self) -> Outcome:
        """Tell of a call for which there is no place; give what it ends with."""
        self._membership.observer.overloaded(self.service)
        if count := self._overloads.count():
            log.warning(
                "no place for calls to %s: %d are open and %d wait, so far refused: %d",
                *(self.service, self.gate.open, self.gate.waiting, count),
            )
        return mesh_outcome(Reason.OVERLOADED, f"calls to {self.service}")


class Flows:
    """All flows of a node."""

    def __init__(self, membership: Membership, traffic: Callable[[ServiceName], Traffic]) -> None:
        """Take who calls, and what gives what policy says of calls to a service."""
        self._membership, self._traffic = membership, traffic
        self._held: dict[ServiceName, Flow] = {}

    def of(self, service: ServiceName) -> Flow:
        """Give that of a service."""
        return self._held.get(service) or self._held.setdefault(service, Flow(self._membership, service))

    def follow(self) -> None:
        """Do as policy says now, also where no call comes that would look."""
        for service, flow in self._held.items():
            flow.follow(self._traffic(service))
