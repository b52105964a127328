"""One call carried from a server's side to a client's: messages, metadata, status, deadline, cancellation.

Bytes pass as they are. The two sides run at once, each at the other's pace, so a slow reader slows its own
writer and nobody else. Whichever side ends first ends the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc

from mesh.core.metadata import checked_entries
from mesh.rpc.writing import write

#: A server of grpc.aio cannot tell the end of a request stream from the death of who sent it until a moment
#: later. So its end is passed on after these many seconds without a cancellation: after one message that its
#: end came with, as unary calls send it, and after anything else.
UNARY_GRACE: Final = 0.001
STREAM_GRACE: Final = 0.005


async def relay(requests: AsyncIterator[bytes], context: Any, call: Any, *, sealed: bool) -> None:
    """Carry a call: ``requests`` and ``context`` of a handler on one side, a streaming call on the other.

    ``sealed``: whether the end of the requests is one for certain.
    """
    feeder = asyncio.ensure_future(_feed(requests, call, sealed=sealed))
    try:
        await _replies(context, call)
        code = await call.code()
        trailing = checked_entries(await call.trailing_metadata())
        if code is grpc.StatusCode.OK:
            context.set_trailing_metadata(trailing)
        else:
            await context.abort(code, await call.details() or "", trailing)
    except asyncio.CancelledError:
        # Was it the near side's stream that broke off, and took the call with it? Then that is what happened.
        if feeder.done() and not feeder.cancelled() and (broken := feeder.exception()) is not None:
            raise broken from None
        raise
    except ValueError as error:
        await context.abort(grpc.StatusCode.INTERNAL, f"the application's answer cannot be carried: {error}")
    finally:
        feeder.cancel()
        call.cancel()
        await asyncio.gather(feeder, return_exceptions=True)


async def _feed(requests: AsyncIterator[bytes], call: Any, *, sealed: bool) -> None:
    loop, count = asyncio.get_running_loop(), 0
    asked = loop.time()
    try:
        async for request in requests:
            if not await _write(call, request, sealed=sealed):
                return  # the far side has ended the call; its status says how
            count += 1
            asked = loop.time()
        if not sealed:
            unary = count == 1 and loop.time() - asked < STREAM_GRACE
            await asyncio.sleep(UNARY_GRACE if unary else STREAM_GRACE)
            await call.done_writing()
        else:
            await write(call, None, last=True)
    except Exception:
        # The near side's stream broke off: without its end it must not pass for whole.
        call.cancel()
        raise


async def _write(call: Any, request: bytes, *, sealed: bool) -> bool:
    if sealed:
        return await write(call, request)
    try:
        await call.write(request)
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        return False
    return True


async def _replies(context: Any, call: Any) -> None:
    initial = asyncio.ensure_future(call.initial_metadata())
    messages = _messages(call)
    first = asyncio.ensure_future(anext(messages, None))
    try:
        await asyncio.wait((initial, first), return_when=asyncio.FIRST_COMPLETED)
        held = []
        if first.done() and not initial.done():
            # The one message of a reply whose initial metadata is under the seal of its end alone.
            held = [first.result(), await anext(messages, None)]
        await context.send_initial_metadata(checked_entries(await initial))
        for message in held or [await first]:
            if message is not None:
                await context.write(message)
        async for message in messages:
            await context.write(message)
    finally:
        initial.cancel()
        first.cancel()


async def _messages(call: Any) -> AsyncIterator[bytes]:
    try:
        while (message := await call.read()) is not grpc.aio.EOF:
            yield message
    except grpc.aio.AioRpcError:
        return  # the status says why, and is passed on after the messages
