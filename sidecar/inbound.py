"""The mesh's way to the application: every admitted call is made to it, in plaintext, on this host.

The application sees its own method, metadata and messages, and ``mesh-peer``: who calls. It is in the
directory while it accepts connections and is well (``app_health``), and until it is drained.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

import grpc

from mesh.node import Node
from mesh.rpc.connections import MAX_METADATA
from sidecar.app_health import AppHealth
from sidecar.health import Health
from sidecar.relay import inward

log = logging.getLogger("mesh")

#: Seconds for which it is no news that the application is not there yet.
PATIENCE: Final = 2.0
#: States of the way to the application that say whether it accepts connections; the others are on their way.
_TELLING: Final = (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE)
_OPTIONS: Final = (
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", MAX_METADATA),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)


class Inbound(grpc.GenericRpcHandler):
    """Serves an application's methods, whatever they are, by calling it."""

    def __init__(
        self, node: Node, app: str, max_message: int, health: Health | None = None, *, asking: bool = True
    ) -> None:
        """Take the node, where the application listens (``host:port`` or ``unix:/path``), and a limit.

        ``health`` is told how it is; without ``asking`` it is not asked, and is well while it accepts
        connections.
        """
        self._health, self._asking = health or Health(), asking
        self._accepts, self._amiss, self._draining = False, "", False
        self._health.app(False)
        limit = ("grpc.max_receive_message_length", max_message)
        self._address = app
        self._app = grpc.aio.insecure_channel(app, (*_OPTIONS, limit))
        self._app_health = AppHealth(self._app)
        self._node, self._server = node, node.server((limit,))
        self._server.add_generic_rpc_handlers((self,))

    @property
    def port(self) -> int:
        """The port on which other nodes call."""
        return self._server.port

    async def follow(self) -> None:
        """Wait for the application, then take calls for it."""
        ready = asyncio.ensure_future(self._app.channel_ready())
        try:
            done, _ = await asyncio.wait((ready,), timeout=PATIENCE)
            if not done:
                log.warning("waiting for the app at %s: it does not accept connections yet", self._address)
            await ready
        finally:
            ready.cancel()
        self._accepts = True
        if self._asking:
            self._said(await self._app_health.ask())
        await self._server.start()
        if self._draining or self._amiss:
            self._node.announce(serving=False)

    async def keep_listed(self) -> None:
        """Be in the directory while the application accepts connections and is well, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_connection())
            if self._asking:
                group.create_task(self._app_health.follow(self._said))

    def drain(self) -> None:
        """Leave the directory for good, and go on with the calls that come all the same."""
        self._draining = True
        self._tell()

    async def _follow_connection(self) -> None:
        while True:
            state = self._app.get_state(try_to_connect=True)
            if state in _TELLING:
                self._accepts = state is grpc.ChannelConnectivity.READY
                self._tell()
            await self._app.wait_for_state_change(state)

    def _said(self, amiss: str) -> None:
        before, self._amiss = self._amiss, amiss
        if bool(amiss) == bool(before):
            return
        if not amiss:
            log.info("the app at %s serves again", self._address)
        elif self._accepts:
            log.warning(
                "the app at %s does not serve, and has no calls until it does: %s", self._address, amiss
            )
        self._tell()

    def _tell(self) -> None:
        well = self._accepts and not self._amiss
        self._health.app(well)
        self._health.ready(well and not self._draining)
        self._node.announce(serving=well and not self._draining)

    async def close(self) -> None:
        """Take no more calls and fail none (``Node.drain``), then close the way to the application."""
        await self._node.drain()
        await self._server.stop(None)
        await self._app.close()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Give the handler of a method."""
        single: Any = self._app.unary_stream(handler_call_details.method)
        stream: Any = self._app.stream_stream(handler_call_details.method)

        async def forward(_requests: object, context: Any) -> None:
            await inward(context, single, stream)

        return grpc.stream_stream_rpc_method_handler(forward)
