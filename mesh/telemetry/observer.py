"""One node's calls as counts and spans: the ``Observer`` that ``mesh.rpc`` tells of them.

Each call is counted by plain counters (``counts``); spans are begun only for calls that are recorded
(``spans``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter, time_ns
from types import TracebackType
from typing import Final, Self

import grpc
from opentelemetry.trace import Span

from mesh.core.errors import Cause, Denied, PeerError, Reason
from mesh.core.matcher import Permit
from mesh.core.metadata import Entries
from mesh.core.names import FullMethod, Identity, ServiceName
from mesh.core.receiver import Admitted
from mesh.core.seal import CallSeal
from mesh.core.wire import CallHeader, decode_call
from mesh.rpc.status import Outcome, mesh_info
from mesh.telemetry import names
from mesh.telemetry.counts import Counts
from mesh.telemetry.gauges import Gauges
from mesh.telemetry.spans import SERVER_ERRORS, Attributes, Tracing, address, finish

_C = grpc.StatusCode
_UNANSWERED: Final = Outcome(_C.CANCELLED, "")
_BROKEN: Final = Outcome(_C.UNKNOWN, "")
#: How calls end that nobody may have served: a sidecar learns of its app's methods by their ends alone.
_UNSERVED: Final = {_C.UNIMPLEMENTED, _C.CANCELLED, _C.DEADLINE_EXCEEDED, _C.RESOURCE_EXHAUSTED}
_VERDICTS: Final = {Permit: names.PERMIT, Denied: names.DENY, PeerError: names.REJECT}


class NodeTelemetry:
    """What one node tells of itself."""

    def __init__(
        self, identity: Identity, tracing: Tracing | None = None, counts: Counts | None = None
    ) -> None:
        """Take who it is, where its spans go, and its counters."""
        self.identity, self.tracing = identity, tracing or Tracing()
        self.counts, self.gauges = counts or Counts(), Gauges()
        self.began_ns = time_ns()

    def serving(self, admitted: Admitted, peer: Callable[[], str], *, known: bool) -> Served:
        """Begin with a call from another node."""
        return Served(self, admitted, peer, known=known)

    def calling(self, destination: ServiceName, method: FullMethod, entries: Entries) -> Called:
        """Begin with a call to another node."""
        return Called(self, destination, method, entries)

    def rejected(self, why: PeerError, method: str, peer: Callable[[], str], call_id: str) -> None:
        """Count and tell of a call that was not believed."""
        self.count(names.REJECT, why)

        def attributes() -> Attributes:
            return {
                **self.server(names.OTHER),
                **address(peer()),
                names.RPC_METHOD_ORIGINAL: method[:200],
                names.DESTINATION: self.identity.service.text,
                names.CALL_ID: call_id,
                **refusal(why),
                names.VERDICT: names.REJECT,
            }

        self.tracing.rejected(attributes)

    def passed_over(self, endpoints: int) -> None:
        """Count instances that a call did not go to because they could not be reached."""
        self.counts.ejection(names.UNREACHABLE, endpoints)

    def ejected(self, destination: ServiceName) -> None:  # noqa: ARG002  its name is in the log
        """Count an instance that is left out because it failed."""
        self.counts.ejection(names.FAILING)

    def overloaded(self, destination: ServiceName) -> None:
        """Count a call that was not made, because too many are open."""
        self.counts.overload(destination.text)

    def limited(self, source: str) -> None:
        """Count a call that was not served, because its caller makes too many."""
        self.counts.limit(source)

    def count(self, verdict: str, why: Denied | PeerError | None) -> None:
        """Count a verdict, and the true cause of a rejection."""
        self.counts.verdict(verdict, _reason(why))
        if isinstance(why, PeerError):
            self.counts.cause(str(why.cause))
            self.counts.replays += why.cause is Cause.REPLAYED

    def server(self, method: str, at: Identity | None = None) -> Attributes:
        """Give what each span of a call begins with: ``at`` is the identity called, this one by itself."""
        return {
            names.RPC_SYSTEM: names.GRPC,
            names.RPC_METHOD: method,
            names.SERVER_ADDRESS: (at or self.identity).dns,
        }


class Served:
    """A call from another node: ``mesh.rpc.observing.Serving``."""

    __slots__ = (
        "_admitted",
        "_began",
        "_known",
        "_node",
        "_outcome",
        "_peer",
        "_refused",
        "_span",
        "entries",
    )

    def __init__(
        self, node: NodeTelemetry, admitted: Admitted, peer: Callable[[], str], *, known: bool
    ) -> None:
        """Take the call; ``known``: there is a handler for its method."""
        self._node, self._admitted, self._peer, self._known = node, admitted, peer, known
        self._outcome: Outcome | None = None
        self._refused: Denied | PeerError | None = None
        self.entries = admitted.metadata

    def __enter__(self) -> Self:
        """Begin its span, if it is recorded."""
        self._node.counts.open["server"] += 1
        self._began = perf_counter()
        name = self._admitted.header.method.text[1:] if self._known else names.GRPC
        self._span, self.entries = self._node.tracing.serve(name, self._admitted.metadata, self._first)
        return self

    def refused(self, why: Denied | PeerError, call_id: str) -> None:  # noqa: ARG002  it is the seal's
        """Take note that the mesh refused it."""
        self._refused = why

    def ended(self, outcome: Outcome) -> None:
        """Take note of what the caller is told."""
        self._outcome = outcome

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Count it, and end its span."""
        outcome = self._outcome or (_UNANSWERED if kind is asyncio.CancelledError else _BROKEN)
        status, header = outcome.code.name, self._admitted.header
        counts, why = self._node.counts, self._refused
        counts.open["server"] -= 1
        served = self._known and why is None and outcome.code not in _UNSERVED
        method = counts.method(header.method.text, served=served)
        counts.call("server", header.source.text, method, status, perf_counter() - self._began)
        verdict = _VERDICTS[type(why) if type(why) in _VERDICTS else PeerError] if why else names.PERMIT
        self._node.count(verdict, why)
        if self._span is not None:
            self._finish(self._span, status, verdict)

    def _first(self) -> Attributes:
        header, node = self._admitted.header, self._node
        method = header.method.text.removeprefix("/")
        named = node.server(method if self._known else names.OTHER)
        if not self._known:
            named = {**named, names.RPC_METHOD_ORIGINAL: method}
        return {
            **named,
            **address(self._peer()),
            **_sealed(header),
            names.CALL_ID: self._admitted.seal.id,
        }

    def _finish(self, span: Span, status: str, verdict: str) -> None:
        judged = self._admitted.verdict
        said: Attributes = {names.VERDICT: verdict}
        if self._refused is not None:
            said = {**said, **refusal(self._refused)}
        elif isinstance(judged, Permit):
            said = {**said, names.RULE: judged.rule}
            if judged.audited is not None:
                said = {**said, names.AUDITED_RULE: judged.audited.rule or ""}
        failed = self._refused is None and status in SERVER_ERRORS
        finish(span, status, failed=failed, attributes=said)


