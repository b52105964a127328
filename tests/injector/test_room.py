"""Who sends much, slowly or nothing to the webhook takes neither its memory nor its time from others."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from copy import deepcopy
from typing import Any

import pytest
import uvicorn
from starlette.exceptions import HTTPException
from starlette.requests import Request

from services.injector import room
from services.injector.room import MAX_PARTS, MAX_REVIEW, ROOM, SMALL, Patient, Room
from services.injector.webhook import webhook
from tests.inject.pods import SETTINGS
from tests.injector.reviews import POD, review


def request(*parts: bytes, ends: bool = True) -> Request:
    """Give a request whose body comes in parts, and maybe never ends."""
    coming: Iterator[bytes] = iter(parts)

    async def receive() -> dict[str, Any]:
        for part in coming:
            return {"type": "http.request", "body": part, "more_body": True}
        if not ends:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"", "more_body": False}

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


async def status(of: Room, asked: Request) -> int:
    try:
        async with of.body(asked):
            return 200
    except HTTPException as error:
        return error.status_code if error.headers == {"Connection": "close"} else 0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", 200),
        (b" " * MAX_REVIEW, 200),
        (b" " * (MAX_REVIEW + 1), 413),
        (b"[" * MAX_PARTS, 200),
        (b"[" * (MAX_PARTS + 1), 413),
        (b"{" * (MAX_PARTS + 1), 413),
    ],
)
async def test_what_is_larger_than_any_review_is_not_judged(body: bytes, code: int) -> None:
    """By its bytes, and by what they would be in memory."""
    assert await status(Room(), request(body)) == code


async def test_what_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what was held of it is free again."""
    monkeypatch.setattr(room, "PATIENCE", 0.01)
    one = Room()
    for _ in range(2 * ROOM // MAX_REVIEW):
        assert await status(one, request(b" " * MAX_REVIEW, ends=False)) == 408
    assert await status(one, request(b" " * MAX_REVIEW)) == 200


async def test_large_ones_share_what_there_is_and_small_ones_always_have_room() -> None:
    """As many as fit; when one is done the next has its room."""
    one, done = Room(), asyncio.Event()
    held = [asyncio.Event() for _ in range(ROOM // MAX_REVIEW)]

    async def hold(here: asyncio.Event) -> None:
        async with one.body(request(b" " * MAX_REVIEW)):
            here.set()
            await done.wait()

    async with asyncio.TaskGroup() as tasks:
        for here in held:
            tasks.create_task(hold(here))
            await here.wait()
        assert await status(one, request(b" " * (SMALL + 1))) == 503
        assert await status(one, request(b" " * SMALL)) == 200
        done.set()
    assert await status(one, request(b" " * MAX_REVIEW)) == 200


async def test_a_small_review_does_not_wait_for_a_large_one() -> None:
    """Large ones are judged one at a time, in a thread."""
    one, go, begun = Room(), threading.Event(), asyncio.Queue[int]()
    loop = asyncio.get_running_loop()

    def judging(body: bytes) -> int:
        if len(body) > SMALL:
            loop.call_soon_threadsafe(begun.put_nowait, len(body))
            go.wait(30)
        return len(body)

    large = [asyncio.create_task(one.judge(b" " * (SMALL + 1), judging)) for _ in range(2)]
    await begun.get()
    assert await one.judge(b"123", judging) == 3
    assert begun.empty()
    go.set()
    assert await asyncio.gather(*large) == [SMALL + 1] * 2


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    """Run the webhook without TLS on a loopback port."""
    config = uvicorn.Config(webhook(SETTINGS), http=Patient, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve([listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


@asynccontextmanager
async def posted(body: bytes) -> AsyncIterator[asyncio.StreamReader]:
    """Send a review to a webhook; gives its answer."""
    asked = b"POST /inject HTTP/1.1\r\nHost: it\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with serving() as port, connected(port, asked + body) as reader:
        yield reader


@asynccontextmanager
async def connected(port: int, said: bytes) -> AsyncIterator[asyncio.StreamReader]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
    try:
        writer.write(said)
        yield reader
    finally:
        writer.close()


HEALTH = b"GET /healthz HTTP/1.1\r\nHost: it\r\n\r\n"


@pytest.mark.parametrize("begins", [b"", b"POST /inject HTTP/1.1\r\n", HEALTH + b"G"])
async def test_who_asks_nothing_is_hung_up_on(begins: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first request, in the middle of its headers, and after one."""
    monkeypatch.setattr(room, "SILENCE", 0.05)
    async with serving() as port, connected(port, begins) as reader:
        if begins.startswith(HEALTH):
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        with suppress(ConnectionResetError):
            assert await reader.read() == b""


async def test_a_large_pod_is_injected() -> None:
    """Over the wire, beside the loop."""
    pod = deepcopy(POD)
    pod["metadata"]["annotations"] = {"note": "x" * 1_000_000}
    async with posted(json.dumps(review(pod)).encode()) as reader:
        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        assert b"JSONPatch" in await reader.readuntil(b"}}")


@pytest.mark.parametrize("body", [b'{"a": "\\ud800"}', b"NaN", json.dumps(review(uid="\ud800")).encode()])
async def test_what_cannot_be_answered_is_no_review(body: bytes) -> None:
    """Half a character in a name, for one."""
    async with posted(body) as reader:
        assert await reader.readline() == b"HTTP/1.1 400 Bad Request\r\n"
