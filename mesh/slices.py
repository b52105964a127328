"""A node's slice: the rules about calls to it and the services that it may call, fresh or not in force.

It judges calls and lists endpoints, and is out of force ``max_stale`` after auth last confirmed its policy,
and past the end of the node's certificate. An older version never replaces a newer one. ``standing`` says how
long a permit needs no other look, ``generation`` whether the rules are others than they were.
``mesh.watching`` fills it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, Final

from mesh.audits import Audits
from mesh.core.amend import amended
from mesh.core.decided import recordable
from mesh.core.errors import Denied, Reason
from mesh.core.matcher import Matcher, Permit
from mesh.core.metadata import Entries
from mesh.core.names import InstanceId, ServiceName
from mesh.core.policy import MAX_VERSION, Section
from mesh.core.revoked import MAX_REVOKED, Revoked
from mesh.core.traffic import NONE, Rate, Traffic
from mesh.core.traffic_document import decode
from mesh.rpc.connections import Endpoint
from mesh.rpc.status import CallFailedError, mesh_outcome
from mesh.telemetry.names import DESTINATION
from mesh.v1 import gatekeeper_pb2

#: Seconds between heartbeats, less where a slice goes stale soon; a lease is at least two of them.
HEARTBEAT: Final = 5.0
QUICKEST: Final = 0.2
#: The longest that a slice may hold without gatekeeper, in seconds, whatever gatekeeper says: a day.
MAX_STALE: Final = 86_400.0
#: Seconds for which a verdict about time holds: conditions are judged by milliseconds.
INSTANT: Final = 0.001


def nobody_is_told(_permit: Permit) -> None:
    """Let what audit let pass stand in the node's own log alone."""