class Called:
    """A call to another node: ``mesh.rpc.observing.Calling``."""

    __slots__ = (
        "_attempts",
        "_began",
        "_destination",
        "_last",
        "_method",
        "_node",
        "_open",
        "_span",
        "entries",
    )

    def __init__(
        self, node: NodeTelemetry, destination: ServiceName, method: FullMethod, entries: Entries
    ) -> None:
        """Begin it, and its span if it is recorded."""
        self._node, self._destination, self._method = node, destination, method
        self._attempts, self._open, self._span = 0, True, None
        self._last: tuple[str, bytes, CallSeal] | None = None
        node.counts.open["client"] += 1
        self._began = perf_counter()
        self._span, self.entries = node.tracing.call(method.text[1:], entries, self._first)

    def attempt(self, address: str, sealed: bytes, seal: CallSeal, *, hedge: bool = False) -> None:
        """Count an attempt; keep the last for the span, and tell there of each but the first."""
        self._attempts += 1
        if self._attempts > 1:
            self._node.counts.again(hedge=hedge)
        if self._span is not None:
            self._last = address, sealed, seal
            if self._attempts > 1:
                self._span.add_event(names.HEDGE if hedge else names.RETRY, {names.ATTEMPTS: self._attempts})

    def disturbed(self, fault: str) -> None:
        """Count a fault on purpose, and mark the span."""
        self._node.counts.disturbed(fault)
        if self._span is not None:
            self._span.add_event(names.FAULT, {names.FAULT: fault})
            self._span.set_attribute(names.FAULT, fault)

    def refused(self, why: PeerError, call_id: str) -> None:
        """Count a reply that was not believed."""
        self._node.count(names.REJECT, why)
        if self._span is not None:
            self._span.set_attributes({names.CAUSE: str(why.cause), names.CALL_ID: call_id})

    def ended(self, outcome: Outcome) -> None:
        """Count it, and end its span."""
        if not self._open:
            return
        self._open = False
        counts, status = self._node.counts, outcome.code.name
        counts.open["client"] -= 1
        method = counts.method(self._method.text, served=outcome.code is not _C.UNIMPLEMENTED)
        counts.call("client", self._destination.text, method, status, perf_counter() - self._began)
        if self._span is not None:
            finish(self._span, status, failed=not outcome.ok, attributes=self._said(outcome))

    def __del__(self) -> None:
        """End a call that its application let go of before its end."""
        self.ended(_UNANSWERED)

    def _first(self) -> Attributes:
        at = Identity(self._node.identity.domain, self._destination)
        return {
            **self._node.server(self._method.text[1:], at),
            names.SOURCE: self._node.identity.service.text,
            names.DESTINATION: self._destination.text,
        }

    def _said(self, outcome: Outcome) -> Attributes:
        said: Attributes = {names.ATTEMPTS: self._attempts}
        if self._last is not None:
            at, sealed, seal = self._last
            header = CallHeader.decode(decode_call(sealed)[1])
            said = {**said, **address(at), **_sealed(header), names.CALL_ID: seal.id}
        reason, call_id = mesh_info(outcome.trailing) if not outcome.ok else ("", "")
        if reason:
            said = {**said, names.REASON: reason}
        return {**said, names.CALL_ID: call_id} if call_id else said


def refusal(why: Denied | PeerError) -> Attributes:
    """Say why a call was refused: what the caller is told, and what it is not."""
    reason = _reason(why)
    if isinstance(why, PeerError):
        return {names.REASON: reason, names.CAUSE: str(why.cause)}
    return {names.REASON: reason, names.RULE: why.rule or ""}


def _reason(why: Denied | PeerError | None) -> str:
    if why is None:
        return ""
    return str(why.reason if isinstance(why, PeerError) else Reason.POLICY_DENIED)


def _sealed(header: CallHeader) -> Attributes:
    return {
        names.SOURCE: header.source.text,
        names.SOURCE_INSTANCE: str(header.source_instance),
        names.DESTINATION: header.destination.text,
        names.DESTINATION_INSTANCE: str(header.destination_instance),
        names.EPOCH: header.epoch.number,
        names.SEQUENCE: header.sequence,
    }
