"""Denials on their way from nodes to auth, which keeps the audit log.

Nothing is kept here: a node's report is answered when auth has answered for it, and a node that got no answer
reports again. What waits goes in one call, one call at a time, so a thousand nodes with something to tell are
a few calls a second. More than ``MOST`` that wait are told to come again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

import grpc

from mesh.core.receiver import Peer
from mesh.core.tally import Told
from mesh.reports import BATCH, Denial, messages
from mesh.rpc.context import peer
from mesh.v1 import audit_pb2, audit_pb2_grpc

log = logging.getLogger("mesh.gatekeeper")

#: Reports that may wait, and how many go in one call, until they are so many bytes. With one more of the
#: largest that gatekeeper takes it has to be less than auth takes (256 KiB).
MOST: Final = 1024
#: A node reports once at a time; gatekeeper may have something of its own to tell for it. More is no node's.
MOST_OF_ONE: Final = 4
TOGETHER: Final = 64
BYTES: Final = 160 * 1024
#: Seconds that auth may take.
TIMEOUT: Final = 4.0


class Forwarder:
    """Hands reports on to auth."""

    def __init__(self, own: Peer, auth: audit_pb2_grpc.AuditServiceAsyncStub) -> None:
        """Take who this gatekeeper is, and the way to auth."""
        self._own, self._auth = own, auth
        self._waiting: list[tuple[audit_pb2.NodeDenials, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()

    async def forward(self, report: audit_pb2.NodeDenials) -> None:
        """Hand a report on, and wait until it is in the log; raise ``OSError`` if it is not."""
        alike = sum(waiting.instance == report.instance for waiting, _ in self._waiting)
        if len(self._waiting) >= MOST or alike >= MOST_OF_ONE:
            raise OSError("too many reports at once: report again")
        told = asyncio.get_running_loop().create_future()
        self._waiting.append((report, told))
        self._wake.set()
        await told

    async def run(self) -> None:
        """Hand on, for as long as this runs."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while batch := self._batch():
                await self._record(batch)

    async def send(self, told: Sequence[Told[Denial]]) -> None:
        """Hand on what gatekeeper denied itself, or judged for others (``mesh.reports.Send``)."""
        by: dict[Peer, list[Told[Denial]]] = {}
        for one in told:
            # Counts have lost whom they were judged for: they are gatekeeper's word.
            by.setdefault(one.what.by if one.what else self._own, []).append(one)
        await asyncio.gather(*(self.forward(_report(who, messages(of))) for who, of in by.items()))

    def _batch(self) -> list[tuple[audit_pb2.NodeDenials, asyncio.Future[None]]]:
        batch: list[tuple[audit_pb2.NodeDenials, asyncio.Future[None]]] = []
        size = 0
        while self._waiting and len(batch) < TOGETHER and size < BYTES:
            batch.append(self._waiting.pop(0))
            size += batch[-1][0].ByteSize()
        return batch

    async def _record(self, batch: list[tuple[audit_pb2.NodeDenials, asyncio.Future[None]]]) -> None:
        request = audit_pb2.RecordRequest(reports=[report for report, _ in batch])
        failed: Exception | None = None
        try:
            await self._auth.Record(request, timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            failed = OSError(f"auth does not take reports: {error.details()}")
        for _, told in batch:
            if told.done():
                continue
            if failed is None:
                told.set_result(None)
            else:
                told.set_exception(failed)


class Denials(audit_pb2_grpc.DenialServiceServicer):
    """Takes reports from nodes, each about calls to itself."""

    def __init__(self, forwarder: Forwarder) -> None:
        """Take the way to auth."""
        self._forwarder = forwarder

    async def Report(  # noqa: N802
        self, request: audit_pb2.ReportRequest, context: Any
    ) -> audit_pb2.ReportResponse:
        """Hand on what the caller denied, in the name that it has proved."""
        if len(request.denials) > BATCH:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, f"at most {BATCH} denials in one report: send them in parts"
            )
        try:
            await self._forwarder.forward(_report(peer(context), request.denials))
        except OSError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        return audit_pb2.ReportResponse()


def _report(by: Peer, denials: Sequence[audit_pb2.Denial]) -> audit_pb2.NodeDenials:
    return audit_pb2.NodeDenials(service=by.service.text, instance=by.instance.raw, denials=denials)
