"""TLS connections to instances: one per instance and certificate, replaced when the certificate rolls.

A connection that was replaced, or whose instance left, takes no new call and is closed when its last call
has ended, so that neither a roll nor a departure cuts a call short.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Coroutine
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakMethod

import grpc

from mesh.core.errors import Reason
from mesh.core.metadata import Entries
from mesh.core.names import Identity, InstanceId, ServiceName
from mesh.core.wire import FRAME_OVERHEAD
from mesh.rpc.flow import Flow
from mesh.rpc.membership import Membership
from mesh.rpc.status import Outcome, mesh_outcome
from mesh.rpc.svid import Svid

#: What gRPC itself lets an application receive, unless it asks for more.
MAX_MESSAGE: Final = 4 * 1024 * 1024
#: Room above the application's limit, so that a message just over it is refused by name and under seal.
SLACK: Final = 64 * 1024 + FRAME_OVERHEAD
MAX_METADATA: Final = 32 * 1024

_OPTIONS: Final = (
    ("grpc.enable_retries", 0),  # a repeated sealed message is a replay: the mesh repeats above the seal
    ("grpc.use_local_subchannel_pool", 1),  # a new certificate must get a new connection
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # which is also the time that TCP and TLS may take
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", MAX_METADATA),
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One running instance of a service, and where it listens."""

    instance: InstanceId
    address: str


class Connection:
    """An open channel to one instance under one certificate of ours."""

    def __init__(
        self,
        peer: Identity,
        address: str,
        svid: Svid,
        max_receive: int,
        leave: Callable[[], None] = lambda: None,
    ) -> None:
        """Connect lazily; TLS will demand that the other end is ``peer``. ``leave``: told of calls' ends."""
        options = (
            *_OPTIONS,
            ("grpc.ssl_target_name_override", peer.dns),
            ("grpc.max_receive_message_length", max_receive + SLACK if max_receive >= 0 else -1),
        )
        self._channel = grpc.aio.secure_channel(address, svid.channel_credentials(), options)
        self._unary: dict[str, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}
        self._down: dict[str, grpc.aio.UnaryStreamMultiCallable[bytes, bytes]] = {}
        self._stream: dict[str, grpc.aio.StreamStreamMultiCallable[bytes, bytes]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self.calls, self._leave = 0, leave
        self.address = address
        self._cut: Outcome | None = None
        # Weak: a call that its application has let go of is to end, not to be kept for this.
        self._cutting: set[WeakMethod[Callable[[Outcome], None]]] = set()

    def cut(self) -> Outcome | None:
        """Give how every call on it has ended, once its instance was revoked."""
        return self._cut

    def on_cut(self, end: Callable[[Outcome], None]) -> Callable[[object], None]:
        """Have a method called if the connection is cut; give what takes that back."""
        held = WeakMethod(end)
        self._cutting.add(held)
        return lambda _: self._cutting.discard(held)

    def sever(self, outcome: Outcome) -> None:
        """Cut it: end every call with an outcome, and take no other. It has yet to be closed."""
        self._cut = outcome
        for held in list(self._cutting):
            end = held()
            if end is not None:
                end(outcome)

    def unary(self, method: str) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
        """Give a raw unary call of a method."""
        known = self._unary.get(method)
        if known is None:
            known = self._unary[method] = self._channel.unary_unary(method)
        return known

    def stream(self, method: str) -> grpc.aio.StreamStreamMultiCallable[bytes, bytes]:
        """Give a raw streaming call of a method."""
        known = self._stream.get(method)
        if known is None:
            known = self._stream[method] = self._channel.stream_stream(method)
        return known

    def down(self, method: str) -> grpc.aio.UnaryStreamMultiCallable[bytes, bytes]:
        """Give a raw call of a method that sends one message and gets many."""
        known = self._down.get(method)
        if known is None:
            known = self._down[method] = self._channel.unary_stream(method)
        return known

    def began(self) -> None:
        """Count a call that uses this connection."""
        self.calls += 1
        self._idle.clear()

    def ended(self, _call: object = None) -> None:
        """Count it out again, and give its place to the next."""
        self.calls -= 1
        self._leave()
        if not self.calls:
            self._idle.set()

    @property
    def failing(self) -> bool:
        """Whether the last attempt to connect failed."""
        state = self._channel.get_state(try_to_connect=True)
        return state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN)

    async def stands(self, seconds: float) -> bool:
        """Whether it is made, or can be within some seconds; if not, nothing can have been sent on it."""
        state = self._channel.get_state(try_to_connect=True)
        if state is grpc.ChannelConnectivity.READY:
            return True
        try:
            async with asyncio.timeout(seconds):
                while state in (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING):
                    await self._channel.wait_for_state_change(state)
                    state = self._channel.get_state(try_to_connect=True)
        except TimeoutError:
            return False
        return state is grpc.ChannelConnectivity.READY

    async def close_when_idle(self) -> None:
        """Wait for the last call to end, then close."""
        await self._idle.wait()
        await self._channel.close()

    async def close(self) -> None:
        """Close now; calls in progress are cancelled."""
        await self._channel.close()


