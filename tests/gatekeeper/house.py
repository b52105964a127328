"""A gatekeeper on a real socket in a throwaway trust domain, and nodes that talk to it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import grpc

from mesh.core.amend import amended
from mesh.core.builtin import SECTIONS
from mesh.core.keys import destination_key, pair_key
from mesh.core.matcher import Matcher
from mesh.core.names import GATEKEEPER, ServiceName
from mesh.core.policy import Policy
from mesh.core.receiver import Peer
from mesh.core.tally import Told
from mesh.reports import Denial, Reporter
from mesh.rpc.channel import MeshChannel
from mesh.rpc.membership import Membership
from mesh.rpc.targets import FixedTarget
from mesh.v1 import audit_pb2, decisions_pb2_grpc, gatekeeper_pb2, gatekeeper_pb2_grpc, tap_pb2_grpc
from services.gatekeeper import service
from services.gatekeeper.confirmed import Confirmed
from services.gatekeeper.decisions import Ledger
from services.gatekeeper.denials import Forwarder
from services.gatekeeper.judging import Judging
from services.gatekeeper.signed import VersionedPolicy
from services.gatekeeper.watchers import Watchers
from tests.rpc.pair import DOMAIN, World

SHOP = {
    "services": {
        "frontend": {},
        "orders": {
            "allow": [{"principals": ["frontend"], "paths": ["/shop.v1.Orders/*"]}],
            "deny": [{"name": "no-purge", "principals": ["*"], "paths": ["*/Purge"]}],
        },
        "inventory": {
            "allow": [
                {
                    "principals": ["orders"],
                    "paths": ["*"],
                    "headers": [{"key": "x-tenant", "values": ["acme"]}],
                }
            ]
        },
    }
}


def policy(version: int, document: object = None) -> VersionedPolicy:
    """Give a policy as if auth had signed it."""
    text = json.dumps(document or SHOP)
    return VersionedPolicy(version, Policy.parse(text), text.encode())


@dataclass
class Node:
    """A node and its stub of gatekeeper."""

    membership: Membership
    target: FixedTarget

    @property
    def decisions(self) -> decisions_pb2_grpc.DecisionServiceAsyncStub:
        """Give a stub of what takes decisions."""
        return decisions_pb2_grpc.DecisionServiceStub(MeshChannel(self.membership, self.target))

    @property
    def taps(self) -> tap_pb2_grpc.TapServiceAsyncStub:
        """Give a stub of what taps."""
        return tap_pb2_grpc.TapServiceStub(MeshChannel(self.membership, self.target))

    @property
    def stub(self) -> gatekeeper_pb2_grpc.GatekeeperServiceAsyncStub:
        """Give a stub."""
        return gatekeeper_pb2_grpc.GatekeeperServiceStub(MeshChannel(self.membership, self.target))

    async def watch(self, port: int = 0, version: int = 0) -> Any:
        """Open a stream and send its first heartbeat."""
        call = self.stub.Watch()
        with suppress(grpc.aio.AioRpcError):  # that it has ended already, and why, is read
            await call.write(beat(port, version))
        return call


def beat(port: int = 0, version: int = 0) -> gatekeeper_pb2.WatchRequest:
    """Give a heartbeat."""
    return gatekeeper_pb2.WatchRequest(port=port, policy_version=version)


class Reader:
    """Keeps the slice that a stream has sent, as a node does."""

    def __init__(self, call: Any) -> None:
        """Take the stream, of which nothing was read."""
        self._call = call
        self.held: gatekeeper_pb2.Slice | None = None
        self.news: gatekeeper_pb2.WatchResponse

    async def next(self) -> gatekeeper_pb2.Slice:
        """Read up to the next news, and give the slice as it is then."""
        while True:
            response = await self._call.read()
            assert isinstance(response, gatekeeper_pb2.WatchResponse), "the stream ended"
            if response.HasField("news"):
                break
        self.news = response
        assert response.confirmed_ms
        assert response.HasField("slice") is (self.held is None)
        self.held = response.slice if self.held is None else amended(self.held, response.change)
        return self.held


async def next_slice(call: Any) -> gatekeeper_pb2.Slice:
    """Read up to the first slice."""
    return await Reader(call).next()


async def sign_of_life(call: Any) -> None:
    """Read a message without news."""
    response = await call.read()
    assert isinstance(response, gatekeeper_pb2.WatchResponse), "the stream ended"
    assert not response.HasField("news")
    assert response.confirmed_ms


async def end_of(call: Any) -> grpc.StatusCode:
    """Read all that is left, and give the status."""
    while await call.read() is not grpc.aio.EOF:
        pass
    code: grpc.StatusCode = await call.code()
    return code


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition inside the served gatekeeper."""
    while not condition():  # noqa: ASYNC110  what is looked at tells nobody
        await asyncio.sleep(0.005)


