"""DecisionService: takes what nodes decided, and how long calls to them took, and gives it to operators.

A node speaks of calls to itself alone: the destination is the verified caller of the RPC. Who called it is
that node's word. Reports are put together in memory and written once in a while, by a thread of their own, so
the event loop never waits for the disk. What waits is bounded: past that nodes are told to come again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc

from mesh.core import latency as timed
from mesh.core.decided import recorded, said
from mesh.core.errors import Denied
from mesh.core.latency import Latency
from mesh.core.matcher import Permit
from mesh.core.metadata import Entries
from mesh.core.names import ServiceName
from mesh.core.observed import Gap, Observation, Seen, check, merged, timeless
from mesh.decisions import BATCH, decision, latency, read, read_latencies, unrecorded
from mesh.rpc.context import peer
from mesh.v1 import decisions_pb2, decisions_pb2_grpc
from services.gatekeeper.decision_rows import MINUTE_MS
from services.gatekeeper.decision_store import DecisionStore, StoreError
from services.gatekeeper.slices import Slicer

log = logging.getLogger("mesh.gatekeeper")

_K = TypeVar("_K")
_V = TypeVar("_V")

#: How many different ones may wait to be written, and for how many seconds.
WAITING: Final = 20_000
#: How many of both kinds may wait of one service, so that no one takes the room of all.
OF_ONE: Final = WAITING // 4
PAUSE: Final = 1.0
#: Rows in one part of a list.
PAGE: Final = 256
#: How far ahead of this clock a node's may be.
AHEAD_MS: Final = MINUTE_MS
DAY_MS: Final = 24 * 60 * MINUTE_MS


class Ledger:
    """All recorded decisions: those that wait, and the store."""

    def __init__(self, clock_ms: Callable[[], int], path: Path | None = None, days: float = 7) -> None:
        """Take the mesh's clock in Unix milliseconds, a file (or memory), and how long to keep them."""
        self._clock_ms, self._path, self._keep_ms = clock_ms, path, int(days * DAY_MS)
        self._waiting: dict[tuple[object, ...], Seen] = {}
        self._timed: dict[tuple[object, ...], Latency] = {}
        self._of: Counter[str] = Counter()
        self._thread = ThreadPoolExecutor(1, "decisions")
        self._store: DecisionStore | None = None
        self._wake = asyncio.Event()
        self._failing = False

    def take(self, seen: Iterable[Seen]) -> None:
        """Take what was seen; raise ``ValueError`` if it cannot be, ``OSError`` if too much waits."""
        taken, now_ms = list(seen), self._clock_ms()
        for one in taken:
            check(one)
            if one.last_ms > now_ms + AHEAD_MS:
                raise ValueError("calls in the future: is the clock of this node right?")
        if not self._has_room(self._waiting, taken):
            raise OSError("too many decisions at once: record them again")
        for one in taken:
            if one.last_ms < now_ms - self._keep_ms:
                continue
            key = (one.first_ms // MINUTE_MS, timeless(one), getattr(one, "policy", 0))
            before = self._waiting.get(key)
            self._waiting[key] = merged(before, one) if before else one
            self._of[one.destination] += before is None
        self._wake.set()

    def take_latencies(self, latencies: Iterable[Latency]) -> None:
        """Take how long calls took; raise ``ValueError`` if it cannot be, ``OSError`` if too much waits."""
        taken, now_ms = list(latencies), self._clock_ms()
        for one in taken:
            timed.check(one)
            if one.last_ms > now_ms + AHEAD_MS:
                raise ValueError("calls in the future: is the clock of this node right?")
        if not self._has_room(self._timed, taken):
            raise OSError("too many latencies at once: record them again")
        for one in taken:
            key = (one.first_ms // MINUTE_MS, one.destination, one.source, one.method)
            before = self._timed.get(key)
            self._timed[key] = timed.merged(before, one) if before else one
            self._of[one.destination] += before is None
        if taken:
            self._wake.set()

    def note(self, asking: ServiceName, slicer: Slicer, verdict: Permit | Denied, entries: Entries) -> None:
        """Count a call to a service that asked for the verdict, if it can be counted."""
        now_ms, metadata = self._clock_ms(), recorded(slicer.recordable(asking), entries)
        call = (verdict.source, asking.text, verdict.method, now_ms, now_ms, 1)
        with suppress(ValueError, OSError):
            self.take([Observation(*call, *said(verdict), slicer.version, metadata)])

    async def run(self) -> None:
        """Write, for as long as this runs."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(PAUSE)
            await self.flush()

    async def flush(self) -> None:
        """Write what waits; what cannot be written goes on waiting."""
        (waiting, self._waiting), (late, self._timed) = (self._waiting, {}), (self._timed, {})
        self._of.clear()
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._add, list(waiting.values()))
            waiting = {}
            await loop.run_in_executor(self._thread, self._add_latencies, list(late.values()))
            self._failing = False
        except StoreError as error:
            if not self._failing:
                log.error("%s: waiting until that is over", error)  # noqa: TRY400
            self._failing = True
            self._waiting = _together(waiting, self._waiting, merged)
            self._timed = _together(late, self._timed, timed.merged)
            self._of = Counter(one.destination for one in (*self._waiting.values(), *self._timed.values()))
            self._wake.set()

    async def pages(self, request: decisions_pb2.ListDecisionsRequest) -> AsyncIterator[list[Seen]]:
        """Give what is recorded, those that wait included; raise ``StoreError``."""
        await self.flush()
        loop, after = asyncio.get_running_loop(), 0
        while found := await loop.run_in_executor(self._thread, self._page, request, after):
            after = found[-1][0]
            yield [seen for _, seen in found]

    async def latencies(self, request: decisions_pb2.ListLatenciesRequest) -> AsyncIterator[list[Latency]]:
        """Give how long calls took, what waits included; raise ``StoreError``."""
        await self.flush()
        loop, after = asyncio.get_running_loop(), 0
        while found := await loop.run_in_executor(self._thread, self._timed_page, request, after):
            after = found[-1][0]
            yield [one for _, one in found]

    async def close(self) -> None:
        """Write what waits, and close."""
        await self.flush()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    def _has_room(self, waiting: Sized, taken: Iterable[Seen | Latency]) -> bool:
        return len(waiting) < WAITING and all(self._of[one.destination] < OF_ONE for one in taken)

    def _opened(self) -> DecisionStore:
        if self._store is None:
            self._store = DecisionStore.open(self._path)
        return self._store

    def _add(self, seen: list[Seen]) -> None:
        with self._reopening():
            self._opened().add(seen, self._clock_ms() - self._keep_ms)

    def _add_latencies(self, latencies: list[Latency]) -> None:
        with self._reopening():
            self._opened().add_latencies(latencies, self._clock_ms() - self._keep_ms)

    @contextmanager
    def _reopening(self) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            if error.damaged:
                self._close()  # opening it again moves it aside
            raise

    def _page(self, request: decisions_pb2.ListDecisionsRequest, after: int) -> list[tuple[int, Seen]]:
        until_ms = request.until_ms or 2**62
        return self._opened().page(request.since_ms, until_ms, request.destinations, after, PAGE)

    def _timed_page(
        self, request: decisions_pb2.ListLatenciesRequest, after: int
    ) -> list[tuple[int, Latency]]:
        return self._opened().latencies(request.since_ms, request.until_ms or 2**62, after, PAGE)

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None


class Decisions(decisions_pb2_grpc.DecisionServiceServicer):
    """Takes decisions from nodes, each about calls to itself, and lists them."""

    def __init__(self, ledger: Ledger) -> None:
        """Take where they are kept."""
        self._ledger = ledger

    async def RecordDecisions(  # noqa: N802
        self, request: decisions_pb2.RecordDecisionsRequest, context: Any
    ) -> decisions_pb2.RecordDecisionsResponse:
        """Take what the caller decided, in the name that it has proved."""
        if max(len(request.decisions), len(request.latencies)) > BATCH:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"at most {BATCH} decisions at once: send them in parts"
            )
        destination = peer(context).service.text
        seen, gap = read(request, destination)
        try:
            self._ledger.take_latencies(read_latencies(request, destination))
            self._ledger.take([*seen, *([gap] if gap else [])])
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except OSError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        return decisions_pb2.RecordDecisionsResponse()

    async def ListDecisions(  # noqa: N802
        self, request: decisions_pb2.ListDecisionsRequest, context: Any
    ) -> AsyncIterator[decisions_pb2.ListDecisionsResponse]:
        """Give what is recorded, in parts."""
        try:
            async for page in self._ledger.pages(request):
                yield decisions_pb2.ListDecisionsResponse(decisions=map(_listed, page))
        except StoreError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))

    async def ListLatencies(  # noqa: N802
        self, request: decisions_pb2.ListLatenciesRequest, context: Any
    ) -> AsyncIterator[decisions_pb2.ListLatenciesResponse]:
        """Give how long calls took, in parts."""
        try:
            async for page in self._ledger.latencies(request):
                listed = [
                    decisions_pb2.ListedLatency(destination=one.destination, latency=latency(one))
                    for one in page
                ]
                yield decisions_pb2.ListLatenciesResponse(latencies=listed)
        except StoreError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))


def _together(before: dict[_K, _V], since: dict[_K, _V], merge: Callable[[_V, _V], _V]) -> dict[_K, _V]:
    return before | {key: merge(before[key], one) if key in before else one for key, one in since.items()}


def _listed(seen: Seen) -> decisions_pb2.ListedDecision:
    if isinstance(seen, Gap):
        return decisions_pb2.ListedDecision(destination=seen.destination, unrecorded=unrecorded(seen))
    return decisions_pb2.ListedDecision(destination=seen.destination, decision=decision(seen))
