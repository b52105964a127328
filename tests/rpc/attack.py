"""What an attacker holds that stands where TLS ends: raw calls, and captured ones to tamper with."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from bench.attacks import ATTACKS
from mesh.core.metadata import CALL, END, Entries, digest
from mesh.core.names import FullMethod, InstanceId, ServiceName
from mesh.core.seal import CallSeal
from mesh.core.wire import encode_call
from mesh.rpc.membership import Membership
from mesh.rpc.server import MeshServer
from mesh.rpc.status import DETAILS
from mesh.rpc.svid import Svid
from tests.rpc.http2 import tls

PATIENCE = 10.0


@dataclass(frozen=True)
class Answer:
    """What came back, as it stands on the wire."""

    code: grpc.StatusCode
    details: str
    initial: Entries
    trailing: Entries
    replies: list[bytes]

    @property
    def sealed(self) -> bool:
        """Whether the end carries a seal."""
        return any(key == END for key, _ in self.trailing)

    @property
    def reason(self) -> str | None:
        """What the mesh says is the reason."""
        return reason_of(self.trailing)[0]

    @property
    def call_id(self) -> str | None:
        """The correlation id."""
        return reason_of(self.trailing)[1]


class Attacker:
    """A raw gRPC client with a certificate of the trust domain."""

    def __init__(self, svid: Svid, port: int, name: str = "callee.test.example") -> None:
        """Take the certificate and where to attack."""
        options = (
            ("grpc.ssl_target_name_override", name),
            ("grpc.max_metadata_size", 64 * 1024),
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),
        )
        self._channel = grpc.aio.secure_channel(f"127.0.0.1:{port}", svid.channel_credentials(), options)

    async def send(
        self, path: str, metadata: Any, frames: Iterable[bytes], wait: float | None = None
    ) -> Answer:
        """Make a call of raw bytes and give what comes back."""
        async with asyncio.timeout(PATIENCE):
            call: Any = self._channel.stream_stream(path)(metadata=tuple(metadata), timeout=wait)
            return await finish(call, frames)

    async def replay(self, captured: Captured) -> Answer:
        """Send what was captured, or made of it."""
        return await self.send(captured.path, captured.metadata, captured.frames, captured.wait)

    def open(self, captured: Captured) -> Any:
        """Begin a call of raw bytes, to be written by hand."""
        return self._channel.stream_stream(captured.path)(
            metadata=tuple(captured.metadata), timeout=captured.wait
        )

    async def close(self) -> None:
        """Go away."""
        await self._channel.close()


async def finish(call: Any, frames: Iterable[bytes] = ()) -> Answer:
    """Write the rest of a raw call, and give what came back."""
    replies: list[bytes] = []
    # gRPC's own write() hides the other side's status where it loses the race with it.
    with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError):
        await call.wait_for_connection()
        for frame in frames:
            await call._cython_call.send_serialized_message(frame)
        await call.done_writing()
    with contextlib.suppress(grpc.aio.AioRpcError):
        while isinstance(reply := await call.read(), bytes):
            replies.append(reply)
    return Answer(
        await call.code(),
        await call.details(),
        tuple(await call.initial_metadata()),
        tuple(await call.trailing_metadata()),
        replies,
    )


@dataclass(frozen=True)
class Captured:
    """A sealed call as it goes over the wire."""

    path: str
    sealed: bytes
    frames: tuple[bytes, ...]
    entries: Entries = ()
    wait: float | None = None
    seal: CallSeal | None = field(default=None, compare=False)

    @property
    def metadata(self) -> Entries:
        """The request's metadata."""
        return ((CALL, self.sealed), *self.entries)

    def but(self, **changes: Any) -> Captured:
        """Give it changed."""
        return replace(self, **changes)


def capture(
    source: Membership,
    path: str,
    messages: Iterable[bytes] = (b"message",),
    *,
    to: tuple[ServiceName, InstanceId],
    entries: Entries = (),
    wait: float | None = None,
    bare_end: bool = False,
) -> Captured:
    """Seal a call as its source would, and give what an attacker can record of it."""
    now_ms = source.clock.now_ms()
    deadline_ms = now_ms + int(wait * 1000) if wait else 0
    sealed, seal = source.sender.seal(*to, FullMethod(path), digest(entries), deadline_ms, now_ms)
    sealer = seal.request_sealer()
    messages = list(messages)
    frames = [
        sealer.seal(message, end=not bare_end and index == len(messages) - 1)
        for index, message in enumerate(messages)
    ]
    if bare_end or not messages:
        frames.append(sealer.seal_end())
    return Captured(path, sealed, tuple(frames), entries, wait, seal)


def forge(seal: CallSeal, header: bytes) -> bytes:
    """Seal any header bytes with the keys of a call's session: what its own source could do."""
    mac = seal.session.request_key.mac(b"mesh/v1/call", len(header).to_bytes(4, "big") + header)
    return encode_call(mac, header)


def reason_of(trailing: Any) -> tuple[str | None, str | None]:
    """Read the mesh's reason and correlation id from trailing metadata."""
    for key, value in trailing or ():
        if key == DETAILS:
            info = error_details_pb2.ErrorInfo()
            status = status_pb2.Status.FromString(value)
            assert len(status.details) == 1
            assert status.details[0].Unpack(info)
            assert info.domain == "mesh"
            return info.reason, info.metadata.get("call_id")
    return None, None


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  the condition is the other side's
            await asyncio.sleep(0.002)


async def hung_up_for_a_bomb(port: int, path: str, context: ssl.SSLContext | None, source: str) -> None:
    """Send two header bombs, and wait to be hung up on."""
    name = "callee.test.example" if context else None
    local = (source, 0)
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=name, local_addr=local
    )
    bomb = ATTACKS["header bomb"].what(path)
    writer.write(b"".join(next(bomb) for _ in range(4)))
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE):
            while await reader.read(1 << 16):
                pass
    writer.transport.abort()


async def shown_by(server: MeshServer, svid: Svid) -> bytes | None:
    """Give the certificate that a server shows to a new connection, DER."""
    _, writer = await asyncio.open_connection(
        "127.0.0.1", server.port, ssl=tls(svid), server_hostname="callee.test.example"
    )
    shown: ssl.SSLObject = writer.get_extra_info("ssl_object")
    der = shown.getpeercert(binary_form=True)
    writer.close()
    return der
