"""A Lua service with an identity: its node, its server, its way to others.

The script is loaded before the node joins, so a script that does not run costs no join token; it is found in
the directory once a worker is ready. Policy, seal and identity are the node's, as for every other service.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import grpc

import mesh
from mesh.core.errors import Reason
from mesh.core.metadata import PEER
from mesh.rpc.context import MeshContext
from mesh.rpc.status import mesh_outcome, reason_of
from mesh.telemetry import names
from mesh.telemetry.backends import AMBIENT, Backend
from services.lua_host.bundle import Bundle
from services.lua_host.outside import OutgoingCall, Refused
from services.lua_host.rules import Asked, Method
from services.lua_host.service import LuaService


@dataclass(frozen=True, slots=True)
class Settings:
    """How one service joins. ``token`` and ``auth`` as ``mesh.join`` takes them."""

    bundle: Bundle
    token: str | None = None
    auth: str | None = None
    listen: str = "127.0.0.1:0"
    advertise_port: int | None = None
    jailed: bool = True
    telemetry: Backend = AMBIENT


@dataclass(frozen=True, slots=True)
class Member:
    """A Lua service that is in the mesh."""

    node: mesh.Node
    service: LuaService
    port: int


@asynccontextmanager
async def member(settings: Settings) -> AsyncIterator[Member]:
    """Run a Lua service for the length of the block.

    Raises what ``mesh.join`` does, ``OSError`` where it cannot listen, and what ``pool.FAILURES`` lists.
    """
    manifest = settings.bundle.manifest
    outside = _MeshOutside(manifest.limits.message)
    service = LuaService(settings.bundle, outside, jailed=settings.jailed)
    try:
        await service.start()
        async with mesh.join(
            manifest.name.text,
            token=settings.token,
            auth=settings.auth,
            listen=settings.listen,
            advertise_port=settings.advertise_port,
            telemetry=settings.telemetry,
        ) as node:
            outside.node = node
            service.tracing = node.telemetry.tracing
            node.telemetry.gauges.add(names.LUA_KILLS, lambda: service.kills)
            server = node.server(outside.options)
            server.add_generic_rpc_handlers((_Dispatch(node, service),))
            await server.start()
            yield Member(node, service, server.port)
    finally:
        await service.close()


class _MeshOutside:
    """The mesh, as one service sees it."""

    def __init__(self, max_message: int) -> None:
        self.options: Final = (("grpc.max_receive_message_length", max_message),)
        self.node: mesh.Node | None = None

    async def call(self, call: OutgoingCall) -> AsyncGenerator[bytes]:
        """Make a sealed call under the service's identity."""
        if self.node is None or call.service.reserved:
            # The mesh's own services are the node's business: to a script they are no better than unknown.
            outcome = mesh_outcome(Reason.NAME_UNAVAILABLE)
            raise Refused(outcome.code, outcome.details, f"mesh/{Reason.NAME_UNAVAILABLE}")
        channel = self.node.channel(call.service.text, self.options)
        make: Any = channel.unary_stream if call.streaming else channel.unary_unary
        try:
            made = make(call.method.text)(call.payload, timeout=call.timeout, metadata=call.metadata)
            if not call.streaming:
                yield await made
                return
            try:
                async for payload in made:
                    yield payload
            finally:
                made.cancel()  # a script may stop reading before the end
        except grpc.aio.AioRpcError as error:
            raise Refused(error.code(), error.details() or "", reason_of(error)) from None


class _Dispatch(grpc.GenericRpcHandler):
    """Serves the methods of one service, as bytes."""

    def __init__(self, node: mesh.Node, service: LuaService) -> None:
        self._node, self._service = node, service

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        method = self._service.serves(handler_call_details.method)
        if method is None:
            return None

        async def unary(request: bytes, context: MeshContext) -> bytes:
            try:
                return await self._service.unary(self._asked(method, request, context))
            except Refused as refused:
                await _abort(context, refused)

        async def stream(request: bytes, context: MeshContext) -> AsyncIterator[bytes]:
            try:
                async with aclosing(self._service.stream(self._asked(method, request, context))) as replies:
                    async for reply in replies:
                        yield reply
            except Refused as refused:
                await _abort(context, refused)

        if method.streaming:
            return grpc.unary_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(unary)

    def _asked(self, method: Method, request: bytes, context: MeshContext) -> Asked:
        remaining, caller = context.time_remaining(), mesh.peer(context)
        now = asyncio.get_running_loop().time()
        return Asked(
            method=method.name,
            payload=request,
            identity=context.peer_identities()[0].decode(),
            service=caller.service.text,
            instance=str(caller.instance),
            metadata=tuple((key, value) for key, value in context.invocation_metadata() if key != PEER),
            deadline=None if remaining is None else now + remaining,
            now_ms=self._node.membership.clock.now_ms(),
        )


async def _abort(context: MeshContext, refused: Refused) -> NoReturn:
    await context.abort(refused.code, refused.message)
    raise AssertionError  # abort always raises
