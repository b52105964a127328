"""Sizes, deadlines, cancellation and misuse: every case ends in a clear error, and nothing stays open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import grpc
import pytest

import mesh
from mesh.core.metadata import END
from mesh.core.names import ServiceName
from mesh.rpc import inbound
from mesh.rpc.channel import MeshChannel
from mesh.rpc.connections import Connections
from mesh.rpc.context import MeshContext
from mesh.rpc.membership import Membership, Rejection
from mesh.rpc.server import MeshServer
from mesh.rpc.targets import DirectoryTarget
from tests.rpc.app import Echo, path
from tests.rpc.attack import Attacker, capture, eventually, reason_of
from tests.rpc.pair import World

C = grpc.StatusCode
LIMIT = 100_000


class App(grpc.GenericRpcHandler):
    """Serves one behaviour under every name."""

    def __init__(self, handler: grpc.RpcMethodHandler[Any, Any]) -> None:
        """Take the handler."""
        self._handler = handler

    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Find it."""
        return self._handler


Serve = Callable[[Any], Awaitable[MeshChannel]]


def _idle(server: MeshServer) -> bool:
    return not server.open_calls


@pytest.fixture
async def serve(world: World, callee: Membership, caller: Membership) -> AsyncIterator[Serve]:
    """Give what serves one behaviour, and a channel to it, both with a limit."""
    servers: list[MeshServer] = []

    async def start(handler: grpc.RpcMethodHandler[Any, Any]) -> MeshChannel:
        servers.append(world.serve(callee, LIMIT))
        servers[-1].add_generic_rpc_handlers((App(handler),))
        await servers[-1].start()
        return world.channel(caller, "callee", LIMIT)

    yield start
    for server in servers:
        await eventually(partial(_idle, server))
        await server.stop(None)


def unary(behaviour: Any) -> grpc.RpcMethodHandler[Any, Any]:
    """Make a handler of one message each way."""
    return grpc.unary_unary_rpc_method_handler(behaviour)


def stream(behaviour: Any) -> grpc.RpcMethodHandler[Any, Any]:
    """Make a handler of streams."""
    return grpc.stream_stream_rpc_method_handler(behaviour)


