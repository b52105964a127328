"""An application for the tests of calls: raw bytes, and a record of all that reached it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

import mesh

SERVICE = "test.v1.Echo"


def path(method: str) -> str:
    """Give a full method."""
    return f"/{SERVICE}/{method}"


class Echo(grpc.GenericRpcHandler):
    """Each method does what its name says."""

    def __init__(self) -> None:
        """Count what was dispatched."""
        self.seen: list[bytes] = []
        self.calls: list[str] = []
        self.metadata: list[tuple[tuple[str, str | bytes], ...]] = []
        self.ends = 0
        self.remaining: float | None = None
        self.waiting = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.go_on = asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Find the handler."""
        name = details.method.removeprefix(f"/{SERVICE}/")
        kinds: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Meta": grpc.unary_unary_rpc_method_handler(self.meta),
            "MetaDown": grpc.unary_stream_rpc_method_handler(self.meta_down),
            "Abort": grpc.unary_unary_rpc_method_handler(self.abort),
            "Raise": grpc.unary_unary_rpc_method_handler(self.throw),
            "SetCode": grpc.unary_unary_rpc_method_handler(self.set_code),
            "Wait": grpc.unary_unary_rpc_method_handler(self.wait),
            "Peer": grpc.unary_unary_rpc_method_handler(self.peer),
            "Down": grpc.unary_stream_rpc_method_handler(self.down),
            "DownWrite": grpc.unary_stream_rpc_method_handler(self.down_write),
            "DownFail": grpc.unary_stream_rpc_method_handler(self.down_fail),
            "Up": grpc.stream_unary_rpc_method_handler(self.up),
            "Stuck": grpc.stream_unary_rpc_method_handler(self.stuck),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
            "Early": grpc.stream_stream_rpc_method_handler(self.early),
            "Hold": grpc.stream_stream_rpc_method_handler(self.hold),
        }
        return kinds.get(name)

    def _began(self, name: str, context: Any) -> None:
        self.calls.append(name)
        self.metadata.append(tuple(context.invocation_metadata()))

    async def unary(self, request: bytes, context: Any) -> bytes:
        """Echo."""
        self._began("Unary", context)
        self.seen.append(request)
        self.remaining = context.time_remaining()
        return request

    async def meta(self, request: bytes, context: Any) -> bytes:
        """Give metadata back in every place."""
        self._began("Meta", context)
        sent = [(k, v) for k, v in context.invocation_metadata() if k.startswith("x-")]
        await context.send_initial_metadata(sent)
        context.set_trailing_metadata([("x-trailing", "t"), *sent])
        return request

    async def meta_down(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        """Give metadata back in every place, and two messages."""
        self._began("MetaDown", context)
        await context.send_initial_metadata([("x-initial", "i")])
        context.set_trailing_metadata([("x-trailing", "t")])
        yield request
        yield request

    async def abort(self, request: bytes, context: Any) -> bytes:
        """End with an error and trailing metadata."""
        self._began("Abort", context)
        await context.abort(
            grpc.StatusCode.FAILED_PRECONDITION, "nö\n%41 ✓", (("x-why", "because"), ("x-bin", b"\0\xff"))
        )
        return request

    async def throw(self, request: bytes, context: Any) -> bytes:
        """Fail."""
        self._began("Raise", context)
        raise KeyError(request)

    async def set_code(self, request: bytes, context: Any) -> bytes:
        """End with an error, and return."""
        self._began("SetCode", context)
        context.set_code(grpc.StatusCode.DATA_LOSS)
        context.set_details("lost")
        return request

    async def wait(self, request: bytes, context: Any) -> bytes:
        """Wait to be cancelled."""
        self._began("Wait", context)
        self.remaining = context.time_remaining()
        self.waiting.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.cancelled.set()
        return request

    async def peer(self, _request: bytes, context: Any) -> bytes:
        """Say who calls."""
        self._began("Peer", context)
        assert ("mesh-peer", "spiffe://test.example/caller") in context.invocation_metadata()
        return mesh.peer(context).service.text.encode()

    async def down(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        """Count down."""
        self._began("Down", context)
        for index in range(int(request)):
            yield b"%d" % index

    async def down_write(self, request: bytes, context: Any) -> None:
        """Count down, by write."""
        self._began("DownWrite", context)
        for index in range(int(request)):
            await context.write(b"%d" % index)

    async def down_fail(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        """Count down, then fail."""
        self._began("DownFail", context)
        for index in range(int(request)):
            yield b"%d" % index
        await context.abort(grpc.StatusCode.ABORTED, "enough")

    async def up(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        """Join."""
        self._began("Up", context)
        joined = []
        async for request in requests:
            self.seen.append(request)
            joined.append(request)
        self.ends += 1
        return b",".join(joined)

    async def stuck(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        """Read one message, and no more of them."""
        self._began("Stuck", context)
        first = await anext(requests)
        self.waiting.set()
        await self.go_on.wait()
        return first

    async def both(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Echo each."""
        self._began("Both", context)
        async for request in requests:
            self.seen.append(request)
            yield request
        self.ends += 1

    async def early(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Answer OK while the caller still streams."""
        self._began("Early", context)
        async for request in requests:
            yield request
            return

    async def hold(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Answer the first message at once and the rest when told to go on."""
        self._began("Hold", context)
        try:
            async for request in requests:
                self.seen.append(request)
                yield request
                self.waiting.set()
                await self.go_on.wait()
            self.ends += 1
        finally:
            self.cancelled.set()
