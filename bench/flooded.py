"""What ``flood`` attacks: every listener of a mesh that runs as it is shipped, and a good caller of each."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

import mesh
from bench.echo import METHOD
from bench.load import payload, until_answered
from bench.meshed import BACK, CALLEE, CALLER, FRONT, HOST, Domain, sidecar_process
from bench.process import NotMeasuredError, Process
from mesh.cli.ports import Ports
from mesh.core.errors import MeshError
from mesh.rpc.svid import Svid
from mesh.v1 import auth_pb2, gatekeeper_pb2

ATTACKER: Final = "attacker"
CALL_SECONDS: Final = 20.0
JOIN: Final = "/mesh.v1.JoinService/Join"
CHECK: Final = "/grpc.health.v1.Health/Check"
STATUS: Final = "/mesh.v1.OperatorService/GetAuthStatus"
NODES: Final = "/mesh.v1.GatekeeperService/ListNodes"
#: What ``CALLEE`` and ``BACK`` may be called by.
_CALLERS: Final = {CALLEE: [CALLER, FRONT], BACK: [CALLER]}


@dataclass(frozen=True, slots=True)
class Listener:
    """One listener: the process it is part of, and a good call to it. ``tls``: whether it speaks TLS."""

    name: str
    address: str
    tls: bool
    path: str
    process: Process
    call: Callable[[], Awaitable[object]]


def policy() -> bytes:
    """Let the good callers in, and give the attacker a name and nothing else."""
    services: dict[str, object] = {name: {} for name in (CALLER, FRONT, ATTACKER)}
    for callee, callers in _CALLERS.items():
        services[callee] = {"allow": [{"principals": callers, "paths": ["/bench.Echo/*"]}]}
    return json.dumps({"services": services}).encode()


@asynccontextmanager
async def listeners(scratch: Path, domain: Domain) -> AsyncIterator[list[Listener]]:
    """Run two sidecars, an application behind them and one with the mesh embedded; give all that listens."""
    await domain.operator.auth.ApplyPolicy(auth_pb2.ApplyPolicyRequest(document=policy()))
    ports = Ports(0, 0, 0).chosen(HOST)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        command = [sys.executable, "-m", "bench.echo", "--join", CALLEE]
        node = await enter(Process.started("node", command, scratch, await domain.environment(CALLEE)))
        at = (await node.answer())["port"]
        app = await enter(Process.started("app", [sys.executable, "-m", "bench.echo"], scratch))
        behind = str((await app.answer())["port"])
        inbound = ["--app-port", behind, "--listen", f"{HOST}:{ports.auth}"]
        back = await enter(sidecar_process(domain, BACK, [*inbound, "--health", f"{HOST}:{ports.join}"]))
        run_dir = scratch / "run"
        outbound = ["--run-dir", str(run_dir), "--outbound-port", str(ports.gatekeeper)]
        front = await enter(sidecar_process(domain, FRONT, outbound))
        socket = run_dir / f"{CALLEE}.sock"
        await front.until(socket.exists)
        caller = await _joined(stack, domain, CALLER)
        port = f"{HOST}:{ports.gatekeeper}"
        health = f"{HOST}:{ports.join}"
        socket_at, mesh_port = f"unix:{socket}", f"{HOST}:{ports.auth}"
        near, embedded, far = domain.addresses, caller.channel(CALLEE), caller.channel(BACK)
        found = [
            _join(stack, domain),
            Listener("auth, mTLS", near.auth, True, STATUS, domain.auth, _status(domain)),
            Listener("gatekeeper", near.gatekeeper, True, NODES, domain.gatekeeper, _nodes(domain)),
            Listener("node", f"{HOST}:{at}", True, METHOD, node, _echo(embedded)),
            Listener("sidecar, mesh", mesh_port, True, METHOD, back, _echo(far)),
            Listener("sidecar, port", port, False, METHOD, front, _echo(_plain(stack, port), CALLEE)),
            Listener("sidecar, socket", socket_at, False, METHOD, front, _echo(_plain(stack, socket_at))),
            Listener("sidecar, health", health, False, CHECK, back, _check(_plain(stack, health))),
        ]
        for channel in (caller.channel(CALLEE), caller.channel(BACK)):
            await until_answered(channel.unary_unary(METHOD))
        yield found


@asynccontextmanager
async def attackers(scratch: Path, domain: Domain) -> AsyncIterator[tuple[Process, dict[str, str]]]:
    """Run the attackers, and give them a certificate of the mesh, in files."""
    async with AsyncExitStack() as stack:
        member = await _joined(stack, domain, ATTACKER)
        tls = _files(scratch, member.membership.svid)
        command = [sys.executable, "-m", "bench.attacker"]
        process = await stack.enter_async_context(Process.started("attacker", command, scratch))
        await process.answer()
        yield process, tls


def _files(scratch: Path, svid: Svid) -> dict[str, str]:
    found = {}
    for name, pem in (("chain", svid.chain_pem), ("key", svid.key_pem), ("bundle", svid.bundle_pem)):
        path = scratch / f"attacker-{name}.pem"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(pem)
        found[name] = str(path)
    return found


async def _joined(stack: AsyncExitStack, domain: Domain, service: str) -> mesh.Node:
    joining = mesh.join(service, token=await domain.token(service), auth=domain.addresses.join)
    try:
        return await stack.enter_async_context(joining)
    except MeshError as error:
        raise NotMeasuredError(f"{service} could not join: {error}") from None


def _plain(stack: AsyncExitStack, address: str) -> grpc.aio.Channel:
    channel = grpc.aio.insecure_channel(address)
    stack.push_async_callback(channel.close)
    return channel


def _echo(channel: grpc.aio.Channel, to: str | None = None) -> Callable[[], Awaitable[object]]:
    call: Any = channel.unary_unary(METHOD)
    metadata = (("mesh-to", to),) if to else ()
    return lambda: call(payload(100), metadata=metadata, timeout=CALL_SECONDS)


def _check(channel: grpc.aio.Channel) -> Callable[[], Awaitable[object]]:
    stub = health_pb2_grpc.HealthStub(channel)
    return lambda: stub.Check(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS)


def _join(stack: AsyncExitStack, domain: Domain) -> Listener:
    # Not a join, which would need a token each and cost auth more than anybody's flood: what is not served is
    # answered by the same listener.
    call: Any = _plain(stack, domain.addresses.join).unary_unary("/mesh.v1.JoinService/Nothing")

    async def refused() -> None:
        try:
            await call(b"", timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise

    return Listener("auth, join", domain.addresses.join, False, JOIN, domain.auth, refused)


def _status(domain: Domain) -> Callable[[], Awaitable[object]]:
    request = auth_pb2.GetAuthStatusRequest()
    return lambda: domain.operator.auth.GetAuthStatus(request, timeout=CALL_SECONDS)


def _nodes(domain: Domain) -> Callable[[], Awaitable[object]]:
    request = gatekeeper_pb2.ListNodesRequest()
    return lambda: domain.operator.gatekeeper.ListNodes(request, timeout=CALL_SECONDS)
