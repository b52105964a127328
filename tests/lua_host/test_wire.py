"""Frames on a socket: whole, in halves, too long, unasked; and the end of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from services.lua_host.protocol import ViolationError
from services.lua_host.wire import HEADER, Wire, WorkerGoneError

LIMIT = 1000


class Line:
    """A wire, and the bare socket at its other end."""

    def __init__(self, wire: Wire, far: socket.socket) -> None:
        self.wire, self.far = wire, far

    def says(self, *bodies: bytes) -> None:
        """Send frames."""
        self.far.sendall(b"".join(framed(body) for body in bodies))


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(HEADER) + body


@pytest_asyncio.fixture
async def line() -> AsyncIterator[Line]:
    near, far = socket.socketpair()
    near.setblocking(False)
    _, wire = await asyncio.get_running_loop().create_connection(lambda: Wire(LIMIT), sock=near)
    with far:
        far.settimeout(5)
        yield Line(wire, far)
        wire.end(WorkerGoneError("over"))
        await asyncio.sleep(0)


async def turn_until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  a transport tells nobody when it has read
            await asyncio.sleep(0)


async def test_frames_arrive_whole_and_in_order(line: Line) -> None:
    """However they were sent: several at once, or byte by byte."""
    line.says(b"one", b"", b"three")
    assert [await line.wire.receive() for _ in range(3)] == [b"one", b"", b"three"]
    for byte in framed(b"slow"):
        line.far.send(bytes([byte]))
        await asyncio.sleep(0)
    assert await line.wire.receive() == b"slow"
    assert line.wire.quiet


async def test_what_is_sent_has_its_length_in_front(line: Line) -> None:
    """Four bytes, big-endian."""
    line.wire.send(b"hello")
    assert line.far.recv(100) == b"\0\0\0\5hello"


async def test_a_giant_length_ends_it_at_once(line: Line) -> None:
    """Nobody waits for the bytes, let alone makes room for them."""
    line.far.sendall((LIMIT + 1).to_bytes(HEADER))
    with pytest.raises(ViolationError, match="1001 bytes"):
        await line.wire.receive()
    assert await asyncio.to_thread(line.far.recv, 1) == b""
    with pytest.raises(ViolationError):
        await line.wire.receive()


async def test_the_largest_frame_is_taken(line: Line) -> None:
    """The limit is the last good length."""
    line.says(b"x" * LIMIT)
    assert len(await line.wire.receive()) == LIMIT


async def test_half_a_frame_and_then_the_end(line: Line) -> None:
    """Is an end, not a frame."""
    line.far.sendall(framed(b"whole")[:-1])
    line.far.shutdown(socket.SHUT_RDWR)
    with pytest.raises(WorkerGoneError):
        await line.wire.receive()


async def test_half_a_frame_is_not_quiet(line: Line) -> None:
    """A worker that has begun to speak out of turn is not given a call."""
    line.far.sendall(b"\0")
    await turn_until(lambda: not line.wire.quiet)


async def test_an_unasked_frame_is_noticed_when_it_comes(line: Line) -> None:
    """Not only when the next call is due."""
    heard: list[int] = []
    line.wire.unasked = lambda: heard.append(1)
    line.says(b"psst")
    await turn_until(lambda: heard)
    assert heard == [1]


async def test_a_flood_stays_in_the_socket(line: Line) -> None:
    """What nobody takes is not read beyond a bound, so it costs the host no memory."""
    line.far.setblocking(False)
    sent = 0
    frame = framed(b"x" * LIMIT)
    for _ in range(3000):
        try:
            sent += line.far.send(frame)
        except BlockingIOError:
            break
        await asyncio.sleep(0)
    else:
        pytest.fail(f"{sent} bytes were taken though nobody waits for them")
    for _ in range(50):
        assert len(await line.wire.receive()) == LIMIT


async def test_a_frame_that_comes_as_the_wait_is_cancelled_is_not_lost(line: Line) -> None:
    """Whoever waits next gets it."""
    waiting = asyncio.ensure_future(line.wire.receive())
    await asyncio.sleep(0)
    line.wire.data_received(framed(b"kept"))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await line.wire.receive() == b"kept"


async def test_the_first_reason_is_the_one_that_is_told(line: Line) -> None:
    """Later ones are consequences."""
    line.wire.end(WorkerGoneError("first"))
    line.wire.end(WorkerGoneError("second"))
    line.wire.send(b"into the void")
    with pytest.raises(WorkerGoneError, match="first"):
        await line.wire.receive()
