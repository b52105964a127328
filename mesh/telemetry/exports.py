"""What leaves for a backend, within bounds: calls' durations beside the SDK's metrics; failures told once.

The SDK's readers collect at their own pace, in threads of their own. A backend that is slow or away costs
calls nothing: spans wait in a queue of bounded length and are dropped past it, and metrics are collected
again later. Of what it answers nothing but the status is taken: no text of any size, no other address.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from time import time_ns
from typing import Any, Final

import requests
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    PeriodicExportingMetricReader,
)

from mesh.telemetry import names
from mesh.telemetry.counts import BOUNDS, Durations
from mesh.telemetry.instruments import DURATIONS, Nodes, attributes_of

log = logging.getLogger("mesh.telemetry")

#: Bytes of an answer that are read, and thrown away, so that its connection can be used again.
MAX_ANSWER: Final = 64 * 1024
_CUMULATIVE: Final = AggregationTemporality.CUMULATIVE


class PushedMetrics(PeriodicExportingMetricReader):
    """Sends metrics now and then, calls' durations with them."""

    nodes: Nodes = staticmethod(tuple)

    def _receive_metrics(self, metrics_data: MetricsData, *rest: Any, **more: Any) -> None:
        super()._receive_metrics(with_durations(metrics_data, self.nodes()), *rest, **more)


class ScrapedMetrics(PrometheusMetricReader):
    """Gives metrics to who asks, calls' durations with them."""

    nodes: Nodes = staticmethod(tuple)

    def _receive_metrics(self, metrics_data: MetricsData, *rest: Any, **more: Any) -> None:
        super()._receive_metrics(with_durations(metrics_data, self.nodes()), *rest, **more)


class StatusOnly(requests.Session):
    """Sends by HTTP, and has no ear for what a backend says beside its status: that may have no end."""

    def send(self, request: requests.PreparedRequest, **more: Any) -> requests.Response:
        """Send it; give an answer without its text."""
        answer = super().send(request, **{**more, "stream": True, "allow_redirects": False})
        length = answer.headers.get("Content-Length", "")
        if length.isascii() and length.isdigit() and int(length) <= MAX_ANSWER:
            answer.raw.read(decode_content=False)
        answer.close()
        return answer


def with_durations(collected: MetricsData | None, nodes: Iterable[Any]) -> Any:
    """Give what was collected, with the histograms of calls' durations beside it."""
    if collected is None or not collected.resource_metrics:
        return collected
    nodes, first = list(nodes), collected.resource_metrics[0]
    metrics = [metric for side, name, text in DURATIONS if (metric := _histogram(side, name, text, nodes))]
    if not metrics:
        return collected
    # Into the scope that is there: exporters keep one of each name.
    scopes = [
        replace(scope, metrics=[*scope.metrics, *metrics]) if scope.scope.name == names.SCOPE else scope
        for scope in first.scope_metrics
    ]
    whole = replace(first, scope_metrics=scopes)
    return replace(collected, resource_metrics=[whole, *collected.resource_metrics[1:]])


def _histogram(side: str, name: str, text: str, nodes: Iterable[Any]) -> Metric | None:
    now = time_ns()
    points = [
        _point(attributes_of(node.identity.service.text, key), held, node.began_ns, now)
        for node in nodes
        for key, held in list(node.counts.calls.items())
        if key.side == side
    ]
    return Metric(name, text, "s", Histogram(points, _CUMULATIVE)) if points else None


def _point(attributes: dict[str, str], held: Durations, began: int, now: int) -> HistogramDataPoint:
    buckets = list(held.buckets)
    count = sum(buckets)
    return HistogramDataPoint(
        attributes, began, now, count, held.total, buckets, BOUNDS, min(held.least, held.most), held.most
    )


def told_once(export: Callable[..., Any], failure: Any, what: str, where: str) -> Callable[..., Any]:
    """Wrap an exporter's ``export``: a line when the backend begins to refuse, one when it takes again."""
    away = False

    def exporting(*args: Any, **kwargs: Any) -> Any:
        nonlocal away
        try:
            result = export(*args, **kwargs)
        except Exception:  # noqa: BLE001  some exporters raise where they should say that they failed
            result = failure
        failed = result is failure
        if failed and not away:
            log.warning("the backend at %s does not take %s: they are dropped meanwhile", where, what)
        elif away and not failed:
            log.info("the backend at %s takes %s again", where, what)
        away = failed
        return result

    return exporting
