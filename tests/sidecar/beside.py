"""Nodes without auth or gatekeeper, and sidecars on them beside plain gRPC applications."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc

from mesh.core.names import ServiceName
from mesh.core.traffic import NONE, Traffic
from mesh.core.traffic_document import encode
from mesh.rpc.channel import MeshChannel
from mesh.rpc.connections import Connections, receive_limit
from mesh.rpc.limits import Limits
from mesh.rpc.membership import Rejection
from mesh.rpc.routing import Routings
from mesh.rpc.server import MeshServer
from mesh.rpc.targets import DirectoryTarget
from mesh.slices import Slice
from mesh.v1 import gatekeeper_pb2
from sidecar.inbound import Inbound
from sidecar.outbound import Outbound
from tests.rpc.app import Echo
from tests.rpc.attack import eventually
from tests.rpc.pair import World

MAX_MESSAGE = 1024 * 1024
ANYBODY = b'{"allow":[{"principals":["*"],"paths":["*"]}]}'


class StubNode:
    """As much of a node as a sidecar uses: a real membership and slice, filled by the test."""

    def __init__(self, world: World, service: str) -> None:
        """Let a service in, with a slice that has no destination."""
        self.membership = world.member(service)
        self.rejected: list[Rejection] = []
        self.membership.on_rejected(self.rejected.append)
        self.slice = Slice(asyncio.get_running_loop().time)
        self.membership.authorize = self.slice.authorize
        self.membership.limited = Limits(self.membership, lambda: self.slice.rate)
        self._server: MeshServer | None = None
        self._version = 0
        self._open: dict[ServiceName, Connections] = {}
        self._routings = Routings(self.slice.traffic, self.membership.now)
        self.know({})

    def know(
        self,
        destinations: dict[str, list[tuple[bytes, str]]],
        rules: bytes = ANYBODY,
        traffic: Traffic = NONE,
        own: Traffic = NONE,
    ) -> None:
        """Put a slice in force: names, with instances and addresses, called alike, and the node's ``own``."""
        self._version += 1
        self.slice.apply(
            gatekeeper_pb2.Slice(
                policy_version=self._version,
                rules=rules,
                max_stale_ms=600_000,
                traffic=encode(own),
                destinations=[
                    gatekeeper_pb2.Destination(
                        service=name,
                        traffic=encode(traffic),
                        endpoints=[gatekeeper_pb2.Endpoint(instance=i, address=a) for i, a in endpoints],
                    )
                    for name, endpoints in destinations.items()
                ],
            )
        )

    def channel(self, service: str, options: Any = None) -> MeshChannel:
        """Give a channel by the slice."""
        name, limit = ServiceName(service), receive_limit(options)
        connections = self._open.setdefault(name, Connections(self.membership, name, limit))
        target = DirectoryTarget(name, self.slice, lambda _: connections, _has_keys)
        return MeshChannel(self.membership, target, limit, self._routings.of(name))

    def server(self, options: Any = None) -> MeshServer:
        """Give the one server."""
        if self._server is None:
            self._server = MeshServer(self.membership, "127.0.0.1:0", max_receive=receive_limit(options))
        return self._server

    async def drain(self) -> None:
        """End serving; there is no directory to leave."""
        await self.server().stop(2)

    async def close(self) -> None:
        """Close all."""
        if self._server is not None:
            await self._server.stop(None)
        for connections in self._open.values():
            await connections.close()


async def _has_keys(_service: ServiceName, _patience: float) -> None:
    pass


class Beside:
    """``caller`` with its sidecar, ``callee`` with its sidecar, and the application behind that."""

    def __init__(self, world: World, run_dir: Path, echo: Echo) -> None:
        """Take the world, the caller's run directory and what the application does."""
        self.caller, self.callee = StubNode(world, "caller"), StubNode(world, "callee")
        self.run_dir, self.echo = run_dir, echo
        self.app_port = 0
        self.app: grpc.aio.Server | None = None
        self.tasks: list[asyncio.Task[None]] = []
        self.port = 0
        self._channels: list[grpc.aio.Channel] = []

    async def start(self) -> None:
        """Start the application and both sidecars."""
        await self.start_app()
        await self.start_sidecars()

    async def start_app(self) -> None:
        """Start the application, at its first port if it had one."""
        self.app = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        self.app.add_generic_rpc_handlers((self.echo,))
        self.app_port = self.app.add_insecure_port(f"127.0.0.1:{self.app_port}")
        await self.app.start()

    async def start_sidecars(self) -> None:
        """Start both sidecars, and wait until the callee is there and the caller has its socket."""
        node: Any = self.callee
        self.inbound = Inbound(node, f"127.0.0.1:{self.app_port}", MAX_MESSAGE)
        node = self.caller
        self.outbound = Outbound(node, self.run_dir, MAX_MESSAGE)
        self.port = await self.outbound.open_port(0)
        self.tasks = [asyncio.create_task(part.follow()) for part in (self.inbound, self.outbound)]
        self.introduce()
        await eventually(self.socket.exists)
        await asyncio.wait_for(asyncio.shield(self.tasks[0]), 10)

    def introduce(self, *others: str, traffic: Traffic = NONE) -> None:
        """Let the caller know the callee, and other names without an instance."""
        at = (self.callee.membership.instance.raw, f"127.0.0.1:{self.inbound.port}")
        self.caller.know({"callee": [at], **{name: [] for name in others}}, traffic=traffic)

    @property
    def socket(self) -> Path:
        """The socket for the callee."""
        return self.run_dir / "callee.sock"

    def channel(self, way: str) -> Any:
        """Give the caller application's channel: by the callee's socket, or by the port and ``mesh-to``."""
        target = f"unix:{self.socket}" if way == "socket" else f"127.0.0.1:{self.port}"
        options = (
            ("grpc.max_metadata_size", 64 * 1024),
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", 2 * MAX_MESSAGE),
        )
        channel = grpc.aio.insecure_channel(target, options)
        self._channels.append(channel)
        return channel

    async def close(self) -> None:
        """End everything."""
        for channel in self._channels:
            await channel.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.outbound.close()
        await self.caller.close()
        await self.callee.close()
        await self.inbound.close()
        if self.app is not None:
            await self.app.stop(None)


def to(way: str) -> tuple[tuple[str, str], ...]:
    """Give the metadata that a way needs."""
    return () if way == "socket" else (("mesh-to", "callee"),)
