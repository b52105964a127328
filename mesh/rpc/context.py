"""What a handler sees of a call: gRPC's own ``ServicerContext``, over a sealed call.

What the handler says of the end (``saying``) is sealed then (``ending``); messages and initial metadata are
sealed and sent as they come. What a handler reads was verified before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn

import grpc

from mesh.core.errors import PeerError
from mesh.core.metadata import INITIAL, PEER, Entries, checked_entries, digest
from mesh.core.names import Identity
from mesh.core.receiver import Admitted, Peer
from mesh.core.seal import End
from mesh.rpc.open_calls import OpenCall
from mesh.rpc.saying import Saying
from mesh.rpc.status import CallFailedError, Outcome

if TYPE_CHECKING:
    from mesh.rpc.asking import Asking

#: gRPC shows a stream that was cancelled as one that has ended, and cancels its handler a moment later. A
#: stream without its sealed end is taken for cut short only after this many seconds.
CANCELLATION_GRACE: Final = 0.05

_C = grpc.StatusCode
_NO_INITIAL: Final = digest(())


class Metadatum(NamedTuple):
    """An entry of metadata, with the names that gRPC gives its two parts."""

    key: str
    value: str | bytes


class OversizedError(Exception):
    """A request message is larger than the application takes."""


def _not_open() -> NoReturn:
    raise RuntimeError("no message passes before the call has its permit")


class MeshContext(Saying):
    """One admitted call, for its handler."""

    def __init__(
        self,
        raw: Any,
        admitted: Admitted,
        asking: Asking,
        identity: Identity,
        max_receive: int,
        handler: grpc.RpcMethodHandler[Any, Any] | None,
        entries: Entries,
        now_ms: Callable[[], int],
    ) -> None:
        """Take the transport's context, the admitted call, who is asked, its handler, and auth's clock in ms.

        ``entries`` is the metadata that the application sees.
        """
        super().__init__()
        self.asking = asking
        self._now_ms = now_ms
        self._raw, self._admitted, self._max_receive = raw, admitted, max_receive
        self._entries = entries
        self._deserialize = handler.request_deserializer if handler else None
        self._serialize = handler.response_serializer if handler else None
        self._caller = Identity(identity.domain, admitted.header.source)
        self._opener = admitted.seal.request_opener()
        self._sealer = admitted.seal.reply_sealer()
        self.initial_digest: bytes | None = None
        self.compressing = False
        self.check: Callable[[], None] = _not_open
        """Sees before each message that the call is still permitted (``open_calls``)."""
        self.call: OpenCall | None = None
        self.fault: PeerError | None = None
        self.unanswered: Outcome | None = None
        """How the call has ended because auth, which keeps the keys, did not answer."""

    @property
    def mesh_peer(self) -> Peer:
        """The verified caller."""
        return Peer(self._admitted.header.source, self._admitted.header.source_instance)

    @property
    def sent(self) -> int:
        """How many messages were sent."""
        return self._sealer.count

    @property
    def ended(self) -> bool:
        """Whether the last request message was read, and said so."""
        return self._opener.ended

    async def read_bytes(self) -> bytes | None:
        """Give the next request message as it was sent, or ``None`` after the last.

        Raises ``PeerError`` for a frame that does not verify or a stream without its end, ``Denied`` if the
        call is permitted no longer, and ``OversizedError``. They end the call, whatever the handler makes of
        them.
        """
        if self._opener.ended:
            return None
        data = await self.asking.read(self._raw)
        if not isinstance(data, bytes):
            # If the caller has cancelled, that is what ends this wait.
            await asyncio.sleep(CANCELLATION_GRACE)
        try:
            if not isinstance(data, bytes):
                self._opener.finish()
                return None
            if self.asking.remote:
                await self.asked(self.asking.request_seen(self._opener, data))
            payload = self._opener.open(data)
        except PeerError as fault:
            self.fault = fault
            raise
        self.check()
        if payload is not None and 0 <= self._max_receive < len(payload):
            self._fail_oversized(len(payload))
        return payload

    def _fail_oversized(self, size: int) -> NoReturn:
        text = f"message of {size} bytes is larger than the limit of {self._max_receive}"
        self.end_with(_C.RESOURCE_EXHAUSTED, text)
        raise OversizedError(text)

    async def read(self) -> Any:
        """Give the next request message, or ``EOF``."""
        payload = await self.read_bytes()
        if payload is None:
            return grpc.aio.EOF
        return self._deserialize(payload) if self._deserialize else payload

    async def write(self, message: Any) -> None:
        """Send a reply message."""
        payload = self.serialized(message)
        if self.asking.remote:
            initial = _NO_INITIAL if self.initial_digest is None else None
            await self.asked(self.asking.to_reply(self._sealer, payload, initial))
        await self.send_initial_metadata_once()
        await self._raw.write(self.seal(payload))

    def serialized(self, message: Any) -> bytes:
        """Give a reply message's bytes."""
        payload: bytes = self._serialize(message) if self._serialize else message
        return payload

    def seal(self, payload: bytes) -> bytes:
        """Seal the next reply message; raise ``Denied`` if the call is permitted no longer."""
        self.check()
        return self._sealer.seal(payload)

    async def ask_whole(self, payload: bytes, end: End) -> None:
        """Ask at once for the one message of a reply and its end."""
        await self.asked(self.asking.to_reply(self._sealer, payload, None, end))

    async def asked(self, answered: Awaitable[None]) -> None:
        """Wait for who is asked. Without an answer the call ends, whatever the handler makes of it."""
        try:
            await answered
        except CallFailedError as failed:
            self.unanswered = failed.outcome
            raise

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Send initial metadata, sealed; once, before any message."""
        if self.initial_digest is not None:
            msg = "initial metadata was sent already"
            raise grpc.aio.UsageError(msg)
        entries = checked_entries(initial_metadata)
        self.initial_digest = digest(entries)
        await self.asked(self.asking.to_begin(self.initial_digest))
        mac = self._admitted.seal.seal_initial(self.initial_digest)
        if self.call is None:
            _not_open()
        # Cut off here, gRPC would take the status for a second beginning, and leave the caller waiting.
        self.call.uncut = True
        try:
            await self._raw.send_initial_metadata(((INITIAL, mac), *entries))
        finally:
            self.call.uncut = False
        self.check()

    async def send_initial_metadata_once(self) -> None:
        """Send empty initial metadata unless some was sent."""
        if self.initial_digest is None:
            await self.send_initial_metadata(())

    def invocation_metadata(self) -> Any:
        """Give the caller's metadata, and ``mesh-peer``: who the caller is."""
        entries = tuple(Metadatum(key, value) for key, value in self._entries)
        return (*entries, Metadatum(PEER, self._caller.uri))

    def set_compression(self, compression: grpc.Compression) -> None:
        """Compress what is sent from now on."""
        self.compressing = True
        self._raw.set_compression(compression)

    def disable_next_message_compression(self) -> None:
        """Do not compress the next message."""
        self._raw.disable_next_message_compression()

    def peer(self) -> str:
        """Give the address of the caller's node, as gRPC writes it."""
        return str(self._raw.peer())

    def peer_identities(self) -> list[bytes]:
        """Give the caller's SPIFFE ID."""
        return [self._caller.uri.encode()]

    def peer_identity_key(self) -> str:
        """Say what kind of identity that is."""
        return PEER

    def auth_context(self) -> Any:
        """Give what TLS knows of the caller's node."""
        return self._raw.auth_context()

    def time_remaining(self) -> Any:
        """Give the seconds left, or ``None`` without a deadline."""
        left, sealed_ms = self._raw.time_remaining(), self._admitted.header.deadline_ms
        if left is None or not sealed_ms:
            return left
        # The transport rounds up; the sealed deadline is what the caller said.
        return max(0.0, min(left, (sealed_ms - self._now_ms()) / 1000))

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back with this context when the call is over."""
        self._raw.add_done_callback(lambda _: callback(self))

    def cancelled(self) -> bool:
        """Whether the caller cancelled."""
        return bool(self._raw.cancelled())

    def done(self) -> bool:
        """Whether the call is over."""
        return bool(self._raw.done())


def peer(context: Any) -> Peer:
    """Give the verified caller of a call, inside its handler; raise ``TypeError`` outside the mesh."""
    if not isinstance(context, MeshContext):
        msg = "not a call of the mesh: peer() takes the context of a handler served by node.server()"
        raise TypeError(msg)
    return context.mesh_peer
