"""Compression on the hop between nodes: asked for by either side, there is less on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import pytest

from mesh.rpc.membership import Membership
from mesh.rpc.server import MeshServer
from tests.rpc.app import Echo, path
from tests.rpc.pair import World

SIZE = 512 * 1024
ZEROS = bytes(SIZE)


class Wire:
    """A hop that counts what goes over it."""

    def __init__(self) -> None:
        """Count nothing yet."""
        self.out = self.back = 0
        self._to = 0

    async def listen(self, to: int) -> int:
        """Stand before a port; give the port to connect to."""
        self._to = to
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        await asyncio.gather(self._pass(reader, far_writer, "out"), self._pass(far_reader, writer, "back"))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                setattr(self, way, getattr(self, way) + len(data))
                writer.write(data)
                await writer.drain()
        writer.close()

    async def close(self) -> None:
        """End."""
        self._server.close()


class Compressing(Echo):
    """An application that compresses its replies when it is asked to."""

    async def unary(self, request: bytes, context: Any) -> bytes:
        """Give zeros."""
        if request == b"compress":
            context.set_compression(grpc.Compression.Gzip)
        self.seen.append(request)
        return ZEROS


@pytest.fixture
async def wire(world: World, callee: Membership) -> AsyncIterator[Wire]:
    """Serve an application behind a wire."""
    app, wire = Compressing(), Wire()
    server = MeshServer(callee, "127.0.0.1:0")
    server.add_generic_rpc_handlers((app,))
    await server.start()
    world.directory.put(callee, f"127.0.0.1:{await wire.listen(server.port)}")
    yield wire
    await wire.close()
    await server.stop(None)


async def test_requests(world: World, caller: Membership, wire: Wire) -> None:
    """A caller that asks for compression gets it on the wire, unary and streaming."""
    channel: Any = world.channel(caller, "callee")
    await channel.unary_unary(path("Unary"))(ZEROS)
    assert wire.out > SIZE
    for kind, name, request in (("unary_unary", "Unary", ZEROS), ("stream_unary", "Up", iter([ZEROS]))):
        wire.out = 0
        call = getattr(channel, kind)(path(name))
        assert await call(request, compression=grpc.Compression.Gzip) == ZEROS
        assert 0 < wire.out < SIZE // 10


async def test_replies(world: World, caller: Membership, wire: Wire) -> None:
    """A handler that asks for compression gets it on the wire."""
    channel: Any = world.channel(caller, "callee")
    assert await channel.unary_unary(path("Unary"))(b"plain") == ZEROS
    assert wire.back > SIZE
    wire.back = 0
    assert await channel.unary_unary(path("Unary"))(b"compress") == ZEROS
    assert 0 < wire.back < SIZE // 10
