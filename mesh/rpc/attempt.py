"""One attempt of a call: what is sealed for it, and what is believed of its reply.

It knows nothing of the attempts before and after it, of what is held to be sent again, nor of how the call
ends (``caller``, ``exchange``). Before each step that seals or verifies it asks (``asking``).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from mesh.core.errors import Cause, PeerError
from mesh.core.metadata import Entries
from mesh.core.names import InstanceId
from mesh.core.seal import CallSeal
from mesh.rpc.connections import Connection
from mesh.rpc.reply import RawEnd, initial_entries, message_of, raw_end, settle
from mesh.rpc.status import CallFailedError, Outcome
from mesh.rpc.writing import write

if TYPE_CHECKING:
    from mesh.rpc.asking import Asking

_C = grpc.StatusCode
_Raw: TypeAlias = Any  # grpc.aio.StreamStreamCall, whose parts its stubs do not all know


@dataclass(slots=True)
class Attempt:
    """Where it goes, how it is sealed, and who is asked first."""

    instance: InstanceId
    connection: Connection
    seal: CallSeal
    options: dict[str, Any]
    asking: Asking


async def unary_reply(attempt: Attempt, method: str, frame: bytes) -> tuple[RawEnd, bytes]:
    """Send the frame of a call of one message each way; give its end and the frame of its reply.

    Raises ``CallFailedError`` if its connection is cut.
    """
    connection = attempt.connection
    try:
        if (cut := connection.cut()) is not None:
            raise CallFailedError(cut)
        call = connection.unary(method)(frame, **attempt.options)
        reply = await call or b""
        end = RawEnd(
            _C.OK,
            await call.details() or "",
            tuple(await call.initial_metadata()),
            tuple(await call.trailing_metadata()),
        )
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if (cut := connection.cut()) is None or (task is not None and task.cancelling()):
            raise
        raise CallFailedError(cut) from None
    except grpc.aio.AioRpcError as error:
        if (cut := connection.cut()) is not None:
            raise CallFailedError(cut) from None
        return raw_end(error), b""
    else:
        return end, reply
    finally:
        connection.ended()


class Streams:
    """An attempt of a call with streams, under way.

    Where auth is asked and does not answer, every step raises ``CallFailedError``.
    """

    def __init__(
        self, attempt: Attempt, method: str, only: bytes | None, initial: asyncio.Future[Entries]
    ) -> None:
        """Send it; raise ``CallFailedError`` if its connection is cut.

        ``only``: the request of a call that has one only; ``initial``: takes the reply's initial metadata,
        once that is verified.
        """
        self.attempt, self._asking = attempt, attempt.asking
        self._sealer, self._opener = attempt.seal.request_sealer(), attempt.seal.reply_opener()
        self._initial = initial
        self.over = False
        """Whether its end was seen, so that nothing more of it counts."""
        connection = attempt.connection
        if (cut := connection.cut()) is not None:
            raise CallFailedError(cut)
        self.raw: _Raw
        if only is None:
            self.raw = connection.stream(method)(**attempt.options)
        else:
            self.raw = connection.down(method)(self._sealer.seal(only, end=True), **attempt.options)

    @property
    def begun(self) -> bool:
        """Whether a message of the reply has come."""
        return self._opener.count > 0

    async def send(self, payload: bytes, *, last: bool) -> bool:
        """Send a message. False if it has ended."""
        if self._asking.remote:
            await self._asking.to_send(self._sealer, payload, last=last)
        return await write(self.raw, self._sealer.seal(payload, end=last), last=last)

    async def close(self) -> bool:
        """End the requests. False if it has ended."""
        await self._asking.to_end(self._sealer)
        return await write(self.raw, self._sealer.seal_end(), last=True)

    async def believe_initial(self, raw: Entries) -> None:
        """Take initial metadata, if it has a seal of its own; raise ``PeerError`` if that is wrong."""
        await self._asking.reply_seen(self._opener, None, raw)
        if not self.over:
            self._check_initial(raw)

    async def opened(self, data: bytes) -> bytes:
        """Open a message of the reply; raise ``PeerError``."""
        initial = None
        if not self.begun and not self._initial.done():
            initial = tuple(await self.raw.initial_metadata())
        if self._asking.remote:
            await self._asking.reply_seen(self._opener, data, initial)
        if initial is not None:
            self._check_initial(initial)
        if self.begun and not self._initial.done():
            # Only a reply of one message may leave its initial metadata to the seal of its end.
            raise PeerError(Cause.BAD_METADATA, "initial metadata of the reply has no seal")
        return message_of(self._opener, data)

    async def settled(self, end: RawEnd, *, late: bool) -> Outcome:
        """Judge its end, as ``reply.settle`` does."""
        await self._asking.end_seen(end, (self._opener.count,))
        if end.code is _C.OK:
            self._check_initial(end.initial)
        return settle(self.attempt.seal, end, (self._opener.count,), late=late)

    def _check_initial(self, raw: Entries) -> None:
        entries = initial_entries(self.attempt.seal, raw)
        if entries is not None and not self._initial.done():
            self._initial.set_result(entries)
