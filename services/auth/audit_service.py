"""AuditService: gatekeeper's reports in, the logs out. Sealed; who may is ``core.builtin``'s."""

from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

from mesh.core.chain import Head
from mesh.core.names import OPERATOR
from mesh.core.receiver import Peer
from mesh.rpc.context import peer
from mesh.v1 import audit_pb2, audit_pb2_grpc
from services.auth import reports
from services.auth.authority import Authority
from services.auth.status import answering
from services.auth.worker import Worker

#: Bytes of a log in one message.
CHUNK: Final = 256 * 1024


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """Answers gatekeeper and operators about the audit logs."""

    def __init__(self, authority: Authority, worker: Worker) -> None:
        """Take what decides, and the thread that it decides in."""
        self._authority, self._worker = authority, worker

    async def Record(  # noqa: N802
        self, request: audit_pb2.RecordRequest, context: Any
    ) -> audit_pb2.RecordResponse:
        """Write what nodes denied."""
        async with answering(context):
            await self._worker.do(self._record, request.reports, peer(context))
        return audit_pb2.RecordResponse()

    async def RecordTap(  # noqa: N802
        self, request: audit_pb2.RecordTapRequest, context: Any
    ) -> audit_pb2.RecordTapResponse:
        """Write that an operator looks at calls."""
        async with answering(context):
            await self._worker.do(self._record_tap, request, peer(context))
        return audit_pb2.RecordTapResponse()

    async def Read(  # noqa: N802
        self, request: audit_pb2.ReadRequest, context: Any
    ) -> AsyncIterator[audit_pb2.ReadResponse]:
        """Give a log: its end by the database, then what the files hold at the same moment."""
        async with answering(context):
            head, sizes = await self._worker.do(self._log, request.log, peer(context))
            own, all_of_them = await self._worker.do(self._authority.auditor.whose)
        yield audit_pb2.ReadResponse(
            segment=head.segment, anchor=_anchor(head), replica=own, replicas=all_of_them
        )
        for number, size in sizes.items():
            at = request.offset if number == request.segment else 0
            while number >= request.segment and at < size:
                async with answering(context):
                    most = min(CHUNK, size - at)
                    data = await self._worker.do(self._authority.auditor.piece, request.log, number, at, most)
                if not data:
                    break
                yield audit_pb2.ReadResponse(segment=number, data=data)
                at += len(data)

    def _record(self, told: Iterable[audit_pb2.NodeDenials], by: Peer) -> None:
        self._authority.check_known(by)
        self._authority.auditor.record(told)

    def _record_tap(self, request: audit_pb2.RecordTapRequest, by: Peer) -> None:
        self._authority.check_known(by)
        operator = Peer(OPERATOR, reports.instance(request.operator))
        # It is gatekeeper's word that this operator asked; that there is one is not.
        self._authority.check_known(operator)
        self._authority.auditor.tapped(request, operator)

    def _log(self, name: str, by: Peer) -> tuple[Head, dict[int, int]]:
        self._authority.check_known(by)
        return self._authority.auditor.log(name)


def _anchor(head: Head) -> audit_pb2.Anchor:
    return audit_pb2.Anchor(
        log=head.log,
        first_segment=head.first_segment,
        segment=head.segment,
        sequence=head.sequence,
        size=head.size,
        mac=head.mac,
        at_ms=head.at_ms,
    )
