"""What every call object that an application holds has in common, and the unary one.

They are gRPC's own interfaces over a sealed call (``streams`` has the other three). A unary call runs in a
task of its own from the moment it is made, as gRPC's do. What a call raises is what gRPC raises:
``AioRpcError`` for a status, ``CancelledError`` after a local cancellation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any

import grpc

from mesh.rpc.caller import CANCELLED, Caller, CallSpec
from mesh.rpc.hedging import routed
from mesh.rpc.status import CallFailedError, Outcome

Serializer = Callable[[Any], bytes]
Deserializer = Callable[[bytes], Any]


class SealedCall(grpc.aio.Call):
    """What all four kinds share: an outcome, and questions about it."""

    #: Channels of older grpcio (1.72) look, when they close, through all calls of the process for their own.
    _channel = None

    def __init__(self, spec: CallSpec | None, deserialize: Deserializer | None) -> None:
        self._spec, self._deserialize = spec, deserialize
        self._outcome: asyncio.Future[Outcome]
        self._cancelled = False

    def cancelled(self) -> bool:
        """Whether this side cancelled it."""
        return self._cancelled

    def done(self) -> bool:
        """Whether it has ended."""
        return self._outcome.done()

    def time_remaining(self) -> float | None:
        """Give the seconds left, ``None`` without a deadline."""
        if self._spec is None or self._spec.deadline is None:
            return None
        return max(0.0, self._spec.deadline - asyncio.get_running_loop().time())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call back with this call when it has ended."""
        self._outcome.add_done_callback(lambda _: callback(self))

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """Wait for the end; give what came with the status."""
        return grpc.aio.Metadata(*(await self._settled()).trailing)

    async def code(self) -> grpc.StatusCode:
        """Wait for the end; give the status."""
        return (await self._settled()).code

    async def details(self) -> str:
        """Wait for the end; give the text of the status."""
        return (await self._settled()).details

    async def debug_error_string(self) -> str:
        """Give nothing: where the transport failed is in the details already."""
        return ""

    async def _settled(self) -> Outcome:
        return await asyncio.shield(self._outcome)

    def message(self, payload: bytes) -> Any:
        """Give a message as the application knows it."""
        return self._deserialize(payload) if self._deserialize else payload

    def raise_for(self, outcome: Outcome) -> None:
        """Raise what an outcome that is not OK comes to."""
        if self._cancelled:
            raise asyncio.CancelledError
        if not outcome.ok:
            raise outcome.error()


class UnaryUnaryCall(SealedCall, grpc.aio.UnaryUnaryCall[Any, Any]):
    """One message each way."""

    def __init__(
        self, caller: Caller, spec: CallSpec, payload: bytes, deserialize: Deserializer | None
    ) -> None:
        """Make the call at once."""
        super().__init__(spec, deserialize)
        loop = asyncio.get_running_loop()
        self._outcome = loop.create_future()
        self._payload = b""
        self._task = loop.create_task(self._run(caller, spec, payload))
        self._task.add_done_callback(self._failed)

    async def _run(self, caller: Caller, spec: CallSpec, payload: bytes) -> None:
        try:
            if spec.plan is None:
                outcome, self._payload = await caller.unary(spec, payload)
            else:
                outcome, self._payload = await routed(caller, spec, payload, spec.plan)
        except CallFailedError as failed:
            outcome = failed.outcome
        except asyncio.CancelledError:
            self._cancelled = True
            outcome = CANCELLED
        spec.watched.ended(outcome)
        if not self._outcome.done():
            self._outcome.set_result(outcome)

    def _failed(self, task: asyncio.Task[None]) -> None:
        # A defect of ours must not leave whoever waits for the call waiting for ever.
        if not task.cancelled() and (error := task.exception()) and not self._outcome.done():
            self._outcome.set_exception(error)

    def cancel(self) -> bool:
        """Cancel the call. False if it had ended."""
        if self._outcome.done():
            return False
        self._cancelled = True
        self._outcome.set_result(CANCELLED)
        if self._spec is not None:
            self._spec.watched.ended(CANCELLED)  # here, for a task that never ran does not end itself
        self._task.cancel()
        return True

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Give the reply's initial metadata, once the whole reply is verified."""
        return grpc.aio.Metadata(*(await self._settled()).initial)

    async def wait_for_connection(self) -> None:
        """Wait until the call is over; gRPC's unary calls do the same."""
        self.raise_for(await self._settled())

    def __await__(self) -> Generator[Any, None, Any]:
        """Give the reply or raise its error. Cancelling the wait cancels the call."""
        yield from self._task.__await__()
        self.raise_for(self._outcome.result())
        return self.message(self._payload)
