"""The application's way into the mesh: a socket per permitted destination, and one port that asks for a name.

``<run dir>/<destination>.sock`` (mode 0600) appears and disappears with the policy. The loopback port takes
the destination from metadata ``mesh-to``. Both are plaintext on purpose: what speaks to them stands on the
same host, beside this process, as this identity.
"""

from __future__ import annotations

import asyncio
import logging
import os
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import grpc

from mesh.core.conduct import Line
from mesh.core.errors import Reason
from mesh.core.metadata import TO, checked_entries
from mesh.core.names import ServiceName
from mesh.node import Node
from mesh.rpc.connections import MAX_METADATA
from mesh.rpc.lasting import OPTIONS as LASTING
from mesh.rpc.lasting import LastingServer
from mesh.rpc.status import Outcome, mesh_outcome
from mesh.rpc.swollen import Swollen
from mesh.rpc.warden import Warden
from sidecar.relay import outward

log = logging.getLogger("mesh")

#: A path of a unix socket holds 107 bytes on Linux (unix(7)).
MAX_SOCKET_PATH: Final = 107
STOP_GRACE: Final = 2.0

_OPTIONS: Final = (
    *LASTING,
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", MAX_METADATA),
)


class Outbound:
    """Everything that an application can call through one node."""

    def __init__(self, node: Node, run_dir: Path, max_message: int) -> None:
        """Take the node, a private directory for sockets, and the largest message carried, in bytes."""
        self._node, self._run_dir = node, run_dir
        self._options = (*_OPTIONS, ("grpc.max_receive_message_length", max_message))
        self._limit = (("grpc.max_receive_message_length", max_message),)
        self._sockets: dict[ServiceName, LastingServer] = {}
        self._without: set[ServiceName] = set()
        self._ending: dict[ServiceName, asyncio.Task[None]] = {}
        self._port: LastingServer | None = None
        self._warden = Warden()

    async def open_port(self, port: int) -> int:
        """Listen on a loopback port (0: any) and give it; raise ``OSError`` if it is in use."""
        try:
            self._port = LastingServer(partial(self._bound, None), f"127.0.0.1:{port}")
        except OSError:
            msg = (
                f"cannot listen on 127.0.0.1:{port}: the port is in use; choose another with --outbound-port"
            )
            raise OSError(msg) from None
        self._warden = self._port.warden
        await self._port.start()
        return self._port.port

    async def follow(self) -> None:
        """Keep the sockets in step with the policy, for ever."""
        while True:
            changed = asyncio.ensure_future(self._node.slice.changed())
            matching = asyncio.ensure_future(self._match(set(self._node.slice.services())))
            try:
                await asyncio.shield(matching)
            finally:
                # A server that is half started cannot be stopped, so what was begun is seen through.
                await asyncio.wait((matching,))
            await changed

    async def close(self) -> None:
        """Stop listening and remove the sockets."""
        await self._match(set())
        await asyncio.gather(*self._ending.values())
        if self._port is not None:
            await self._port.stop(STOP_GRACE)

    def line(self, context: Any) -> Line:
        """Give the connection of a call that came by the port, or one that stands for all the sockets."""
        return self._warden.line(context.peer())

    async def _match(self, wanted: set[ServiceName]) -> None:
        for gone in self._sockets.keys() - wanted:
            # No new call can come in once the name is gone; those in progress end with the policy.
            self._path(gone).unlink(missing_ok=True)
            self._ending[gone] = asyncio.ensure_future(self._sockets.pop(gone).stop(STOP_GRACE))
        self._without &= wanted
        for service in sorted(wanted - self._sockets.keys() - self._without):
            if service in self._ending:
                await self._ending.pop(service)  # it removes the socket's file, so it must not come after
            try:
                self._sockets[service] = await self._listen(service)
            except OSError as error:
                if len(os.fsencode(self._run_dir / "a.sock")) > MAX_SOCKET_PATH:
                    raise
                # One long name must not take the others away; the loopback port takes it, too.
                log.error("no socket for %s: %s", service, error)  # noqa: TRY400  the line says it all
                self._without.add(service)

    async def _listen(self, service: ServiceName) -> LastingServer:
        path = self._path(service)
        path.unlink(missing_ok=True)
        server = LastingServer(partial(self._bound, service), f"unix:{path}")
        await server.start()
        return server

    def _bound(self, service: ServiceName | None, address: str) -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server(options=self._options)
        if service is None:
            server.add_generic_rpc_handlers((Swollen(lambda: self._warden),))
        server.add_generic_rpc_handlers((_Forward(self, self._node, service, self._limit),))
        if service is not None and self._path(service).exists():
            # An old listener is still closing: it would remove our file in the place of its own.
            msg = f"{address} is in use"
            raise OSError(msg)
        before = os.umask(0o177)
        try:
            return server, server.add_insecure_port(address)
        except RuntimeError as error:
            msg = f"cannot listen on {address}: {error}"
            raise OSError(msg) from error
        finally:
            os.umask(before)

    def _path(self, service: ServiceName) -> Path:
        path = self._run_dir / f"{service}.sock"
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            msg = f"{path} is too long for a socket: choose a shorter --run-dir"
            raise OSError(msg)
        return path


class _Forward(grpc.GenericRpcHandler):
    def __init__(self, out: Outbound, node: Node, service: ServiceName | None, limit: Any) -> None:
        self._out = out
        self._node, self._service, self._limit = node, service, limit
        self._channel = node.channel(service.text, limit) if service is not None else None

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        method = handler_call_details.method

        async def forward(_requests: object, context: Any) -> None:
            await self._forward(method, context)

        return grpc.stream_stream_rpc_method_handler(forward)

    async def _forward(self, method: str, context: Any) -> None:
        try:
            service, entries = self._destination(context.invocation_metadata())
            if service.reserved:
                # The mesh's own services are the node's business: here they are no better than unknown.
                await _abort(context, mesh_outcome(Reason.NAME_UNAVAILABLE))
            channel = self._channel or self._node.channel(service.text, self._limit)
            make = channel.exchanges(method, entries, context.time_remaining())
        except ValueError as error:
            await _abort(context, mesh_outcome(Reason.BAD_REQUEST, str(error)))
        except grpc.aio.AioRpcError as error:
            trailing = tuple(error.trailing_metadata() or ())
            await _abort(context, Outcome(error.code(), error.details() or "", trailing=trailing))
        line = self._out.line(context)
        line.begin()
        try:
            await outward(context, make)
        finally:
            line.end()

    def _destination(self, metadata: Any) -> tuple[ServiceName, Any]:
        named = [value for key, value in metadata if key == TO]
        rest = [(key, value) for key, value in metadata if key != TO or self._service]
        if self._service is not None:
            return self._service, checked_entries(rest)
        if len(named) != 1:
            msg = f"say where the call is to go, once, in metadata {TO}"
            raise ValueError(msg)
        return ServiceName(named[0]), checked_entries(rest)


async def _abort(context: Any, outcome: Outcome) -> NoReturn:
    await context.abort(outcome.code, outcome.details, tuple(outcome.trailing))
    raise AssertionError  # pragma: no cover  abort always raises
