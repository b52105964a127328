"""The application's own health: whether it answers, and what it says of itself.

It is asked by ``grpc.health.v1``, whatever else it serves: one that does not have that service says so, which
is an answer as good as any, and one that hangs says nothing. What comes of it is for others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

#: Seconds between an answer and the next question, and for an answer.
PERIOD: Final = 0.5
PATIENCE: Final = 1.5
_C = grpc.StatusCode
#: Of other ends it is the application that says so: that it has no such service, or that one may not ask.
_SILENCE: Final = {
    _C.DEADLINE_EXCEEDED: f"no answer in {PATIENCE} s",
    _C.UNAVAILABLE: "the connection failed",
    _C.CANCELLED: "it ended the question",
}
_REQUEST: Final = health_pb2.HealthCheckRequest()
_STATUS: Final = health_pb2.HealthCheckResponse


class AppHealth:
    """Asks one application."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Take the way to it."""
        self._stub = health_pb2_grpc.HealthStub(channel)

    async def ask(self) -> str:
        """Ask once: give nothing if it is well, and else what is amiss."""
        try:
            answer = await self._stub.Check(_REQUEST, timeout=PATIENCE)
        except grpc.aio.AioRpcError as error:
            return _SILENCE.get(error.code(), "")
        if answer is None:
            return ""  # something else than health, from an app that takes whatever it is asked
        status: int = answer.status
        return "" if status == _STATUS.SERVING else f"it says {_STATUS.ServingStatus.Name(status)}"

    async def follow(self, tell: Callable[[str], None]) -> None:
        """Ask for ever, and tell each answer."""
        while True:
            tell(await self.ask())
            await asyncio.sleep(PERIOD)
