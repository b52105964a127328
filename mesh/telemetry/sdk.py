"""The daemons' SDK: configured by the standard ``OTEL_*`` variables, and by nothing else.

Each service of a process has a tracer provider of its own, for ``service.name`` is a provider's; they
share one queue and one exporter. There is one meter provider for the process, whose series say
``mesh.service``. Without a variable that asks for telemetry there is none: nobody is sent anything, and
nothing listens.

Whether a call is recorded is decided before the SDK is touched (``sampling``), so the providers record all
they get.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from mesh.core.names import Identity, InstanceId
from mesh.telemetry import names
from mesh.telemetry.backends import AMBIENT, Backend, scope_version
from mesh.telemetry.observer import NodeTelemetry
from mesh.telemetry.sampling import Sampling
from mesh.telemetry.spans import Tracing

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricReader

log = logging.getLogger("mesh.telemetry")

ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROMETHEUS_HOST: Final = "OTEL_EXPORTER_PROMETHEUS_HOST"
PROMETHEUS_PORT: Final = "OTEL_EXPORTER_PROMETHEUS_PORT"
DEFAULT_PORT: Final = "9464"
#: What each signal may be sent by.
_KINDS: Final = {
    "traces": frozenset({"otlp", "console", "none"}),
    "metrics": frozenset({"otlp", "prometheus", "console", "none"}),
}
_CLASSES: Final = {
    "traces": ("trace_exporter", "OTLPSpanExporter", "SpanExportResult"),
    "metrics": ("metric_exporter", "OTLPMetricExporter", "MetricExportResult"),
}
#: What names a session of the user's own, that adds credentials.
CREDENTIALS: Final = re.compile(r"OTEL_PYTHON_EXPORTER_OTLP_HTTP_(\w+_)?CREDENTIAL_PROVIDER")
#: Seconds that a process which ends gives to what is still to be sent.
FLUSH: Final = 2.0


@contextmanager
def configured(service: str | None = None) -> Iterator[Backend]:
    """Have telemetry by the environment for the length of the block; ``service``: the one of this process.

    Raises ``ValueError`` for variables that make no sense, and where the extra ``otel`` is missing.
    """
    wanted = {signal: _wanted(signal) for signal in _KINDS}
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or not any(wanted.values()):
        yield AMBIENT
        return
    try:
        backend = Configured(service, wanted["traces"], wanted["metrics"])
    except ModuleNotFoundError as error:
        msg = f"OTEL_* variables ask for telemetry, which needs {error.name}: pip install 'sealmesh[otel]'"
        raise ValueError(msg) from None
    try:
        yield backend
    finally:
        backend.close()


class Configured:
    """Providers as the environment says."""

    def __init__(self, service: str | None, traces: frozenset[str], metrics: frozenset[str]) -> None:
        """Take the name of the process's one service, and the exporters of each signal."""
        # What the SDK says of each attempt that fails is said once, by us.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._name = os.environ.get("OTEL_SERVICE_NAME") if service else None
        self._nodes: list[NodeTelemetry] = []
        self._closing: list[Callable[[], Any]] = []
        self._sampling, self._processors = Sampling.read(os.environ), self._spans(traces)
        self._meters(service, metrics)

    def observe(self, identity: Identity, instance: InstanceId) -> NodeTelemetry:
        """Tell of a node under its own ``service.name``."""
        node = NodeTelemetry(identity, self._tracing(identity, instance))
        self._nodes.append(node)
        return node

    def close(self) -> None:
        """Send what is left, within a bound."""
        closing = threading.Thread(target=lambda: [close() for close in self._closing], daemon=True)
        closing.start()
        closing.join(FLUSH)

    def _tracing(self, identity: Identity, instance: InstanceId) -> Tracing:
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  the extra's
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON  # noqa: PLC0415

        if not self._processors:
            return Tracing()
        resource = self._resource(identity.service.text, instance=str(instance), domain=identity.domain.text)
        provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
        for processor in self._processors:
            provider.add_span_processor(processor)
        return Tracing(provider.get_tracer(names.SCOPE, scope_version(), names.SCHEMA_URL), self._sampling)

    def _resource(self, service: str, instance: str = "", domain: str = "") -> Any:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415

        told = {
            names.SERVICE_NAME: self._name or service,
            names.SERVICE_INSTANCE: instance,
            names.SERVICE_NAMESPACE: domain,
        }
        return Resource.create({key: value for key, value in told.items() if value})

    def _spans(self, kinds: frozenset[str]) -> list[Any]:
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter  # noqa: PLC0415

        exporters = {"otlp": lambda: _otlp("traces"), "console": ConsoleSpanExporter}
        processors = [BatchSpanProcessor(exporters[kind]()) for kind in sorted(kinds)]
        self._closing += [processor.shutdown for processor in processors]
        return processors

    def _meters(self, service: str | None, kinds: frozenset[str]) -> None:
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415

        from mesh.telemetry.instruments import instrument  # noqa: PLC0415

        if not kinds:
            return
        readers = [reader for kind in sorted(kinds) if (reader := self._reader(kind))]
        resource = self._resource(service or names.SCOPE)
        provider = MeterProvider(readers, resource, shutdown_on_exit=False)
        instrument(provider.get_meter(names.SCOPE, scope_version(), names.SCHEMA_URL), lambda: self._nodes)
        self._closing.append(provider.shutdown)

    def _reader(self, kind: str) -> MetricReader | None:
        from opentelemetry.sdk.metrics.export import ConsoleMetricExporter  # noqa: PLC0415

        from mesh.telemetry.exports import PushedMetrics, ScrapedMetrics  # noqa: PLC0415

        reader: PushedMetrics | ScrapedMetrics
        if kind == "prometheus":
            if not _listens():
                return None
            reader = ScrapedMetrics()
        else:
            reader = PushedMetrics(_otlp("metrics") if kind == "otlp" else ConsoleMetricExporter())
        reader.nodes = lambda: self._nodes
        return reader