class Connections:
    """All connections of a node towards one service."""

    def __init__(
        self,
        membership: Membership,
        service: ServiceName,
        max_receive: int = MAX_MESSAGE,
        flow: Flow | None = None,
    ) -> None:
        """Start with none. ``flow``: the node's calls to the service, if others share it."""
        self._membership, self._max_receive = membership, max_receive
        self.flow = flow or Flow(membership, service)
        self._peer = Identity(membership.identity.domain, service)
        self._open: dict[Endpoint, Connection] = {}
        self._svid = membership.svid
        self._retiring: dict[asyncio.Task[None], tuple[Endpoint, Connection]] = {}

    def to(self, endpoint: Endpoint) -> Connection:
        """Give the connection to an endpoint under the certificate in force, making it if need be."""
        if self._svid is not self._membership.svid:
            self.keep(lambda _: False)
            self._svid = self._membership.svid
        connection = self._open.get(endpoint)
        if connection is None:
            leave = self.flow.gate.leave
            connection = Connection(self._peer, endpoint.address, self._svid, self._max_receive, leave)
            self._open[endpoint] = connection
        return connection

    def keep(self, wanted: Callable[[Endpoint], bool]) -> None:
        """Retire the connections to all endpoints but the wanted ones."""
        for endpoint in [endpoint for endpoint in self._open if not wanted(endpoint)]:
            connection = self._open.pop(endpoint)
            self._retire(connection.close_when_idle(), endpoint, connection)

    def revoke(self, instances: Container[InstanceId]) -> None:
        """Cut the connections to revoked instances, and the calls on them."""
        self.keep(lambda endpoint: endpoint.instance not in instances)
        outcome = mesh_outcome(Reason.PEER_REVOKED, f"an instance of {self._peer.service}")
        for endpoint, connection in list(self._retiring.values()):
            if endpoint.instance in instances and connection.cut() is None:
                connection.sever(outcome)
                self._retire(connection.close(), endpoint, connection)

    def _retire(self, ending: Coroutine[Any, Any, None], endpoint: Endpoint, connection: Connection) -> None:
        task = asyncio.ensure_future(ending)
        self._retiring[task] = endpoint, connection
        task.add_done_callback(lambda done: self._retiring.pop(done, None))

    def choose(self, endpoints: list[Endpoint], entries: Entries = ()) -> tuple[Endpoint, Connection]:
        """Choose as the policy says, past those that cannot be reached or that are left out for failing."""
        if len(endpoints) == 1:
            return endpoints[0], self.to(endpoints[0])
        up = [endpoint for endpoint in endpoints if not self.to(endpoint).failing] or endpoints
        if len(up) < len(endpoints):
            self._membership.observer.passed_over(len(endpoints) - len(up))
        best = self.flow.balancer.choose(self.flow.among(up), self._load, entries)
        self.flow.chosen(best.instance)
        return best, self.to(best)

    def _load(self, endpoint: Endpoint) -> int:
        return self.to(endpoint).calls

    async def close(self) -> None:
        """Close everything now."""
        retiring = list(self._retiring)
        for task in retiring:
            task.cancel()
        await asyncio.gather(*retiring, return_exceptions=True)
        for connection in self._open.values():
            await connection.close()
        self._open.clear()


def receive_limit(options: Any) -> int:
    """Read ``grpc.max_receive_message_length`` from channel or server options; gRPC's default without it."""
    found = [value for key, value in options or () if key == "grpc.max_receive_message_length"]
    return int(found[-1]) if found else MAX_MESSAGE
