"""What a tap can do to the parts of a call: each trick makes a function for one field of ``Tamper``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeAlias

import grpc

from examples.shop.demo.tap import End, Entries, Frames
from mesh.v1 import wire_pb2

OnFrames: TypeAlias = Callable[[Frames], Frames]
OnEntries: TypeAlias = Callable[[Entries], Entries]


def flip(data: bytes, at: int = -1) -> bytes:
    """Turn over one bit of the byte at ``at``."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def change_frame(number: int, change: Callable[[bytes], bytes]) -> OnFrames:
    """Change one frame, counted from 0."""

    async def trick(frames: Frames) -> Frames:
        at = 0
        async for frame in frames:
            yield change(frame) if at == number else frame
            at += 1

    return trick


def flip_payload(frame: bytes) -> bytes:
    """Turn over one bit in the application's message, leaving the frame well-formed."""
    opened = wire_pb2.Frame.FromString(frame)
    opened.payload = flip(opened.payload)
    return opened.SerializeToString(deterministic=True)


def set_flags(flags: int) -> Callable[[bytes], bytes]:
    """Make a change of a frame's flags."""

    def trick(frame: bytes) -> bytes:
        opened = wire_pb2.Frame.FromString(frame)
        opened.flags = flags
        return opened.SerializeToString(deterministic=True)

    return trick


def drop(number: int) -> OnFrames:
    """Swallow one frame, counted from 0."""

    async def trick(frames: Frames) -> Frames:
        at = 0
        async for frame in frames:
            if at != number:
                yield frame
            at += 1

    return trick


def repeat(number: int) -> OnFrames:
    """Send one frame twice."""

    async def trick(frames: Frames) -> Frames:
        at = 0
        async for frame in frames:
            yield frame
            if at == number:
                yield frame
            at += 1

    return trick


def swap(first: int) -> OnFrames:
    """Send one frame after the one that follows it."""

    async def trick(frames: Frames) -> Frames:
        at = 0
        held = b""
        async for frame in frames:
            if at == first:
                held = frame
            else:
                yield frame
            if at == first + 1:
                yield held
            at += 1

    return trick


def keep(count: int) -> OnFrames:
    """Pass on the first ``count`` frames and swallow the rest, to its end."""

    async def trick(frames: Frames) -> Frames:
        at = 0
        async for frame in frames:
            if at < count:
                yield frame
            at += 1

    return trick


def put(instead: Iterable[bytes]) -> OnFrames:
    """Pass on other frames instead of those that come, once those have ended."""

    async def trick(frames: Frames) -> Frames:
        async for _ in frames:
            await asyncio.sleep(0)
        for frame in instead:
            yield frame

    return trick


def change_entry(key: str, change: Callable[[bytes], bytes]) -> OnEntries:
    """Change the value of one key of metadata."""

    def changed(value: str | bytes) -> str | bytes:
        return change(value) if isinstance(value, bytes) else change(value.encode()).decode()

    return lambda entries: tuple((k, changed(v) if k == key else v) for k, v in entries)


def without(key: str) -> OnEntries:
    """Take one key out of metadata."""
    return lambda entries: tuple((k, v) for k, v in entries if k != key)


def add(key: str, value: str | bytes) -> OnEntries:
    """Put an entry into metadata."""
    return lambda entries: (*entries, (key, value))


def say(code: grpc.StatusCode, details: str = "") -> Callable[[End], End]:
    """Change the status and nothing else."""
    return lambda end: replace(end, code=code, details=details)


def trailing(change: OnEntries) -> Callable[[End], End]:
    """Change trailing metadata."""
    return lambda end: replace(end, trailing=change(end.trailing))
