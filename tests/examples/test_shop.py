"""The shop's services by themselves, without a mesh between them, with inventory in Python and in Node."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from examples.shop.frontend import Frontend
from examples.shop.orders import Orders
from examples.shop.payments import Booking, Payments
from examples.shop.refusal import reason_of
from examples.shop.v1 import frontend_pb2 as pb
from examples.shop.v1 import (
    frontend_pb2_grpc,
    inventory_pb2,
    inventory_pb2_grpc,
    orders_pb2_grpc,
    payments_pb2,
    payments_pb2_grpc,
)

SHOP = Path(__file__).parents[2] / "examples" / "shop"
NODE = SHOP / "node"
COMMANDS = {
    "node": ["node", str(NODE / "inventory.js")],
    "python": [sys.executable, "-m", "examples.shop.inventory"],
}


@dataclass
class Shop:
    """Stubs of what runs."""

    frontend: frontend_pb2_grpc.FrontendAsyncStub
    inventory: inventory_pb2_grpc.InventoryAsyncStub
    payments_stub: payments_pb2_grpc.PaymentsAsyncStub
    payments: Payments


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


async def served(stack: AsyncExitStack, add: Callable[[grpc.aio.Server], None]) -> str:
    server = grpc.aio.server()
    add(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    stack.push_async_callback(server.stop, None)
    return f"127.0.0.1:{port}"


async def opened(stack: AsyncExitStack, address: str) -> grpc.aio.Channel:
    return await stack.enter_async_context(grpc.aio.insecure_channel(address))


@pytest.fixture(params=list(COMMANDS))
async def shop(request: pytest.FixtureRequest, node_packages: Callable[[Path], None]) -> AsyncIterator[Shop]:
    """Start inventory as a process and all else here, wired without a mesh."""
    if request.param == "node":
        node_packages(NODE)
    async with AsyncExitStack() as stack:
        listen, orders_at = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        inventory = await asyncio.create_subprocess_exec(
            *COMMANDS[request.param], "--listen", listen, "--orders", orders_at, cwd=SHOP.parents[1]
        )
        to_inventory = await opened(stack, listen)
        await asyncio.wait_for(to_inventory.channel_ready(), 20)
        books = Payments()
        at = await served(stack, lambda to: payments_pb2_grpc.add_PaymentsServicer_to_server(books, to))
        to_payments = await opened(stack, at)
        orders = grpc.aio.server()
        orders_pb2_grpc.add_OrdersServicer_to_server(Orders(to_inventory, to_payments, to_payments), orders)
        orders.add_insecure_port(orders_at)
        await orders.start()
        stack.push_async_callback(orders.stop, None)
        frontend = Frontend(await opened(stack, orders_at), to_inventory)
        at = await served(stack, lambda to: frontend_pb2_grpc.add_FrontendServicer_to_server(frontend, to))
        yield Shop(
            frontend_pb2_grpc.FrontendStub(await opened(stack, at)),
            inventory_pb2_grpc.InventoryStub(to_inventory),
            payments_pb2_grpc.PaymentsStub(to_payments),
            books,
        )
        inventory.terminate()
        assert await asyncio.wait_for(inventory.wait(), 10) == 0


async def test_a_purchase_reserves_charges_and_is_tracked(shop: Shop) -> None:
    """The unary chain and the stages of an order, and inventory's own call to orders."""
    bought = await shop.frontend.Buy(pb.BuyRequest(customer="ada", item="mug", quantity=2))
    assert (bought.order, bought.cents) == (1, 1800)
    assert shop.payments.bookings == [Booking("ada", 1800)]
    stages = [seen.stage async for seen in shop.frontend.Track(pb.TrackRequest(order=1))]
    assert stages == ["placed", "packed", "shipped"]
    counted = await shop.inventory.Reconcile(inventory_pb2.ReconcileRequest())
    assert (counted.sold, counted.reserved) == (2, 2)


async def test_streams_in_both_directions(shop: Shop) -> None:
    """Client streams, server streams and dialogues, all the way through."""
    uploads = [pb.UploadRequest(customer="bob", cents=cents) for cents in (100, 250)]
    uploaded = await shop.frontend.Upload(iter(uploads))
    assert (uploaded.orders, uploaded.cents) == (2, 350)
    asked = [pb.BrowseRequest(item=item) for item in ("poster", "unicorn")]
    seen = [(answer.item, answer.left) async for answer in shop.frontend.Browse(iter(asked))]
    assert seen == [("poster", 5), ("unicorn", 0)]
    delivered = [inventory_pb2.RestockRequest(item="poster", quantity=3)] * 2
    assert (await shop.inventory.Restock(iter(delivered))).deliveries == 2
    levels = {level.item: level.left async for level in shop.inventory.Levels(inventory_pb2.LevelsRequest())}
    assert levels == {"mug": 20, "piano": 1, "poster": 11}


async def test_a_refusal_keeps_its_details_all_the_way(shop: Shop) -> None:
    """Code, text, ErrorInfo and trailing metadata of the service that refused reach the customer."""
    with pytest.raises(grpc.aio.AioRpcError) as empty:
        await shop.frontend.Buy(pb.BuyRequest(customer="ada", item="poster", quantity=6))
    assert empty.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert reason_of(empty.value) == "shop.example/OUT_OF_STOCK"
    assert ("x-left", "5") in tuple(empty.value.trailing_metadata())
    with pytest.raises(grpc.aio.AioRpcError) as declined:
        await shop.frontend.Buy(pb.BuyRequest(customer="ada", item="piano", quantity=1))
    assert reason_of(declined.value) == "shop.example/CARD_DECLINED"
    assert shop.payments.bookings == []


async def test_an_unknown_customer_has_no_statement(shop: Shop) -> None:
    """An error after no message at all is an error, not an empty list."""
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        _ = [line async for line in shop.payments_stub.Statement(payments_pb2.StatementRequest(customer="x"))]
    assert reason_of(unknown.value) == "shop.example/UNKNOWN_CUSTOMER"
