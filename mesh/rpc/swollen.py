"""Refuses calls whose metadata gRPC unpacked to what no caller of ours sends, before anything reads it.

HPACK has 16 KiB on the wire be 60 MiB when read, and gRPC's own bound (``grpc.max_metadata_size``) holds only
once the peer has acknowledged our settings, which an attacker need not do: until then it is 16 MiB a call,
copied into Python each time somebody asks for them. So who sends one such call is hung up on at once. What is
too much, ``core.conduct`` says; calls that are merely larger than is allowed are gRPC's to refuse.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from mesh.core.conduct import swollen
from mesh.rpc.warden import Warden


class Before:
    """A server as generated code registers servicers with it, ``Swollen`` before them."""

    def __init__(self, server: grpc.aio.Server, warden: Callable[[], Warden]) -> None:
        """Take the server, and what gives its warden when calls come."""
        server.add_generic_rpc_handlers((Swollen(warden),))
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, _service: str, _handlers: object) -> None:
        """Take none, for gRPC would ask them first; the generic handlers are the same."""


class Swollen(grpc.GenericRpcHandler):
    """Comes before the other handlers of a listener, and takes only what they are not to see."""

    def __init__(self, warden: Callable[[], Warden]) -> None:
        """Take what gives the listener's warden, when calls come."""
        self._warden = warden
        self._refusing: grpc.RpcMethodHandler[Any, Any] = grpc.stream_unary_rpc_method_handler(self._refuse)

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Take a call that is too large to be one."""
        return self._refusing if swollen(handler_call_details.invocation_metadata or ()) else None

    async def _refuse(self, _requests: Any, context: Any) -> bytes:
        self._warden().struck(context.peer())
        raise asyncio.CancelledError  # nobody is there any more
