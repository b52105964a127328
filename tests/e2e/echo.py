"""An application of raw bytes, the same for an embedded node and behind a sidecar, and calls to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, Final, Self, TypeVar

import grpc

from mesh.core.metadata import PEER
from mesh.rpc.status import DETAILS
from tests.e2e.world import TIMEOUT

_T = TypeVar("_T")

SERVICE: Final = "test.v1.Echo"
#: Seconds between two calls of one stream of traffic: load, without starving what is loaded.
PACE: Final = 0.01
#: Seconds within which a handler learns that its call was cancelled and not ended.
GRACE: Final = 0.05


class Echo(grpc.GenericRpcHandler):
    """Gives back what it gets, in each of the four kinds."""

    def __init__(self, name: str = "") -> None:
        """Take what ``Name`` answers."""
        self._name = name
        self.ended: asyncio.Queue[str] = asyncio.Queue()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Find the handler."""
        kinds: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Name": grpc.unary_unary_rpc_method_handler(self.name),
            "Peer": grpc.unary_unary_rpc_method_handler(self.peer),
            "Line": grpc.unary_unary_rpc_method_handler(self.line),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
        }
        return kinds.get(details.method.removeprefix(f"/{SERVICE}/"))

    async def unary(self, request: bytes, _context: Any) -> bytes:
        """Give it back."""
        return request

    async def name(self, _request: bytes, _context: Any) -> bytes:
        """Say which of several this is."""
        return self._name.encode()

    async def peer(self, _request: bytes, context: Any) -> bytes:
        """Say who calls, as the mesh tells it."""
        return "".join(value for key, value in context.invocation_metadata() if key == PEER).encode()

    async def line(self, _request: bytes, context: Any) -> bytes:
        """Say by which connection the call came here."""
        return str(context.peer()).encode()

    async def both(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        """Answer each message as it comes, and note how it ended."""
        try:
            async for request in requests:
                yield request
            # gRPC's own server ends the requests of a cancelled call, and cancels its handler a moment later.
            await asyncio.sleep(GRACE)
        except asyncio.CancelledError:
            self.ended.put_nowait("cancelled")
            raise
        self.ended.put_nowait("whole")


@asynccontextmanager
async def served(echo: Echo) -> AsyncIterator[int]:
    """Serve it in plaintext on a loopback port, as an application behind a sidecar does; give the port."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((echo,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(0)


def ask(channel: grpc.aio.Channel, method: str = "Unary", to: str = "") -> Callable[[], Awaitable[bytes]]:
    """Give what makes a unary call; ``to`` is for a sidecar's loopback port."""
    call: Any = channel.unary_unary(f"/{SERVICE}/{method}")
    metadata = (("mesh-to", to),) if to else ()

    async def once() -> bytes:
        reply: bytes = await call(b"hello", metadata=metadata, timeout=TIMEOUT)
        return reply

    return once


class Dialogue:
    """A long-lived stream in both directions."""

    def __init__(self, channel: grpc.aio.Channel, to: str = "") -> None:
        """Open it."""
        metadata = (("mesh-to", to),) if to else ()
        self.call: Any = channel.stream_stream(f"/{SERVICE}/Both")(metadata=metadata)
        self.count = 0

    async def turn(self) -> bytes:
        """Send a message and get it back; raise how the stream ended if it did."""
        self.count += 1
        said = str(self.count).encode()
        with suppress(asyncio.InvalidStateError):  # it has ended, and reading says how
            await self.call.write(said)
        heard = await self.call.read()
        assert heard == said, f"{heard!r} instead of {said!r}"
        return said

    async def end(self) -> None:
        """End it, whole."""
        await self.call.done_writing()
        assert await self.call.read() is grpc.aio.EOF
        assert await self.call.code() is grpc.StatusCode.OK


class Traffic:
    """Calls one after the other on several tasks, for the length of a block. Keeps what failed."""

    def __init__(self, calls: Sequence[Callable[[], Awaitable[bytes]]]) -> None:
        """Take what each task does again and again."""
        self._calls = calls
        self.counts = [0] * len(calls)
        self.failures: list[grpc.aio.AioRpcError] = []
        self._stack = AsyncExitStack()
        self._stopped = False

    @property
    def count(self) -> int:
        """How many calls there were that went well."""
        return sum(self.counts)

    def slowest(self) -> int:
        """How many the task made that made the fewest."""
        return min(self.counts)

    async def __aenter__(self) -> Self:
        """Begin."""
        tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        for number, call in enumerate(self._calls):
            tasks.create_task(self._run(number, call))
        return self

    async def __aexit__(self, *error: object) -> None:
        """Let the calls in progress come to their ends; raise what was no gRPC error."""
        self._stopped = True
        leave: Any = self._stack.__aexit__
        await leave(*error)

    async def _run(self, number: int, call: Callable[[], Awaitable[bytes]]) -> None:
        while not self._stopped:
            try:
                await call()
                self.counts[number] += 1
            except grpc.aio.AioRpcError as error:
                self.failures.append(error)
            await asyncio.sleep(PACE)


async def works(call: Callable[[], Awaitable[_T]], seconds: float = TIMEOUT) -> _T:
    """Call until a call goes well, and give its reply; raise the last failure after ``seconds``."""
    end = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError:
            if asyncio.get_running_loop().time() >= end:
                raise
        await asyncio.sleep(PACE)


async def fails(
    call: Callable[[], Awaitable[object]], seconds: float = TIMEOUT, why: str = ""
) -> grpc.aio.AioRpcError:
    """Call until a call fails, if need be for the mesh's reason ``why``, and give how."""
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        try:
            await call()
        except grpc.aio.AioRpcError as error:
            if reason(error) == why or not why:
                return error
        await asyncio.sleep(PACE)
    raise AssertionError(f"no {why or 'failure'} within {seconds} s")


def reason(error: grpc.aio.AioRpcError) -> str:
    """Give the mesh's reason of an error, or nothing."""
    for name in (
        "POLICY_DENIED",
        "NAME_UNAVAILABLE",
        "NOT_READY",
        "SEAL_REJECTED",
        "STALE_PEER",
        "BAD_REQUEST",
        "PEER_REVOKED",
        "REVOKED",
    ):
        if any(key == DETAILS and name.encode() in bytes(value) for key, value in trailing(error)):
            return name
    return ""


def trailing(error: grpc.aio.AioRpcError) -> list[tuple[str, Any]]:
    """Give the trailing metadata of an error."""
    return list(error.trailing_metadata() or ())
