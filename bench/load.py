"""The client of every variant: calls as fast as it gets answers, a given number of calls at once.

``python -m bench.load --target ADDRESS`` calls in plaintext; with ``--join SERVICE`` the address is the name
of a service, called from an embedded node. It reads loads from standard input, one line of JSON each
(``{"size", "at_once", "seconds"}``), and writes two lines for each: ``{"calls", "seconds"}`` the moment it
is done, so that the reader can stop its clocks, and once asked again the percentiles. It ends with its input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import asdict
from typing import Final

import grpc
import grpc.aio

from bench.echo import METHOD
from bench.figures import Percentiles

CALL_SECONDS: Final = 10.0
READY_SECONDS: Final = 20.0

Call = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


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


async def run(call: Call, size: int, at_once: int, seconds: float) -> tuple[float, list[float]]:
    """Put one load on the server; give how long it took and the latency of each call."""
    latencies: list[float] = []
    begun = time.perf_counter()
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
        await until_answered(call)
        tell({})
        while line := await asyncio.to_thread(sys.stdin.readline):
            seconds, latencies = await run(call, **json.loads(line))
            tell({"calls": len(latencies), "seconds": seconds})
            await asyncio.to_thread(sys.stdin.readline)
            tell(asdict(Percentiles.of(latencies)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", required=True)
    parser.add_argument("--join", metavar="SERVICE")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.target, arguments.join))
