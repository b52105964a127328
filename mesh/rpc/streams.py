"""The three streaming kinds of calls that an application holds: gRPC's own interfaces over an ``Exchange``.

What they raise is what gRPC raises: ``AioRpcError`` for a status, ``CancelledError`` after a local
cancellation, ``UsageError`` and ``InvalidStateError`` for misuse.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterable
from typing import Any

import grpc

from mesh.rpc.caller import Caller, CallSpec
from mesh.rpc.calls import Deserializer, SealedCall, Serializer
from mesh.rpc.hedging import exchange
from mesh.rpc.status import Outcome

_TWO_REPLIES = Outcome(grpc.StatusCode.INTERNAL, "more than one reply to a call that takes one")
_NO_REPLY = Outcome(grpc.StatusCode.INTERNAL, "no reply to a call that takes one")

log = logging.getLogger("mesh")


class _StreamCall(SealedCall):
    """What the three streaming kinds share: an exchange."""

    def __init__(
        self,
        caller: Caller,
        spec: CallSpec,
        serialize: Serializer | None,
        deserialize: Deserializer | None,
        only: bytes | None = None,
    ) -> None:
        super().__init__(spec, deserialize)
        self._serialize = serialize
        self._exchange = exchange(caller, spec, only)
        self._outcome = self._exchange.outcome
        self._start = asyncio.ensure_future(self._exchange.start())
        self._feeder: asyncio.Task[None] | None = None
        self._reader: AsyncIterator[Any] | None = None

    def cancel(self) -> bool:
        if not self._exchange.cancel():
            return False
        self._cancelled = True
        self._start.cancel()
        if self._feeder is not None:
            self._feeder.cancel()
        return True

    async def initial_metadata(self) -> grpc.aio.Metadata:
        return grpc.aio.Metadata(*await self._exchange.initial_metadata())

    async def wait_for_connection(self) -> None:
        await asyncio.shield(self._start)
        if self._outcome.done():
            self.raise_for(self._outcome.result())

    async def _started(self) -> None:
        if not self._start.done():
            await asyncio.shield(self._start)

    async def _settled(self) -> Outcome:
        return await self._exchange.settled()

    async def _read(self) -> Any:
        try:
            await self._started()
            payload = await self._exchange.receive()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if payload is None:
            self.raise_for(self._outcome.result())
            return grpc.aio.EOF
        return self.message(payload)

    async def _send(self, request: Any, *, last: bool = False) -> None:
        payload = self._serialize(request) if self._serialize else request
        try:
            await self._started()
            sent = await self._exchange.send(payload, last=last)
        except asyncio.CancelledError:
            self.cancel()
            raise
        if not sent and not last:
            self.raise_for(self._outcome.result())
            msg = "the call has ended: nothing more can be sent"
            raise asyncio.InvalidStateError(msg)

    def _feed(self, requests: Iterable[Any] | AsyncIterable[Any] | None) -> None:
        if requests is not None:
            self._feeder = asyncio.ensure_future(self._consume(requests))

    async def _consume(self, requests: Iterable[Any] | AsyncIterable[Any]) -> None:
        try:
            if isinstance(requests, AsyncIterable):
                async for request in requests:
                    await self._send(request)
            else:
                for request in requests:
                    await self._send(request)
            await asyncio.shield(self._start)
            await self._exchange.close()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the call has ended, and whoever reads it learns how
        except asyncio.CancelledError:
            self.cancel()
            raise
        except Exception:  # the application's own: without its end the stream must not pass for whole
            log.exception("the iterator of requests failed, so the call is cancelled")
            self.cancel()

    def _own_writes(self) -> None:
        if self._feeder is not None:
            msg = "the requests come from an iterator: write() and done_writing() are not for this call"
            raise grpc.aio.UsageError(msg)

    async def _write(self, request: Any) -> None:
        self._own_writes()
        if self._exchange.closed:
            msg = "done_writing was called: nothing more can be sent"
            raise asyncio.InvalidStateError(msg)
        await self._send(request)

    async def _done_writing(self) -> None:
        self._own_writes()
        await asyncio.shield(self._start)
        await self._exchange.close()

    async def _replies(self) -> AsyncIterator[Any]:
        while (message := await self._read()) is not grpc.aio.EOF:
            yield message

    def _iterate(self) -> AsyncIterator[Any]:
        if self._reader is None:
            self._reader = self._replies()
        return self._reader


class UnaryStreamCall(_StreamCall, grpc.aio.UnaryStreamCall[Any, Any]):
    """One message out, many in."""

    def __init__(
        self,
        caller: Caller,
        spec: CallSpec,
        payload: bytes,
        deserialize: Deserializer | None,
    ) -> None:
        """Make the call at once."""
        super().__init__(caller, spec, None, deserialize, payload)

    def __aiter__(self) -> AsyncIterator[Any]:
        """Give the replies in turn."""
        return self._iterate()

    async def read(self) -> Any:
        """Give the next reply, or ``EOF``."""
        return await self._read()


class StreamUnaryCall(_StreamCall, grpc.aio.StreamUnaryCall[Any, Any]):
    """Many messages out, one in."""

    def __init__(
        self,
        caller: Caller,
        spec: CallSpec,
        requests: Any,
        serialize: Serializer | None,
        deserialize: Deserializer | None,
    ) -> None:
        """Make the call at once, from an iterator or from ``write``."""
        super().__init__(caller, spec, serialize, deserialize)
        self._feed(requests)
        self._reply = asyncio.ensure_future(self._one())

    async def write(self, request: Any) -> None:
        """Send a message."""
        await self._write(request)

    async def done_writing(self) -> None:
        """End the requests."""
        await self._done_writing()

    async def _one(self) -> bytes | None:
        await self._start
        first = await self._exchange.receive()
        if first is not None and await self._exchange.receive() is not None:
            self._exchange.abandon(_TWO_REPLIES)
        elif first is None and self._outcome.result().ok:
            raise _NO_REPLY.error()
        return first

    def __await__(self) -> Generator[Any, None, Any]:
        """Give the reply or raise its error. Cancelling the wait cancels the call."""
        try:
            payload = yield from asyncio.shield(self._reply).__await__()
        except asyncio.CancelledError:
            self.cancel()
            raise
        self.raise_for(self._outcome.result())
        return self.message(payload or b"")


class StreamStreamCall(_StreamCall, grpc.aio.StreamStreamCall[Any, Any]):
    """Many messages both ways."""

    def __init__(
        self,
        caller: Caller,
        spec: CallSpec,
        requests: Any,
        serialize: Serializer | None,
        deserialize: Deserializer | None,
    ) -> None:
        """Make the call at once, from an iterator or from ``write``."""
        super().__init__(caller, spec, serialize, deserialize)
        self._feed(requests)

    def __aiter__(self) -> AsyncIterator[Any]:
        """Give the replies in turn."""
        return self._iterate()

    async def read(self) -> Any:
        """Give the next reply, or ``EOF``."""
        return await self._read()

    async def write(self, request: Any) -> None:
        """Send a message."""
        await self._write(request)

    async def done_writing(self) -> None:
        """End the requests."""
        await self._done_writing()
