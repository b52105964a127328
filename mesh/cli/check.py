"""``mesh check``: look at all parts of a running mesh, and say what is wrong and what to do about it."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import click
import grpc

from mesh.cli.checks import Facts, Finding, NodeSeen, State, findings, worst
from mesh.cli.data import OPERATOR, DataDirectory, data_option
from mesh.cli.errors import CliError, Exit, told
from mesh.cli.kinds import duration
from mesh.cli.operator import PATIENCE, Operator, operator
from mesh.cli.output import harmless, output_option, show_json
from mesh.core.errors import MeshError
from mesh.core.names import InstanceId
from mesh.core.policy import Policy
from mesh.v1 import auth_pb2, gatekeeper_pb2, revocation_pb2

#: Seconds that a port has to take a connection, and between looks with ``--wait``.
CONNECT: Final = 2.0
LOOK: Final = 0.5
_SECRETS: Final = (OPERATOR, "kek")
_COLOURS: Final = {State.WELL: "green", State.DOUBTFUL: "yellow", State.WRONG: "red"}


@click.command()
@click.option("--wait", type=duration, metavar="DURATION", help="Look again until nothing is wrong: 30s, 5m.")
@output_option
@data_option
def check(wait: int | None, output: str, data: Path) -> None:
    """Look at every part of a running mesh; say what is wrong, and what to do.

    Status 0 if nothing is wrong, else 1.
    """
    found = looked(DataDirectory(data), wait or 0)
    if output == "json":
        show_json([{**asdict(one), "state": one.state.name.lower(), "link": one.link} for one in found])
    else:
        for one in found:
            _show(one)
    wrong = sum(one.state is State.WRONG for one in found)
    if wrong:
        raise CliError(f"{wrong} of {len(found)} checks failed: see the hints above", Exit.FAILED)


def looked(data: DataDirectory, wait: float = 0) -> list[Finding]:
    """Look at everything, until nothing is wrong or so many seconds are over."""
    return asyncio.run(_looked(data, time.monotonic() + wait))


async def _looked(data: DataDirectory, end: float) -> list[Finding]:
    while True:
        found = findings(await _facts(data))
        if worst(found) is not State.WRONG or time.monotonic() >= end:
            return found
        await asyncio.sleep(LOOK)


async def _facts(data: DataDirectory) -> Facts:
    addresses = data.addresses()
    names = {"auth's join port": addresses.join, "auth": addresses.auth, "gatekeeper": addresses.gatekeeper}
    # Of several auths or gatekeepers all are named, with commas between.
    reached = await asyncio.gather(*(_each_reached(named.split(",")) for named in names.values()))
    ports = dict(zip(names, reached, strict=True))
    files = [data.path / name for name in _SECRETS if (data.path / name).exists()]
    modes = {str(path): path.stat().st_mode & 0o777 for path in files}
    disk = shutil.disk_usage(data.path)
    # Where kek is, auth writes; a copy of the credential may well be on a disk that is read-only.
    fixed = (data.path / "kek").exists() and bool(os.statvfs(data.path).f_flag & os.ST_RDONLY)
    local = Facts(int(time.time() * 1000), ports, modes, disk.free / disk.total, fixed)
    try:
        async with operator(data, PATIENCE) as connected:
            return await _asked(connected, local)
    except (CliError, MeshError, grpc.aio.AioRpcError) as error:
        said = told(error)
        return local if said.exit_code == Exit.UNREACHABLE else replace(local, trouble=said.message)


async def _asked(connected: Operator, local: Facts) -> Facts:
    auth = await connected.auth.GetAuthStatus(auth_pb2.GetAuthStatusRequest(), timeout=PATIENCE)
    now_ms = int(time.time() * 1000)
    served, listed = frozenset[str](), None
    if auth.policy_version:
        kept = await connected.auth.GetPolicy(auth_pb2.GetPolicyRequest(), timeout=6 * PATIENCE)
        served = _served(Policy.parse(kept.policy.document))
    with suppress(grpc.aio.AioRpcError):
        listed = await connected.gatekeeper.ListNodes(gatekeeper_pb2.ListNodesRequest(), timeout=PATIENCE)
    out = await connected.revocation.ListRevoked(revocation_pb2.ListRevokedRequest(), timeout=PATIENCE)
    return replace(
        local,
        now_ms=now_ms,
        auth_ms=auth.now_ms,
        ca_expires_ms=auth.ca_expires_ms,
        epoch_ends_ms=auth.epoch.ends_ms,
        policy_version=auth.policy_version,
        served=served,
        gatekeeper_version=listed.policy_version if listed else None,
        nodes=tuple(await asyncio.gather(*map(_seen, listed.nodes))) if listed else (),
        revoked=frozenset(one.service for one in out.revocations if one.instance),
        banned=frozenset(one.service for one in out.revocations if not one.instance),
    )


def _served(policy: Policy) -> frozenset[str]:
    return frozenset(str(name) for name in policy.services if policy.section(name).allow)


async def _seen(node: gatekeeper_pb2.NodeInfo) -> NodeSeen:
    return NodeSeen(
        node.service,
        str(InstanceId(node.instance)),
        node.address,
        node.policy_version,
        node.last_seen_ms / 1000,
        await _reached(node.address) if node.address else None,
    )


async def _each_reached(addresses: Sequence[str]) -> dict[str, bool]:
    return dict(zip(addresses, await asyncio.gather(*map(_reached, addresses)), strict=True))


async def _reached(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(CONNECT):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, TimeoutError, ValueError):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


def _show(one: Finding) -> None:
    sign = click.style(one.state.value, fg=_COLOURS[one.state])
    click.echo(f"{sign} {one.category:<11}{harmless(one.what)}")
    if one.state is not State.WELL:
        click.echo(f"  {'':<11}{harmless(one.hint)} ({one.link})")