def addresses(cut: gatekeeper_pb2.Slice) -> dict[str, list[str]]:
    """Give the endpoints of each destination."""
    return {found.service: [e.address for e in found.endpoints] for found in cut.destinations}


class Recorder:
    """An auth that takes reports, or does not."""

    def __init__(self) -> None:
        """Take them."""
        self.requests: list[audit_pb2.RecordRequest] = []
        self.taps: list[audit_pb2.RecordTapRequest] = []
        self.away = False

    async def Record(  # noqa: N802
        self,
        request: audit_pb2.RecordRequest,
        timeout: float,  # noqa: ASYNC109
    ) -> audit_pb2.RecordResponse:
        """Take reports."""
        assert timeout
        if self.away:
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "away"
            )
        self.requests.append(request)
        return audit_pb2.RecordResponse()

    async def RecordTap(  # noqa: N802
        self,
        request: audit_pb2.RecordTapRequest,
        timeout: float,  # noqa: ASYNC109
    ) -> audit_pb2.RecordTapResponse:
        """Take that a tap began."""
        assert timeout
        if self.away:
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "away"
            )
        self.taps.append(request)
        return audit_pb2.RecordTapResponse()


class House:
    """A served gatekeeper."""

    def __init__(self, lease_ms: int = 15_000) -> None:
        """Let gatekeeper in; ``start`` serves it."""
        self.world = World()
        self.member = member = self.world.member(GATEKEEPER.text)
        member.authorize = Matcher(SECTIONS[GATEKEEPER]).permit
        self.confirmed = Confirmed(member.clock.now_ms)
        self.confirmed.asked()
        self.confirmed.heard(member.clock.now_ms())
        self.confirmed.lost()  # so what auth has said holds for max_stale
        self.watchers = Watchers(lease_ms, 600_000, lambda: time.monotonic_ns() // 1_000_000, self.confirmed)
        self.told: list[Told[Denial]] = []
        self.reporter = Reporter(member, self.tell)
        self.auth = Recorder()
        self.forwarder = Forwarder(Peer(member.name, member.instance), self.auth)  # type: ignore[arg-type]
        self.ledger = Ledger(member.clock.now_ms)
        self.judging = Judging(
            self.watchers.now, member.clock.now_ms, self.reporter, self.ledger, lambda: self.watchers.banned
        )
        serve = (self.watchers, member, "127.0.0.1:0", self.forwarder, self.reporter)
        self.server = service.serving(*serve, self.judging, self.ledger, self.auth)  # type: ignore[arg-type]
        self.nodes: list[Node] = []

    async def tell(self, told: Sequence[Told[Denial]]) -> None:
        """Take what gatekeeper itself denied."""
        self.told.extend(told)

    def node(self, service: str) -> Node:
        """Let a node in, with a key for calling gatekeeper."""
        member = self.world.member(service)
        key = pair_key(destination_key(self.world.root, DOMAIN, GATEKEEPER), ServiceName(service))
        member.sender.learn(GATEKEEPER, self.world.epoch, key)
        target = FixedTarget(GATEKEEPER, f"127.0.0.1:{self.server.port}", member)
        self.nodes.append(Node(member, target))
        return self.nodes[-1]


@asynccontextmanager
async def serving(lease_ms: int = 15_000) -> AsyncIterator[House]:
    """Serve a gatekeeper for the length of the block."""
    house = House(lease_ms)
    await house.server.start()
    tasks = [
        asyncio.create_task(kept)
        for kept in (house.forwarder.run(), house.reporter.keep(), house.ledger.run())
    ]
    try:
        yield house
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        house.watchers.drain()
        for node in house.nodes:
            await node.target.close()
        await house.server.stop(None)
        await house.ledger.close()
