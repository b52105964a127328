"""The attacker on the wire: a proxy that ends TLS on both sides with stolen keys, and can change all it sees.

It has the TLS keys of both services between which it stands, so TLS does not stop it: the certificate that it
shows is the right one on either side. It does not have their seal keys. Left alone it passes every call on
untouched; ``tampering`` says what to do to the next ones.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc

from mesh.core.names import Identity
from mesh.rpc.svid import Svid

Entries: TypeAlias = tuple[tuple[str, str | bytes], ...]
Frames: TypeAlias = AsyncIterator[bytes]
_Call: TypeAlias = grpc.aio.StreamStreamCall[bytes, bytes]
_Make: TypeAlias = "grpc.aio.StreamStreamMultiCallable[bytes, bytes]"

#: gRPC sets this anew on each hop.
_HOP = frozenset({"user-agent"})
_UNLIMITED = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 64 * 1024),
)


@dataclass(frozen=True, slots=True)
class End:
    """How a call ended, as it stands on the wire."""

    code: grpc.StatusCode
    details: str
    trailing: Entries


def _same(anything: Any) -> Any:
    return anything


@dataclass(frozen=True, slots=True)
class Tamper:
    """What to do to each part of a call on its way. Nothing, unless said otherwise."""

    method: Callable[[str], str] = _same
    metadata: Callable[[Entries], Entries] = _same
    timeout: Callable[[float | None], float | None] = _same
    requests: Callable[[Frames], Frames] = _same
    initial: Callable[[Entries], Entries] = _same
    replies: Callable[[Frames], Frames] = _same
    end: Callable[[End], End] = _same


HONEST = Tamper()


@dataclass(slots=True)
class Recording:
    """A call as the tap heard it, before it changed anything."""

    method: str
    metadata: Entries
    requests: list[bytes] = field(default_factory=list)
    initial: Entries = ()
    replies: list[bytes] = field(default_factory=list)
    end: End | None = None


class Tap:
    """Stands between the callers of one service and that service."""

    def __init__(self, victim: Identity, caller: Svid, callee: Svid, upstream: str) -> None:
        """Take whom it poses as, the stolen TLS keys of both ends, and the victim's real address."""
        self._server = grpc.aio.server(options=_UNLIMITED)
        self._server.add_generic_rpc_handlers((_Everything(self._pass),))
        self._credentials = _server_credentials(callee)
        options = (*_UNLIMITED, ("grpc.ssl_target_name_override", victim.dns))
        self._upstream = grpc.aio.secure_channel(upstream, caller.channel_credentials(), options)
        self._tamper = HONEST
        self.recorded: list[Recording] = []

    async def start(self, address: str) -> int:
        """Listen on ``host:port`` (port 0: any), and give the port."""
        port = self._server.add_secure_port(address, self._credentials)
        await self._server.start()
        return port

    async def stop(self) -> None:
        """End every call and close."""
        await self._server.stop(None)
        await self._upstream.close()

    @contextmanager
    def tampering(self, tamper: Tamper) -> Iterator[None]:
        """Do this to every call that comes meanwhile."""
        self._tamper = tamper
        try:
            yield
        finally:
            self._tamper = HONEST

    async def _pass(self, method: str, arriving: Frames, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        tamper = self._tamper
        heard = Recording(method, _entries(context.invocation_metadata()))
        self.recorded.append(heard)
        make: _Make = self._upstream.stream_stream(tamper.method(method))
        call = make(
            tamper.requests(_copied(arriving, heard.requests)),
            metadata=tamper.metadata(heard.metadata),
            timeout=tamper.timeout(context.time_remaining()),
        )
        try:
            heard.initial = _entries(await call.initial_metadata())
            await context.send_initial_metadata(tamper.initial(heard.initial))
            async for frame in tamper.replies(_copied(_until_end(call), heard.replies)):
                await context.write(frame)
            trailing = _entries(await call.trailing_metadata())
            heard.end = End(await call.code(), await call.details(), trailing)
            end = tamper.end(heard.end)
            context.set_trailing_metadata(end.trailing)
            context.set_code(end.code)
            context.set_details(end.details)
        finally:
            call.cancel()


class _Everything(grpc.GenericRpcHandler):
    """Whatever the method: bytes in, bytes out."""

    def __init__(self, handle: Callable[..., Any]) -> None:
        self._handle = handle

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        async def handle(arriving: Frames, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await self._handle(details.method, arriving, context)

        return grpc.stream_stream_rpc_method_handler(handle)


def _server_credentials(svid: Svid) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(svid.key_pem, svid.chain_pem)], svid.bundle_pem, require_client_auth=True
    )


def _entries(metadata: Any) -> Entries:
    return tuple((key, value) for key, value in metadata or () if key not in _HOP)


async def _copied(frames: Frames, copies: list[bytes]) -> Frames:
    async for frame in frames:
        copies.append(frame)
        yield frame


async def _until_end(call: _Call) -> Frames:
    """Give the replies; how the call ended is not this one's business."""
    try:
        async for frame in call:
            yield frame
    except grpc.aio.AioRpcError:
        return
