"""The mesh's own variants, and the trust domain that they live in: auth and gatekeeper as they are shipped.

Embedded: client and server are nodes themselves. Sidecar: the plain client and server, each beside a sidecar.
Both find everything else at its default.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc.aio

from bench.direct import CLIENT, CLIENT_PROXY, SERVER, SERVER_PROXY, Variant, client, server
from bench.process import NotMeasuredError, Process
from mesh.cli.data import ADDRESSES, Addresses, DataDirectory
from mesh.cli.errors import CliError
from mesh.cli.operator import Operator, operator
from mesh.cli.ports import Ports
from mesh.core.errors import MeshError
from mesh.core.names import GATEKEEPER, TrustDomain
from mesh.v1 import auth_pb2
from services.auth.founding import found

HOST: Final = "127.0.0.1"
TOKEN_SECONDS: Final = 300
#: Who calls whom: embedded, and behind sidecars.
CALLER, CALLEE = "caller", "callee"
FRONT, BACK = "front", "back"
#: Who does in Lua what CALLEE does in Python.
SCRIPTED: Final = "scripted"
#: Who joins, to see how fast.
JOINER: Final = "joiner"
#: How many pairs ``bench.telemetry`` may run beside each other.
TOLD: Final = 5


@dataclass(frozen=True, slots=True)
class Domain:
    """A running trust domain."""

    scratch: Path
    operator: Operator
    addresses: Addresses
    auth: Process
    gatekeeper: Process

    async def token(self, service: str) -> str:
        """Make a join token."""
        return await _token(self.operator, service)

    async def environment(self, service: str) -> dict[str, str]:
        """Give what a process needs to join as a service."""
        return {"MESH_AUTH": self.addresses.join, "MESH_TOKEN_FILE": str(await self.token_file(service))}

    async def token_file(self, service: str) -> Path:
        """Make a join token, in a file that only its owner may read."""
        return _token_file(self.scratch, service, await self.token(service))


async def _token(connected: Operator, service: str) -> str:
    request = auth_pb2.CreateTokenRequest(service=service, ttl_seconds=TOKEN_SECONDS)
    try:
        return (await connected.auth.CreateToken(request)).token
    except grpc.aio.AioRpcError as error:
        raise NotMeasuredError(f"no join token: {error.details()}") from None


def _token_file(scratch: Path, service: str, secret: str) -> Path:
    descriptor, path = tempfile.mkstemp(".token", f"{service}-", scratch)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret)
    return Path(path)


def policy() -> bytes:
    """Give the policy of the bench: one rule for each of the two destinations."""
    services: dict[str, object] = {name: {} for name in (CALLER, FRONT, JOINER)}
    pairs = [told_pair(number) for number in range(TOLD)]
    for source, _ in pairs:
        services[source] = {}
    for source, destination in ((CALLER, CALLEE), (CALLER, SCRIPTED), (FRONT, BACK), *pairs):
        services[destination] = {"allow": [{"principals": [source], "paths": ["/bench.Echo/*"]}]}
    return json.dumps({"services": services}).encode()


def told_pair(number: int) -> tuple[str, str]:
    """Give the names of a pair of ``bench.telemetry``."""
    return f"caller-{number}", f"callee-{number}"


@asynccontextmanager
async def trust_domain(scratch: Path) -> AsyncIterator[Domain]:
    """Found a trust domain and run it."""
    data = scratch / "data"
    found(data, TrustDomain("bench.example"), time.time_ns() // 1_000_000)
    async with running(scratch, data) as domain:
        yield domain


@asynccontextmanager
async def running(scratch: Path, data: Path) -> AsyncIterator[Domain]:
    """Run an auth over a data directory that there is, and a gatekeeper that follows it."""
    ports = Ports(0, 0, 0).chosen(HOST)
    try:
        auth = ["--data", str(data), "--join-listen", f"{HOST}:{ports.join}"]
        auth += ["--listen", f"{HOST}:{ports.auth}", "--gatekeeper", f"{HOST}:{ports.gatekeeper}"]
        async with _service("auth", scratch, auth) as process:
            await process.until((data / ADDRESSES).exists)
            directory = DataDirectory(data)
            async with operator(directory) as connected:
                addresses = directory.addresses()
                secret = await _token(connected, GATEKEEPER.text)
                token = _token_file(scratch, GATEKEEPER.text, secret)
                gatekeeper = ["--auth", addresses.join, "--token-file", str(token)]
                gatekeeper += ["--listen", f"{HOST}:{ports.gatekeeper}"]
                async with _service("gatekeeper", scratch, gatekeeper) as judging:
                    await connected.auth.ApplyPolicy(auth_pb2.ApplyPolicyRequest(document=policy()))
                    yield Domain(scratch, connected, addresses, process, judging)
    except (CliError, MeshError, grpc.aio.AioRpcError) as error:
        raise NotMeasuredError(f"the mesh does not run: {error}") from None


@asynccontextmanager
async def embedded(scratch: Path, domain: Domain) -> AsyncIterator[Variant]:
    """Run client and server as nodes of the mesh."""
    async with (
        server(scratch, "embedded", CALLEE, await domain.environment(CALLEE)) as (far, _),
        client(scratch, "embedded", CALLEE, CALLER, await domain.environment(CALLER)) as near,
    ):
        yield Variant({CLIENT: near, SERVER: far})


@asynccontextmanager
async def sidecar(scratch: Path, domain: Domain) -> AsyncIterator[Variant]:
    """Run plain client and server, each beside a sidecar."""
    run_dir = scratch / "run"
    async with (
        server(scratch, "sidecar") as (far, port),
        sidecar_process(domain, BACK, ["--app-port", str(port)]) as inbound,
        sidecar_process(domain, FRONT, ["--run-dir", str(run_dir)]) as outbound,
    ):
        socket = run_dir / f"{BACK}.sock"
        await outbound.until(socket.exists)
        async with client(scratch, "sidecar", f"unix:{socket}") as near:
            yield Variant({CLIENT: near, CLIENT_PROXY: outbound, SERVER_PROXY: inbound, SERVER: far})


@asynccontextmanager
async def sidecar_process(domain: Domain, service: str, arguments: list[str]) -> AsyncIterator[Process]:
    """Run a sidecar of a service."""
    command = [sys.executable, "-m", "sidecar", "--service", service, *arguments]
    environment, name = await domain.environment(service), f"sidecar-{service}"
    async with Process.started(name, command, domain.scratch, environment, talks=False) as process:
        yield process


@asynccontextmanager
async def _service(name: str, scratch: Path, arguments: list[str]) -> AsyncIterator[Process]:
    command = [sys.executable, "-m", f"services.{name}", *arguments]
    async with Process.started(name, command, scratch, talks=False) as process:
        yield process
