"""The frames on a worker's socket: a 4-byte big-endian length, and that many bytes.

It reads no further than what somebody waits for, so a worker that floods fills its own socket and nothing
else. A length beyond the limit is never waited for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from services.lua_host.protocol import ViolationError

HEADER: Final = 4
#: Bytes that may wait to be taken before the socket is left unread.
_AHEAD: Final = 64 * 1024


class WorkerGoneError(Exception):
    """The worker ended; its message says why, if anybody knows."""


class Wire(asyncio.Protocol):
    """One end of the socket."""

    def __init__(self, limit: int) -> None:
        """Take the largest frame, in bytes."""
        self._limit = limit
        self._buffer = bytearray()
        self._frames: deque[bytes] = deque()
        self._held = 0
        self._waiting: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._end: Exception | None = None
        self._paused = False
        #: Called when a frame comes that nobody waits for.
        self.unasked: Callable[[], None] = lambda: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Cut what has come into frames."""
        if self._transport is not None and self._transport.get_write_buffer_size():
            # What it says cannot be about what it has not read; and what it does not read must not pile up.
            return self.end(ViolationError("it speaks before it has listened"))
        self._buffer += data
        while self._end is None and len(self._buffer) >= HEADER:
            length = int.from_bytes(self._buffer[:HEADER])
            if length > self._limit:
                return self.end(
                    ViolationError(f"a frame of {length} bytes, above the limit of {self._limit}")
                )
            if len(self._buffer) < HEADER + length:
                break
            body = bytes(memoryview(self._buffer)[HEADER : HEADER + length])
            del self._buffer[: HEADER + length]
            self._arrived(body)
        self._throttle()
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the worker's end; what it said before is still to be had."""
        self._ended(WorkerGoneError(str(exc) if exc else "it ended"))

    @property
    def quiet(self) -> bool:
        """Whether nothing has come that nobody has taken."""
        return not self._frames and not self._buffer and self._end is None

    def send(self, body: bytes) -> None:
        """Send a frame. Nothing happens if the worker is gone: whoever waits for its answer is told."""
        if self._transport is not None and self._end is None:
            self._transport.write(len(body).to_bytes(HEADER) + body)

    async def receive(self) -> bytes:
        """Wait for a frame; raise ``WorkerGoneError`` or ``ViolationError`` if there will be none."""
        if self._frames:
            body = self._frames.popleft()
            self._held -= len(body) + HEADER
            self._throttle()
            return body
        if self._end is not None:
            raise self._end
        waiting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting = waiting
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                self._keep(waiting.result())  # it came at the same moment: the next one to wait gets it
            raise
        finally:
            self._waiting = None

    def end(self, why: Exception) -> None:
        """Close, for the first reason given. What was not taken is not to be had any more."""
        self._ended(why)
        self._frames.clear()
        if self._transport is not None:
            self._transport.abort()

    def _ended(self, why: Exception) -> None:
        if self._end is None:
            self._end = why
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_exception(why)

    def _arrived(self, body: bytes) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(body)
            return
        self._keep(body)
        self.unasked()

    def _keep(self, body: bytes) -> None:
        self._frames.append(body)
        self._held += len(body) + HEADER

    def _throttle(self) -> None:
        if self._transport is None or self._end is not None:
            return
        full = self._held > _AHEAD
        if full and not self._paused:
            self._transport.pause_reading()
        elif self._paused and not full:
            self._transport.resume_reading()
        self._paused = full
