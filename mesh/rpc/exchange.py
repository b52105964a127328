"""A streaming call in progress, seen from the caller: messages out, messages in, one outcome.

If the call is refused before anything of it was dispatched (``caller``), it is opened anew, and what was
sent is sent again, as long as all of it is still held. The same is done if its route declares it safe to
repeat (``mesh.core.repeats``), until a reply begins. The application notices nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable
from typing import Final

import grpc

from mesh.core.errors import PeerError
from mesh.core.metadata import Entries
from mesh.rpc.attempt import Attempt, Streams
from mesh.rpc.caller import ATTEMPTS, CANCELLED, Caller, CallSpec
from mesh.rpc.faults import disturb
from mesh.rpc.held import Held
from mesh.rpc.repeating import OVERTIME, Tries
from mesh.rpc.reply import RawEnd, end_of, raw_end, refusal_of
from mesh.rpc.status import CallFailedError, Outcome
from mesh.rpc.waiting import being_cancelled, first

_OVERDUE: Final = RawEnd(grpc.StatusCode.DEADLINE_EXCEEDED, OVERTIME.details, (), ())


class Exchange:
    """A call with streams: messages out, messages in, and an outcome at the end."""

    def __init__(self, caller: Caller, spec: CallSpec, only: bytes | None = None) -> None:
        """Prepare; nothing is sent before ``start``. ``only``: the request of a call that has one only."""
        self._caller, self._spec, self._only = caller, spec, only
        self._sending, self._reading = asyncio.Lock(), asyncio.Lock()
        self._unread: deque[bytes] = deque()
        self._held = Held(only)
        self._tries = Tries(spec)
        self._overdue: Streams | None = None
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
            if await self._went(self._attempt.send(payload, last=last)):
                return True
        return await self._ended_while_sending()

    async def close(self) -> None:
        """End the request stream."""
        async with self._sending:
            if self.closed or self.outcome.done():
                return
            self.closed = True
            if await self._went(self._attempt.close()):
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
            attempt = self._attempt
            await first(attempt.raw.code(), self.outcome)
            await self._ended_in_turn(attempt)
        return self.outcome.result()

    async def began(self) -> None:
        """Wait until the next message is there to be read, or the end."""
        while not self._unread and not self.outcome.done():
            async with self._reading:
                await self._read(self._attempt)

    async def initial_sealed(self) -> bool:
        """Wait until the reply begins. Whether its initial metadata is sealed by itself, and so there now."""
        if not self.initial.done() and not self.outcome.done():
            attempt = self._attempt
            await self._believe_initial(attempt, tuple(await attempt.raw.initial_metadata()))
        return self.initial.done()

    async def initial_metadata(self) -> Entries:
        """Wait for the reply's initial metadata, verified, and give the application's part."""
        await self.started.wait()
        while not self.initial.done() and not self.outcome.done():
            attempt = self._attempt
            found = await first(attempt.raw.initial_metadata(), self.outcome)
            if not isinstance(found, Outcome):
                await self._believe_initial(attempt, tuple(found))
            if self.initial.done() or not attempt.raw.done():
                break
            await self._ended_in_turn(attempt)
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

    async def _read(self, attempt: Streams) -> None:
        # One message or the end, unless somebody else has seen the end meanwhile.
        if self._unread or self.outcome.done() or attempt is not self._attempt:
            return
        try:
            data = await attempt.raw.read()
        except grpc.aio.AioRpcError as error:
            await self._ended(attempt, raw_end(error))
            return
        except asyncio.CancelledError:
            if attempt is self._overdue and not being_cancelled():
                await self._ended(attempt, _OVERDUE)
            elif not self._abandoned():
                raise
            return
        if not isinstance(data, bytes):
            await self._ended(attempt, await end_of(attempt.raw))
            return
        self._held.drop()
        try:
            self._unread.append(self._caller.checked_size(await attempt.opened(data)))
        except (PeerError, CallFailedError) as error:
            self.abandon(self._outcome_of(error))

    async def _open(self) -> None:
        attempt = await self._caller.begin(self._spec, self._only)
        try:
            self._attempt = self._begun(attempt)
        except BaseException:
            attempt.connection.ended()
            raise
        self._attempt.raw.add_done_callback(attempt.connection.ended)
        self._attempt.raw.add_done_callback(attempt.connection.on_cut(self.abandon))
        self._tries.begun(self._too_long)

    def _begun(self, attempt: Attempt) -> Streams:
        if self.outcome.done():
            raise CallFailedError(self.outcome.result())
        self._attempts += 1
        return Streams(attempt, self._spec.method.text, self._only, self.initial)

    async def _went(self, sending: Awaitable[bool]) -> bool:
        # Where auth is asked and does not answer, the call is over.
        try:
            return await sending
        except CallFailedError as failed:
            self.abandon(failed.outcome)
            return False

    def _abandoned(self) -> bool:
        # gRPC raises CancelledError also in whoever waits for a call that was abandoned meanwhile.
        return self.outcome.done() and not being_cancelled()

    async def _ended_while_sending(self) -> bool:
        # Either the call was refused and is on its way again with all that was held, or it is over. What was
        # not read yet keeps the transport from saying which, so it is taken in, to be read later.
        attempt, unread = self._attempt, deque[bytes]()
        while attempt is self._attempt and not self.outcome.done():
            async with self._reading:
                unread.extend(self._unread)
                self._unread.clear()
                await self._read(attempt)
        self._unread.extendleft(reversed(unread))
        return not self.outcome.done()

    async def _ended_in_turn(self, attempt: Streams) -> None:
        async with self._reading:  # a message that came before the end, and is yet to be opened, counts
            if not self.outcome.done():
                await self._ended(attempt, await end_of(attempt.raw))

    async def _ended(self, attempt: Streams, end: RawEnd) -> None:
        async with self._sending:
            if self.outcome.done() or attempt is not self._attempt:
                return
            attempt.over = True
            refused = self._untouched() and self._attempts < ATTEMPTS and refusal_of(end) is not None
            if not (self._tries.more or refused):
                self._finish(await self._judged(attempt, end))
                return
            # Whoever cancels meanwhile does not wait for a place to go on at.
            await first(self._again(attempt, end, refused=refused), self.outcome)

    async def _again(self, attempt: Streams, end: RawEnd, *, refused: bool) -> None:
        try:
            if refused and await self._caller.was_refused(attempt.attempt, self._spec, end):
                await self._resend()
            elif attempt is self._overdue:
                self._caller.ended(attempt.attempt, _OVERDUE)
                await self._repeat(OVERTIME, overtime=True)
            else:
                await self._repeat(await self._judged(attempt, end))
        except CallFailedError as failed:
            await self._repeat(failed.outcome)

    async def _repeat(self, outcome: Outcome, *, overtime: bool = False) -> None:
        """Make the call again, if its route lets it; else end it with that outcome."""
        end = await self._tries.again(outcome, self._resend, self._untouched, overtime=overtime)
        if end is not None:
            self._finish(end)

    async def _resend(self) -> None:
        await self._open()
        try:
            await self._held.send(self._attempt)
            if self.closed and self._only is None:
                await self._attempt.close()
        except CallFailedError:
            self._attempt.raw.cancel()
            raise

    def _untouched(self) -> bool:
        """Whether nothing of a reply has come, and all that was sent is still there."""
        return self._held.whole and not self.initial.done()

    def _too_long(self) -> None:
        if self._untouched() and not self.outcome.done():
            self._overdue = self._attempt
            self._attempt.raw.cancel()

    async def _judged(self, attempt: Streams, end: RawEnd) -> Outcome:
        begun = attempt.begun or self.initial.done()
        self._caller.ended(attempt.attempt, end, begun=begun)
        try:
            return await attempt.settled(end, late=self._spec.late())
        except (PeerError, CallFailedError) as error:
            return self._outcome_of(error)

    async def _believe_initial(self, attempt: Streams, raw: Entries) -> None:
        try:
            await attempt.believe_initial(raw)
        except (PeerError, CallFailedError) as error:
            self.abandon(self._outcome_of(error))

    def _outcome_of(self, error: PeerError | CallFailedError) -> Outcome:
        if isinstance(error, PeerError):
            return self._caller.disbelieved(error, self._spec)
        return error.outcome

    def _take_initial(self, entries: Entries) -> None:
        if not self.initial.done():
            self.initial.set_result(entries)

    def abandon(self, outcome: Outcome) -> None:
        """End the call on this side, with an outcome of our own."""
        self._finish(outcome)
        if hasattr(self, "_attempt"):
            self._attempt.raw.cancel()

    def _finish(self, outcome: Outcome) -> None:
        self._held.drop()
        self._tries.over()
        self.started.set()  # also if it never started: there is nothing more to wait for
        if not self.outcome.done():
            self.outcome.set_result(outcome)
            self._spec.watched.ended(outcome)
