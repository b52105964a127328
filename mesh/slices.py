"""A node's slice: the rules about calls to it and the services that it may call, fresh or not in force.

``Slice`` is the state: it judges calls, lists endpoints, and goes out of force ``max_stale`` after the last
sign of life from gatekeeper. ``SliceKeeper`` keeps the stream to gatekeeper that fills it and that keeps this
node's own lease. An older version never replaces a newer one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

import grpc

from mesh.audits import Audits
from mesh.core.decided import recordable
from mesh.core.errors import Denied, Reason
from mesh.core.matcher import Matcher, Permit
from mesh.core.metadata import Entries
from mesh.core.names import InstanceId, ServiceName
from mesh.core.policy import MAX_VERSION, Section
from mesh.enrol import backoff
from mesh.rpc.caller import CallFailedError
from mesh.rpc.connections import Endpoint
from mesh.rpc.status import mesh_outcome
from mesh.rpc.targets import FixedTarget
from mesh.telemetry.names import DESTINATION
from mesh.v1 import gatekeeper_pb2, gatekeeper_pb2_grpc

log = logging.getLogger("mesh")

#: Seconds between heartbeats, less where a slice goes stale soon; a lease is at least two of them.
HEARTBEAT: Final = 5.0
QUICKEST: Final = 0.2
#: The longest that a slice may hold without gatekeeper, in seconds, whatever gatekeeper says: a day.
MAX_STALE: Final = 86_400.0
#: Seconds without any answer after which the stream is taken for dead.
SILENCE: Final = 15.0


class Slice:
    """What the node may know and must enforce. Nothing is permitted before the first, or past its time."""

    def __init__(
        self,
        now: Callable[[], float],
        certified: Callable[[], bool] = lambda: True,
        clock_ms: Callable[[], int | None] = lambda: None,
    ) -> None:
        """Start with nothing in force.

        ``now`` gives seconds that never run backwards, ``certified`` whether the node's certificate is in
        time: nothing is in force past its end. ``clock_ms`` gives the mesh's own time in Unix milliseconds;
        ``None`` where it is not known: then no condition about time can be judged, which denies.
        """
        self._now, self._certified, self._clock_ms = now, certified, clock_ms
        self._audits = Audits(now)
        self._matcher: Matcher | None = None
        self._destinations: dict[ServiceName, list[Endpoint]] = {}
        self._good_until = 0.0
        self._max_stale = 0.0
        self._changed = asyncio.Event()
        self.version = 0
        self.recordable: tuple[str, ...] = ()
        """The metadata keys that the rules look at and that may be recorded."""

    @property
    def in_force(self) -> bool:
        """Whether there is a slice and it is not stale."""
        return self._matcher is not None and self._now() < self._good_until and self._certified()

    @property
    def age(self) -> float | None:
        """Seconds since the last sign of life from gatekeeper; ``None`` before the first slice."""
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
        return permit

    def services(self) -> list[ServiceName]:
        """Give the names that this node may call."""
        return list(self._destinations)

    def endpoints(self, service: ServiceName) -> list[Endpoint] | None:
        """Give the instances of a service; ``None`` for a name that is not this node's to know."""
        if not self.in_force:
            text = "no policy in force here: gatekeeper has not been heard of for too long"
            raise CallFailedError(mesh_outcome(Reason.NOT_READY, text))
        return self._destinations.get(service)

    def sizes(self) -> list[tuple[float, dict[str, str]]]:
        """Give how many instances of each destination there are, as a gauge reads it."""
        return [(len(known), {DESTINATION: name.text}) for name, known in list(self._destinations.items())]

    def changed(self) -> Coroutine[Any, Any, None]:
        """Give what waits until a slice arrives after this call, however late the waiting begins."""
        return _until(self._changed)

    async def ready(self) -> None:
        """Wait until a slice is in force."""
        while not self.in_force:
            await self.changed()

    def alive(self) -> None:
        """Take note of a sign of life from gatekeeper."""
        stale = not self.in_force
        self._good_until = self._now() + self._max_stale
        if stale and self.in_force:
            self._announce()

    def apply(self, received: gatekeeper_pb2.Slice) -> bool:
        """Put a slice in force; False if it is older than the one held. Raises ``ValueError``."""
        if received.policy_version < self.version:
            return False
        if received.policy_version > MAX_VERSION:
            msg = f"no policy has the version {received.policy_version}"
            raise ValueError(msg)
        section = Section.parse(received.rules)
        matcher = Matcher(section)
        destinations = {ServiceName(d.service): _endpoints(d) for d in received.destinations}
        if received.settling:
            # Gatekeeper has just started: who is missing may only not have come back to it yet.
            for service, known in destinations.items():
                known.extend(_missing(self._destinations.get(service, []), known))
        self._matcher, self._destinations = matcher, destinations
        self.version, self.recordable = received.policy_version, recordable(section)
        self._max_stale = min(received.max_stale_ms / 1000, MAX_STALE)
        self.alive()
        self._announce()
        return True

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


