"""Keeps a node registered with the gatekeepers that it does not get its slice from, so that all know of it.

Each of several gatekeepers knows the nodes that are registered with it, and no others: a node is registered
with every one. One of them, the one that ``watching`` follows, sends it its slice; the streams to the others
bear heartbeats and signs of life alone. If the one is lost another takes its place, and knows everybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import grpc

from mesh.core.names import GATEKEEPER
from mesh.pauses import backoff, rejoining
from mesh.rpc.channel import MeshChannel
from mesh.rpc.membership import Membership
from mesh.rpc.targets import FixedTarget
from mesh.rpc.waiting import within
from mesh.v1 import gatekeeper_pb2, gatekeeper_pb2_grpc
from mesh.watching import SILENCE, Announced

#: Seconds between looks at whether the slice still comes from here, where it does.
LOOK: Final = 0.2


class Registrar:
    """Keeps a node registered with the gatekeeper at one address, while its slice comes from another."""

    def __init__(
        self, membership: Membership, address: str, announced: Announced, in_use: Callable[[], str]
    ) -> None:
        """Take who registers, where, what it says, and what gives where its slice comes from."""
        self._target = FixedTarget(GATEKEEPER, address, membership)
        self._stub = gatekeeper_pb2_grpc.GatekeeperServiceStub(MeshChannel(membership, self._target))
        self._address, self._announced, self._in_use = address, announced, in_use
        self._served = False

    async def keep(self) -> None:
        """Stay registered, for as long as the node does not leave."""
        delays = backoff()
        while not self._announced.leaving:
            if self._in_use() == self._address:
                await asyncio.sleep(LOOK)
                continue
            try:
                await self._register()
            except (grpc.aio.AioRpcError, TimeoutError):
                self._target.forget()
            if self._served:
                delays, self._served = rejoining(), False
            if not self._announced.leaving:
                await asyncio.sleep(next(delays))

    async def close(self) -> None:
        """Close its connection."""
        await self._target.close()

    async def _register(self) -> None:
        call = self._stub.Watch()
        beats = asyncio.create_task(self._announced.beat(call, registering=True))
        try:
            # Gatekeeper ends it if the slice is asked for there: its newest stream is the one that counts.
            while isinstance(said := await within(SILENCE, call.read()), gatekeeper_pb2.WatchResponse):
                self._served = True
                self._announced.heard(call, said)
        finally:
            beats.cancel()
            await asyncio.gather(beats, return_exceptions=True)
            call.cancel()
