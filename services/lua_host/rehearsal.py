"""A Lua service without a mesh: real workers in a real jail, and an outside that is made up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import grpc

from mesh.core.metadata import Entries
from mesh.core.names import FullMethod
from services.lua_host.bundle import Bundle
from services.lua_host.outside import Outside, Refused
from services.lua_host.rules import Asked
from services.lua_host.service import LuaService

#: The trust domain of the callers that a rehearsal makes up, and their instance.
DOMAIN: Final = "rehearsal.example"
_INSTANCE: Final = "00" * 16


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call: its messages, its status, and what the script logged meanwhile."""

    messages: list[bytes]
    code: grpc.StatusCode
    details: str
    logs: list[str]


@dataclass(slots=True)
class Stage:
    """A running service, to be called."""

    service: LuaService
    _logs: list[str] = field(default_factory=list)

    async def call(
        self,
        method: FullMethod,
        payload: bytes,
        *,
        caller: str = "tester",
        metadata: Entries = (),
        timeout: float | None = None,  # noqa: ASYNC109  the call's, not this one's
    ) -> Outcome:
        """Call a method; calls go one after the other, or the log lines of several are mixed."""
        self._logs.clear()
        served = self.service.serves(method.text)
        if served is None:
            return Outcome([], grpc.StatusCode.UNIMPLEMENTED, f"{method} is not served here", [])
        now = asyncio.get_running_loop().time()
        deadline = None if timeout is None else now + timeout
        identity = f"spiffe://{DOMAIN}/{caller}"
        now_ms = time.time_ns() // 1_000_000
        asked = Asked(method, payload, identity, caller, _INSTANCE, metadata, deadline, now_ms)
        messages: list[bytes] = []
        try:
            if served.streaming:
                async for message in self.service.stream(asked):
                    messages.append(message)  # noqa: PERF401  those before an error count
            else:
                messages.append(await self.service.unary(asked))
        except Refused as refused:
            return Outcome(messages, refused.code, refused.message, list(self._logs))
        return Outcome(messages, grpc.StatusCode.OK, "", list(self._logs))

    def hear(self, _level: int, text: str) -> None:
        """Take note of a log line."""
        self._logs.append(text)


@asynccontextmanager
async def rehearse(bundle: Bundle, world: Outside, *, jailed: bool = True) -> AsyncIterator[Stage]:
    """Run a service for the length of the block; raise what ``pool.FAILURES`` lists if it cannot serve."""
    heard: list[Stage] = []

    def hear(level: int, text: str) -> None:
        for stage in heard:
            stage.hear(level, text)

    service = LuaService(bundle, world, jailed=jailed, said=hear)
    try:
        await service.start()
        stage = Stage(service)
        heard.append(stage)
        yield stage
    finally:
        await service.close()
