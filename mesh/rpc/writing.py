"""Writing to a raw streaming call of gRPC, so that the peer's status stays what it was.

``write()`` of grpc.aio replaces it by INTERNAL ("Internal error from Core") where a message loses the race
with the end of the call: a peer that answers UNIMPLEMENTED at once would seem to be broken.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc


async def write(raw: Any, message: bytes | None, *, last: bool = False) -> bool:
    """Send a message (``None``: none) on a ``grpc.aio.StreamStreamCall`` of bytes, and with ``last`` the end.

    False if the call has ended; its status says how.
    """
    try:
        await raw.wait_for_connection()
        if raw.done():
            return False
        if message is not None:
            await raw._cython_call.send_serialized_message(message)  # noqa: SLF001  see above
        if last:
            await raw.done_writing()
    except (grpc.aio.AioRpcError, grpc.aio.InternalError, grpc.aio.UsageError):
        return False
    except asyncio.CancelledError:
        # Of the call, by whoever abandoned it, or of whoever waits here?
        task = asyncio.current_task()
        if not raw.cancelled() or (task is not None and task.cancelling()):
            raise
        return False
    return True
