"""The spans of calls, and of what a node does on its own: begun only if they are to be recorded.

A call that is not recorded costs no SDK, but its context is current all the same, so that what is called
from inside it is not recorded either. Nothing unverified is an attribute, except what a rejected call
claimed its method to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import unquote

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from mesh.core.metadata import Entries
from mesh.telemetry import names
from mesh.telemetry.sampling import Sampling
from mesh.telemetry.trace_parent import TraceParent, read, written

Attributes = Mapping[str, str | int | bool]
#: Statuses that are the server's own failure, by the conventions; a denial is none.
SERVER_ERRORS = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
)


class Tracing:
    """Begins spans. Without a tracer none; then contexts of others are only passed on.

    Without ``sampling`` the tracer's own SDK decides, as in an application that brings one.
    """

    def __init__(self, tracer: Tracer | None = None, sampling: Sampling | None = None) -> None:
        """Take where spans go, and who decides."""
        self._tracer, self._sampling = tracer, sampling

    def serve(
        self, name: str, entries: Entries, attributes: Callable[[], Attributes]
    ) -> tuple[Span | None, Entries]:
        """Begin with a call from another node, in its own task; give its span if it is recorded.

        Also gives the metadata for the application, whose trace context is this node's.
        """
        parent = read(entries) if entries else None
        if self._tracer is None:
            if parent is not None:
                context.attach(_remote(parent))
            return None, entries
        if self._sampling is not None:
            decided = self._sampling.decide(parent)
            if not decided.sampled:
                context.attach(_remote(decided))
                return None, entries
        within = _remote(parent) if parent else Context()
        span = self._tracer.start_span(name, within, SpanKind.SERVER, attributes())
        context.attach(trace.set_span_in_context(span, within))
        return _recorded(span), written(entries, _of(span))

    def call(
        self,
        name: str,
        entries: Entries,
        attributes: Callable[[], Attributes],
        kind: SpanKind = SpanKind.CLIENT,
    ) -> tuple[Span | None, Entries]:
        """Begin with a call to another node; give its span if it is recorded, and the metadata to send.

        A trace context in the metadata is the parent; else what is current is.
        """
        explicit = read(entries) if entries else None
        parent = explicit or _current()
        if self._tracer is None:
            return None, entries if explicit or parent is None else written(entries, parent)
        if self._sampling is not None:
            decided = self._sampling.decide(parent)
            if not decided.sampled:
                return None, entries if explicit else written(entries, decided)
        within = _remote(explicit) if explicit else None
        span = self._tracer.start_span(name, within, kind, attributes())
        return _recorded(span), written(entries, _of(span))

    def rejected(self, attributes: Callable[[], Attributes]) -> None:
        """Tell of a call that was not believed: a trace of its own, for nothing it says is to be followed."""
        if self._tracer is None or not (self._sampling is None or self._sampling.decide(None).sampled):
            return
        self._tracer.start_span(names.GRPC, Context(), SpanKind.SERVER, attributes()).end()

    @contextmanager
    def span(self, name: str, attributes: Attributes | None = None) -> Iterator[Span]:
        """Be in a span of something that the node does on its own, or a script within its call."""
        parent = _current()
        take = self._sampling is None or self._sampling.decide(parent).sampled
        if self._tracer is None or not take:
            yield trace.INVALID_SPAN
            return
        with self._tracer.start_as_current_span(
            name, attributes=dict(attributes or {}), record_exception=False
        ) as span:
            yield span

    def past(self, name: str, began_ns: int, attributes: Attributes) -> None:
        """Tell of something that was begun at a Unix time, in nanoseconds, and is over now."""
        if self._tracer is not None and (self._sampling is None or self._sampling.decide(None).sampled):
            self._tracer.start_span(name, Context(), attributes=dict(attributes), start_time=began_ns).end()


def finish(span: Span, status: str, *, failed: bool, attributes: Attributes) -> None:
    """End a call's span with its status."""
    span.set_attributes({names.RPC_STATUS: status, **attributes})
    if failed:
        span.set_attribute(names.ERROR_TYPE, status)
        span.set_status(Status(StatusCode.ERROR, status))
    span.end()


def address(peer: str) -> Attributes:
    """Read an address as gRPC writes it: ``ipv4:127.0.0.1:80``, ``ipv6:%5B::1%5D:80``, ``host:80``."""
    kind, _, rest = unquote(peer).partition(":")
    if kind == "unix":
        return {names.PEER_ADDRESS: rest}
    host, _, port = (rest if kind in ("ipv4", "ipv6") else unquote(peer)).rpartition(":")
    found: dict[str, str | int] = {names.PEER_ADDRESS: host.strip("[]")} if host else {}
    if found and port.isascii() and port.isdigit():
        found[names.PEER_PORT] = int(port)
    return found


def _recorded(span: Span) -> Span | None:
    return span if span.is_recording() else None


def _current() -> TraceParent | None:
    found = trace.get_current_span().get_span_context()
    return _parent(found) if found.is_valid else None


def _of(span: Span) -> TraceParent:
    return _parent(span.get_span_context())


def _parent(found: trace.SpanContext) -> TraceParent:
    state = found.trace_state.to_header() if found.trace_state else ""
    return TraceParent(found.trace_id, found.span_id, found.trace_flags.sampled, state)


def _remote(parent: TraceParent) -> Context:
    state = trace.TraceState.from_header([parent.state]) if parent.state else None
    found = trace.SpanContext(
        parent.trace_id, parent.span_id, True, trace.TraceFlags(int(parent.sampled)), state
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(found), Context())
