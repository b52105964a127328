"""The client of every variant: calls as fast as it gets answers, a given number of calls at once.

Or messages of one stream, a given number of them under way; the figures are of messages then.

``python -m bench.load --target ADDRESS`` calls in plaintext; with ``--join SERVICE`` the address is the name
of a service, called from an embedded node. It reads loads from standard input, one line of JSON each
(``{"size", "at_once", "seconds", "stream"}``), and writes two lines for each: ``{"calls", "seconds"}`` the
moment it is done, so that the reader can stop its clocks, and once asked again the percentiles. It ends with
its input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import deque
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Final

import grpc
import grpc.aio

from bench.echo import METHOD, STREAM
from bench.figures import Percentiles

CALL_SECONDS: Final = 10.0
READY_SECONDS: Final = 20.0

Call = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
Stream = grpc.aio.StreamStreamMultiCallable[bytes, bytes]


async def until_answered(call: Call) -> None:
    """Wait until the way to the server is open, or raise what kept it shut."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            await call(payload(8), timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)
        else:
            return


async def caller(call: Call, payload: bytes, end: float, latencies: list[float]) -> None:
    """Make one call after the other until ``end``."""
    begun = time.perf_counter()
    while begun < end:
        reply = await call(payload, timeout=CALL_SECONDS)
        done = time.perf_counter()
        if len(reply) != len(payload):
            raise RuntimeError("the reply is not the request")
        latencies.append(done - begun)
        begun = done


async def streamer(open_: Stream, payload: bytes, at_once: int, end: float, latencies: list[float]) -> None:
    """Send one message after the other in one stream until ``end``, and wait for all to come back."""
    call, room, begun = open_(), asyncio.Semaphore(at_once), deque[float]()

    async def feed() -> None:
        while time.perf_counter() < end:
            await room.acquire()
            begun.append(time.perf_counter())
            await call.write(payload)
        await call.done_writing()

    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        while (reply := await call.read()) is not grpc.aio.EOF:
            if not isinstance(reply, bytes) or len(reply) != len(payload):
                raise RuntimeError("the reply is not the request")
            latencies.append(time.perf_counter() - begun.popleft())
            room.release()


async def run(
    call: Call, open_: Stream, size: int, at_once: int, seconds: float, *, stream: bool
) -> tuple[float, list[float]]:
    """Put one load on the server; give how long it took and the latency of each call or message."""
    latencies: list[float] = []
    begun = time.perf_counter()
    if stream:
        await streamer(open_, payload(size), at_once, begun + seconds, latencies)
        return time.perf_counter() - begun, latencies
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(caller(call, payload(size), begun + seconds, latencies))
    return time.perf_counter() - begun, latencies


def payload(size: int) -> bytes:
    """Give a message of so many bytes that is one to protobuf, too: one field of bytes, number 1."""
    for width in range(1, 6):
        length = size - 1 - width
        if length >= 0 and _varint(length, width) is not None:
            return b"\x0a" + (_varint(length, width) or b"") + bytes(length)
    raise ValueError(f"no message has {size} bytes")


def _varint(value: int, width: int) -> bytes | None:
    """Give a number as exactly so many bytes of varint, or nothing if it does not fit."""
    if value >= 1 << (7 * width):
        return None
    groups = [(value >> shift) & 0x7F for shift in range(0, 7 * width, 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def tell(line: dict[str, float]) -> None:
    """Write one line of JSON."""
    print(json.dumps(line), flush=True)


async def main(target: str, service: str | None) -> None:
    """Serve loads until the end of standard input."""
    async with AsyncExitStack() as stack:
        if service:
            from bench.joined import joined  # noqa: PLC0415  the direct variant must not pay for it

            node = await stack.enter_async_context(joined(service))
            channel: grpc.aio.Channel = node.channel(target)
        else:
            channel = grpc.aio.insecure_channel(target)
            stack.push_async_callback(channel.close)
        call: Call = channel.unary_unary(METHOD)
        open_: Stream = channel.stream_stream(STREAM)
        await until_answered(call)
        tell({})
        while line := await asyncio.to_thread(sys.stdin.readline):
            seconds, latencies = await run(call, open_, **json.loads(line))
            tell({"calls": len(latencies), "seconds": seconds})
            await asyncio.to_thread(sys.stdin.readline)
            tell(asdict(Percentiles.of(latencies)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--join", metavar="SERVICE")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.target, arguments.join))
