"""A member of the mesh inside an application: channels out, a server in, kept in force by itself.

    async with mesh.join("orders") as node:
        inventory = InventoryStub(node.channel("inventory"))
        add_OrdersServicer_to_server(Orders(inventory), node.server())
        await node.server().start()

A node is its ``Enrolment`` (identity and keys, from auth) and its ``Slice`` (policy and endpoints, from
gatekeeper), each kept by a task that the node owns, and a ``Reporter`` of what it denies.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from mesh.core.epochs import SKEW_MS
from mesh.core.names import AUTH, GATEKEEPER, Identity, InstanceId, ServiceName
from mesh.core.tally import Told
from mesh.decisions import DecisionRecorder
from mesh.enrol import Enrolment, JoinError
from mesh.enrol import join as enrol
from mesh.joining import address, are_remote, credential
from mesh.registering import Registrar
from mesh.reports import TIMEOUT as REPORT_TIMEOUT
from mesh.reports import Denial, Reporter, messages
from mesh.rpc.channel import MeshChannel
from mesh.rpc.connections import Connections, receive_limit
from mesh.rpc.flow import Flows
from mesh.rpc.limits import Limits
from mesh.rpc.membership import Membership
from mesh.rpc.routing import Routings
from mesh.rpc.server import MeshServer
from mesh.rpc.status import CallFailedError
from mesh.rpc.targets import MAX_CONTROL, DirectoryTarget, FixedTarget, each_of
from mesh.slices import Slice
from mesh.telemetry import names
from mesh.telemetry.backends import AMBIENT, Backend, watched
from mesh.v1 import audit_pb2, audit_pb2_grpc, decisions_pb2_grpc, gatekeeper_pb2_grpc
from mesh.watching import SliceKeeper

log = logging.getLogger("mesh")

#: Seconds in which a departure is known to every node, and that calls in progress then have to end in.
KNOWN: Final = 2.0
DRAIN: Final = 30.0
#: Seconds that a closing node waits for gatekeeper to let it go, and for calls in progress.
LEAVE: Final = 2.0


class Node:
    """One instance of a service in the mesh. Made by ``join``; use its methods from that event loop."""

    def __init__(
        self, enrolment: Enrolment, listen: str, advertise_port: int | None, telemetry: Backend = AMBIENT
    ) -> None:
        """Take an enrolment, where to listen once there is a server, what port to register, and a backend."""
        self._enrolment, self._listen, self._advertise_port = enrolment, listen, advertise_port
        self.telemetry = watched(self.membership, telemetry)
        enrolment.tracing = self.telemetry.tracing
        self._slice = Slice(self.membership.now, self._certified, self.membership.clock.now_ms)
        self.membership.authorize, self.membership.standing = self._slice.authorize, self._slice.standing
        self.membership.limited = Limits(self.membership, lambda: self._slice.rate)
        self._judged = 0
        self._gatekeeper = FixedTarget(GATEKEEPER, enrolment.gatekeeper_address, self.membership)
        # One of its own: other calls may find another gatekeeper while the slice goes on coming from this.
        self._watched = FixedTarget(GATEKEEPER, enrolment.gatekeeper_address, self.membership)
        stub = gatekeeper_pb2_grpc.GatekeeperServiceStub(
            MeshChannel(self.membership, self._watched, MAX_CONTROL)
        )
        self._keeper = SliceKeeper(self._slice, stub, self._watched, self._slice_changed, self.membership)
        elsewhere = each_of(enrolment.gatekeeper_address)
        self._registrars = [
            Registrar(self.membership, one, self._keeper.announced, lambda: self._watched.address)
            for one in (elsewhere if len(elsewhere) > 1 else ())
        ]
        reports = audit_pb2_grpc.DenialServiceStub(MeshChannel(self.membership, self._gatekeeper))
        self._reporter = Reporter(self.membership, partial(_report, reports))
        self._slice.audited = self._reporter.audited
        decisions = decisions_pb2_grpc.DecisionServiceStub(MeshChannel(self.membership, self._gatekeeper))
        self._decisions = DecisionRecorder(self.membership, self._slice, decisions)
        self._telling = [asyncio.create_task(one.keep()) for one in (self._reporter, self._decisions)]
        self._connections: dict[tuple[ServiceName, int], Connections] = {}
        self._flows = Flows(self.membership, self._slice.traffic)
        self._routings = Routings(self._slice.traffic, self.membership.now)
        self._server: MeshServer | None = None
        enrolment.destinations = self._slice.services
        self._tell_of_slice()
        self._tasks = [asyncio.create_task(enrolment.keep()), asyncio.create_task(self._keeper.keep())]
        self._tasks += [asyncio.create_task(registrar.keep()) for registrar in self._registrars]

    @property
    def membership(self) -> Membership:
        """Identity, keys and certificate in force."""
        return self._enrolment.membership

    @property
    def identity(self) -> Identity:
        """Who this node is."""
        return self.membership.identity

    @property
    def instance(self) -> InstanceId:
        """Which running copy it is."""
        return self.membership.instance

    @property
    def slice(self) -> Slice:
        """What it may know and must enforce."""
        return self._slice

    def channel(self, service: str, options: Any = None) -> MeshChannel:
        """Give a channel to a service, for generated stubs.

        ``options``: ``grpc.max_receive_message_length`` is heeded. Raises ``ValueError`` for a bad name;
        whether the name may be called is found out call by call, as policy changes.
        """
        name, limit = ServiceName(service), receive_limit(options)
        if name == GATEKEEPER:
            return MeshChannel(self.membership, self._gatekeeper, limit)
        if name == AUTH:
            return MeshChannel(self.membership, self._enrolment.auth, limit)
        connections = partial(self._connections_to, limit)
        target = DirectoryTarget(name, self._slice, connections, self._enrolment.keys_for)
        return MeshChannel(self.membership, target, limit, self._routings.of(name))

    def _connections_to(self, limit: int, service: ServiceName) -> Connections:
        connections = self._connections.get((service, limit))
        if connections is None:
            connections = Connections(self.membership, service, limit, self._flows.of(service))
            self._connections[service, limit] = connections
        return connections

    def server(self, options: Any = None) -> MeshServer:
        """Give the node's one server, made at the first call. Raises ``OSError`` if it cannot listen."""
        if self._server is None:
            self._server = MeshServer(
                self.membership,
                self._listen,
                max_receive=receive_limit(options),
                on_serving=self._serving,
            )
        return self._server

    def announce(self, *, serving: bool) -> None:
        """Be listed in the directory, or no longer, while the server goes on with the calls that come."""
        self._serving(serving)

    async def ready(self) -> None:
        """Wait until there is a slice in force."""
        await self._slice.ready()

    async def drain(self) -> None:
        """Take no more calls and fail none: for a process that was told to end.

        Leaves the directory, serves on until every caller can know, and gives calls in progress ``DRAIN`` s.
        """
        if self._server is None or not self._server.serving:
            return
        self._serving(False)
        await asyncio.sleep(KNOWN)
        await self._server.stop(DRAIN)

    async def close(self) -> None:
        """Leave the directory, end calls in progress after a short grace, close all connections."""
        self._keeper.leave()
        await asyncio.wait(self._tasks[1:], timeout=LEAVE)
        if self._server is not None:
            await self._server.stop(LEAVE)
        for task in (*self._tasks, *self._telling):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._telling, return_exceptions=True)
        await asyncio.gather(self._reporter.close(), self._decisions.close())
        for connections in self._connections.values():
            await connections.close()
        for registrar in self._registrars:
            await registrar.close()
        await self._watched.close()
        await self._gatekeeper.close()
        await self._enrolment.close()

    def _serving(self, serving: bool) -> None:
        port = self._server.port if self._server else 0
        self._keeper.announce((self._advertise_port or port) if serving else 0)

    def _certified(self) -> float:
        return (self.membership.svid.not_after_ms - self.membership.clock.now_ms()) / 1000

    def _tell_of_slice(self) -> None:
        held, gauges = self._slice, self.telemetry.gauges
        gauges.add(names.SLICE_AGE, lambda: held.age)
        gauges.add(names.SLICE_VERSION, lambda: held.version)
        gauges.add_many(names.ENDPOINTS, held.sizes)

    def _slice_changed(self) -> None:
        revoked = self._slice.revoked
        if revoked is not self.membership.receiver.revoked:
            self.membership.revoke(revoked)
            for connections in self._connections.values():
                connections.revoke(revoked)
        with self.telemetry.tracing.span(names.APPLY, {names.POLICY_VERSION: self._slice.version}):
            self._enforce()

    def _enforce(self) -> None:
        for (service, _), connections in self._connections.items() if self._slice.in_force else ():
            known = self._slice.endpoints(service) or []
            connections.keep(known.__contains__)
        self._flows.follow()
        if self._server is not None and (self._judged != self._slice.generation or not self._slice.in_force):
            self._server.recheck()
        self._judged = self._slice.generation


