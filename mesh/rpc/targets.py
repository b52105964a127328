"""Where calls go: by the directory for services, at a fixed address for auth and gatekeeper.

A ``DirectoryTarget`` knows only what the node's slice says; a name that is not in it is unavailable, whether
it exists or not. A ``FixedTarget`` asks who is there (``Hello``), because those two tell the others.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

import grpc

from mesh.core.document import MAX_DOCUMENT
from mesh.core.ejection import answered
from mesh.core.errors import Reason
from mesh.core.metadata import checked_entries
from mesh.core.names import InstanceId, ServiceName
from mesh.core.revoked import MAX_REVOKED
from mesh.core.split import destination
from mesh.core.traffic import Traffic
from mesh.rpc.caller import CallSpec
from mesh.rpc.connections import Connection, Connections, Endpoint
from mesh.rpc.flow import Flow
from mesh.rpc.membership import Membership
from mesh.rpc.reply import RawEnd, is_sealed
from mesh.rpc.server import HELLO
from mesh.rpc.status import CallFailedError, mesh_outcome
from mesh.v1 import wire_pb2

#: How long a call without a deadline waits for keys, slice or a moved instance, in seconds.
PATIENCE: Final = 10.0
#: How long a refused call waits for the directory to show that the instance is gone, in seconds.
SETTLE: Final = 2.0
#: How long a call waits for the connection to an instance where there are others, in seconds.
CONNECT: Final = 1.0
HELLO_TIMEOUT: Final = 5.0
#: The same where there is another address to try.
NEXT_TIMEOUT: Final = 1.5
#: The largest reply of auth and gatekeeper, in bytes: a policy, or a slice of it, and all who may be revoked.
MAX_CONTROL: Final = MAX_DOCUMENT + MAX_REVOKED * 30 + 64 * 1024

_UNANSWERED: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

#: How a call ended that was never begun.
_UNREACHED: Final = RawEnd(grpc.StatusCode.UNAVAILABLE, "", (), ())

KeysFor = Callable[[ServiceName, float], Awaitable[None]]


class Directory(Protocol):
    """The destinations of a node's slice."""

    @property
    def in_force(self) -> bool:
        """Whether there is a slice and it is not stale."""

    def endpoints(self, service: ServiceName) -> list[Endpoint] | None:
        """Give the instances of a service, or ``None`` if its name is not to be known here.

        Raises ``CallFailedError`` if there is no slice in force.
        """

    def traffic(self, service: ServiceName) -> Traffic:
        """Give how calls to a service are made: the same object for as long as the same is said."""

    def changed(self) -> Awaitable[object]:
        """Give what waits until any of it changes, from this very moment on."""

    async def ready(self) -> None:
        """Wait until there is a slice in force."""


class DirectoryTarget:
    """A service of the slice."""

    def __init__(
        self,
        service: ServiceName,
        directory: Directory,
        connections: Callable[[ServiceName], Connections],
        keys_for: KeysFor,
        called: ServiceName | None = None,
    ) -> None:
        """Take the name, the slice's directory, what gives the connections to a service, and how to get keys.

        ``called``: the name that the application calls, if policy has split the calls to that one.
        """
        self.service, self.called = service, called or service
        self._directory, self._connections, self._keys_for = directory, connections, keys_for
        self._waits = f"running instance of {service}"

    def split(self, metadata: Any) -> DirectoryTarget:
        """Give where a call with such metadata goes: here, unless policy has it otherwise."""
        shares = self._directory.traffic(self.service).split
        if not shares:
            return self
        try:
            entries = checked_entries(metadata or ())
        except ValueError:
            return self  # it is refused before it goes anywhere
        name = destination(shares, entries, self._takes, random.randrange)
        if name is None or name == self.service.text:
            return self
        return DirectoryTarget(
            ServiceName(name), self._directory, self._connections, self._keys_for, self.called
        )

    def _takes(self, service: str) -> bool:
        name = ServiceName(service)
        return bool(self._directory.in_force and self._directory.endpoints(name))

    async def connection(self, spec: CallSpec) -> tuple[InstanceId, Connection]:
        """Choose a running instance, with keys for it in force, when there is a place for the call."""
        endpoints = await self._running(spec)
        await self._keys_for(self.service, _patience(spec))
        connections = self._connections(self.service)
        flow, traffic = connections.flow, self._directory.traffic(self.service)
        if flow.traffic is not traffic:
            flow.follow(traffic)
        if not flow.gate.enter():
            await self._turn(flow, spec)
            endpoints = []  # others may be there by now
        try:
            endpoints = endpoints or await self._running(spec)
            endpoint, connection = connections.choose(endpoints, spec.entries)
        except BaseException:
            flow.gate.leave()
            raise
        connection.began()
        elsewhere = len(endpoints) > 1 and endpoint.instance not in spec.tried
        if elsewhere and not spec.wait_for_ready and not await self._stands(connection, spec):
            # Nothing was sent, so whatever the call is, it may go where it was not yet.
            spec.tried.add(endpoint.instance)
            flow.passed_over()
            self.ended(endpoint.instance, _UNREACHED, begun=False)
            return await self.connection(spec)
        return endpoint.instance, connection

    async def _stands(self, connection: Connection, spec: CallSpec) -> bool:
        stands = False
        try:
            left = spec.remaining()
            stands = await connection.stands(CONNECT if left is None else min(CONNECT, left))
        finally:
            if not stands:
                connection.ended()
        return stands

    async def _turn(self, flow: Flow, spec: CallSpec) -> None:
        try:
            has_place = await flow.gate.turn(_patience(spec))
        except TimeoutError:
            spec.remaining()
            has_place = False
        if not has_place:
            raise CallFailedError(flow.overloaded())

    async def _running(self, spec: CallSpec) -> list[Endpoint]:
        if not self._directory.in_force:
            await _within(self._directory.ready(), _patience(spec), "policy in force")
        endpoints = self._directory.endpoints(self.service)
        while endpoints is not None and not endpoints:
            if not spec.wait_for_ready:
                text = f"no instance of {self.service} is running"
                raise CallFailedError(mesh_outcome(Reason.NOT_READY, text))
            await _within(self._directory.changed(), spec.remaining(), self._waits)
            endpoints = self._directory.endpoints(self.service)
        if endpoints is None:
            raise CallFailedError(mesh_outcome(Reason.NAME_UNAVAILABLE))
        # Not where it was already, if there is an elsewhere.
        return [one for one in endpoints if one.instance not in spec.tried] or endpoints

    async def refused(self, instance: InstanceId, by: InstanceId) -> None:
        """Wait until the directory has dropped the instance: only then is it gone for certain."""
        deadline = asyncio.get_running_loop().time() + SETTLE
        while instance != by and self._lists(instance):
            left = deadline - asyncio.get_running_loop().time()
            await _within(self._directory.changed(), max(left, 0.0), self._waits)

    def ended(self, instance: InstanceId, end: RawEnd, *, begun: bool) -> None:
        """Have those left out that fail, if policy says so."""
        flow = self._connections(self.service).flow
        if flow.ejects:
            answer = answered(end.code.name, sealed=is_sealed(end), begun=begun)
            flow.ended(instance, answer, self._instances)

    def _instances(self) -> list[InstanceId]:
        listed = self._directory.endpoints(self.service) if self._directory.in_force else None
        return [endpoint.instance for endpoint in listed or ()]

    def _lists(self, instance: InstanceId) -> bool:
        return any(e.instance == instance for e in self._directory.endpoints(self.service) or ())


