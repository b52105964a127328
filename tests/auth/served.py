"""An auth over real sockets, and those who joined it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import grpc

from mesh.core.join import JoinToken
from mesh.enrol import Enrolment, join
from mesh.rpc.channel import MeshChannel
from mesh.v1 import auth_pb2_grpc
from services.auth.authority import Addresses
from services.auth.server import AuthServer, OwnMembership
from services.auth.worker import Worker
from tests.auth.world import World


class Live:
    """A world that is served, and those who joined it."""

    def __init__(self, world: World, worker: Worker, server: AuthServer, own: OwnMembership) -> None:
        """Take what serves."""
        self.world, self.worker, self.server, self.own = world, worker, server, own
        self.join_at = f"127.0.0.1:{server.join_port}"
        self.insecure = grpc.aio.insecure_channel(self.join_at)
        self.door = auth_pb2_grpc.JoinServiceStub(self.insecure)
        self.joined: list[Enrolment] = []

    @classmethod
    @asynccontextmanager
    async def serving(cls, world: World) -> AsyncIterator[Self]:
        """Serve a world for the length of the block."""
        with Worker() as worker:
            own = await worker.do(OwnMembership, world.authority, worker, world.clock)
            server = AuthServer(world.authority, worker, own, "127.0.0.1:0", "127.0.0.1:0")
            world.authority.addresses = Addresses(f"127.0.0.1:{server.port}", "127.0.0.1:1")
            await server.start()
            made = cls(world, worker, server, own)
            yield made
            await made.close()
            await server.stop()
        world.stop()

    async def enrol(self, token: JoinToken) -> Enrolment:
        """Join as the library does."""
        enrolment = await join(token, self.join_at)
        self.joined.append(enrolment)
        return enrolment

    async def node(self, service: str) -> Enrolment:
        """Join with a new token."""
        return await self.enrol(await self.worker.do(self.world.token, service))

    async def operator(self) -> auth_pb2_grpc.OperatorServiceAsyncStub:
        """Join with the operator's credential, and give the stub."""
        return operators(await self.enrol(self.world.credential))

    async def close(self) -> None:
        """Let everybody go."""
        for enrolment in self.joined:
            await enrolment.close()
        await self.insecure.close()


def operators(enrolment: Enrolment) -> auth_pb2_grpc.OperatorServiceAsyncStub:
    """Give the stub for what operators ask."""
    return auth_pb2_grpc.OperatorServiceStub(MeshChannel(enrolment.membership, enrolment.auth))


def nodes(enrolment: Enrolment) -> auth_pb2_grpc.AuthServiceAsyncStub:
    """Give the stub for what nodes ask."""
    return auth_pb2_grpc.AuthServiceStub(MeshChannel(enrolment.membership, enrolment.auth))
