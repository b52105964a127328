"""What a node decides about calls to it, and how long they took, on its way to gatekeeper, which keeps it.

``core.decided`` and ``core.latency`` count, in the way of every call; every few seconds what was counted is
sent. No call waits for that: while gatekeeper is away, what was counted is kept, within bounds. What a node
that is killed had not sent is lost. If an answer of gatekeeper is lost, the same is sent again, and counted
twice.

Here is also how observations look on the wire, in both directions.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterator, Sequence
from typing import Final

import grpc

from mesh.core.decided import Decided, recorded
from mesh.core.errors import Denied, PeerError
from mesh.core.latency import Latencies, Latency
from mesh.core.matcher import Permit
from mesh.core.observed import ALLOW, AUDIT, DENY, Gap, Observation
from mesh.core.receiver import Admitted
from mesh.rpc.membership import Membership, nobody_counts, nobody_times
from mesh.rpc.status import Outcome
from mesh.slices import Slice
from mesh.telemetry.spans import SERVER_ERRORS
from mesh.v1 import decisions_pb2, decisions_pb2_grpc

log = logging.getLogger("mesh")

#: Seconds between reports, more or less by a part of it, so that nodes do not come all at once.
EVERY: Final = 5.0
JITTER: Final = 0.2
#: Seconds that a report may take, and a last one at leaving.
TIMEOUT: Final = 5.0
LEAVE: Final = 1.0
#: Decisions in one report, and bytes from which it takes no more: gatekeeper takes requests of 64 KiB.
BATCH: Final = 256
BYTES: Final = 32 * 1024

_V: Final = decisions_pb2.DecisionVerdict
_VERDICTS: Final = {
    ALLOW: _V.DECISION_VERDICT_ALLOW,
    DENY: _V.DECISION_VERDICT_DENY,
    AUDIT: _V.DECISION_VERDICT_AUDIT,
}
_WORDS: Final = {number: word for word, number in _VERDICTS.items()}
#: What a gatekeeper answers that is older than this: it takes no decisions.
_OLD: Final = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED)


class DecisionRecorder:
    """Counts what one node decides, and tells gatekeeper."""

    def __init__(
        self, membership: Membership, held: Slice, stub: decisions_pb2_grpc.DecisionServiceAsyncStub
    ) -> None:
        """Take the node, the slice that it decides by, and the way to gatekeeper."""
        self._membership, self._slice, self._stub = membership, held, stub
        self._decided = Decided(membership.name.text)
        self._latencies = Latencies(membership.name.text)
        membership.decided, membership.ended = self.note, self.ended

    def note(self, admitted: Admitted, now_ms: int) -> None:
        """Count a call that policy has judged."""
        verdict, held = admitted.verdict, self._slice
        if isinstance(verdict, PeerError) or (isinstance(verdict, Denied) and not held.in_force):
            return
        metadata = recorded(held.recordable, admitted.metadata) if held.recordable else ()
        header = admitted.header
        self._decided.note(header.source.text, header.method.text, verdict, held.version, metadata, now_ms)

    def ended(self, admitted: Admitted, outcome: Outcome, seconds: float) -> None:
        """Count how long a call took that policy permitted."""
        if not isinstance(admitted.verdict, Permit):
            return
        header, status = admitted.header, outcome.code
        # No caller is to fill the names by trying methods that there are not.
        method = "" if status is grpc.StatusCode.UNIMPLEMENTED else header.method.text
        now_ms, failed = self._membership.clock.now_ms(), status.name in SERVER_ERRORS
        self._latencies.note(header.source.text, method, seconds, now_ms, failed=failed)

    async def keep(self) -> None:
        """Tell, for as long as this runs and gatekeeper takes it."""
        while True:
            await asyncio.sleep(EVERY * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311  no secret
            try:
                await self.tell(TIMEOUT)
            except grpc.aio.AioRpcError as error:
                if error.code() in _OLD:
                    log.info("gatekeeper takes no decisions: it is older than this node")
                    self._membership.decided, self._membership.ended = nobody_counts, nobody_times
                    self._decided.take()
                    self._latencies.take()
                    return

    async def close(self) -> None:
        """Tell what is left, if that is possible at once."""
        try:
            await self.tell(LEAVE)
        except grpc.aio.AioRpcError:
            return

    async def tell(self, timeout: float) -> None:  # noqa: ASYNC109  of each report
        """Tell what was counted since; what cannot be told is counted again."""
        seen, gap = self._decided.take()
        reports = [*_reports(seen, gap), *_timed(self._latencies.take())]
        try:
            while reports:
                await self._stub.RecordDecisions(reports[0], timeout=timeout)
                del reports[0]
        finally:
            for left in reports:
                self._decided.give_back(*read(left, self._decided.destination))
                self._latencies.give_back(read_latencies(left, self._latencies.destination))


def _reports(seen: Sequence[Observation], gap: Gap | None) -> Iterator[decisions_pb2.RecordDecisionsRequest]:
    report = decisions_pb2.RecordDecisionsRequest(unrecorded=unrecorded(gap) if gap else None)
    size = 0
    for one in seen:
        said = decision(one)
        if len(report.decisions) >= BATCH or size >= BYTES:
            yield report
            report, size = decisions_pb2.RecordDecisionsRequest(), 0
        report.decisions.append(said)
        size += said.ByteSize()
    if report.decisions or gap:
        yield report


def _timed(latencies: Sequence[Latency]) -> Iterator[decisions_pb2.RecordDecisionsRequest]:
    report, size = decisions_pb2.RecordDecisionsRequest(), 0
    for one in latencies:
        said = latency(one)
        if len(report.latencies) >= BATCH or size >= BYTES:
            yield report
            report, size = decisions_pb2.RecordDecisionsRequest(), 0
        report.latencies.append(said)
        size += said.ByteSize()
    if report.latencies:
        yield report


def latency(one: Latency) -> decisions_pb2.Latency:
    """Give a histogram as it is sent."""
    return decisions_pb2.Latency(
        source=one.source,
        method=one.method,
        first_ms=one.first_ms,
        last_ms=one.last_ms,
        failed=one.failed,
        buckets=dict(one.buckets),
    )


def read_latency(said: decisions_pb2.Latency, destination: str) -> Latency:
    """Give a histogram as it was sent; nothing in it is checked."""
    buckets = tuple(sorted(said.buckets.items()))
    return Latency(said.source, destination, said.method, said.first_ms, said.last_ms, buckets, said.failed)


def read_latencies(report: decisions_pb2.RecordDecisionsRequest, destination: str) -> list[Latency]:
    """Give how long a report says that calls to a service took; nothing in it is checked."""
    return [read_latency(said, destination) for said in report.latencies]


def read(
    report: decisions_pb2.RecordDecisionsRequest, destination: str
) -> tuple[list[Observation], Gap | None]:
    """Give what a report says of calls to a service; nothing in it is checked."""
    lost = report.unrecorded if report.HasField("unrecorded") else None
    gap = read_unrecorded(lost, destination) if lost else None
    return [read_decision(said, destination) for said in report.decisions], gap


def decision(seen: Observation) -> decisions_pb2.Decision:
    """Give an observation as it is sent."""
    return decisions_pb2.Decision(
        source=seen.source,
        method=seen.method,
        verdict=_VERDICTS[seen.verdict],
        rule=seen.rule or "",
        by=seen.by or "",
        policy_version=seen.policy,
        metadata=[decisions_pb2.DecidedMetadata(key=key, values=values) for key, values in seen.metadata],
        count=seen.count,
        first_ms=seen.first_ms,
        last_ms=seen.last_ms,
    )


def read_decision(said: decisions_pb2.Decision, destination: str) -> Observation:
    """Give a decision as an observation; nothing in it is checked."""
    return Observation(
        said.source,
        destination,
        said.method,
        said.first_ms,
        said.last_ms,
        said.count,
        _WORDS.get(said.verdict, "unspecified"),
        said.rule or None,
        said.by or None,
        said.policy_version,
        tuple((one.key, tuple(one.values)) for one in said.metadata),
    )


def unrecorded(gap: Gap) -> decisions_pb2.UnrecordedDecisions:
    """Give a gap as it is sent."""
    return decisions_pb2.UnrecordedDecisions(count=gap.count, first_ms=gap.first_ms, last_ms=gap.last_ms)


def read_unrecorded(said: decisions_pb2.UnrecordedDecisions, destination: str) -> Gap:
    """Give unrecorded decisions as a gap; nothing in it is checked."""
    return Gap(destination, said.first_ms, said.last_ms, said.count)
