"""What real backends show of the mesh: the demo's calls as whole trees, and metrics that can be queried."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh.v1 import auth_pb2
from tests.e2e.backends import START, Phoenix, asked, free_ports, phoenix, prometheus, shown
from tests.e2e.process import ROOT
from tests.e2e.world import Mesh, policy

DEMO = """
import asyncio, sys
from examples.shop.demo import run
from examples.shop.demo.attacks import ATTACKS
from mesh.telemetry.sdk import configured
named = ("orders calls Refund", "a captured call sent again")
tried = {"tried": [attack for tried in ATTACKS.values() for attack in tried if attack.name in named]}
with configured() as telemetry:
    sys.exit(asyncio.run(run(keep=False, attacks=tried, telemetry=telemetry)))
"""
#: What one purchase's estimate goes through: how deep, which span, on which side, and whose it is.
ESTIMATE = [
    (0, "shop.v1.Orders/Estimate", "client", "frontend"),
    (1, "shop.v1.Orders/Estimate", "server", "orders"),
    (2, "shop.v1.Pricing/Price", "client", "orders"),
    (3, "shop.v1.Pricing/Price", "server", "pricing"),
    (4, "mesh.lua.run", "inside", "pricing"),
    (5, "shop.v1.Inventory/Levels", "client", "pricing"),
    (6, "shop.v1.Inventory/Levels", "server", "inventory"),
]


def side(span: dict[str, Any]) -> tuple[str, str]:
    """Say on which side of a call a span is, and whose it is."""
    told = span["attributes"]
    if "mesh.verdict" in told:
        return "server", told["mesh.destination"]
    return ("client", told["mesh.source"]) if "mesh.attempts" in told else ("inside", told["mesh.service"])


def tree(
    spans: list[dict[str, Any]], root: dict[str, Any], depth: int = 0
) -> list[tuple[int, str, str, str]]:
    """Give a span and all under it, as deep as they are."""
    under = [span for span in spans if span["parent_id"] == root["context"]["span_id"]]
    rows = [(depth, root["name"], *side(root))]
    for span in sorted(under, key=lambda one: str(one["start_time"])):
        rows += tree(spans, span, depth + 1)
    return rows


def roots(spans: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Give the spans of a name that no other is above."""
    return [span for span in spans if span["name"] == name and not span["parent_id"]]


