"""A listener outlives what ends gRPC's own, and nobody gets at its port meanwhile."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import h2.exceptions
import pytest

from mesh.rpc.guard import Guard
from mesh.rpc.lasting import OPTIONS, LastingServer
from mesh.rpc.membership import Membership
from mesh.rpc.server import MeshServer
from tests.rpc.http2 import Http2, headers, tls
from tests.rpc.pair import World

NOBODY = 65534
#: Known of 1.85; 1.72 answers such a request with an error, and there is nothing to outlive.
ENDS = tuple(map(int, grpc.__version__.split(".")[:2])) > (1, 72)


def ending(test: Callable[..., object]) -> Callable[..., object] | None:
    """Leave a test out where gRPC's loop does not end: an older gRPC takes a path that is not UTF-8."""
    return test if ENDS else None


BIND = """
import os, socket, sys
uid, host, port, share = sys.argv[1:]
if int(uid):
    os.setuid(int(uid))
one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(share))
try:
    one.bind((host, int(port)))
    one.listen()
except OSError:
    sys.exit(3)
"""


class Waiting(grpc.GenericRpcHandler):
    """Answers each call, ``/x/Wait`` once it may."""

    def __init__(self) -> None:
        """Nobody waits yet."""
        self.waits, self.go_on = asyncio.Event(), asyncio.Event()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Give the handler of any method."""

        async def answer(request: bytes, _context: Any) -> bytes:
            if handler_call_details.method == "/x/Wait":
                self.waits.set()
                await self.go_on.wait()
            return request

        return grpc.unary_unary_rpc_method_handler(answer)


@asynccontextmanager
async def lasting(
    app: Waiting, address: str = "127.0.0.1:0"
) -> AsyncIterator[tuple[LastingServer, list[int]]]:
    """Serve an application in plaintext; give the ports that were bound, one per server that was made."""
    made: list[int] = []

    def make(address: str) -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server(options=OPTIONS)
        server.add_generic_rpc_handlers((app,))
        if os.path.exists(address.removeprefix("unix:")):  # noqa: PTH110  as the sidecar does
            raise OSError("in use")
        try:
            made.append(server.add_insecure_port(address))
        except RuntimeError as error:
            raise OSError(str(error)) from error
        return server, made[-1]

    server = LastingServer(make, address)
    await server.start()
    try:
        yield server, made
    finally:
        await server.stop(None)


async def spoil(line: Http2) -> None:
    """Send a path that is not UTF-8, and wait until the server says that it ends."""
    try:
        await line.start()
        await line.request(headers(b"/x/\xff"))
        await line.until_goaway()
    finally:
        await line.close()


async def call(target: str, channel: grpc.aio.Channel | None = None, method: str = "/x/Now") -> bytes:
    """Make a call, on a connection of its own unless there is a channel."""
    if channel is not None:
        made: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        return await made(b"new", timeout=30, wait_for_ready=True)
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(target, options) as own:
        return await call(target, own)


async def can_listen(port: int, *, uid: int = 0, host: str = "127.0.0.1", share: bool = True) -> bool:
    """Whether another process, of a user, can listen on a port."""
    arguments = (str(uid), host, str(port), str(int(share)))
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", BIND, *arguments)
    assert await process.wait() in (0, 3)
    return process.returncode == 0


@pytest.fixture
def app() -> Waiting:
    """Make an application."""
    return Waiting()


@ending
async def test_calls_in_progress_and_new_ones(app: Waiting) -> None:
    """Each bad request costs a server; calls go on, and no connection is refused at any moment."""
    async with (
        lasting(app) as (server, made),
        grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        waiting = asyncio.create_task(call("", channel, "/x/Wait"))
        await app.waits.wait()
        for _ in range(20):
            await spoil(await Http2.connect(server.port, None))
            assert await call(f"127.0.0.1:{server.port}") == b"new"
        assert made == [server.port] * 21
        app.go_on.set()
        assert await waiting == b"new"
        while server._old:
            await asyncio.wait(set(server._old))
        assert not server._ending
    assert await server.wait_for_termination() is False


@ending
async def test_a_successor_listens_first(app: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the old listener closes, the new one listens: connecting never fails."""
    async with lasting(app) as (server, made):
        listening: list[int] = []
        retire = server._retire

        def record(old: grpc.aio.Server) -> None:
            listening.append(len(made))
            retire(old)

        monkeypatch.setattr(server, "_retire", record)
        for _ in range(5):
            await spoil(await Http2.connect(server.port, None))
            assert await call(f"127.0.0.1:{server.port}") == b"new"  # by the successor: it has begun
        assert listening == [2, 3, 4, 5, 6]


