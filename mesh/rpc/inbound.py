"""One call from the other side: admitted, dispatched with a permit, its reply sealed.

Who may come in is decided elsewhere (``admission``). Whatever the application does — return, abort, raise,
stream — ends in ``ending.end``, which seals the status with everything that was sent before it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import grpc

from mesh.core.errors import REVOKED, Denied, PeerError
from mesh.core.matcher import Permit
from mesh.core.receiver import Admitted
from mesh.rpc.admission import Admission
from mesh.rpc.context import MeshContext
from mesh.rpc.ending import end, end_of
from mesh.rpc.membership import Membership
from mesh.rpc.observing import Serving
from mesh.rpc.open_calls import OpenCall, OpenCalls
from mesh.rpc.status import Outcome, mesh_outcome
from mesh.rpc.warden import Warden

if TYPE_CHECKING:
    from mesh.rpc.asking import Asking

log = logging.getLogger("mesh")

_C = grpc.StatusCode
_UNANSWERED: Final = Outcome(_C.CANCELLED, "")
#: Seconds that a request of one message may take, so that calls left half open do not pile up.
REQUEST_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Inbound:
    """Handles calls to one method; ``handler`` is the application's ``RpcMethodHandler``, or ``None``."""

    membership: Membership
    method: str
    admission: Admission
    handler: Any
    max_receive: int
    open_calls: OpenCalls
    warden: Warden

    async def unary(self, _requests: Any, raw: Any) -> bytes:
        """Handle a call with one reply: its frame and its end leave in one go."""
        admitted, asking = await self.admission.admit(raw)
        with self._watch(admitted, raw) as watched:
            context = self._context(raw, admitted, watched, asking)
            replies: list[bytes] = []

            async def run() -> None:
                payload = context.serialized(await self._reply(context))
                if asking.remote:
                    await context.ask_whole(payload, end_of(context, context.said(), 1))
                replies.append(context.seal(payload))
                if context.compressing:
                    # Left to gRPC, initial metadata that goes with the one message names no encoding.
                    await context.send_initial_metadata_once()

            outcome = await self._run(context, admitted, run, watched)
            watched.ended(outcome)
            if not outcome.ok:
                replies.clear()
            await end(raw, admitted.seal, context, outcome, len(replies))
            return replies[0]

    async def stream(self, _requests: Any, raw: Any) -> None:
        """Handle a call with many replies."""
        admitted, asking = await self.admission.admit(raw)
        with self._watch(admitted, raw) as watched:
            context = self._context(raw, admitted, watched, asking)

            async def run() -> None:
                await self._replies(context)
                await context.send_initial_metadata_once()

            outcome = await self._run(context, admitted, run, watched)
            watched.ended(outcome)
            await end(raw, admitted.seal, context, outcome, context.sent)

    def _watch(self, admitted: Admitted, raw: Any) -> Serving:
        return self.membership.observer.serving(admitted, raw.peer, known=self.handler is not None)

    def _context(self, raw: Any, admitted: Admitted, watched: Serving, asking: Asking) -> MeshContext:
        identity, now_ms = self.membership.identity, self.membership.clock.now_ms
        handler, entries = self.handler, watched.entries
        return MeshContext(raw, admitted, asking, identity, self.max_receive, handler, entries, now_ms)

    async def _run(self, context: MeshContext, admitted: Admitted, run: Any, watched: Serving) -> Outcome:
        began, outcome, membership = perf_counter(), _UNANSWERED, self.membership
        try:
            outcome = await self._judged(context, admitted, run, watched)
        finally:
            seconds = perf_counter() - began
            membership.ended(admitted, outcome, seconds)
            if membership.tap is not None:
                membership.tap.ended(admitted, outcome, seconds)
        return outcome

    async def _judged(self, context: MeshContext, admitted: Admitted, run: Any, watched: Serving) -> Outcome:
        verdict = admitted.verdict
        if not isinstance(verdict, Permit):
            if not (isinstance(verdict, Denied) and verdict.rule == REVOKED):
                self.warden.heard(context.peer())
            return await self._refused(admitted, verdict, watched)
        limited = self.membership.limited(verdict.source, self.method)
        if limited is None:
            return await self._dispatch(context, admitted, verdict, run, watched)
        self.warden.took(context.peer())
        return limited

    async def _dispatch(
        self, context: MeshContext, admitted: Admitted, permit: Permit, run: Any, watched: Serving
    ) -> Outcome:
        call = OpenCall(admitted, permit, self.membership)
        context.check, context.call = call.check, call
        self.open_calls.add(call)
        line = self.warden.line(context.peer())
        line.begin()
        try:
            await run()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if call.denied is None and task is not None and task.cancelling():
                raise
            if call.denied is None:
                # The application's own: nobody cancelled it here, and gRPC would leave the caller waiting.
                return await self._failed(context, admitted, error, watched)
        except Exception as error:  # noqa: BLE001  the application's: it becomes a status, as in gRPC
            if call.denied is None:
                return await self._failed(context, admitted, error, watched)
        finally:
            line.end()
            self.open_calls.discard(call)
        if call.denied is not None:
            call.settle()
            return await self._refused(admitted, call.denied, watched)
        if context.fault is not None:
            return await self._refused(admitted, context.fault, watched)
        return context.unanswered or context.said()

    async def _reply(self, context: MeshContext) -> Any:
        if self.handler is None:
            return await context.abort(_C.UNIMPLEMENTED, f"{self.method} is not served here")
        if self.handler.request_streaming:
            return await self.handler.stream_unary(_requests(context), context)
        return await self.handler.unary_unary(await _one_request(context), context)

    async def _replies(self, context: MeshContext) -> None:
        handler = self.handler
        if handler is None:
            raise AssertionError  # pragma: no cover  unknown methods are handled as unary
        if handler.request_streaming:
            result = handler.stream_stream(_requests(context), context)
        else:
            result = handler.unary_stream(await _one_request(context), context)
        if inspect.isawaitable(result):
            await result
            return
        async for message in result:
            await context.write(message)

    async def _refused(self, admitted: Admitted, why: Denied | PeerError, watched: Serving) -> Outcome:
        header = admitted.header
        cause = why.cause if isinstance(why, PeerError) else "denied"
        peer = f"{header.source}/{header.source_instance}"
        rule = (why.rule or "") if isinstance(why, Denied) else ""
        call_id = self.membership.rejected(cause, str(why), self.method, peer, admitted.seal.id, rule)
        watched.refused(why, call_id)
        await self.membership.written()
        return mesh_outcome(why.reason, call_id=call_id)

    async def _failed(
        self, context: MeshContext, admitted: Admitted, error: BaseException, watched: Serving
    ) -> Outcome:
        if context.fault is not None:
            return await self._refused(admitted, context.fault, watched)
        if context.unanswered is not None:
            return context.unanswered
        if context.aborted:
            return context.said()
        log.error("handler of %s failed", self.method, exc_info=error)
        said = context.said()
        code = _C.UNKNOWN if said.ok else said.code
        return Outcome(code, f"Unexpected {type(error)}: {error}", trailing=said.trailing)


async def _one_request(context: MeshContext) -> Any:
    try:
        async with asyncio.timeout(REQUEST_SECONDS) as limit:
            request = await context.read()
            whole = request is not grpc.aio.EOF and await context.read_bytes() is None
    except TimeoutError:
        if not limit.expired():
            raise  # the deserializer's own
        await context.abort(_C.DEADLINE_EXCEEDED, f"no request within {REQUEST_SECONDS:.0f} s")
    if not whole:
        await context.abort(_C.INVALID_ARGUMENT, "this method takes exactly one message")
    return request


async def _requests(context: MeshContext) -> AsyncIterator[Any]:
    while (request := await context.read()) is not grpc.aio.EOF:
        yield request
