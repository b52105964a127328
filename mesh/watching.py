"""Keeps a node registered with gatekeeper and its slice fresh: one stream, opened anew whenever it ends.

The first news of a stream is the whole slice, each later one what changed since. Where those do not fit
together the stream ends, and the next one begins with the whole again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final, TypeAlias

import grpc

from mesh.core.errors import Reason
from mesh.enrol import backoff
from mesh.rpc.status import DOMAIN, reason_of
from mesh.rpc.targets import FixedTarget
from mesh.slices import Slice
from mesh.v1 import gatekeeper_pb2, gatekeeper_pb2_grpc

log = logging.getLogger("mesh")

#: Seconds without any answer after which the stream is taken for dead.
SILENCE: Final = 15.0
#: After how many seconds, from and to, a node says that it has a newer policy in force: not while others
#: still wait for theirs, nor all at once.
TELL: Final = (0.5, 2.0)

_REVOKED: Final = f"{DOMAIN}/{Reason.REVOKED}"

_Watch: TypeAlias = grpc.aio.StreamStreamCall[gatekeeper_pb2.WatchRequest, gatekeeper_pb2.WatchResponse]


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
        """Watch, for as long as the node does not leave and is not revoked."""
        delays = backoff()
        told = False
        while not self._leaving:
            before = self._slice.version, self._slice.in_force
            try:
                await self._watch()
                delays = backoff()
            except (grpc.aio.AioRpcError, TimeoutError, ValueError) as error:
                if isinstance(error, grpc.aio.AioRpcError) and reason_of(error) == _REVOKED:
                    self._withdraw()
                    return
                if not told or before != (self._slice.version, self._slice.in_force):
                    detail = error.details() if isinstance(error, grpc.aio.AioRpcError) else error
                    log.warning("waiting for gatekeeper: %s", detail or "it went silent")
                    told = True
            self._target.forget()
            self._end_stale()
            if not self._leaving:
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
                beats = tasks.create_task(self._heartbeats(call))
                await self._read(call)
                beats.cancel()
        except* (grpc.aio.AioRpcError, TimeoutError, ValueError) as group:
            raise group.exceptions[0] from None
        finally:
            call.cancel()

    async def _heartbeats(self, call: _Watch) -> None:
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

    async def _read(self, call: _Watch) -> None:
        # Signs of life keep in force what this gatekeeper has sent, not what another one sent before it.
        current = False
        while True:
            response = await asyncio.wait_for(call.read(), SILENCE)
            if not isinstance(response, gatekeeper_pb2.WatchResponse):
                return
            if not response.HasField("news"):
                if current:
                    self._slice.alive(response.confirmed_ms)
                continue
            before = self._slice.version
            current = self._take(response, current=current)
            if current:
                self._enforcing = True
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
        loop.call_later(random.uniform(*TELL), self._beat.set)  # noqa: S311  spreads load only