class SliceKeeper:
    """Keeps a node registered and its slice fresh."""

    def __init__(
        self,
        held: Slice,
        stub: gatekeeper_pb2_grpc.GatekeeperServiceAsyncStub,
        target: FixedTarget,
        on_change: Callable[[], None],
    ) -> None:
        """Take the slice to fill, the way to gatekeeper, and whom to tell of each change."""
        self._slice, self._stub, self._target, self._on_change = held, stub, target, on_change
        self._port = 0
        self._beat = asyncio.Event()
        self._leaving = self._enforcing = False

    def announce(self, port: int) -> None:
        """Register as listening on a port; 0 for no longer."""
        self._port = port
        self._beat.set()

    def leave(self) -> None:
        """End the registration; ``keep`` then returns."""
        self._leaving = True
        self._beat.set()

    async def keep(self) -> None:
        """Watch, for as long as the node does not leave."""
        delays = backoff()
        told = False
        while not self._leaving:
            before = self._slice.version, self._slice.in_force
            try:
                await self._watch()
                delays = backoff()
            except (grpc.aio.AioRpcError, TimeoutError, ValueError) as error:
                if not told or before != (self._slice.version, self._slice.in_force):
                    detail = error.details() if isinstance(error, grpc.aio.AioRpcError) else error
                    log.warning("waiting for gatekeeper: %s", detail or "it went silent")
                    told = True
            self._target.forget()
            self._end_stale()
            if not self._leaving:
                await asyncio.sleep(next(delays))

    def _end_stale(self) -> None:
        # Calls in progress were permitted by a slice that holds no more.
        if self._enforcing and not self._slice.in_force:
            log.error("no policy in force any more: refusing calls until gatekeeper is back")
            self._enforcing = False
            self._on_change()

    async def _watch(self) -> None:
        call = self._stub.Watch()
        try:
            async with asyncio.TaskGroup() as tasks:
                beats = tasks.create_task(self._heartbeats(call))
                await self._read(call)
                beats.cancel()
        except* (grpc.aio.AioRpcError, TimeoutError, ValueError) as group:
            raise group.exceptions[0] from None
        finally:
            call.cancel()

    async def _heartbeats(
        self, call: grpc.aio.StreamStreamCall[gatekeeper_pb2.WatchRequest, gatekeeper_pb2.WatchResponse]
    ) -> None:
        while not self._leaving:
            self._beat.clear()
            beat = gatekeeper_pb2.WatchRequest(port=self._port, policy_version=self._slice.version)
            try:
                await call.write(beat)
            except asyncio.InvalidStateError:
                return  # the stream has ended, and reading it says why
            try:
                await asyncio.wait_for(self._beat.wait(), self._slice.pace)
            except TimeoutError:
                continue
        await call.done_writing()

    async def _read(
        self, call: grpc.aio.StreamStreamCall[gatekeeper_pb2.WatchRequest, gatekeeper_pb2.WatchResponse]
    ) -> None:
        # Signs of life keep in force what this gatekeeper has sent, not what another one sent before it.
        current = False
        while True:
            response = await asyncio.wait_for(call.read(), SILENCE)
            if not isinstance(response, gatekeeper_pb2.WatchResponse):
                return
            if not response.HasField("slice"):
                if current:
                    self._slice.alive()
                continue
            current = self._slice.apply(response.slice)
            if not current:
                log.error(
                    "gatekeeper sends policy %d, older than %d held here: ignored, then denied once stale",
                    response.slice.policy_version,
                    self._slice.version,
                )
                continue
            self._enforcing = True
            self._on_change()
            self._beat.set()
