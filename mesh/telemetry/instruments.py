"""Counts and gauges as instruments of the OpenTelemetry API, looked at only when somebody collects.

Durations of calls are a histogram, which the API has no way to look at: where the SDK is ours they are
added as they are collected (``exports``), and where it is the application's each call is recorded
(``recorder``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from mesh.telemetry import names
from mesh.telemetry.counts import BOUNDS, CallKey
from mesh.telemetry.observer import NodeTelemetry

Nodes = Callable[[], Iterable[NodeTelemetry]]
_Told = Iterator[tuple[float, dict[str, str]]]

_COUNTERS: tuple[tuple[str, str, str, Callable[[NodeTelemetry], _Told]], ...] = (
    (
        names.VERDICTS,
        "{call}",
        "Calls judged, by verdict and reason.",
        lambda node: (
            (count, {names.VERDICT: verdict, names.REASON: reason})
            for (verdict, reason), count in list(node.counts.verdicts.items())
        ),
    ),
    (
        names.SEALS_REJECTED,
        "{call}",
        "Calls and replies that were not believed, by their true cause.",
        lambda node: ((count, {names.CAUSE: cause}) for cause, count in list(node.counts.causes.items())),
    ),
    (names.REPLAYS, "{call}", "Calls that came a second time.", lambda n: iter([(n.counts.replays, {})])),
    (names.RETRIES, "{call}", "Calls made again.", lambda n: iter([(n.counts.retries, {})])),
    (
        names.HEDGES,
        "{call}",
        "Calls made beside one that was not answered yet.",
        lambda n: iter([(n.counts.hedges, {})]),
    ),
    (
        names.FAULTS,
        "{call}",
        "What policy has done to calls on purpose.",
        lambda n: ((count, {names.FAULT: fault}) for fault, count in list(n.counts.faults.items())),
    ),
    (
        names.EJECTIONS,
        "{endpoint}",
        "Instances left out: because they could not be reached, or failed.",
        lambda n: ((count, {names.CAUSE: cause}) for cause, count in list(n.counts.ejections.items())),
    ),
    (
        names.OVERLOADS,
        "{call}",
        "Calls not made, because as many were open as there may be.",
        lambda n: ((count, {names.DESTINATION: to}) for to, count in list(n.counts.overloads.items())),
    ),
    (
        names.LIMITED,
        "{call}",
        "Calls not served, because they were beyond the rate of their caller.",
        lambda n: ((count, {names.SOURCE: source}) for source, count in list(n.counts.limits.items())),
    ),
    (
        names.LUA_KILLS,
        "{worker}",
        "Workers of scripts ended by force.",
        lambda n: ((count, dict(told)) for count, told in n.gauges.read(names.LUA_KILLS)),
    ),
)
_GAUGES = (
    (names.KEY_AGE, "s", "Age of the epoch whose keys are in use."),
    (names.CERTIFICATE_AGE, "s", "Age of the certificate."),
    (names.CERTIFICATE_LEFT, "s", "Time until the certificate ends."),
    (names.SLICE_AGE, "s", "Time since the last sign of life from gatekeeper."),
    (names.SLICE_VERSION, "1", "Version of the policy in force."),
    (names.ENDPOINTS, "{endpoint}", "Instances known of each destination."),
)


def instrument(meter: Meter, nodes: Nodes) -> None:
    """Have all that nodes count and hold told by a meter."""
    for name, unit, text, read in _COUNTERS:
        meter.create_observable_counter(name, [_observing(nodes, read)], unit, text)
    meter.create_observable_up_down_counter(
        names.CALLS_OPEN,
        [_observing(nodes, lambda n: ((count, {names.SIDE: side}) for side, count in n.counts.open.items()))],
        "{call}",
        "Calls in progress.",
    )
    for name, unit, text in _GAUGES:
        meter.create_observable_gauge(name, [_observing(nodes, _gauge(name))], unit, text)


def recorder(meter: Meter, service: str) -> Callable[[CallKey, float], None]:
    """Give what records each call's duration at once."""
    bounds = list(BOUNDS)
    histograms = {
        side: meter.create_histogram(name, "s", text, explicit_bucket_boundaries_advisory=bounds)
        for side, name, text in DURATIONS
    }

    def record(key: CallKey, seconds: float) -> None:
        histograms[key.side].record(seconds, attributes_of(service, key))

    return record


#: The side, its histogram, and what that is of.
DURATIONS = (
    ("server", names.SERVER_DURATION, "Duration of calls from other nodes."),
    ("client", names.CLIENT_DURATION, "Duration of calls to other nodes."),
)


def attributes_of(service: str, key: CallKey) -> dict[str, str]:
    """Give the attributes of a series of calls: ``service`` is the node's own name."""
    peer = names.SOURCE if key.side == "server" else names.DESTINATION
    told = {
        names.RPC_SYSTEM: names.GRPC,
        names.RPC_METHOD: key.method,
        names.RPC_STATUS: key.status,
        names.SERVICE: service,
        peer: key.peer,
    }
    return told if key.status == "OK" else {**told, names.ERROR_TYPE: key.status}


def _gauge(name: str) -> Callable[[NodeTelemetry], _Told]:
    return lambda node: ((value, dict(told)) for value, told in node.gauges.read(name))


def _observing(
    nodes: Nodes, read: Callable[[NodeTelemetry], _Told]
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(value, {names.SERVICE: node.identity.service.text, **told})
            for node in list(nodes())
            for value, told in read(node)
        ]

    return observe
