"""The shop on a mesh of its own: set up in a directory that goes away with it.

auth and gatekeeper are processes, frontend and inventory are processes with a sidecar each; orders, payments
and mallory are nodes in this process, so that their applications' counters and their operators' view can be
looked at directly. The tap stands between orders and payments from the start: payments' place in the
directory is the tap's, and every good call to it passes through.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

import mesh
from examples.shop.demo.attack import TIMEOUT, Reached
from examples.shop.demo.tap import Tap
from examples.shop.orders import add_orders
from examples.shop.payments import Payments, add_payments
from examples.shop.refusal import DOMAIN, reason_of
from examples.shop.v1 import (
    inventory_pb2,
    inventory_pb2_grpc,
    orders_pb2,
    orders_pb2_grpc,
)
from mesh.cli.operator import Operator
from mesh.core.errors import Cause
from mesh.core.names import ServiceName
from mesh.rpc.membership import Rejection
from mesh.telemetry.backends import Backend
from mesh.v1 import auth_pb2

LOCAL = "127.0.0.1"


@dataclass(slots=True)
class Stage:
    """What attacks and good calls work with."""

    operator: Operator
    auth_at: str
    orders: mesh.Node
    payments: mesh.Node
    mallory: mesh.Node
    tap: Tap
    books: Payments
    frontend: grpc.aio.Channel
    """To frontend's application, as a customer."""
    frontend_at: str
    orders_socket: str
    """Frontend's sidecar's socket for orders."""
    mesh_port: str
    """Frontend's sidecar's loopback port."""
    has_jail: bool
    """Whether there are services in Lua: where a layer of the jail is missing, there are none."""
    lua_log: Path
    """What their host tells its operator."""
    rejections: list[tuple[str, Cause | str]] = field(default_factory=list)
    """What orders and payments told their operators: which node, and the true cause."""

    @property
    def payments_at(self) -> str:
        """Where payments really is."""
        return f"{LOCAL}:{self.payments.server().port}"

    def reached(self) -> Reached:
        """Give how much came to payments' application so far."""
        return Reached(self.books.dispatched.total(), len(self.books.bookings))

    async def token(self, service: str) -> str:
        """Make a join token."""
        return await new_token(self.operator, service)

    def watch(self, node: mesh.Node) -> None:
        """Take note of what a node rejects."""

        def observe(rejection: Rejection) -> None:
            self.rejections.append((node.identity.service.text, rejection.cause))

        node.membership.on_rejected(observe)


async def new_token(operator: Operator, service: str) -> str:
    """Make a join token, as an operator."""
    request = auth_pb2.CreateTokenRequest(service=service)
    return (await operator.auth.CreateToken(request, timeout=TIMEOUT)).token


@dataclass(frozen=True, slots=True)
class Embedded:
    """The nodes in this process, and what they run."""

    orders: mesh.Node
    payments: mesh.Node
    mallory: mesh.Node
    tap: Tap
    books: Payments


@asynccontextmanager
async def embedded(
    operator: Operator, auth_at: str, tap_port: int, telemetry: Backend
) -> AsyncIterator[Embedded]:
    """Join orders, payments and mallory, and put the tap between the first two."""
    async with AsyncExitStack() as stack:

        async def join(service: str, advertise_port: int | None = None) -> mesh.Node:
            token = await new_token(operator, service)
            joining = mesh.join(
                service, token=token, auth=auth_at, advertise_port=advertise_port, telemetry=telemetry
            )
            return await stack.enter_async_context(joining)

        mallory, payments = await join("mallory"), await join("payments", tap_port)
        # Callers go before those they call: orders, then the tap, then payments.
        taps: list[Tap] = []
        stack.push_async_callback(_stop, taps)
        orders = await join("orders")
        books = Payments()
        add_payments(payments, books)
        add_orders(orders)
        stolen = orders.membership.svid, payments.membership.svid
        tap = Tap(payments.identity, *stolen, f"{LOCAL}:{payments.server().port}")
        taps.append(tap)
        await tap.start(f"{LOCAL}:{tap_port}")
        await payments.server().start()
        await orders.server().start()
        yield Embedded(orders, payments, mallory, tap, books)


async def _stop(taps: list[Tap]) -> None:
    for tap in taps:
        await tap.stop()


async def settled(stage: Stage) -> None:
    """Wait until every service is up and finds those that it calls."""
    await stage.frontend.channel_ready()
    await _until(lambda: _stock(stage.orders.channel("inventory")))
    await _until(lambda: _no_order(stage.orders_socket))
    await _until(lambda: _level(stage.mesh_port))
    for service in (ServiceName("pricing"), ServiceName("gremlin")) if stage.has_jail else ():
        while not stage.orders.slice.endpoints(service):
            await stage.orders.slice.changed()
    while not stage.orders.slice.endpoints(stage.payments.identity.service):
        await stage.orders.slice.changed()


async def _until(probe: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await probe()
        except grpc.aio.AioRpcError as error:
            if reason_of(error).startswith(DOMAIN):
                return
            await asyncio.sleep(0.02)
        else:
            return


async def _stock(inventory: grpc.aio.Channel) -> None:
    stub = inventory_pb2_grpc.InventoryStub(inventory)
    await stub.Reconcile(inventory_pb2.ReconcileRequest(), timeout=TIMEOUT)


async def _no_order(socket: str) -> None:
    async with grpc.aio.insecure_channel(socket) as channel:
        watched = orders_pb2_grpc.OrdersStub(channel).Watch(orders_pb2.WatchRequest(), timeout=TIMEOUT)
        _ = [stage async for stage in watched]


async def _level(port: str) -> None:
    async with grpc.aio.insecure_channel(port) as channel:
        stub = inventory_pb2_grpc.InventoryStub(channel)
        request, to = inventory_pb2.LevelsRequest(), (("mesh-to", "inventory"),)
        _ = [level async for level in stub.Levels(request, timeout=TIMEOUT, metadata=to)]
