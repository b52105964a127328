"""TapService: an operator looks at calls to a service, by the word of its nodes, while they end.

Who may is ``core.builtin``'s. That a tap began is in the audit log before any node hears of it; where it
cannot be written there is no tap. Each node is told on its stream of ``Watch`` what is wanted (``watchers``)
and tells on the same stream. There are ``MOST`` taps at once, each holds ``QUEUE`` calls for its operator and
counts what is over, and ends with its call, or after ``LONGEST``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc

from mesh.core.names import ServiceName, full_method, service_name
from mesh.core.observed import MAX_COUNT, MAX_TIME, VERDICTS
from mesh.core.receiver import Peer
from mesh.rpc.context import peer
from mesh.taps import REJECT, WAITING, takes
from mesh.v1 import audit_pb2, audit_pb2_grpc, gatekeeper_pb2, tap_pb2, tap_pb2_grpc

MOST: Final = 8
QUEUE: Final = 1000
#: Bytes of one call: some more than the longest method and names have.
LARGEST: Final = 4096
#: Seconds that a tap lasts, after which it says something though there is nothing, and that auth may take.
LONGEST: Final = 3600.0
QUIET: Final = 5.0
TIMEOUT: Final = 4.0
_C: Final = grpc.StatusCode


class Tap:
    """One operator's look at the calls to one service."""

    def __init__(self, destination: ServiceName, wanted: tap_pb2.TapFilter) -> None:
        """Take what is wanted. Nothing has come yet."""
        self.destination, self.wanted = destination, wanted
        self._queue: asyncio.Queue[tuple[bytes, tap_pb2.TappedCall]] = asyncio.Queue(QUEUE)
        self._dropped = 0

    def take(self, instance: bytes, told: gatekeeper_pb2.WatchRequest) -> None:
        """Take what an instance told, as far as it is wanted and there is room."""
        self._drop(told.untold + max(0, len(told.tapped) - WAITING))
        for call in told.tapped[:WAITING]:
            if not takes(self.wanted, call):
                continue
            if self._queue.full() or not _is_sound(call):
                self._drop(1)
            else:
                self._queue.put_nowait((instance, call))

    async def next(self) -> tap_pb2.TapResponse:
        """Wait for calls, not for ever; give those of one instance, and how many were dropped before them."""
        found = tap_pb2.TapResponse()
        try:
            async with asyncio.timeout(QUIET):
                found.instance, call = await self._queue.get()
            found.calls.append(call)
        except TimeoutError:
            pass
        found.dropped, self._dropped = self._dropped, 0
        return found

    def _drop(self, calls: int) -> None:
        self._dropped = min(MAX_COUNT, self._dropped + calls)


class Taps:
    """All taps, and what nodes are to tell for them."""

    def __init__(self) -> None:
        """Begin with none."""
        self._open: list[Tap] = []
        self._waiting = 0
        self.changed: Callable[[ServiceName], None] = lambda _service: None
        """Told of each service whose orders are others than before."""

    def orders(self, service: ServiceName) -> tuple[tap_pb2.TapFilter, ...]:
        """Give what the nodes of a service are to tell of."""
        return tuple(tap.wanted for tap in self._open if tap.destination == service)

    def told(self, by: Peer, beat: gatekeeper_pb2.WatchRequest) -> None:
        """Take what a node told with a heartbeat, of calls to itself."""
        for tap in self._open:
            if tap.destination == by.service:
                tap.take(by.instance.raw, beat)

    @contextmanager
    def place(self) -> Iterator[None]:
        """Have a place among all taps; raise ``OSError`` if there is none."""
        if self._waiting >= MOST:
            msg = f"there are {MOST} taps already: end one, or wait for its end"
            raise OSError(msg)
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    @contextmanager
    def tapping(self, tap: Tap) -> Iterator[None]:
        """Have nodes tell, for the length of the block."""
        self._open.append(tap)
        self.changed(tap.destination)
        try:
            yield
        finally:
            self._open.remove(tap)
            self.changed(tap.destination)


class TapServicer(tap_pb2_grpc.TapServiceServicer):
    """Answers operators."""

    def __init__(
        self, taps: Taps, nodes: Callable[[ServiceName], int], audit: audit_pb2_grpc.AuditServiceAsyncStub
    ) -> None:
        """Take the taps, what counts the nodes of a service, and the way to the audit log."""
        self._taps, self._nodes, self._audit = taps, nodes, audit

    async def Tap(self, request: tap_pb2.TapRequest, context: Any) -> None:  # type: ignore[override]  # noqa: N802
        """Give calls to a service until the operator has seen enough."""
        try:
            tap = Tap(_destination(request), _checked(request.filter))
            with self._taps.place():
                await self._recorded(request, context)
                with self._taps.tapping(tap):
                    async with asyncio.timeout(LONGEST):
                        await context.write(tap_pb2.TapResponse(nodes=self._nodes(tap.destination)))
                        while True:
                            await context.write(await tap.next())
        except TimeoutError:
            return
        except ValueError as error:
            await context.abort(_C.INVALID_ARGUMENT, str(error))
        except OSError as error:
            await context.abort(_C.RESOURCE_EXHAUSTED, str(error))

    async def _recorded(self, request: tap_pb2.TapRequest, context: Any) -> None:
        record = audit_pb2.RecordTapRequest(
            operator=peer(context).instance.raw, destination=request.destination, filter=request.filter
        )
        try:
            await self._audit.RecordTap(record, timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            why = f"auth does not write to the audit log that a tap begins: {error.details()}"
            await context.abort(_C.UNAVAILABLE, why)


def _is_sound(call: tap_pb2.TappedCall) -> bool:
    """Whether a call can be shown: a node's word is not to end the tap on others, nor to fill the memory."""
    return call.at_ms <= MAX_TIME and call.duration_us <= MAX_COUNT and call.ByteSize() <= LARGEST


def _destination(request: tap_pb2.TapRequest) -> ServiceName:
    name = service_name(request.destination)
    if name.reserved:
        raise ValueError("calls to the mesh's own services cannot be tapped")
    return name


def _checked(wanted: tap_pb2.TapFilter) -> tap_pb2.TapFilter:
    if wanted.source:
        service_name(wanted.source)
    if wanted.method:
        full_method(wanted.method)
    if wanted.verdict not in ("", *VERDICTS, REJECT):
        raise ValueError("unknown verdict: use allow, audit, deny or reject")
    return wanted
