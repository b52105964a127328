"""An application that fails as it is told, for the tests of calls that are made again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

C = grpc.StatusCode
PATH = "/test.v1.Flaky/"


class Flaky(grpc.GenericRpcHandler):
    """Does with each call, one after the other, what a script says; then it echoes."""

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.calls: list[tuple[bytes, ...]] = []
        self.cancelled = 0
        self.remaining: list[float] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Find the handler."""
        kinds: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Down": grpc.unary_stream_rpc_method_handler(self.down),
            "Up": grpc.stream_unary_rpc_method_handler(self.up),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
        }
        return kinds.get(details.method.removeprefix(PATH))

    async def _next(self, context: Any, *requests: bytes) -> None:
        self.calls.append(requests)
        self.remaining.append(context.time_remaining())
        step = self.script.pop(0) if self.script else None
        if step == "wait":
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                self.cancelled += 1
        elif isinstance(step, tuple):
            code, pushback = step
            await context.abort(code, "scripted", (("grpc-retry-pushback-ms", pushback), ("x-t", "t")))
        elif step is not None:
            await context.abort(step, "scripted")

    async def unary(self, request: bytes, context: Any) -> bytes:
        """Take the next step, then echo."""
        await self._next(context, request)
        return request

    async def down(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        """Take the next step, then echo."""
        late = bool(self.script) and self.script[0] == "late"
        if late:
            self.script.pop(0)
            self.calls.append((request,))
        else:
            await self._next(context, request)
        yield request
        if late:
            await context.abort(C.UNAVAILABLE, "after a message")
        yield request

    async def up(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        """Take the next step, then echo."""
        got = [request async for request in requests]
        await self._next(context, *got)
        return b",".join(got)

    async def both(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Take the next step, then echo."""
        first = await anext(requests)
        await self._next(context, first)
        yield first
        async for request in requests:
            yield request
