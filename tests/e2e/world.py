"""A mesh of real processes on free ports, in a directory of its own."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc

import mesh
from mesh.cli.data import DataDirectory
from mesh.cli.operator import Operator, operator
from mesh.cli.ports import Ports
from mesh.core.names import GATEKEEPER, TrustDomain
from mesh.v1 import auth_pb2, gatekeeper_pb2, revocation_pb2
from services.auth.founding import found
from tests.e2e.process import Process, until

DOMAIN: Final = "shop.example"
HOST: Final = "127.0.0.1"
#: Seconds that a call may take.
TIMEOUT: Final = 10.0


@dataclass(frozen=True, slots=True)
class Timers:
    """How long things last, in seconds. The defaults are those of the mesh."""

    svid: int = 3600
    epoch: int = 3600
    grace: int = 300
    lease: float = 15
    max_stale: float = 600
    ca: int = 365 * 86_400


@dataclass(frozen=True, slots=True)
class SidecarProcess:
    """A sidecar that is in the mesh."""

    process: Process
    instance: str
    run_dir: Path
    outbound: str
    inbound_port: int | None

    def socket(self, destination: str) -> Path:
        """Where the socket of a destination is, if there is one."""
        return self.run_dir / f"{destination}.sock"

    def channel(self, destination: str) -> grpc.aio.Channel:
        """Give an ordinary channel to that socket."""
        # A pool of its own: gRPC would share a connection, and its back-off, with any other to this path.
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500))
        return grpc.aio.insecure_channel(f"unix:{self.socket(destination)}", options)

    def port(self) -> grpc.aio.Channel:
        """Give an ordinary channel to the loopback port that takes ``mesh-to``."""
        return grpc.aio.insecure_channel(self.outbound)


class Mesh:
    """A trust domain with its auth and gatekeeper, to be killed and started at will."""

    def __init__(self, timers: Timers | None = None) -> None:
        """Make the trust domain; start nothing."""
        self.timers = timers or Timers()
        self.root = Path(tempfile.mkdtemp(prefix="mesh-e2e-"))
        self.logs = self.root / "logs"
        self.logs.mkdir()
        self.data = self.root / "mesh"
        self.ports = Ports(0, 0, 0).chosen(HOST)
        self.ext_authz_port: int | None = None
        self.processes: list[Process] = []
        self.tokens: list[str] = []
        found(self.data, TrustDomain(DOMAIN), int(time.time() * 1000), ca_ms=self.timers.ca * 1000)

    @property
    def join_address(self) -> str:
        """Where nodes join."""
        return f"{HOST}:{self.ports.join}"

    @property
    def auth_address(self) -> str:
        """Where auth takes sealed calls."""
        return f"{HOST}:{self.ports.auth}"

    @property
    def gatekeeper_address(self) -> str:
        """Where gatekeeper takes sealed calls."""
        return f"{HOST}:{self.ports.gatekeeper}"

    def python(
        self,
        name: str,
        module: str,
        *arguments: str,
        secret: str = "",
        under: Sequence[str] = (),
    ) -> Process:
        """Start ``python -m module`` as a process that ends with this mesh."""
        process = Process.python(name, module, arguments, self.logs, secret, under)
        self.processes.append(process)
        return process

    def command(self, name: str, *command: str) -> Process:
        """Start any other command."""
        process = Process(name, command, self.logs)
        self.processes.append(process)
        process.tell("")
        return process

    def auth_arguments(self, data: Path | None = None) -> list[str]:
        """How auth is started here."""
        return [
            *("--data", str(data or self.data), "--gatekeeper", self.gatekeeper_address),
            *("--join-listen", self.join_address, "--listen", self.auth_address),
            *("--svid-seconds", str(self.timers.svid), "--epoch-seconds", str(self.timers.epoch)),
            *("--grace-seconds", str(self.timers.grace), "--ca-seconds", str(self.timers.ca)),
        ]

    def begin_auth(self) -> Process:
        """Start auth, and wait for nothing."""
        self.auth = self.python("auth", "services.auth", *self.auth_arguments())
        return self.auth

    def begin_gatekeeper(self, token: str) -> Process:
        """Start gatekeeper, and wait for nothing."""
        self.gatekeeper = self.python(
            "gatekeeper",
            "services.gatekeeper",
            *("--auth", self.join_address, "--token-file", "-", "--listen", self.gatekeeper_address),
            *("--lease-seconds", str(self.timers.lease)),
            *("--max-stale-seconds", str(self.timers.max_stale)),
            *("--decisions", str(self.data / "decisions.db")),
            *(("--ext-authz", f"{HOST}:{self.ext_authz_port}") if self.ext_authz_port else ()),
            secret=f"{token}\n",
        )
        return self.gatekeeper

    def answers_proxies(self) -> None:
        """Have gatekeeper answer proxies, on a free port, from its next start on."""
        self.ext_authz_port = Ports(0, 0, 0).chosen(HOST).gatekeeper

    async def start_auth(self) -> None:
        """Start auth and wait until it is ready."""
        await self.begin_auth().says("is ready")

    async def start_gatekeeper(self) -> None:
        """Start gatekeeper with a fresh token and wait until it serves a policy."""
        await self.begin_gatekeeper(await self.token(GATEKEEPER.text)).says(r"policy \d+ is in force")

    async def start(self) -> None:
        """Start both."""
        await self.start_auth()
        await self.start_gatekeeper()

    def close(self) -> None:
        """End whatever runs, and remove everything."""
        for process in self.processes:
            process.kill()
        shutil.rmtree(self.root)

    def operator(self) -> AbstractAsyncContextManager[Operator]:
        """Be the operator for the length of the block."""
        return operator(DataDirectory(self.data))

    async def token(self, service: str, ttl: int = 0, *, remote: bool = False) -> str:
        """Make a join token; ``remote``: one that leaves the keys with auth."""
        request = auth_pb2.CreateTokenRequest(service=service, ttl_seconds=ttl, remote_keys=remote)
        async with self.operator() as connected:
            token: str = (await connected.auth.CreateToken(request, timeout=TIMEOUT)).token
        self.tokens.append(token)
        return token

    async def apply(self, document: Mapping[str, Any]) -> int:
        """Make a document the policy of record, and give its version."""
        request = auth_pb2.ApplyPolicyRequest(document=json.dumps(document).encode())
        async with self.operator() as connected:
            return (await connected.auth.ApplyPolicy(request, timeout=TIMEOUT)).version

    async def revoke(self, service: str, instance: bytes = b"") -> revocation_pb2.RevokeResponse:
        """Revoke an instance, or all that a service has."""
        request = revocation_pb2.RevokeRequest(service=service, instance=instance, reason="a test")
        async with self.operator() as connected:
            return await connected.revocation.Revoke(request, timeout=TIMEOUT)

    async def ban(self, service: str) -> revocation_pb2.BanResponse:
        """Ban a service."""
        request = revocation_pb2.BanRequest(service=service, reason="a test")
        async with self.operator() as connected:
            return await connected.revocation.Ban(request, timeout=TIMEOUT)

    async def unban(self, service: str) -> None:
        """Lift a ban."""
        async with self.operator() as connected:
            await connected.revocation.Unban(revocation_pb2.UnbanRequest(service=service), timeout=TIMEOUT)

    async def policy(self) -> auth_pb2.SignedPolicy:
        """Give the policy of record."""
        async with self.operator() as connected:
            return (await connected.auth.GetPolicy(auth_pb2.GetPolicyRequest(), timeout=TIMEOUT)).policy

    async def status(self) -> auth_pb2.GetAuthStatusResponse:
        """Give what auth has in force."""
        async with self.operator() as connected:
            return await connected.auth.GetAuthStatus(auth_pb2.GetAuthStatusRequest(), timeout=TIMEOUT)

    async def nodes(self) -> gatekeeper_pb2.ListNodesResponse:
        """Give what gatekeeper has in its directory."""
        async with self.operator() as connected:
            return await connected.gatekeeper.ListNodes(gatekeeper_pb2.ListNodesRequest(), timeout=TIMEOUT)

    @asynccontextmanager
    async def node(self, service: str, **options: Any) -> AsyncIterator[mesh.Node]:
        """Be an embedded node for the length of the block."""
        token = await self.token(service)
        async with mesh.join(service, token=token, auth=self.join_address, **options) as node:
            yield node

    async def begin_sidecar(self, service: str, *arguments: str, token: str = "") -> Process:
        """Start a sidecar, with a fresh token unless one is given, and wait for nothing."""
        token = token or await self.token(service)
        return self.python(
            f"sidecar-{service}",
            "sidecar",
            *("--service", service, "--auth", self.join_address, "--token-file", "-", *arguments),
            secret=f"{token}\n",
        )

    async def sidecar(self, service: str, *arguments: str) -> SidecarProcess:
        """Start a sidecar and wait until it is in the mesh."""
        process = await self.begin_sidecar(service, *arguments)
        found = json.loads(await process.prints())
        run_dir = Path(found["run_dir"])
        return SidecarProcess(process, found["instance"], run_dir, found["outbound"], found["inbound_port"])


def policy(*pairs: tuple[str, str], **more: Any) -> dict[str, Any]:
    """Give a policy that lets the first of each pair call all of the second."""
    services: dict[str, dict[str, Any]] = {}
    for source, destination in pairs:
        services.setdefault(source, {})
        section = services.setdefault(destination, {})
        section.setdefault("allow", []).append({"principals": [source], "paths": ["*"]})
    return {"services": services, **more}


async def appears(path: Path, seconds: float = TIMEOUT) -> None:
    """Wait until a file is there."""
    await until(path.exists, f"{path} to appear", seconds)


async def disappears(path: Path, seconds: float = TIMEOUT) -> None:
    """Wait until a file is gone."""
    await until(lambda: not path.exists(), f"{path} to disappear", seconds)
