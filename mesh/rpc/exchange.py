"""A streaming call in progress, seen from the caller: messages out, messages in, one outcome.

If the call is refused before anything of it was dispatched (``caller``), it is opened anew, and what was
sent is sent again, as long as all of it is still held. The application notices nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import Any, Final, TypeAlias

import grpc

from mesh.core.errors import Cause, PeerError
from mesh.core.metadata import Entries
from mesh.rpc.caller import (
    ATTEMPTS,
    CANCELLED,
    Caller,
    CallFailedError,
    CallSpec,
    message_of,
    raw_end,
)
from mesh.rpc.reply import RawEnd, end_of, first_of, initial_entries, refusal_of, settle
from mesh.rpc.status import Outcome
from mesh.rpc.writing import write

#: How much of a request stream is held for sending it again.
MAX_HELD: Final = 256 * 1024

_C = grpc.StatusCode
_Raw: TypeAlias = Any  # grpc.aio.StreamStreamCall, whose parts its stubs do not all know


class Exchange:
    """A call with streams: messages out, messages in, and an outcome at the end."""

    def __init__(self, caller: Caller, spec: CallSpec, only: bytes | None = None) -> None:
        """Prepare; nothing is sent before ``start``. ``only``: the request of a call that has one only."""
        self._caller, self._spec, self._only = caller, spec, only
        self._sending, self._reading = asyncio.Lock(), asyncio.Lock()
        self._unread: deque[bytes] = deque()
        self._held: list[tuple[bytes, bool]] | None = [] if len(only or b"") <= MAX_HELD else None
        self._held_bytes = 0
        self.closed = only is not None
        self._attempts = 0
        self.initial: asyncio.Future[Entries] = asyncio.get_running_loop().create_future()
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.started = asyncio.Event()

    async def start(self) -> None:
        """Choose an instance and open the call. Failure is an outcome, never an exception."""
        try:
            await self._open()
        except CallFailedError as failed:
            self._finish(failed.outcome)
        finally:
            self.started.set()

    async def send(self, payload: bytes, *, last: bool = False) -> bool:
        """Send a message. False if the call has ended, so that it was not sent or is of no use."""
        async with self._sending:
            if self.outcome.done():
                return False
            self._hold(payload, last)
            if (ask := self._attempt.asking) and not await self._asked(
                ask.to_send(self._sealer, payload, last=last)
            ):
                return False
            if await write(self._raw, self._sealer.seal(payload, end=last), last=last):
                return True
        return await self._ended_while_sending()

    async def close(self) -> None:
        """End the request stream."""
        async with self._sending:
            if self.closed or self.outcome.done():
                return
            self.closed = True
            if (ask := self._attempt.asking) and not await self._asked(ask.to_end(self._sealer)):
                return
            if await write(self._raw, self._sealer.seal_end(), last=True):
                return
        await self._ended_while_sending()

    async def receive(self) -> bytes | None:
        """Give the next message, or ``None`` once ``outcome`` is there."""
        while not self._unread and not self.outcome.done():
            async with self._reading:
                await self._read(self._raw)
        return self._unread.popleft() if self._unread else None

    async def settled(self) -> Outcome:
        """Wait for the end and give it. Whoever wants messages has to read them meanwhile."""
        await self.started.wait()
        while not self.outcome.done():
            raw = self._raw
            await first_of(raw.code(), self.outcome)
            if self._attempt.asking and not self.outcome.done():
                await first_of(self._ended_in_turn(raw), self.outcome)
            elif not self.outcome.done():
                await self._ended(raw, await end_of(raw))
        return self.outcome.result()

    async def _ended_in_turn(self, raw: _Raw) -> None:
        async with self._reading:  # a message that auth is being asked about counts
            await self._ended(raw, await end_of(raw))

    async def initial_sealed(self) -> bool:
        """Wait until the reply begins. Whether its initial metadata is sealed by itself, and so there now."""
        if not self.initial.done() and not self.outcome.done():
            await self._believe_initial(tuple(await self._raw.initial_metadata()))
        return self.initial.done()

    async def initial_metadata(self) -> Entries:
        """Wait for the reply's initial metadata, verified, and give the application's part."""
        await self.started.wait()
        if not self.initial.done() and not self.outcome.done():
            found = await first_of(self._raw.initial_metadata(), self.outcome)
            if not isinstance(found, Outcome):
                await self._believe_initial(tuple(found))
        if not self.initial.done():
            # Without a seal of its own only the sealed end tells what it was.
            self._take_initial((await self.settled()).initial)
        return self.initial.result()

    def cancel(self) -> bool:
        """Cancel the call. False if it had ended."""
        if self.outcome.done():
            return False
        self.abandon(CANCELLED)
        return True

    async def _read(self, raw: _Raw) -> None:
        # One message or the end, unless somebody else has seen the end meanwhile.
        if self._unread or self.outcome.done() or raw is not self._raw:
            return
        try:
            data = await raw.read()
        except grpc.aio.AioRpcError as error:
            await self._ended(raw, raw_end(error))
            return
        except asyncio.CancelledError:
            if not self._abandoned():
                raise
            return
        if not isinstance(data, bytes):
            await self._ended(raw, await end_of(raw))
            return
        try:
            self._unread.append(await self._opened(data))
        except PeerError as error:
            self.abandon(self._caller.disbelieved(error, self._spec))
        except CallFailedError as failed:
            self.abandon(failed.outcome)

    async def _open(self) -> None:
        self._attempt = await self._caller.begin(self._spec, self._only)
        if self.outcome.done():
            return
        self._attempts += 1
        self._sealer = self._attempt.seal.request_sealer()
        self._opener = self._attempt.seal.reply_opener()
        connection = self._attempt.connection
        if (cut := connection.cut()) is not None:
            raise CallFailedError(cut)
        method, options = self._spec.method.text, self._attempt.options
        self._raw: _Raw
        if self._only is None:
            self._raw = connection.stream(method)(**options)
        else:
            self._raw = connection.down(method)(self._sealer.seal(self._only, end=True), **options)
        connection.began()
        self._raw.add_done_callback(connection.ended)
        self._raw.add_done_callback(connection.on_cut(self.abandon))

    def _abandoned(self) -> bool:
        # gRPC raises CancelledError also in whoever waits for a call that was abandoned meanwhile.
        task = asyncio.current_task()
        return self.outcome.done() and (task is None or not task.cancelling())

    async def _ended_while_sending(self) -> bool:
        # Either the call was refused and is on its way again with all that was held, or it is over. What was
        # not read yet keeps the transport from saying which, so it is taken in, to be read later.
        raw, unread = self._raw, deque[bytes]()
        while raw is self._raw and not self.outcome.done():
            async with self._reading:
                unread.extend(self._unread)
                self._unread.clear()
                await self._read(raw)
        self._unread.extendleft(reversed(unread))
        return not self.outcome.done()

    async def _ended(self, raw: _Raw, end: RawEnd) -> None:
        async with self._sending:
            if self.outcome.done() or raw is not self._raw:
                return
            untouched = self._held is not None and not self._opener.count and not self.initial.done()
            if untouched and self._attempts < ATTEMPTS and refusal_of(end) is not None:
                try:
                    # Whoever cancels meanwhile does not wait for a place to go on at.
                    await first_of(self._again(end), self.outcome)
                except CallFailedError as failed:
                    self._finish(failed.outcome)
            else:
                await self._judge(end)

    async def _again(self, end: RawEnd) -> None:
        if not await self._caller.was_refused(self._attempt, self._spec, end):
            await self._judge(end)
            return
        await self._open()
        asking = self._attempt.asking
        for payload, last in self._held or ():
            if asking is not None:
                await asking.to_send(self._sealer, payload, last=last)
            await write(self._raw, self._sealer.seal(payload, end=last), last=last)
        if self.closed and self._only is None:
            if asking is not None:
                await asking.to_end(self._sealer)
            await write(self._raw, self._sealer.seal_end(), last=True)

    async def _judge(self, end: RawEnd) -> None:
        self._caller.ended(self._attempt, end)
        if not (ask := self._attempt.asking) or await self._asked(ask.end_seen(end, (self._opener.count,))):
            self._finish(self._judged(end))

    def _judged(self, end: RawEnd) -> Outcome:
        try:
            if end.code is _C.OK:
                self._check_initial(end.initial)
            return settle(self._attempt.seal, end, (self._opener.count,), late=self._spec.late())
        except PeerError as error:
            return self._caller.disbelieved(error, self._spec)

    async def _opened(self, data: bytes) -> bytes:
        asking, initial = self._attempt.asking, None
        if not self._opener.count:
            self._held = None
            if not self.initial.done():
                initial = tuple(await self._raw.initial_metadata())
        if asking is not None:
            await asking.reply_seen(self._opener, data, initial)
        if initial is not None:
            self._check_initial(initial)
        if self._opener.count and not self.initial.done():
            # Only a reply of one message may leave its initial metadata to the seal of its end.
            raise PeerError(Cause.BAD_METADATA, "initial metadata of the reply has no seal")
        return self._caller.checked_size(message_of(self._opener, data))

    async def _asked(self, asked: Awaitable[None]) -> bool:
        # Whether auth has answered. If not, the call is over.
        try:
            await asked
        except CallFailedError as failed:
            self.abandon(failed.outcome)
            return False
        return True

    async def _believe_initial(self, raw: Entries) -> None:
        if (ask := self._attempt.asking) and not await self._asked(ask.reply_seen(self._opener, None, raw)):
            return
        try:
            self._check_initial(raw)
        except PeerError as error:
            self.abandon(self._caller.disbelieved(error, self._spec))

    def _check_initial(self, raw: Entries) -> None:
        entries = initial_entries(self._attempt.seal, raw)
        if entries is not None:
            self._take_initial(entries)

    def _take_initial(self, entries: Entries) -> None:
        if not self.initial.done():
            self.initial.set_result(entries)

    def _hold(self, payload: bytes, last: bool) -> None:
        if self._held is None:
            return
        self._held_bytes += len(payload)
        if self._held_bytes > MAX_HELD:
            self._held = None
        else:
            self._held.append((payload, last))

    def abandon(self, outcome: Outcome) -> None:
        """End the call on this side, with an outcome of our own."""
        self._finish(outcome)
        if hasattr(self, "_raw"):
            self._raw.cancel()

    def _finish(self, outcome: Outcome) -> None:
        self._held = None
        self.started.set()  # also if it never started: there is nothing more to wait for
        if not self.outcome.done():
            self.outcome.set_result(outcome)
            self._spec.watched.ended(outcome)
