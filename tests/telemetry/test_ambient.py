"""A library among others: what the application has set with the OpenTelemetry API is used, and no more."""

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from mesh.core.names import FullMethod, Identity, InstanceId, ServiceName, TrustDomain
from mesh.telemetry.backends import Ambient
from tests.telemetry.calls import called

ORDERS = Identity(TrustDomain("test.example"), ServiceName("orders"))
INSTANCE = InstanceId(bytes([1]) * 16)


def test_without_an_sdk() -> None:
    """Where nobody has set a provider calls are counted, and nothing is traced."""
    node = Ambient().observe(ORDERS, INSTANCE)
    called(node)
    assert node.tracing._tracer is None
    assert [sum(held.buckets) for held in node.counts.calls.values()] == [1]


def test_the_applications_tracer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans go through the application's provider, whose sampler decides."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    node = Ambient().observe(ORDERS, INSTANCE)
    with provider.get_tracer("application").start_as_current_span("its own") as its:
        called(node)
    (told, _) = exporter.get_finished_spans()
    assert (told.name, told.parent) == ("a.B/C", its.get_span_context())
    silent = TracerProvider(ALWAYS_OFF, shutdown_on_exit=False)
    silent.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: silent)
    call = Ambient().observe(ORDERS, INSTANCE).calling(ServiceName("callee"), FullMethod("/a.B/C"), ())
    assert str(dict(call.entries)["traceparent"]).endswith("-00")


def test_the_applications_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics of all its nodes are in the application's provider, instrumented once."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)
    backend = Ambient()
    nodes = [backend.observe(ORDERS, INSTANCE) for _ in range(2)]
    for node in nodes:
        called(node)
    nodes[0].gauges.add("mesh.slice.version", lambda: 7)
    collected = reader.get_metrics_data()
    assert collected is not None
    told = {
        metric.name: list(metric.data.data_points)
        for resource in collected.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    (calls,) = told["rpc.client.call.duration"]
    assert isinstance(calls, HistogramDataPoint)
    assert calls.count == 2
    assert dict(calls.attributes or {}) == {
        "rpc.system.name": "grpc",
        "rpc.method": "a.B/C",
        "rpc.response.status_code": "OK",
        "mesh.service": "orders",
        "mesh.destination": "callee",
    }
    (version,) = told["mesh.slice.version"]
    assert isinstance(version, NumberDataPoint)
    assert version.value == 7
