"""Where a node's telemetry goes: a ``Backend`` gives each node what it tells through.

``AMBIENT`` is what a library does: it uses the tracer and meter providers that the application has set
with the OpenTelemetry API before it joined, and nothing where there are none. The daemons bring their own
(``sdk``).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Protocol
from weakref import WeakSet

from opentelemetry import metrics, trace

from mesh.core.names import Identity, InstanceId
from mesh.rpc.membership import Membership
from mesh.telemetry import names
from mesh.telemetry.counts import CallKey, Counts
from mesh.telemetry.instruments import instrument, recorder
from mesh.telemetry.observer import NodeTelemetry
from mesh.telemetry.spans import Tracing


class Backend(Protocol):
    """Takes what nodes tell."""

    def observe(self, identity: Identity, instance: InstanceId) -> NodeTelemetry:
        """Give a node what it tells through, for as long as it lives."""


class Ambient:
    """The application's own providers, as they are when a node joins."""

    def __init__(self) -> None:
        """Watch no node yet."""
        self._nodes: WeakSet[NodeTelemetry] = WeakSet()
        self._instrumented: object = None

    def observe(self, identity: Identity, instance: InstanceId) -> NodeTelemetry:  # noqa: ARG002
        """Tell of a node through the application's providers."""
        node = NodeTelemetry(identity, Tracing(_tracer()), Counts(self._recorder(identity)))
        self._nodes.add(node)
        return node

    def _recorder(self, identity: Identity) -> Callable[[CallKey, float], None] | None:
        provider = metrics.get_meter_provider()
        if _is_the_api(provider):
            return None
        meter = provider.get_meter(names.SCOPE, scope_version(), names.SCHEMA_URL)
        if self._instrumented is not provider:
            self._instrumented = provider
            instrument(meter, lambda: self._nodes)
        return recorder(meter, identity.service.text)


def watched(membership: Membership, backend: Backend) -> NodeTelemetry:
    """Have a member's calls, keys and certificate told of."""
    telemetry = backend.observe(membership.identity, membership.instance)
    membership.observer = telemetry
    clock, receiver = membership.clock, membership.receiver

    def key_age() -> float | None:
        epoch = receiver.epoch(clock.now_ms())
        return (clock.now_ms() - epoch.begins_ms) / 1000 if epoch else None

    telemetry.gauges.add(names.KEY_AGE, key_age)
    telemetry.gauges.add(
        names.CERTIFICATE_AGE, lambda: (clock.now_ms() - membership.svid.not_before_ms) / 1000
    )
    telemetry.gauges.add(
        names.CERTIFICATE_LEFT, lambda: (membership.svid.not_after_ms - clock.now_ms()) / 1000
    )
    return telemetry


def scope_version() -> str:
    """Give the version that the scope of all telemetry has."""
    try:
        return version("sealmesh")
    except PackageNotFoundError:
        return ""


def _tracer() -> trace.Tracer | None:
    provider = trace.get_tracer_provider()
    return (
        None if _is_the_api(provider) else provider.get_tracer(names.SCOPE, scope_version(), names.SCHEMA_URL)
    )


def _is_the_api(provider: object) -> bool:
    # What the API gives where nobody has set a provider does nothing, slowly.
    return type(provider).__module__.partition(".")[2].partition(".")[0] in ("trace", "metrics")


AMBIENT: Final = Ambient()
