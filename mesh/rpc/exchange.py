"""A streaming call in progress, seen from the caller: messages out, messages in, one outcome.

If the call is refused before anything of it was dispatched (``caller``), it is opened anew, and what was
sent is sent again, as long as all of it is still held. The same is done if its route declares it safe to
repeat (``mesh.core.repeats``), until a reply begins. The application notices nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
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
)
from mesh.rpc.connections import Connection
from mesh.rpc.faults import disturb
from mesh.rpc.held import Held
from mesh.rpc.repeating import OVERTIME, Tries
from mesh.rpc.reply import RawEnd, end_of, initial_entries, message_of, raw_end, refusal_of, settle
from mesh.rpc.status import Outcome
from mesh.rpc.waiting import being_cancelled, first
from mesh.rpc.writing import write

_C = grpc.StatusCode
_OVERDUE: Final = RawEnd(_C.DEADLINE_EXCEEDED, OVERTIME.details, (), ())
_Raw: TypeAlias = Any  # grpc.aio.StreamStreamCall, whose parts its stubs do not all know


class Exchange:
    """A call with streams: messages out, messages in, and an outcome at the end."""

    def __init__(self, caller: Caller, spec: CallSpec, only: bytes | None = None) -> None:
        """Prepare; nothing is sent before ``start``. ``only``: the request of a call that has one only."""
        self._caller, self._spec, self._only = caller, spec, only
        self._sending, self._reading = asyncio.Lock(), asyncio.Lock()
        self._unread: deque[bytes] = deque()
        self._held = Held(only)
        self._tries = Tries(spec)
        self._overdue: _Raw = None
        self.closed = only is not None
        self._attempts = 0
        self.initial: asyncio.Future[Entries] = asyncio.get_running_loop().create_future()
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.started = asyncio.Event()

    async def start(self) -> None:
        """Choose an instance and open the call. Failure is an outcome, never an exception."""
        try:
            await disturb(self._spec)
            await self._open()
        except CallFailedError as failed:
            await self._repeat(failed.outcome)
        finally:
            self.started.set()

    async def send(self, payload: bytes, *, last: bool = False) -> bool:
        """Send a message. False if the call has ended, so that it was not sent or is of no use."""
        async with self._sending:
            if self.outcome.done():
                return False
            self._held.add(payload, last=last)
            if await write(self._raw, self._sealer.seal(payload, end=last), last=last):
                return True
        return await self._ended_while_sending()

    async def close(self) -> None:
        """End the request stream."""
        async with self._sending:
            if self.closed or self.outcome.done():
                return
            self.closed = True
            if await write(self._raw, self._sealer.seal_end(), last=True):
                return
        await self._ended_while_sending()

    async def receive(self) -> bytes | None:
        """Give the next message, or ``None`` once ``outcome`` is there."""
        await self.began()
        return self._unread.popleft() if self._unread else None

    async def settled(self) -> Outcome:
        """Wait for the end and give it. Whoever wants messages has to read them meanwhile."""
        await self.started.wait()
        while not self.outcome.done():
            raw = self._raw
            await first(raw.code(), self.outcome)
            if not self.outcome.done():
                await self._ended(raw, await end_of(raw))
        return self.outcome.result()

    async def began(self) -> None:
        """Wait until the next message is there to be read, or the end."""
        while not self._unread and not self.outcome.done():
            async with self._reading:
                await self._read(self._raw)

    async def initial_sealed(self) -> bool:
        """Wait until the reply begins. Whether its initial metadata is sealed by itself, and so there now."""
        if not self.initial.done() and not self.outcome.done():
            try:
                self._check_initial(tuple(await self._raw.initial_metadata()))
            except PeerError as error:
                self.abandon(self._caller.disbelieved(error, self._spec))
        return self.initial.done()

    async def initial_metadata(self) -> Entries:
        """Wait for the reply's initial metadata, verified, and give the application's part."""
        await self.started.wait()
        while not self.initial.done() and not self.outcome.done():
            raw = self._raw
            found = await first(raw.initial_metadata(), self.outcome)
            if not isinstance(found, Outcome):
                try:
                    self._check_initial(tuple(found))
                except PeerError as error:
                    self.abandon(self._caller.disbelieved(error, self._spec))
            if self.initial.done() or not raw.done():
                break
            await self._ended(raw, await end_of(raw))
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
            if raw is self._overdue and not being_cancelled():
                await self._ended(raw, _OVERDUE)
            elif not self._abandoned():
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
        self._attempt = await self._caller.begin(self._spec)
        connection = self._attempt.connection
        try:
            self._raw = self._made(connection)
        except BaseException:
            connection.ended()
            raise
        self._raw.add_done_callback(connection.ended)
        self._raw.add_done_callback(connection.on_cut(self.abandon))
        self._tries.begun(self._too_long)

    def _made(self, connection: Connection) -> _Raw:
        if self.outcome.done():
            raise CallFailedError(self.outcome.result())
        self._attempts += 1
        self._sealer = self._attempt.seal.request_sealer()
        self._opener = self._attempt.seal.reply_opener()
        if (cut := connection.cut()) is not None:
            raise CallFailedError(cut)
        method, options = self._spec.method.text, self._attempt.options
        if self._only is None:
            return connection.stream(method)(**options)
        return connection.down(method)(self._sealer.seal(self._only, end=True), **options)

    def _abandoned(self) -> bool:
        # gRPC raises CancelledError also in whoever waits for a call that was abandoned meanwhile.
        return self.outcome.done() and not being_cancelled()

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
            refused = self._untouched() and self._attempts < ATTEMPTS and refusal_of(end) is not None
            if not (self._tries.more or refused):
                self._finish(self._judge(end))
                return
            # Whoever cancels meanwhile does not wait for a place to go on at.
            await first(self._again(raw, end, refused=refused), self.outcome)

    async def _again(self, raw: _Raw, end: RawEnd, *, refused: bool) -> None:
        try:
            if refused and await self._caller.was_refused(self._attempt, self._spec, end):
                await self._resend()
            elif raw is self._overdue:
                self._caller.ended(self._attempt, _OVERDUE)
                await self._repeat(OVERTIME, overtime=True)
            else:
                await self._repeat(self._judge(end))
        except CallFailedError as failed:
            await self._repeat(failed.outcome)

    async def _repeat(self, outcome: Outcome, *, overtime: bool = False) -> None:
        """Make the call again, if its route lets it; else end it with that outcome."""
        end = await self._tries.again(outcome, self._resend, self._untouched, overtime=overtime)
        if end is not None:
            self._finish(end)

    async def _resend(self) -> None:
        await self._open()
        await self._held.send(self._raw, self._sealer)
        if self.closed and self._only is None:
            await write(self._raw, self._sealer.seal_end(), last=True)

    def _untouched(self) -> bool:
        """Whether nothing of a reply has come, and all that was sent is still there."""
        return self._held.whole and not self.initial.done()

    def _too_long(self) -> None:
        if self._untouched() and not self.outcome.done():
            self._overdue = self._raw
            self._raw.cancel()

    def _judge(self, end: RawEnd) -> Outcome:
        begun = self._opener.count > 0 or self.initial.done()
        self._caller.ended(self._attempt, end, begun=begun)
        try:
            if end.code is _C.OK:
                self._check_initial(end.initial)
            return settle(self._attempt.seal, end, (self._opener.count,), late=self._spec.late())
        except PeerError as error:
            return self._caller.disbelieved(error, self._spec)

    async def _opened(self, data: bytes) -> bytes:
        if not self._opener.count:
            self._held.drop()
            if not self.initial.done():
                self._check_initial(tuple(await self._raw.initial_metadata()))
        if self._opener.count and not self.initial.done():
            # Only a reply of one message may leave its initial metadata to the seal of its end.
            raise PeerError(Cause.BAD_METADATA, "initial metadata of the reply has no seal")
        return self._caller.checked_size(message_of(self._opener, data))

    def _check_initial(self, raw: Entries) -> None:
        entries = initial_entries(self._attempt.seal, raw)
        if entries is not None:
            self._take_initial(entries)

    def _take_initial(self, entries: Entries) -> None:
        if not self.initial.done():
            self.initial.set_result(entries)

    def abandon(self, outcome: Outcome) -> None:
        """End the call on this side, with an outcome of our own."""
        self._finish(outcome)
        if hasattr(self, "_raw"):
            self._raw.cancel()

    def _finish(self, outcome: Outcome) -> None:
        self._held.drop()
        self._tries.over()
        self.started.set()  # also if it never started: there is nothing more to wait for
        if not self.outcome.done():
            self.outcome.set_result(outcome)
            self._spec.watched.ended(outcome)
