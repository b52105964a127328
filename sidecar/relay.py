"""One call carried from a server's side to a client's: messages, metadata, status, deadline, cancellation.

``outward``  from an application into the mesh
``inward``   from the mesh to an application

Bytes pass as they are. The two sides run at once, each at the other's pace, so a slow reader slows its own
writer and nobody else. Whichever side ends first ends the other. A request of one message, which is what most
calls have, needs nothing at once: it is taken whole and made in one go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeAlias

import grpc

from mesh.core.metadata import PUSHBACK, Entries, checked_entries, pushbacks
from mesh.rpc.exchange import Exchange
from mesh.rpc.hedging import HedgedExchange
from mesh.rpc.writing import write

#: A server of grpc.aio cannot tell the end of a request stream from the death of who sent it until a moment
#: later. So its end is passed on after these many seconds without a cancellation: after one message that its
#: end came with, as unary calls send it, and after anything else.
UNARY_GRACE: Final = 0.001
STREAM_GRACE: Final = 0.005

Made: TypeAlias = Exchange | HedgedExchange
_End: TypeAlias = tuple[grpc.StatusCode, str, Entries]


async def outward(context: Any, make: Callable[[bytes | None], Made]) -> None:
    """Carry an application's call into the mesh. ``make`` takes the one request there is, or ``None``."""
    requests = _Requests(context)
    try:
        first = await requests.soon()
        if first not in (None, grpc.aio.EOF) and await requests.soon() is grpc.aio.EOF:
            await asyncio.sleep(UNARY_GRACE)
            exchange, feed = make(first), None
        else:
            exchange = make(None)
            feed = _feed_outward(requests, exchange)
        await _both(context, feed, _replies_outward(context, exchange), exchange.cancel)
    finally:
        requests.close()


async def inward(context: Any, single: Any, stream: Any) -> None:
    """Carry a call of the mesh to an application: by ``single``, with one request, or by ``stream``."""
    requests = _Requests(context)
    try:
        first = await requests.soon()
        options = {"metadata": context.invocation_metadata(), "timeout": context.time_remaining()}
        if context.ended and first not in (None, grpc.aio.EOF):
            call, feed = single(first, **options), None
        else:
            call = stream(**options)
            feed = _feed_inward(requests, call)
        await _both(context, feed, _replies_inward(context, call), call.cancel)
    finally:
        requests.close()


class _Requests:
    """The requests of a call, the first of them read ahead of who wants them."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._ahead: list[asyncio.Future[Any]] = []

    async def soon(self) -> Any:
        """Read one more ahead; give it, or the end, if it is there at once, and ``None`` if it is not."""
        reading = asyncio.ensure_future(self._context.read())
        self._ahead.append(reading)
        await asyncio.wait((reading,), timeout=UNARY_GRACE)
        return reading.result() if reading.done() else None

    async def next(self) -> Any:
        """Give the next request, or the end."""
        return await (self._ahead.pop(0) if self._ahead else self._context.read())

    def close(self) -> None:
        """Wait for no more of them."""
        for reading in self._ahead:
            reading.cancel()
            if reading.done() and not reading.cancelled():
                reading.exception()  # taken note of: the call has ended by other means


async def _both(
    context: Any,
    feed: Coroutine[Any, Any, None] | None,
    replies: Awaitable[_End],
    cancel: Callable[[], object],
) -> None:
    feeder = asyncio.ensure_future(feed) if feed is not None else None
    try:
        code, details, trailing = await replies
        if code is grpc.StatusCode.OK:
            context.set_trailing_metadata(trailing)
        else:
            await context.abort(code, details, trailing)
    except asyncio.CancelledError:
        # Was it the near side's stream that broke off, and took the call with it? Then that is what happened.
        if feeder and feeder.done() and not feeder.cancelled() and (broken := feeder.exception()) is not None:
            raise broken from None
        raise
    except ValueError as error:
        await context.abort(grpc.StatusCode.INTERNAL, f"the application's answer cannot be carried: {error}")
    finally:
        cancel()
        if feeder is not None:
            feeder.cancel()
            await asyncio.gather(feeder, return_exceptions=True)


async def _feed_outward(requests: _Requests, exchange: Made) -> None:
    try:
        await exchange.started.wait()
        while (request := await requests.next()) is not grpc.aio.EOF:
            if not await exchange.send(request):
                return  # the far side has ended the call; its status says how
        await asyncio.sleep(STREAM_GRACE)
        await exchange.close()
    except Exception:
        # The near side's stream broke off: without its end it must not pass for whole.
        exchange.cancel()
        raise


async def _feed_inward(requests: _Requests, call: Any) -> None:
    try:
        while (request := await requests.next()) is not grpc.aio.EOF:
            if not await write(call, request):
                return  # as above
        await write(call, None, last=True)
    except Exception:
        call.cancel()
        raise


async def _replies_outward(context: Any, exchange: Made) -> _End:
    await exchange.start()
    held: list[bytes] = []
    if not await exchange.initial_sealed():
        # The one message of a reply whose initial metadata is under the seal of its end alone; or none.
        while len(held) < 2 and not exchange.initial.done():  # noqa: PLR2004
            message = await exchange.receive()
            if message is None:
                break
            held.append(message)
    await context.send_initial_metadata(checked_entries(await exchange.initial_metadata()))
    for message in held:
        await context.write(message)
    while (message := await exchange.receive()) is not None:
        await context.write(message)
    outcome = await exchange.settled()
    return outcome.code, outcome.details, checked_entries(outcome.trailing)


async def _replies_inward(context: Any, call: Any) -> _End:
    message = await _first_inward(context, call)
    while message is not grpc.aio.EOF:
        await context.write(message)
        message = await _read(call)
    # What the application says of the next attempt goes along: the context knows it from its metadata.
    trailing = tuple(await call.trailing_metadata() or ())
    pushed = tuple((PUSHBACK, value) for value in pushbacks(trailing))
    return await call.code(), await call.details() or "", (*checked_entries(trailing), *pushed)


async def _first_inward(context: Any, call: Any) -> Any:
    # An error alone is no reply that has begun, and may be made again from the caller's side. That it is
    # alone shows a moment after its metadata, which is then empty.
    initial = checked_entries(await call.initial_metadata())
    reading = asyncio.ensure_future(_read(call))
    try:
        if not initial:
            await asyncio.wait((reading,), timeout=STREAM_GRACE)
        alone = reading.done() and reading.result() is grpc.aio.EOF
        if initial or not alone or await call.code() is grpc.StatusCode.OK:
            await context.send_initial_metadata(initial)
        return await reading
    finally:
        reading.cancel()


async def _read(call: Any) -> Any:
    try:
        return await call.read()
    except grpc.aio.AioRpcError:
        return grpc.aio.EOF  # the status says why, and is passed on after the messages
