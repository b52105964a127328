"""The daemons' set-up: by ``OTEL_*`` alone, refused where it makes no sense, harmless where it fails."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mesh.core.names import Identity, InstanceId, ServiceName, TrustDomain
from mesh.telemetry.backends import AMBIENT
from mesh.telemetry.observer import NodeTelemetry
from mesh.telemetry.sdk import FLUSH, configured, next_prometheus
from tests.telemetry.calls import called

DOMAIN = TrustDomain("test.example")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin without any variable of OpenTelemetry's, and leave its loggers as they were."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    theirs = logging.getLogger("opentelemetry")
    level = theirs.level
    yield
    theirs.setLevel(level)


def test_nothing_asked_nothing_done() -> None:
    """Without a variable nobody is sent anything."""
    with configured("orders") as backend:
        assert backend is AMBIENT


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
    ],
)
def test_turned_off(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """What is turned off stays off."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with configured("orders") as backend:
        assert backend is AMBIENT


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (
            {"OTEL_TRACES_EXPORTER": "zipkin"},
            r"no exporter 'zipkin' \(OTEL_TRACES_EXPORTER\): use console, none",
        ),
        ({"OTEL_METRICS_EXPORTER": "statsd"}, "no exporter 'statsd'"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "no protocol 'http/json'",
        ),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER": "always"}, "no sampler 'always'"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "pip install opentelemetry-exporter-otlp-proto-grpc",
        ),
    ],
)
def test_refused(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], said: str) -> None:
    """What makes no sense ends the start, with a line that names the variable and what it may be."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=said), configured("orders"):
        pass


class Receiver(ThreadingHTTPServer):
    """Takes OTLP over HTTP and keeps it, or refuses it."""

    def __init__(self, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.status = status
        self.bodies: dict[str, list[bytes]] = {}

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.bodies.setdefault(self.path, []).append(body)
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def receiving(status: int = 200) -> Iterator[Receiver]:
    receiver = Receiver(status)
    thread = threading.Thread(target=receiver.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.shutdown()
        thread.join()
        receiver.server_close()


def node(backend: object, service: str = "orders") -> NodeTelemetry:
    observed = backend.observe(Identity(DOMAIN, ServiceName(service)), InstanceId(bytes([1]) * 16))  # type: ignore[attr-defined]
    assert isinstance(observed, NodeTelemetry)
    return observed


def test_each_service_under_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two services of one process are two services to the backend; what is left is sent at the end."""
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "not-for-many")
        with configured() as backend:
            for service in ("pricing", "gremlin"):
                called(node(backend, service))
    spans = [ExportTraceServiceRequest.FromString(body) for body in receiver.bodies["/v1/traces"]]
    told = {
        attribute.value.string_value
        for request in spans
        for resource in request.resource_spans
        for attribute in resource.resource.attributes
        if attribute.key == "service.name"
    }
    assert told == {"pricing", "gremlin"}
    scopes = {scope.schema_url for one in spans for held in one.resource_spans for scope in held.scope_spans}
    assert scopes == {"https://opentelemetry.io/schemas/1.44.0"}
    metrics = [ExportMetricsServiceRequest.FromString(body) for body in receiver.bodies["/v1/metrics"]]
    names = {
        metric.name
        for request in metrics
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert {"rpc.client.call.duration", "mesh.retries", "mesh.calls.open"} <= names


def test_the_applications_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one service of a process is told of under the name that its application has."""
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "checkout")
        with configured("orders") as backend:
            called(node(backend))
    (body,) = receiver.bodies["/v1/traces"]
    assert b"checkout" in body
    assert "/v1/metrics" not in receiver.bodies


def test_no_backend(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A backend that is not there costs one warning, a bounded queue, and a bounded time at the end."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{nobody.getsockname()[1]}")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with caplog.at_level(logging.INFO):
        with configured("orders") as backend:
            observed = node(backend)
            for _ in range(1000):
                called(observed)
            deadline = time.monotonic() + 30
            while not caplog.records and time.monotonic() < deadline:
                threading.Event().wait(0.01)
            began = time.monotonic()
        assert time.monotonic() - began < FLUSH + 5
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        f"the backend at {_endpoint()} does not take traces: they are dropped meanwhile"
    ]


def _endpoint() -> str:

    return os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"]


def test_prometheus(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Metrics are served where the standard variables say, and on the loopback interface unless they do."""
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus")
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", "0")
    with caplog.at_level(logging.INFO, "mesh.telemetry"), configured("orders") as backend:
        (url,) = (text.split()[-1] for text in caplog.messages if text.startswith("metrics at"))
        assert url.startswith("http://localhost:")
        called(node(backend))
        with urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
    series = [line for line in text.splitlines() if line.startswith("rpc_client_call_duration_seconds_count")]
    (line,) = series
    assert 'rpc_method="a.B/C"' in line
    assert 'mesh_destination="callee"' in line
    assert 'mesh_service="orders"' in line
    assert line.endswith(" 1.0")


def test_a_port_in_use(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Metrics that cannot be served are one warning, and stop nobody."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus")
        monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_HOST", "127.0.0.1")
        monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", str(port))
        with configured("orders") as backend:
            called(node(backend))
    assert caplog.messages[0].startswith(
        f"no metrics at 127.0.0.1:{port}, set another OTEL_EXPORTER_PROMETHEUS_PORT"
    )


@pytest.mark.parametrize(("port", "wanted"), [(None, "9465"), ("9500", "9501"), ("0", None), ("none", None)])
def test_two_daemons(monkeypatch: pytest.MonkeyPatch, port: str | None, wanted: str | None) -> None:
    """``mesh up`` has its two daemons serve metrics on two ports."""
    if port is not None:
        monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", port)
    assert next_prometheus() == ({"OTEL_EXPORTER_PROMETHEUS_PORT": wanted} if wanted else {})


def test_a_session_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions to the backend are ours, unless a variable names who provides them."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER", "theirs")
    with pytest.raises(RuntimeError, match="theirs"), configured("orders"):
        pass