@pytest.mark.parametrize("size", [0, LIMIT - 1, LIMIT, LIMIT + 1, LIMIT + 70_000, 2 * LIMIT])
@pytest.mark.parametrize("streaming", [False, True])
async def test_the_limit_is_the_applications_message(serve: Serve, size: int, streaming: bool) -> None:
    """A request up to the limit passes, to the byte; one byte more is RESOURCE_EXHAUSTED, undispatched."""
    sizes: list[int] = []

    async def count(request: bytes, _context: Any) -> bytes:
        sizes.append(len(request))
        return b"%d" % len(request)

    async def count_all(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            sizes.append(len(request))
            yield b"%d" % len(request)

    channel = await serve(stream(count_all) if streaming else unary(count))
    call: Any
    if streaming:
        call = channel.stream_stream("/a.B/C")(iter([b"x" * size]))
        got = call.read()
    else:
        call = channel.unary_unary("/a.B/C")(b"x" * size)
        got = call
    if size <= LIMIT:
        assert await got == b"%d" % size
        assert await call.code() is C.OK
        return
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await got
    assert caught.value.code() is C.RESOURCE_EXHAUSTED
    assert "larger than" in (caught.value.details() or "")
    assert sizes == []


@pytest.mark.parametrize("size", [0, LIMIT - 1, LIMIT, LIMIT + 1, LIMIT + 70_000, 2 * LIMIT])
@pytest.mark.parametrize("streaming", [False, True])
async def test_the_limit_on_replies(serve: Serve, size: int, streaming: bool) -> None:
    """The same holds for replies, by the caller's limit."""

    async def one(_request: bytes, _context: Any) -> bytes:
        return b"x" * size

    async def many(_requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        yield b"x" * size

    channel = await serve(stream(many) if streaming else unary(one))
    call: Any
    if streaming:
        call = channel.stream_stream("/a.B/C")(iter([]))
        got = call.read()
    else:
        call = channel.unary_unary("/a.B/C")(b"")
        got = call
    if size <= LIMIT:
        assert await got == b"x" * size
        return
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await got
    assert caught.value.code() is C.RESOURCE_EXHAUSTED
    assert "larger than" in (caught.value.details() or "")


async def test_ten_thousand_replies_after_half_close(channel: MeshChannel) -> None:
    """A long stream of replies is whole, and in order."""
    call = channel.unary_stream(path("Down"))(b"10000")
    assert [int(message) async for message in call] == list(range(10_000))
    assert await call.code() is C.OK


async def test_asking_for_the_status_beside_reading(channel: MeshChannel) -> None:
    """Who waits for the status while another task reads gets it when all is read."""
    for _ in range(20):
        call = channel.unary_stream(path("Down"))(b"50")
        status = asyncio.ensure_future(call.code())
        assert len([message async for message in call]) == 50
        assert await status is C.OK


@pytest.mark.parametrize("wait", [0, -1, 0.0001])
async def test_deadlines_that_are_past(channel: MeshChannel, wait: float, app: Echo) -> None:
    """A call whose time is up is not made."""
    for make_call, request in (
        (channel.unary_unary(path("Unary")), b""),
        (channel.unary_stream(path("Down")), b"1"),
        (channel.stream_unary(path("Up")), None),
        (channel.stream_stream(path("Both")), None),
    ):
        call: Any = make_call(request, timeout=wait)
        assert await asyncio.wait_for(call.code(), 5) is C.DEADLINE_EXCEEDED
    assert app.seen == []


async def test_deadlines_only_shrink(channel: MeshChannel, app: Echo) -> None:
    """A handler has no more time than its caller gave, and none means none."""
    await channel.unary_unary(path("Unary"))(b"", timeout=5)
    assert app.remaining is not None
    assert 4 < app.remaining <= 5
    await channel.unary_unary(path("Unary"))(b"")
    assert app.remaining is None


class Stages:
    """A caller's connections, to look at what stays open."""

    def __init__(self, world: World, caller: Membership) -> None:
        """Make a channel with connections of our own."""
        self.connections = Connections(caller, ServiceName("callee"))
        target = DirectoryTarget(ServiceName("callee"), world.directory, lambda _: self.connections, _keys)
        self.channel = MeshChannel(caller, target)

    @property
    def idle(self) -> bool:
        """Whether no connection counts a call."""
        return all(not connection.calls for connection in self.connections._open.values())


async def _keys(_service: ServiceName, _patience: float) -> None:
    pass


@pytest.mark.parametrize("steps", range(0, 24, 2))
@pytest.mark.parametrize("kind", ["Wait", "Down", "Up", "Hold"])
async def test_cancellation_at_each_stage(
    world: World, server: MeshServer, caller: Membership, app: Echo, kind: str, steps: int
) -> None:
    """However far a call has come, cancelling it leaves nothing open on either side."""
    stages = Stages(world, caller)
    await stages.channel.unary_unary(path("Unary"))(b"warm")
    call: Any
    if kind == "Wait":
        call = stages.channel.unary_unary(path(kind))(b"")
    elif kind == "Down":
        call = stages.channel.unary_stream(path(kind))(b"100000")
    elif kind == "Up":
        call = stages.channel.stream_unary(path(kind))(_endless())
    else:
        call = stages.channel.stream_stream(path(kind))(_endless())
    for _ in range(steps):
        await asyncio.sleep(0)
    assert call.cancel()
    assert not call.cancel()
    assert await asyncio.wait_for(call.code(), 5) is C.CANCELLED
    assert call.done()
    assert call.cancelled()
    with pytest.raises(asyncio.CancelledError):
        await (call.read() if hasattr(call, "read") else call)
    await eventually(lambda: not server.open_calls and stages.idle)
    assert app.ends == 0


async def _endless() -> AsyncIterator[bytes]:
    while True:
        yield b"x"
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
async def test_cancelled_while_nobody_is_there(
    world: World, channel: MeshChannel, caller: Membership, kind: str
) -> None:
    """A call that waits for its destination to appear can be cancelled like any other."""
    assert caller.name.text == "caller"
    world.directory.listed[ServiceName("callee")] = []
    make_call: Any = getattr(channel, kind)(path("Unary"))
    for steps in (0, 1, 10):
        call = make_call(b"" if kind.startswith("unary") else iter([b""]), wait_for_ready=True)
        for _ in range(steps):
            await asyncio.sleep(0)
        assert call.cancel()
        assert await asyncio.wait_for(call.code(), 5) is C.CANCELLED


@pytest.mark.parametrize("kind", ["Up", "Hold"])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_iterator_of_requests_that_fails(
    channel: MeshChannel, server: MeshServer, app: Echo, kind: str, asynchronous: bool
) -> None:
    """When the application's own iterator fails, the call is cancelled: its stream never looks whole."""
    app.go_on.set()

    def fail() -> Any:
        yield b"a"
        msg = "the application's own"
        raise KeyError(msg)

    async def fail_later() -> AsyncIterator[bytes]:
        for request in fail():
            yield request

    make: Any = channel.stream_unary if kind == "Up" else channel.stream_stream
    call = make(path(kind))(fail_later() if asynchronous else fail())
    assert await asyncio.wait_for(call.code(), 5) is C.CANCELLED
    await eventually(lambda: not server.open_calls)
    assert app.ends == 0


async def test_a_call_that_is_over_cannot_be_written_to(channel: MeshChannel) -> None:
    """Misuse of a call is what gRPC says of it."""
    call = channel.stream_stream(path("Both"))()
    await call.write(b"a")
    await call.done_writing()
    await call.done_writing()
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(b"b")
    assert [message async for message in call] == [b"a"]
    assert await call.code() is C.OK
    assert not call.cancel()
    assert not call.cancelled()
    fed = channel.stream_stream(path("Both"))(iter([b"a"]))
    with pytest.raises(grpc.aio.UsageError):
        await fed.write(b"b")
    assert [message async for message in fed] == [b"a"]


async def test_callbacks_of_calls(channel: MeshChannel) -> None:
    """A call tells when it is done, also somebody who asks afterwards."""
    for make_call, request in (
        (channel.unary_unary(path("Unary")), b"3"),
        (channel.unary_stream(path("Down")), b"3"),
        (channel.stream_unary(path("Up")), iter([b"3"])),
        (channel.stream_stream(path("Both")), iter([b"3"])),
    ):
        call: Any = make_call(request)
        told: list[object] = []
        call.add_done_callback(told.append)
        if hasattr(call, "read"):
            _ = [message async for message in call]
        else:
            await call
        call.add_done_callback(told.append)
        await eventually(lambda: told == [call, call])  # noqa: B023  awaited here
        assert call.done()


async def test_what_a_handler_sees(serve: Serve, callee: Membership, caller: Membership) -> None:
    """The context of a handler answers all that gRPC's own does, and knows who calls."""
    seen: dict[str, Any] = {}
    over = asyncio.Event()

    async def look(request: bytes, context: Any) -> bytes:
        assert isinstance(context, MeshContext)
        seen.update(
            peer=mesh.peer(context),
            identities=context.peer_identities(),
            key=context.peer_identity_key(),
            address=context.peer(),
            auth=context.auth_context(),
            remaining=context.time_remaining(),
            before=(context.code(), context.details(), context.trailing_metadata()),
            open=(context.done(), context.cancelled()),
        )
        context.add_done_callback(lambda _: over.set())
        (entry,) = [e for e in context.invocation_metadata() if e[0] == "x-a"]
        assert (entry.key, entry.value) == ("x-a", "b")
        context.set_code(C.ALREADY_EXISTS)
        context.set_details("there")
        context.set_trailing_metadata((("x-t", "v"),))
        seen["after"] = (context.code(), context.details(), context.trailing_metadata())
        return request

    channel = await serve(unary(look))
    call = channel.unary_unary("/a.B/C")(b"", metadata=(("x-a", "b"),), timeout=5)
    assert await call.code() is C.ALREADY_EXISTS
    assert await call.details() == "there"
    assert list(await call.trailing_metadata()) == [("x-t", "v")]
    assert (seen["peer"].service, seen["peer"].instance) == (caller.name, caller.instance)
    assert seen["identities"] == [b"spiffe://test.example/caller"]
    assert seen["key"] == "mesh-peer"
    assert seen["address"].startswith("ipv4:127.0.0.1:")
    assert seen["auth"]["x509_common_name"] == [str(caller.instance).encode()]
    assert 0 < seen["remaining"] <= 5
    assert seen["before"] == (None, "", ())
    assert seen["open"] == (False, False)
    assert seen["after"] == (C.ALREADY_EXISTS, "there", (("x-t", "v"),))
    await asyncio.wait_for(over.wait(), 5)
    assert callee.name.text == "callee"
    with pytest.raises(TypeError, match="not a call of the mesh"):
        mesh.peer(object())


async def _swallow(request: bytes, context: Any) -> bytes:
    try:
        await context.abort(C.ABORTED, "stop")
    except grpc.aio.AbortError:
        return request
    return request


async def _twice(request: bytes, context: Any) -> bytes:
    await context.send_initial_metadata((("x-a", "1"),))
    await context.send_initial_metadata((("x-a", "2"),))
    return request


async def _abort_ok(request: bytes, context: Any) -> bytes:
    await context.abort(C.OK, "fine")
    return request


async def _mesh_keys(request: bytes, context: Any) -> bytes:
    context.set_trailing_metadata((("mesh-end-bin", b"forged"),))
    return request


async def _bad_keys(request: bytes, context: Any) -> bytes:
    await context.send_initial_metadata((("X Y", "1"),))
    return request


async def _cancels_itself(request: bytes, _context: Any) -> bytes:
    if request:
        raise asyncio.CancelledError
    return request


async def _no_bytes(_request: bytes, _context: Any) -> Any:
    return "text"


async def _no_number(request: bytes, context: Any) -> bytes:
    context.set_code(77)
    return request


@pytest.mark.parametrize(
    ("behaviour", "code", "text"),
    [
        (_swallow, C.ABORTED, "stop"),
        (_twice, C.UNKNOWN, "initial metadata was sent already"),
        (_abort_ok, C.UNKNOWN, "OK is said by returning"),
        (_mesh_keys, C.UNKNOWN, "mesh-end-bin.* belongs to the mesh"),
        (_bad_keys, C.UNKNOWN, "bad metadata key"),
        (_cancels_itself, C.UNKNOWN, "CancelledError"),
        (_no_bytes, C.UNKNOWN, "Unexpected"),
        (_no_number, C.UNKNOWN, ""),
    ],
)
async def test_handlers_that_misbehave(
    serve: Serve, behaviour: Any, code: grpc.StatusCode, text: str
) -> None:
    """Whatever a handler does wrong ends its call, under seal, with what it did wrong."""
    channel = await serve(unary(behaviour))
    with pytest.raises(grpc.aio.AioRpcError, match=text or None) as caught:
        await asyncio.wait_for(channel.unary_unary("/a.B/C")(b"x"), 5)
    assert caught.value.code() is code
    assert reason_of(caught.value.trailing_metadata()) == (None, None)


async def test_a_stream_handler_that_swallows_a_bad_frame_is_not_believed(
    serve: Serve, rejected: list[Rejection]
) -> None:
    """A request larger than the limit ends the call, though its handler makes nothing of it."""

    async def swallow(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        try:
            async for request in requests:
                yield request
        except Exception:  # noqa: BLE001  the point
            yield b"all is well"

    channel = await serve(stream(swallow))
    call = channel.stream_stream("/a.B/C")(iter([b"a", b"x" * (LIMIT + 1), b"b"]))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [message async for message in call]
    assert caught.value.code() is C.RESOURCE_EXHAUSTED
    assert rejected == []


def _synchronous(request: bytes, _context: Any) -> bytes:
    return request


async def test_synchronous_handlers(world: World, callee: Membership, caller: Membership, app: Echo) -> None:
    """A synchronous handler is refused where it is registered, by its method's name."""
    server = world.serve(callee)
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Slow": grpc.unary_unary_rpc_method_handler(_synchronous)
    }
    with pytest.raises(ValueError, match=r"/a\.B/Slow is synchronous: write it with async def"):
        server.add_registered_method_handlers("a.B", handlers)
    # Code generated by older tools adds a generic handler alone: then the call says it, and others go on.
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a.B", handlers), app))
    await server.start()
    channel = world.channel(caller, "callee")
    call = channel.unary_unary("/a.B/Slow")(b"", timeout=5)
    assert await call.code() in (C.INTERNAL, C.UNKNOWN)
    assert await channel.unary_unary(path("Unary"))(b"x") == b"x"
    await server.stop(None)


async def test_half_open_calls(
    attacker: Attacker, caller: Membership, callee: Membership, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call whose one message never comes is ended under seal."""
    monkeypatch.setattr(inbound, "REQUEST_SECONDS", 0.1)
    call = attacker.open(capture(caller, path("Unary"), [b"m"], to=(callee.name, callee.instance)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is C.DEADLINE_EXCEEDED
    assert any(key == END for key, _ in await call.trailing_metadata())


def test_a_node_listens_with_mtls_only(world: World, callee: Membership) -> None:
    """Ports of any other kind are refused, and a port in use is an error that says so."""

    async def check() -> None:
        server = world.serve(callee)
        with pytest.raises(RuntimeError, match="mTLS only"):
            server.add_insecure_port("127.0.0.1:0")
        with pytest.raises(RuntimeError, match="mTLS only"):
            server.add_secure_port("127.0.0.1:0", grpc.local_server_credentials())
        with pytest.raises(OSError, match="in use"):
            MeshServer(callee, f"127.0.0.1:{server.port}")
        await server.stop(None)

    asyncio.run(check())


@pytest.mark.parametrize(
    "metadata",
    [
        (("X-Upper", "v"),),
        (("x y", "v"),),
        (("", "v"),),
        ((":path", "/"),),
        (("x-text", "ö"),),
        (("x-text", "a\nb"),),
        (("x-text", b"\xff"),),
        (("x-raw-bin", "text"),),
        (("x-number", 5),),
    ],
)
async def test_metadata_that_grpc_cannot_send(channel: MeshChannel, app: Echo, metadata: Any) -> None:
    """What gRPC would drop the call for is refused where it is given, in all kinds of calls."""
    for make_call in (channel.unary_unary, channel.stream_stream):
        with pytest.raises(grpc.aio.AioRpcError, match="metadata") as caught:
            make_call(path("Both"))(None, metadata=metadata)
        assert caught.value.code() is C.INVALID_ARGUMENT
        assert reason_of(caught.value.trailing_metadata())[0] == "BAD_REQUEST"
    assert app.calls == []


@pytest.mark.parametrize("key", ["grpc-trace-bin", "grpc-tags-bin", "lb-token", "content-length"])
async def test_keys_that_grpc_keeps_to_itself(channel: MeshChannel, app: Echo, key: str) -> None:
    """Keys that gRPC's transports consume are dropped at the edge: a call that has them is no less whole."""
    value: Any = b"v" if key.endswith("-bin") else "v"
    assert await channel.unary_unary(path("Unary"))(b"m", metadata=((key, value), (key, value))) == b"m"
    assert all(entry[0] != key for entry in app.metadata[0])