class Slice:
    """What the node may know and must enforce. Nothing is permitted before the first, or past its time."""

    def __init__(
        self,
        now: Callable[[], float],
        certified: Callable[[], float] = lambda: math.inf,
        clock_ms: Callable[[], int | None] = lambda: None,
    ) -> None:
        """Start with nothing in force.

        ``now`` gives seconds that never run backwards, ``certified`` how many the node's certificate has
        left: nothing is in force past its end. ``clock_ms`` gives the mesh's own time in Unix milliseconds;
        ``None`` where it is not known: then no condition about time can be judged, which denies, and
        gatekeeper's word is as fresh as when it is heard.
        """
        self._now, self._certified, self._clock_ms = now, certified, clock_ms
        self._audits = Audits(now)
        self.audited: Callable[[Permit], None] = nobody_is_told
        """Told of each call that audit alone let pass (``mesh.reports``)."""
        self._matcher: Matcher | None = None
        self._held = gatekeeper_pb2.Slice()
        self._destinations: dict[ServiceName, list[Endpoint]] = {}
        self._told: dict[ServiceName, tuple[bytes, Traffic]] = {}
        self.rate: Rate | None = None
        """How many calls of one service this node takes."""
        self._good_until = 0.0
        self._max_stale = 0.0
        self.revoked = Revoked()
        """The instances that are dealt with no more."""
        self.withdrawn = False
        """Whether this node itself was revoked: nothing is in force any more, for ever."""
        self._changed = asyncio.Event()
        self.version = self.generation = 0
        self.recordable: tuple[str, ...] = ()
        """The metadata keys that the rules look at and that may be recorded."""

    @property
    def in_force(self) -> bool:
        """Whether there is a slice and it is not stale."""
        return self._matcher is not None and self._now() < self._good_until and self._certified() > 0

    @property
    def age(self) -> float | None:
        """Seconds since the word of auth that keeps the slice in force; ``None`` before the first slice."""
        return self._now() - (self._good_until - self._max_stale) if self._matcher else None

    @property
    def pace(self) -> float:
        """Seconds from heartbeat to heartbeat: the answers to them are the signs of life."""
        return min(HEARTBEAT, max(self._max_stale / 3, QUICKEST)) if self._matcher else HEARTBEAT

    def authorize(self, source: str, method: str, entries: Entries) -> Permit:
        """Judge a call to this node; raise ``Denied``, also for want of a slice in force."""
        if self._matcher is None or not self.in_force:
            raise Denied(source, method, None)
        permit = self._matcher.permit(source, method, entries, self._clock_ms())
        if permit.audited is not None:
            self._audits.note(permit, self.version)
            self.audited(permit)
        return permit

    def standing(self, permit: Permit) -> float:
        """Give until when, by ``now``, a permit that was just given needs no judging again.

        Unless the rules change before: ``generation`` is another one then.
        """
        now = self._now()
        return now + INSTANT if permit.timed else min(self._good_until, now + self._certified())

    def services(self) -> list[ServiceName]:
        """Give the names that this node may call."""
        return list(self._destinations)

    def endpoints(self, service: ServiceName) -> list[Endpoint] | None:
        """Give the instances of a service; ``None`` for a name that is not this node's to know."""
        if not self.in_force:
            raise self._not_in_force()
        return self._destinations.get(service)

    def traffic(self, service: ServiceName) -> Traffic:
        """Give how calls to a service are made."""
        told = self._told.get(service)
        return told[1] if told else NONE

    def sizes(self) -> list[tuple[float, dict[str, str]]]:
        """Give how many instances of each destination there are, as a gauge reads it."""
        return [(len(known), {DESTINATION: name.text}) for name, known in list(self._destinations.items())]

    def changed(self) -> Coroutine[Any, Any, None]:
        """Give what waits until a slice arrives after this call, however late the waiting begins."""
        return _until(self._changed)

    async def ready(self) -> None:
        """Wait until a slice is in force; raise ``CallFailedError`` if this node is revoked meanwhile."""
        while not self.in_force:
            if self.withdrawn:
                raise self._not_in_force()
            await self.changed()

    def withdraw(self) -> None:
        """Have nothing in force any more, for this node was revoked."""
        self.withdrawn, self._matcher, self._destinations = True, None, {}
        self._announce()

    def _not_in_force(self) -> CallFailedError:
        if self.withdrawn:
            return CallFailedError(mesh_outcome(Reason.REVOKED))
        text = "no policy in force here: gatekeeper has not been heard of for too long"
        return CallFailedError(mesh_outcome(Reason.NOT_READY, text))

    def alive(self, confirmed_ms: int = 0) -> None:
        """Take gatekeeper's word that auth confirmed the policy held when its clock said ``confirmed_ms``.

        An older word, or none, takes nothing from what was confirmed before: it was by auth as well.
        """
        stale = not self.in_force
        now_ms = self._clock_ms()
        age = 0.0 if now_ms is None else max(0.0, (now_ms - confirmed_ms) / 1000)
        latest = self._now() + self._max_stale
        self._good_until = min(max(self._good_until, latest - age), latest)
        if stale and self.in_force:
            self._announce()

    def apply(self, received: gatekeeper_pb2.Slice, confirmed_ms: int = 0) -> bool:
        """Put a slice in force; False if it is older than the one held. Raises ``ValueError``."""
        if received.policy_version < self.version:
            return False
        if received.policy_version > MAX_VERSION:
            msg = f"no policy has the version {received.policy_version}"
            raise ValueError(msg)
        matcher, keys = self._matcher, self.recordable
        if matcher is None or received.rules != self._held.rules:
            section = Section.parse(received.rules)
            matcher, keys = Matcher(section), recordable(section)
        destinations = {ServiceName(d.service): _endpoints(d) for d in received.destinations}
        told, rate = self._traffic(received), decode(received.traffic).rate
        if received.settling:
            # Gatekeeper has just started: who is missing may only not have come back to it yet.
            for service, known in destinations.items():
                known.extend(_missing(self._destinations.get(service, []), known))
        revoked = self._revoked(received)
        for service, known in destinations.items():
            destinations[service] = [endpoint for endpoint in known if endpoint.instance not in revoked]
        self.generation += matcher is not self._matcher or bool(revoked.since(self.revoked))
        self.revoked = revoked
        self._matcher, self._destinations, self._held = matcher, destinations, received
        self._told, self.rate = told, rate
        self.version, self.recordable = received.policy_version, keys
        self._max_stale = min(received.max_stale_ms / 1000, MAX_STALE)
        self.alive(confirmed_ms)
        self._announce()
        return True

    def amend(self, change: gatekeeper_pb2.Change, confirmed_ms: int = 0) -> None:
        """Put in force what a change makes of the slice held; raise ``ValueError`` if it does not fit."""
        if self._matcher is None:
            raise ValueError("a change of a slice came before the slice")
        self.apply(amended(self._held, change), confirmed_ms)

    def _revoked(self, received: gatekeeper_pb2.Slice) -> Revoked:
        if len(received.revoked) > MAX_REVOKED:
            msg = f"{len(received.revoked)} revoked instances are more than can be"
            raise ValueError(msg)
        told = {InstanceId(one.instance): one.until_ms for one in received.revoked}
        return self.revoked.joined(told, self._clock_ms() or 0)

    def _traffic(self, received: gatekeeper_pb2.Slice) -> dict[ServiceName, tuple[bytes, Traffic]]:
        # What is said as it was before is the very same object: who keeps something by it need not compare.
        told = {}
        for destination in received.destinations:
            if destination.traffic:
                name, said = ServiceName(destination.service), destination.traffic
                before = self._told.get(name)
                told[name] = before if before and before[0] == said else (said, decode(said))
        return told

    def _announce(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def _until(event: asyncio.Event) -> None:
    await event.wait()


def _endpoints(destination: gatekeeper_pb2.Destination) -> list[Endpoint]:
    return [Endpoint(InstanceId(e.instance), e.address) for e in destination.endpoints]


def _missing(before: list[Endpoint], now: list[Endpoint]) -> list[Endpoint]:
    # An instance at an address that another one has taken is gone for certain.
    taken = {endpoint.address for endpoint in now}
    return [endpoint for endpoint in before if endpoint.address not in taken]