@pytest.mark.timeout(400)
def test_the_demo_in_phoenix(tmp_path: Path) -> None:
    """A call through sidecars, an embedded node and a script is one tree; a denial says by which rule."""
    with phoenix(tmp_path) as backend:
        shown(lambda: _answers(backend), "Phoenix answers", START)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
            "OTEL_EXPORTER_OTLP_ENDPOINT": backend.url,
            "OTEL_METRICS_EXPORTER": "none",
        }
        done = subprocess.run(
            [sys.executable, "-c", DEMO],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

        def whole() -> list[dict[str, Any]]:
            spans = backend.spans()
            found = roots(spans, "shop.v1.Orders/Estimate")
            return spans if found and len(tree(spans, found[0])) == len(ESTIMATE) else []

        spans = shown(whole, "the tree of the estimate")
    (root,) = roots(spans, "shop.v1.Orders/Estimate")
    assert tree(spans, root) == ESTIMATE
    assert len({span["context"]["trace_id"] for span in spans if "Estimate" in span["name"]}) == 1
    bought = [tree(spans, one) for one in roots(spans, "shop.v1.Orders/Place")]
    ways = [[(depth, name.split("/")[1], whose) for depth, name, _, whose in rows] for rows in bought]
    assert [
        *((0, "Place", "frontend"), (1, "Place", "orders"), (2, "Reserve", "orders")),
        *((3, "Reserve", "inventory"), (2, "Charge", "orders"), (3, "Charge", "payments")),
    ] in ways
    denied = next(span for span in spans if span["attributes"].get("mesh.verdict") == "deny")
    assert denied["attributes"]["mesh.rule"] == "no-refunds"
    assert denied["attributes"]["mesh.source"] == "orders"
    assert denied["status_code"] == "UNSET"
    asking = next(span for span in spans if span["context"]["span_id"] == denied["parent_id"])
    assert asking["attributes"]["mesh.call.id"] == denied["attributes"]["mesh.call.id"]
    assert asking["status_code"] == "ERROR"
    replayed = next(span for span in spans if span["attributes"].get("mesh.verdict") == "reject")
    assert replayed["attributes"]["mesh.cause"].startswith("sequence number was seen before")
    assert {"mesh.join", "mesh.policy.push", "mesh.policy.apply"} <= {span["name"] for span in spans}


def _answers(backend: Phoenix) -> bool:
    return asked(f"{backend.url}/v1/projects") is not None


class Echo(grpc.GenericRpcHandler):
    """Serves one method, whatever it is called."""

    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Give back what comes."""

        async def echo(request: bytes, _context: Any) -> bytes:
            return request

        return grpc.unary_unary_rpc_method_handler(echo)


@pytest.mark.timeout(120)
async def test_prometheus_scrapes(
    new_mesh: Callable[[Any], Mesh], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """auth, gatekeeper and a sidecar, each scraped: calls and their durations, verdicts, ages, versions."""
    ports = free_ports()
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus")
    mesh = new_mesh(None)
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", str(ports[0]))
    await mesh.start_auth()
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", str(ports[1]))
    await mesh.start_gatekeeper()
    await mesh.apply(policy(("front", "callee")))
    with prometheus(tmp_path, ports) as backend:
        async with mesh.node("callee") as callee:
            callee.server().add_generic_rpc_handlers((Echo(),))
            await callee.server().start()
            monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", str(ports[2]))
            front = await mesh.sidecar("front")
            async with front.channel("callee") as channel:
                echo: Any = channel.unary_unary("/test.Echo/Echo")
                for _ in range(5):
                    assert await echo(b"a", wait_for_ready=True, timeout=20) == b"a"
                await _denied(mesh)
                await _queries(backend)


async def _denied(mesh: Mesh) -> None:
    async with mesh.node("front") as node:
        stub: Any = node.channel("mesh.auth").unary_unary(
            "/mesh.v1.OperatorService/GetAuthStatus", auth_pb2.GetAuthStatusRequest.SerializeToString
        )
        assert await stub(auth_pb2.GetAuthStatusRequest()).code() is grpc.StatusCode.PERMISSION_DENIED


async def _queries(backend: Any) -> None:
    async def value(query: str, wanted: Callable[[float], bool] = bool) -> float:
        def ask() -> list[float]:
            found = [float(one["value"][1]) for one in backend.query(query)]
            return found if found and wanted(found[0]) else []

        return float((await asyncio.to_thread(shown, ask, query))[0])

    count = 'rpc_client_call_duration_seconds_count{mesh_service="front",rpc_method="test.Echo/Echo"}'
    assert await value(f'{count[:-1]},rpc_response_status_code="OK"}}') == 5
    buckets = 'sum by (le) (rpc_client_call_duration_seconds_bucket{rpc_method="test.Echo/Echo"})'
    assert 0 < await value(f"histogram_quantile(0.99, {buckets})") <= 10
    denied = 'mesh_verdicts_total{mesh_service="mesh.auth",mesh_verdict="deny",mesh_reason="POLICY_DENIED"}'
    assert await value(denied) == 1
    assert await value('mesh_slice_version{mesh_service="front"}') == await value(
        'mesh_slice_version{mesh_service="mesh.auth"}'
    )
    assert 0 <= await value('mesh_slice_age_seconds{mesh_service="front"}', lambda _: True) < 60
    assert 3000 < await value('mesh_certificate_remaining_seconds{mesh_service="mesh.gatekeeper"}') <= 3600
    assert await value('mesh_endpoints{mesh_service="front",mesh_destination="callee"}') == 1
