"""What a script asks for while it answers a call: calls to others, and the messages of their streams.

Each is granted, counted, slowed, bounded in time, and checked on its way out and back, here and not by the
worker. What a worker's own codec and manifest would not let through is a ``ViolationError``; what the script
may be told is ``Refused``.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import grpc

from mesh.core.metadata import Entries, checked_entries
from mesh.core.names import ServiceName
from mesh.v1 import lua_pb2
from services.lua_host.checked import BadMessageError, Checker
from services.lua_host.outside import OutgoingCall, Refused
from services.lua_host.protocol import ViolationError, WorkerFrame
from services.lua_host.rules import Asked, Method, Rules

#: Keys that tie a call to its trace (W3C Trace Context): they go on by themselves.
TRACE: Final = frozenset({"traceparent", "tracestate"})
#: Metadata that a script may send with a call: entries, and bytes in all.
MAX_ENTRIES: Final = 64
MAX_METADATA: Final = 8 * 1024

_C = grpc.StatusCode


class Errands:
    """Those of one call. ``deadline``: when it is over, in seconds of the loop's clock."""

    def __init__(self, rules: Rules, asked: Asked, deadline: float) -> None:
        """Take the service's rules, the call that they are run for, and its end."""
        self._rules, self._asked, self._deadline = rules, asked, deadline
        self._made = 0
        self._streams: dict[int, AsyncGenerator[bytes]] = {}

    async def run(self, frame: WorkerFrame) -> lua_pb2.Result:
        """Do what a ``call`` or ``next`` asks for; give what the worker is answered."""
        await self.slowed(frame)
        try:
            async with asyncio.timeout_at(self._deadline):
                payload = await (
                    self._call(frame.call) if frame.HasField("call") else self._more(frame.next.stream)
                )
        except Refused as refused:
            return failed(refused)
        except TimeoutError:
            return failed(Refused(_C.DEADLINE_EXCEEDED, "the time of this call is over"))
        return lua_pb2.Result(done=True) if payload is None else lua_pb2.Result(payload=payload)

    async def slowed(self, frame: WorkerFrame) -> None:
        """Wait as long as the service's budget has it for such a frame."""
        budget = self._rules.calls if frame.HasField("call") else self._rules.messages
        if pause := budget.spend(asyncio.get_running_loop().time()):
            await asyncio.sleep(pause)

    async def close(self) -> None:
        """End the streams that are open."""
        for stream in self._streams.values():
            await stream.aclose()

    async def _call(self, call: lua_pb2.Call) -> bytes | None:
        method = self._rules.grants.get((call.service, call.method))
        if method is None or method.streaming != bool(call.stream):
            raise ViolationError(f"a call that is not granted: {call.service!r:.80} {call.method!r:.80}")
        if call.stream in self._streams:
            raise ViolationError("a stream opened twice")
        self._made += 1
        if self._made > self._rules.calls_per_request:
            most = self._rules.calls_per_request
            raise Refused(_C.RESOURCE_EXHAUSTED, f"no more than {most} calls per request (calls_per_request)")
        payload = proper(method.request, call.payload)
        replies = self._rules.outside.call(self._outgoing(call, method, payload))
        if call.stream:
            self._streams[call.stream] = _read(method, replies)
            return await self._more(call.stream)
        async with aclosing(_read(method, replies)) as read:
            only = await anext(read, None)
        if only is None:
            raise Refused(_C.INTERNAL, f"{method.name} gave no answer")
        return only

    async def _more(self, number: int) -> bytes | None:
        stream = self._streams.get(number)
        if stream is None:
            raise ViolationError("a message asked of a stream that is not open")
        return await anext(stream, None)

    def _outgoing(self, call: lua_pb2.Call, method: Method, payload: bytes) -> OutgoingCall:
        left = max(0.0, self._deadline - asyncio.get_running_loop().time())
        carried = tuple((key, value) for key, value in self._asked.metadata if key in TRACE)
        return OutgoingCall(
            service=ServiceName(call.service),
            method=method.name,
            payload=payload,
            metadata=(*carried, *_own(call)),
            timeout=min(left, call.timeout_ms / 1000) if call.timeout_ms else left,
            streaming=method.streaming,
        )


def proper(checker: Checker, payload: bytes) -> bytes:
    """Give a message of a worker's as the host writes it; raise ``ViolationError`` if it is none."""
    try:
        return checker.clean(payload, strict=True)
    except BadMessageError as error:
        raise ViolationError(str(error)) from None


def failed(refused: Refused) -> lua_pb2.Result:
    """Give the result that tells a script of an error."""
    code = int(refused.code.value[0])
    return lua_pb2.Result(failure=lua_pb2.Failure(code=code, message=refused.message, reason=refused.reason))


async def _read(method: Method, replies: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(replies):
        async for payload in replies:
            try:
                reply = method.reply.clean(payload)
            except BadMessageError as error:
                raise Refused(_C.INTERNAL, f"the answer of {method.name} cannot be used: {error}") from None
            yield reply


def _own(call: lua_pb2.Call) -> Entries:
    if len(call.metadata) > MAX_ENTRIES:
        raise Refused(_C.INVALID_ARGUMENT, f"more than {MAX_ENTRIES} entries of metadata")
    if sum(len(entry.key) + len(entry.value) for entry in call.metadata) > MAX_METADATA:
        raise Refused(_C.INVALID_ARGUMENT, f"more than {MAX_METADATA} bytes of metadata")
    try:
        return checked_entries(
            (entry.key, _value(entry)) for entry in call.metadata if entry.key not in TRACE
        )
    except ValueError as error:
        raise Refused(_C.INVALID_ARGUMENT, str(error)) from None


def _value(entry: lua_pb2.Metadatum) -> str | bytes:
    return entry.value if entry.key.endswith("-bin") else entry.value.decode("latin-1")
