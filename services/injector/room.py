"""How much of what is asked is held, and for how long: any pod of the cluster can reach the webhook.

The API server's own reviews are small and come at once. Small ones always have room; larger ones share a few
megabytes and are judged one at a time beside the loop, so that they make nobody wait. Who sends slowly, or
nothing, is hung up on, and what would become many times its size in memory is not read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

_T = TypeVar("_T")

#: An object is at most 1.5 MiB in the API server's store; as JSON it may be more.
MAX_REVIEW: Final = 4 * 1024 * 1024
#: Objects and lists in a review: in memory each takes a hundred times its two bytes.
MAX_PARTS: Final = 100_000
#: A review that has room in any case.
SMALL: Final = 64 * 1024
#: Bytes of all larger ones at a time.
ROOM: Final = 16 * 1024 * 1024
#: Seconds that a review has to come in; the API server waits 10 for its answer.
PATIENCE: Final = 5.0
#: Seconds that a connection may be without a request.
SILENCE: Final = 10.0
_CLOSE: Final = {"Connection": "close"}


class Room:
    """What there is for reviews that are larger than usual."""

    def __init__(self) -> None:
        """Begin with all of it."""
        self._free = ROOM
        self._one = asyncio.Lock()

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """Read a request's body, which has its room for the length of the block; raise ``HTTPException``."""
        body, held = bytearray(), 0
        try:
            async with asyncio.timeout(PATIENCE):
                async for part in request.stream():
                    body += part
                    held += self._taken(len(body), held)
        except TimeoutError:
            raise HTTPException(408, f"not here within {PATIENCE:g} seconds", _CLOSE) from None
        else:
            if body.count(b"{") + body.count(b"[") > MAX_PARTS:
                raise HTTPException(413, f"more than {MAX_PARTS} objects and lists", _CLOSE)
            yield bytes(body)
        finally:
            self._free += held

    def _taken(self, size: int, held: int) -> int:
        if size > MAX_REVIEW:
            raise HTTPException(413, f"larger than {MAX_REVIEW} bytes", _CLOSE)
        more = size - held if size > SMALL else 0
        if more > self._free:
            raise HTTPException(503, "too many large reviews at a time: try again", _CLOSE)
        self._free -= more
        return more

    async def judge(self, body: bytes, judging: Callable[[bytes], _T]) -> _T:
        """Judge a body: a small one here and now, a larger one in a thread when it is its turn."""
        if len(body) <= SMALL:
            return judging(body)
        async with self._one:
            return await asyncio.to_thread(judging, body)


class Patient(H11Protocol):
    """A connection that is hung up on if nothing is asked."""

    def connection_made(self, transport: Any) -> None:
        """Begin to wait."""
        super().connection_made(transport)
        self._later = self.loop.call_later(SILENCE, self._look, None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._later.cancel()
        super().connection_lost(exc)

    def _look(self, before: Any) -> None:
        # A cycle is a request from its headers to the end of its answer.
        is_idle = before is None or before.response_complete
        if is_idle and self.cycle is before:
            self.transport.abort()
        else:
            self._later = self.loop.call_later(SILENCE, self._look, self.cycle)
