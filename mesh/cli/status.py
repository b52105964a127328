"""``mesh status``: what is in force, and who is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import grpc

from mesh.cli.data import DataDirectory, data_option
from mesh.cli.errors import CliError, Exit
from mesh.cli.operator import PATIENCE, Operator, asked
from mesh.cli.output import instant, output_option, show_json, show_table
from mesh.core.names import InstanceId
from mesh.v1 import auth_pb2, gatekeeper_pb2


@click.command()
@output_option
@data_option
def status(output: str, data: Path) -> None:
    """Show trust domain, epoch, policy, CA and the registered nodes."""
    auth, gatekeeper = asked(DataDirectory(data), ask)
    found = as_data(auth, gatekeeper)
    if output == "json":
        show_json(found)
    else:
        _show(found)
    if gatekeeper is None:
        raise CliError(
            "gatekeeper does not answer: auth does, so see mesh check and the output of mesh up",
            Exit.UNREACHABLE,
        )


async def ask(
    operator: Operator,
) -> tuple[auth_pb2.GetAuthStatusResponse, gatekeeper_pb2.ListNodesResponse | None]:
    """Ask auth how it is, and gatekeeper, which may be away."""
    auth = await operator.auth.GetAuthStatus(auth_pb2.GetAuthStatusRequest(), timeout=PATIENCE)
    try:
        nodes = await operator.gatekeeper.ListNodes(gatekeeper_pb2.ListNodesRequest(), timeout=PATIENCE)
    except grpc.aio.AioRpcError as error:
        if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise
        return auth, None
    return auth, nodes


def as_data(
    auth: auth_pb2.GetAuthStatusResponse, gatekeeper: gatekeeper_pb2.ListNodesResponse | None
) -> dict[str, Any]:
    """Give what they said as it is shown in JSON."""
    return {
        "trust_domain": auth.trust_domain,
        "time": instant(auth.now_ms),
        "epoch": {"number": auth.epoch.number, "ends": instant(auth.epoch.ends_ms)},
        "ca_expires": instant(auth.ca_expires_ms),
        "policy_version": auth.policy_version,
        "gatekeeper": None if gatekeeper is None else {"policy_version": gatekeeper.policy_version},
        "nodes": [_node(node) for node in gatekeeper.nodes] if gatekeeper else [],
    }


def _node(node: gatekeeper_pb2.NodeInfo) -> dict[str, Any]:
    return {
        "service": node.service,
        "instance": str(InstanceId(node.instance)),
        "address": node.address or None,
        "policy_version": node.policy_version,
        "last_seen_seconds": node.last_seen_ms / 1000,
    }


def _show(found: dict[str, Any]) -> None:
    gatekeeper = found["gatekeeper"]
    held = f"policy {gatekeeper['policy_version']}" if gatekeeper else "does not answer"
    for name, value in (
        ("trust domain", found["trust_domain"]),
        ("epoch", f"{found['epoch']['number']}, until {found['epoch']['ends']}"),
        ("ca", f"until {found['ca_expires']}"),
        ("policy", str(found["policy_version"]) if found["policy_version"] else "none: everything is denied"),
        ("gatekeeper", held),
        ("nodes", str(len(found["nodes"])) if gatekeeper else "unknown"),
    ):
        click.echo(f"{name:<14}{value}")
    if found["nodes"]:
        click.echo()
        show_table(
            ("service", "instance", "address", "policy", "last seen"),
            [
                (
                    node["service"],
                    node["instance"],
                    node["address"] or "only calls",
                    str(node["policy_version"]),
                    f"{node['last_seen_seconds']:.1f} s ago",
                )
                for node in found["nodes"]
            ],
            ("service", "address", "policy"),
        )