@ending
async def test_a_unix_socket(app: Waiting, tmp_path: Path) -> None:
    """At a unix socket it serves again, too, once the old listener has removed its file."""
    path = tmp_path / "a.sock"
    async with lasting(app, f"unix:{path}"):
        for _ in range(3):
            assert await call(f"unix:{path}") == b"new"
            await spoil(await Http2.unix(path))
        assert await call(f"unix:{path}") == b"new"


@ending
async def test_what_is_logged(app: Waiting, caplog: pytest.LogCaptureFixture) -> None:
    """Any number of bad requests in a moment is one line without a traceback, from gRPC and asyncio none."""
    asyncio.get_running_loop().set_debug(False)
    with caplog.at_level(logging.INFO):
        async with lasting(app) as (server, made):
            for _ in range(5):
                await spoil(await Http2.connect(server.port, None))
                assert await call(f"127.0.0.1:{server.port}") == b"new"
            assert len(made) == 6
    (record,) = caplog.records
    assert record.name == "mesh"
    assert f"127.0.0.1:{server.port}" in record.getMessage()
    assert record.exc_info is None


@ending
async def test_no_room_for_a_successor(app: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no successor can be made, it is tried again; stopping does not wait for it."""
    async with lasting(app) as (server, made):
        make = server._make
        tries = iter(range(3))

        def fail(address: str) -> tuple[grpc.aio.Server, int]:
            if next(tries, None) is not None:
                raise OSError("too many open files")
            return make(address)

        monkeypatch.setattr(server, "_make", fail)
        await spoil(await Http2.connect(server.port, None))
        assert await call(f"127.0.0.1:{server.port}") == b"new"
        assert len(made) == 2
        tries = iter(range(10**9))
        await spoil(await Http2.connect(server.port, None))


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to be somebody else")
@pytest.mark.parametrize("share", [True, False])
async def test_nobody_else_gets_the_port(app: Waiting, *, share: bool) -> None:
    """Another user can listen neither beside us nor instead of us, even while no listener of ours is open."""
    async with lasting(app) as (server, _):
        assert not await can_listen(server.port, uid=NOBODY, share=share)
    guard = Guard("127.0.0.1:0")
    assert not await can_listen(guard.port, uid=NOBODY, share=share)
    guard.close()
    assert await can_listen(guard.port, uid=NOBODY, share=share)


async def test_two_of_ours(app: Waiting) -> None:
    """A second server on a port of ours fails and says so, though it would share the port as well."""
    async with lasting(app) as (server, _):
        for address in (f"127.0.0.1:{server.port}", f"0.0.0.0:{server.port}", f"localhost:{server.port}"):
            with pytest.raises(OSError, match=f"cannot listen on {address}: the port is in use"):
                LastingServer(server._make, address)
        assert not await can_listen(server.port, share=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "localhost", "127.0.0.1"])
async def test_hosts(app: Waiting, host: str) -> None:
    """Whatever gRPC binds for a host is guarded."""
    async with lasting(app, f"{host}:0") as (server, made):
        assert made == [server.port]
        assert not await can_listen(server.port, share=False)
        assert await call(f"127.0.0.1:{server.port}") == b"new"


def test_a_port_in_use_and_an_address_not_ours() -> None:
    """What listens already, sharing or not, and an address of another machine are errors."""
    for share in (0, 1):
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, share)
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(OSError, match="the port is in use"):
                Guard(f"127.0.0.1:{taken.getsockname()[1]}")
    for address in ("192.0.2.1:0", "no.such.host.invalid:0"):
        with pytest.raises(OSError, match=f"cannot listen on {address}"):
            Guard(address)


def test_after_a_restart() -> None:
    """Connections of a predecessor that are still closing do not keep a port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = listener.accept()
        accepted.close()  # the first to close is who waits
        assert client.recv(1) == b""
        client.close()
    guard = Guard(f"127.0.0.1:{port}")
    assert guard.address == f"127.0.0.1:{port}"
    guard.close()


@ending
async def test_many_at_once(world: World, callee: Membership, caller: Membership) -> None:
    """A node goes on under bad requests from many connections at a time, and stops while they come."""
    server: MeshServer = world.serve(callee)
    await server.start()
    context: ssl.SSLContext = tls(caller.svid)

    async def attack() -> None:
        for _ in range(10):
            try:
                await spoil(await Http2.connect(server.port, context))
            except (OSError, h2.exceptions.ProtocolError):
                return

    await asyncio.gather(*(attack() for _ in range(4)))
    late = [asyncio.create_task(attack()) for _ in range(4)]
    await asyncio.sleep(0)
    await server.stop(None)
    await asyncio.gather(*late)
