"""Many nodes in one process that only watch: ``python -m bench.watching HOST:PORT`` of auth's join port.

Told ``{"revoked": "hex"}`` it says when each held that instance for revoked.
Told ``{"tokens": [...]}`` it joins with each and says so once all have a slice; told ``{"version": N}`` it
says when each had that version in force, by the machine's monotonic clock, and how many bytes of news they
were sent since it was last asked. Ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, Final

from mesh.core.join import JoinToken
from mesh.core.names import GATEKEEPER
from mesh.enrol import join
from mesh.rpc.channel import MeshChannel
from mesh.rpc.targets import MAX_CONTROL, FixedTarget
from mesh.slices import Slice
from mesh.v1 import gatekeeper_pb2
from mesh.watching import SliceKeeper

AT_ONCE: Final = 8


class Watching:
    """The nodes, and what became of each version."""

    def __init__(self, address: str) -> None:
        """Take auth's join port."""
        self._address = address
        self._moments: dict[int | str, list[float]] = {}
        self._changed = asyncio.Event()
        self._bytes = self._nodes = 0
        self._kept: list[asyncio.Task[None]] = []

    async def enter(self, tokens: list[str]) -> None:
        """Join with each, and wait until all have a slice."""
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(token: str) -> None:
            async with turns:
                await self._enter(token)

        self._nodes += len(tokens)
        await asyncio.gather(*(one(token) for token in tokens))

    async def at(self, version: int | str) -> dict[str, Any]:
        """Wait until a version or a revocation is in force at all; say when, and what was sent."""
        while len(self._moments.get(version, ())) < self._nodes:
            self._changed.clear()
            await self._changed.wait()
        sent, self._bytes = self._bytes, 0
        return {"moments": self._moments.pop(version), "bytes": sent}

    async def _enter(self, token: str) -> None:
        enrolment = await join(JoinToken.parse(token), self._address)
        membership = enrolment.membership
        target = FixedTarget(GATEKEEPER, enrolment.gatekeeper_address, membership)
        held = Slice(membership.now, clock_ms=membership.clock.now_ms)
        method = MeshChannel(membership, target, MAX_CONTROL).stream_stream(
            "/mesh.v1.GatekeeperService/Watch",
            gatekeeper_pb2.WatchRequest.SerializeToString,
            self._read,
        )
        stub: Any = type("Stub", (), {"Watch": lambda _: method()})()
        noted = set[int | str]()
        keeper = SliceKeeper(held, stub, target, lambda: self._note(held, noted), membership)
        self._kept.append(asyncio.create_task(keeper.keep()))
        await held.ready()

    def _note(self, held: Slice, noted: set[int | str]) -> None:
        if held.withdrawn:
            self._nodes -= 1
        now: list[int | str] = [held.version, *map(str, held.revoked)] if held.in_force else []
        for one in [one for one in now if one not in noted]:
            noted.add(one)
            self._moments.setdefault(one, []).append(time.monotonic())
        self._changed.set()

    def _read(self, data: bytes) -> gatekeeper_pb2.WatchResponse:
        response = gatekeeper_pb2.WatchResponse.FromString(data)
        if response.HasField("news"):
            self._bytes += len(data)
        return response


async def main(address: str) -> None:
    """Do as told until the end of standard input."""
    watching = Watching(address)
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        answer: dict[str, Any] = {"nodes": len(asked.get("tokens", ()))}
        if "tokens" in asked:
            await watching.enter(asked["tokens"])
        else:
            answer = await watching.at(asked.get("version") or asked["revoked"])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