class FixedTarget:
    """auth or gatekeeper: known addresses, one of them in use, and whoever is there now."""

    def __init__(self, service: ServiceName, addresses: str, membership: Membership) -> None:
        """Take the name that TLS must prove, ``host:port`` or several with commas between, and who asks."""
        self.service, self._addresses = service, each_of(addresses)
        self._at = random.randrange(len(self._addresses))  # noqa: S311  spreads load only
        self._connections = Connections(membership, service, MAX_CONTROL)
        self._instance: InstanceId | None = None
        self._asking = asyncio.Lock()

    async def connection(self, spec: CallSpec) -> tuple[InstanceId, Connection]:
        """Give the connection, and the instance that answered there last."""
        # The address is the endpoint; who is behind it may change under the same connection.
        async with self._asking:
            if self._instance is None:
                self._instance = await self._found(spec)
            instance, connection = self._instance, self._connection()
        connection.began()
        return instance, connection

    def split(self, _metadata: Any) -> FixedTarget:
        """Give itself: there is no policy about calls to these."""
        return self

    async def refused(self, instance: InstanceId, by: InstanceId) -> None:
        """Ask again who is there."""
        if self._instance == instance and instance != by:
            self._instance = None

    def ended(self, instance: InstanceId, end: RawEnd, *, begun: bool) -> None:  # noqa: ARG002
        """Take the next address for the next call, if one was not answered by that instance."""
        if end.code in _UNANSWERED and self._instance == instance and len(self._addresses) > 1:
            self.forget()

    def forget(self) -> None:
        """Ask again before the next call, at the next address, because the last one could not be made."""
        if self._instance is not None:
            self._instance = None
            self._next()

    @property
    def address(self) -> str:
        """The address in use."""
        return self._addresses[self._at]

    async def close(self) -> None:
        """Close its connections."""
        await self._connections.close()

    def _next(self) -> None:
        self._at = (self._at + 1) % len(self._addresses)

    def _connection(self) -> Connection:
        return self._connections.to(Endpoint(InstanceId(bytes(16)), self.address))

    async def _found(self, spec: CallSpec) -> InstanceId:
        # Where the last address does not answer either, its failure is what is told.
        for _ in self._addresses[1:]:
            try:
                return await self._hello(self._connection(), spec, NEXT_TIMEOUT)
            except CallFailedError:
                self._next()
        return await self._hello(self._connection(), spec, HELLO_TIMEOUT)

    async def _hello(self, connection: Connection, spec: CallSpec, most: float) -> InstanceId:
        left = spec.remaining()
        timeout = most if left is None else min(most, left)
        request = wire_pb2.HelloRequest().SerializeToString()
        try:
            answer = await connection.unary(HELLO)(request, timeout=timeout)
            return InstanceId(wire_pb2.HelloResponse.FromString(answer).instance)
        except (grpc.aio.AioRpcError, ValueError):
            text = f"{self.service} does not answer at {', '.join(self._addresses)}"
            raise CallFailedError(mesh_outcome(Reason.NOT_READY, text)) from None


def each_of(addresses: str) -> list[str]:
    """Give the addresses of a text: one, or several with commas between."""
    return [address.strip() for address in addresses.split(",")]


async def _within(waiting: Awaitable[object], seconds: float | None, what: str) -> None:
    try:
        await asyncio.wait_for(waiting, seconds)
    except TimeoutError:
        raise CallFailedError(mesh_outcome(Reason.NOT_READY, f"no {what} in time")) from None


def _patience(spec: CallSpec) -> float:
    left = spec.remaining()
    return PATIENCE if left is None else min(PATIENCE, left)