def next_prometheus() -> dict[str, str]:
    """Give the environment of a second daemon beside one that serves metrics: the port after that."""
    port = os.environ.get(PROMETHEUS_PORT) or DEFAULT_PORT
    return {PROMETHEUS_PORT: str(int(port) + 1)} if port.isascii() and port.isdigit() and int(port) else {}


def _wanted(signal: str) -> frozenset[str]:
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    said = os.environ.get(variable, "")
    asked = {one.strip() for one in said.split(",") if one.strip()}
    if asked - _KINDS[signal]:
        known = ", ".join(sorted(_KINDS[signal]))
        msg = f"no exporter {said!r:.60} ({variable}): use {known}"
        raise ValueError(msg)
    if not asked and any(os.environ.get(name) for name in (ENDPOINT, _of(signal, "ENDPOINT"))):
        asked = {"otlp"}
    return frozenset(asked - {"none"})


def _of(signal: str, name: str) -> str:
    return f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}"


def _otlp(signal: str) -> Any:
    from mesh.telemetry.exports import StatusOnly, told_once  # noqa: PLC0415

    variable = _of(signal, "PROTOCOL")
    protocol = os.environ.get(variable) or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
    package = {"http/protobuf": "http", "grpc": "grpc"}.get(protocol)
    if package is None:
        msg = f"no protocol {protocol!r:.60} ({variable}): use http/protobuf or grpc"
        raise ValueError(msg)
    module, name, result = _CLASSES[signal]
    try:
        found = import_module(f"opentelemetry.exporter.otlp.proto.{package}.{module}")
    except ModuleNotFoundError:
        if package != "grpc":
            raise
        msg = (
            f"{variable}=grpc needs pip install opentelemetry-exporter-otlp-proto-grpc: or use http/protobuf"
        )
        raise ValueError(msg) from None
    own = package == "http" and not any(CREDENTIALS.fullmatch(one) for one in os.environ)
    exporter = getattr(found, name)(**({"session": StatusOnly()} if own else {}))
    where = os.environ.get(_of(signal, "ENDPOINT")) or os.environ.get(ENDPOINT) or "its default address"
    failure = getattr(found, result).FAILURE
    vars(exporter)["export"] = told_once(exporter.export, failure, signal, where)
    return exporter


def _listens() -> bool:
    from prometheus_client import start_http_server  # noqa: PLC0415

    host = os.environ.get(PROMETHEUS_HOST) or "localhost"
    port = os.environ.get(PROMETHEUS_PORT) or DEFAULT_PORT
    try:
        server, _ = start_http_server(int(port), host)
    except (OSError, OverflowError, ValueError) as error:
        log.warning("no metrics at %s:%s, set another %s: %s", host, port, PROMETHEUS_PORT, error)
        return False
    log.info("metrics at http://%s:%d/metrics", host, server.server_port)
    return True
