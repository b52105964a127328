"""Keeps a node registered with gatekeeper and its slice fresh: one stream, opened anew whenever it ends.

The first news of a stream is the whole slice, each later one what changed since. Where those do not fit
together the stream ends, and the next one begins with the whole again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeAlias

import grpc

from mesh.core.errors import Reason
from mesh.pauses import backoff, rejoining
from mesh.rpc.membership import Membership
from mesh.rpc.status import DOMAIN, reason_of
from mesh.rpc.targets import FixedTarget
from mesh.rpc.waiting import within
from mesh.slices import Slice
from mesh.taps import NodeTaps
from mesh.v1 import gatekeeper_pb2, gatekeeper_pb2_grpc

log = logging.getLogger("mesh")

#: Seconds without any answer after which the stream is taken for dead.
SILENCE: Final = 15.0
#: After how many seconds, from and to, a node says that it has a newer policy in force: not while others
#: still wait for theirs, nor all at once.
TELL: Final = (0.5, 2.0)

_REVOKED: Final = f"{DOMAIN}/{Reason.REVOKED}"

_Watch: TypeAlias = grpc.aio.StreamStreamCall[gatekeeper_pb2.WatchRequest, gatekeeper_pb2.WatchResponse]


class Announced:
    """What a node says of itself to every gatekeeper."""

    def __init__(self, held: Slice, membership: Membership) -> None:
        """Take its slice, and who it is. It listens nowhere yet."""
        self._slice, self._port = held, 0
        self._beats: set[asyncio.Event] = set()
        self.taps = NodeTaps(membership, self.tell)
        self.leaving = False

    def announce(self, port: int) -> None:
        """Register as listening on a port; 0 for no longer."""
        self._port = port
        self.tell()

    def leave(self) -> None:
        """End the registration."""
        self.leaving = True
        self.tell()

    def tell(self) -> None:
        """Say it now, on every stream."""
        for beat in self._beats:
            beat.set()

    async def beat(self, call: _Watch, *, registering: bool = False) -> None:
        """Say it on a stream, again and again, until the node leaves or the stream has ended."""
        due = asyncio.Event()
        self._beats.add(due)
        try:
            while not self.leaving:
                due.clear()
                tapped, untold = self.taps.take(call)
                said = gatekeeper_pb2.WatchRequest(
                    port=self._port,
                    policy_version=self._slice.version,
                    registering=registering,
                    tapped=tapped,
                    untold=untold,
                )
                await call.write(said)
                with suppress(TimeoutError):
                    await within(self._slice.pace, due.wait())
            await call.done_writing()
        except asyncio.InvalidStateError:
            return  # the stream has ended, and reading it says why
        finally:
            self._beats.discard(due)
            self.taps.forget(call)

    def heard(self, call: _Watch, response: gatekeeper_pb2.WatchResponse) -> None:
        """Heed what a stream orders to be told of calls."""
        if response.HasField("taps"):
            self.taps.order(call, response.taps)


class SliceKeeper:
    """Keeps a node registered and its slice fresh."""

    def __init__(
        self,
        held: Slice,
        stub: gatekeeper_pb2_grpc.GatekeeperServiceAsyncStub,
        target: FixedTarget,
        on_change: Callable[[], None],
        membership: Membership,
    ) -> None:
        """Take the slice to fill, the way to gatekeeper, whom to tell of each change, and who this is."""
        self._slice, self._stub, self._target, self._on_change = held, stub, target, on_change
        self.announced = Announced(held, membership)
        self._enforcing = self._served = False

    def announce(self, port: int) -> None:
        """Register as listening on a port; 0 for no longer."""
        self.announced.announce(port)

    def leave(self) -> None:
        """End the registration; ``keep`` then returns."""
        self.announced.leave()

    async def keep(self) -> None:
        """Watch, for as long as the node does not leave and is not revoked."""
        delays = backoff()
        told = False
        while not self.announced.leaving:
            before = self._slice.version, self._slice.in_force
            try:
                await self._watch()
            except (grpc.aio.AioRpcError, TimeoutError, ValueError) as error:
                if isinstance(error, grpc.aio.AioRpcError) and reason_of(error) == _REVOKED:
                    self._withdraw()
                    return
                if not told or before != (self._slice.version, self._slice.in_force):
                    detail = error.details() if isinstance(error, grpc.aio.AioRpcError) else str(error)
                    log.warning("waiting for gatekeeper: %s", detail or "it went silent")
                    told = True
            self._target.forget()
            self._end_stale()
            if self._served:
                delays, self._served = rejoining(), False
            if not self.announced.leaving:
                await asyncio.sleep(next(delays))

    def _withdraw(self) -> None:
        # Nothing that this instance holds is of use to it any more, and nothing will be again.
        log.error("this instance was revoked by an operator: stop it, and join with a new token")
        self._slice.withdraw()
        self._enforcing = False
        self._on_change()

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
                beats = tasks.create_task(self.announced.beat(call))
                await self._read(call)
                beats.cancel()
        except* (grpc.aio.AioRpcError, TimeoutError, ValueError) as group:
            raise group.exceptions[0] from None
        finally:
            call.cancel()

    async def _read(self, call: _Watch) -> None:
        # Signs of life keep in force what this gatekeeper has sent, not what another one sent before it.
        current = False
        while True:
            response = await within(SILENCE, call.read())
            if not isinstance(response, gatekeeper_pb2.WatchResponse):
                return
            self.announced.heard(call, response)
            if not response.HasField("news"):
                if current:
                    self._slice.alive(response.confirmed_ms)
                continue
            before = self._slice.version
            current = self._take(response, current=current)
            if current:
                self._enforcing = self._served = True
                self._on_change()
                if before != self._slice.version:
                    self._tell_soon()

    def _take(self, response: gatekeeper_pb2.WatchResponse, *, current: bool) -> bool:
        # Gives whether this stream's slice is the one held now.
        if response.HasField("change"):
            if not current:
                raise ValueError("gatekeeper sent a change to a slice that is not held here")
            self._slice.amend(response.change, response.confirmed_ms)
            return True
        current = self._slice.apply(response.slice, response.confirmed_ms)
        if not current:
            log.error(
                "gatekeeper sends policy %d, older than %d held here: ignored, then denied once stale",
                response.slice.policy_version,
                self._slice.version,
            )
        return current

    def _tell_soon(self) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(random.uniform(*TELL), self.announced.tell)  # noqa: S311  spreads load only