async def _report(stub: audit_pb2_grpc.DenialServiceAsyncStub, told: Sequence[Told[Denial]]) -> None:
    await stub.Report(audit_pb2.ReportRequest(denials=messages(told)), timeout=REPORT_TIMEOUT)


async def _ready(node: Node) -> None:
    try:
        await node.ready()
    except CallFailedError as failed:
        raise JoinError(str(failed)) from None


@asynccontextmanager
async def join(
    service: str,
    *,
    token: str | None = None,
    auth: str | None = None,
    listen: str = "127.0.0.1:0",
    advertise_port: int | None = None,
    telemetry: Backend = AMBIENT,
    keys: str | None = None,
) -> AsyncIterator[Node]:
    """Join the mesh as a service, and leave it at the end of the block.

    ``token``: a join token; without it ``MESH_TOKEN``, or the file that ``MESH_TOKEN_FILE`` names; in a pod,
    what the files in ``MESH_SERVICE_ACCOUNT_TOKEN_FILE`` and ``MESH_JOIN_KEY_FILE`` prove.
    ``auth``: ``host:port`` of auth's join port, or several with commas between; without it ``MESH_AUTH``.
    ``listen``: ``host:port`` for calls from other nodes, used once ``server()`` is started.
    ``advertise_port``: the port that others are to connect to, where it is not the one listened on.
    ``telemetry``: where traces and metrics go; unless said, to the OpenTelemetry providers that the
    application has set.
    ``keys``: "local", or "remote" to have auth keep them and seal (docs/remote-keys.md); without it
    ``MESH_KEYS``, or as the token says.

    Waits for auth and gatekeeper to be there. Raises ``JoinError`` if auth refuses, ``ValueError`` for bad
    arguments.
    """
    began_ns = time.time_ns()
    enrolment = await enrolled(ServiceName(service), token, auth, keys)
    node = Node(enrolment, listen, advertise_port, telemetry)
    node.telemetry.tracing.past(names.JOIN, began_ns, {names.SERVICE: node.identity.service.text})
    try:
        await _ready(node)
        yield node
    finally:
        await node.close()


def warn_if_apart(auth_ms: int, machine_ms: int) -> None:
    """Say that this machine's clock is not auth's: TLS goes by it, and may name no cause but its own."""
    if abs(machine_ms - auth_ms) > SKEW_MS:
        log.warning(
            "this machine's clock is %.0f s %s auth's, and certificates hang on it: follow a time server",
            abs(machine_ms - auth_ms) / 1000,
            "ahead of" if machine_ms > auth_ms else "behind",
        )


async def enrolled(
    name: ServiceName, token: str | None, auth: str | None, keys: str | None = None
) -> Enrolment:
    """Join as a service with what is given or, without it, what the environment has, as ``join`` does."""
    enrolment = await enrol(credential(token), address(auth), remote_keys=are_remote(keys))
    warn_if_apart(enrolment.membership.clock.now_ms(), time.time_ns() // 1_000_000)
    if enrolment.membership.name != name:
        await enrolment.close()
        owner = enrolment.membership.name
        msg = f"the token is for {owner}, not {name}, and used up now: make one with mesh token create {name}"
        raise JoinError(msg)
    return enrolment
