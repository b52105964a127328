"""A ``grpc.aio.Channel`` to a service of the mesh, for generated stubs unchanged.

It holds no connection of its own: each call goes where its target says at that moment. Interceptors,
per-call credentials and connectivity watching of gRPC are not offered; identity is the mesh's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import grpc

from mesh.core.metadata import Entries
from mesh.rpc.caller import Caller, CallSpec, Target
from mesh.rpc.calls import UnaryUnaryCall
from mesh.rpc.connections import MAX_MESSAGE
from mesh.rpc.exchange import Exchange
from mesh.rpc.hedging import HedgedExchange, exchange
from mesh.rpc.membership import Membership
from mesh.rpc.routing import Routing
from mesh.rpc.status import CallFailedError
from mesh.rpc.streams import StreamStreamCall, StreamUnaryCall, UnaryStreamCall

if TYPE_CHECKING:
    _UnaryUnaryKind = grpc.aio.UnaryUnaryMultiCallable[Any, Any]
    _UnaryStreamKind = grpc.aio.UnaryStreamMultiCallable[Any, Any]
    _StreamUnaryKind = grpc.aio.StreamUnaryMultiCallable[Any, Any]
    _StreamStreamKind = grpc.aio.StreamStreamMultiCallable[Any, Any]
else:  # generic for the type checker alone, in older releases of grpcio
    _UnaryUnaryKind = grpc.aio.UnaryUnaryMultiCallable
    _UnaryStreamKind = grpc.aio.UnaryStreamMultiCallable
    _StreamUnaryKind = grpc.aio.StreamUnaryMultiCallable
    _StreamStreamKind = grpc.aio.StreamStreamMultiCallable


class _Method:
    """One method of one channel: what the four kinds share."""

    def __init__(self, caller: Caller, method: str, serialize: Any, deserialize: Any) -> None:
        self._caller, self._method = caller, method
        self._serialize, self._deserialize = serialize, deserialize

    def _spec(
        self,
        timeout: float | None,
        metadata: Any,
        credentials: grpc.CallCredentials | None,
        wait_for_ready: bool | None,
        compression: grpc.Compression | None,
    ) -> tuple[Caller, CallSpec]:
        # The caller, too: policy may send this call to another service than the last one.
        if credentials is not None:
            msg = "call credentials are not used in the mesh: send what the application needs as metadata"
            raise grpc.aio.UsageError(msg)
        try:
            caller = self._caller.split(metadata)
            return caller, caller.spec(
                self._method, metadata, timeout, wait_for_ready=wait_for_ready, compression=compression
            )
        except CallFailedError as failed:
            raise failed.outcome.error() from None

    def _payload(self, request: Any) -> bytes:
        payload: bytes = self._serialize(request) if self._serialize else request
        return payload


class _UnaryUnary(_Method, _UnaryUnaryKind):
    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> UnaryUnaryCall:
        payload = self._payload(request)
        caller, spec = self._spec(timeout, metadata, credentials, wait_for_ready, compression)
        return UnaryUnaryCall(caller, spec, payload, self._deserialize)


class _UnaryStream(_Method, _UnaryStreamKind):
    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> UnaryStreamCall:
        payload = self._payload(request)
        caller, spec = self._spec(timeout, metadata, credentials, wait_for_ready, compression)
        return UnaryStreamCall(caller, spec, payload, self._deserialize)


class _StreamUnary(_Method, _StreamUnaryKind):
    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> StreamUnaryCall:
        caller, spec = self._spec(timeout, metadata, credentials, wait_for_ready, compression)
        return StreamUnaryCall(caller, spec, request_iterator, self._serialize, self._deserialize)


class _StreamStream(_Method, _StreamStreamKind):
    def __call__(
        self,
        request_iterator: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> StreamStreamCall:
        caller, spec = self._spec(timeout, metadata, credentials, wait_for_ready, compression)
        return StreamStreamCall(caller, spec, request_iterator, self._serialize, self._deserialize)


class MeshChannel(grpc.aio.Channel):
    """Sealed calls to one service. ``max_receive``: largest reply an application takes, in bytes; -1: any."""

    def __init__(
        self,
        membership: Membership,
        target: Target,
        max_receive: int = MAX_MESSAGE,
        routing: Routing | None = None,
    ) -> None:
        """Make a channel; nothing is connected before the first call. ``routing``: what policy says of it."""
        self._caller = Caller(membership, target, max_receive, routing)

    async def __aenter__(self) -> Self:
        """Give the channel."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Do nothing: connections belong to the node, and end with it."""

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: ARG002
        """Say READY: whether an instance can be reached is found out call by call."""
        return grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the state is another one; from READY, for ever."""
        if last_observed_state is grpc.ChannelConnectivity.READY:
            await asyncio.get_running_loop().create_future()

    async def channel_ready(self) -> None:
        """Return at once: see ``get_state``."""

    def exchanges(
        self, method: str, metadata: Entries, timeout: float | None
    ) -> Callable[[bytes | None], Exchange | HedgedExchange]:
        """Give what makes a call of bytes: with the one request that it has, or, for ``None``, as a stream.

        For those that carry calls and are no stub. Raises ``AioRpcError`` for what the mesh cannot carry.
        """
        made = _Method(self._caller, method, None, None)._spec(timeout, metadata, None, None, None)  # noqa: SLF001
        return partial(exchange, *made)

    def unary_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> _UnaryUnary:
        """Give a callable for a method with one message each way."""
        return _UnaryUnary(self._caller, method, request_serializer, response_deserializer)

    def unary_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> _UnaryStream:
        """Give a callable for a method that streams replies."""
        return _UnaryStream(self._caller, method, request_serializer, response_deserializer)

    def stream_unary(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> _StreamUnary:
        """Give a callable for a method that streams requests."""
        return _StreamUnary(self._caller, method, request_serializer, response_deserializer)

    def stream_stream(
        self,
        method: str,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,
    ) -> _StreamStream:
        """Give a callable for a method that streams both ways."""
        return _StreamStream(self._caller, method, request_serializer, response_deserializer)
