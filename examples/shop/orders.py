"""orders: what was bought. Embedded: generated stubs on ``node.channel`` call inventory and payments."""
# ruff: noqa: N802  methods are named by the protos

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

import mesh
from examples.shop.joined import serve_joined
from examples.shop.refusal import pass_on, refuse
from examples.shop.v1 import (
    inventory_pb2,
    inventory_pb2_grpc,
    orders_pb2_grpc,
    payments_pb2,
    payments_pb2_grpc,
    pricing_pb2,
    pricing_pb2_grpc,
)
from examples.shop.v1 import orders_pb2 as pb

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

STAGES = ("placed", "packed", "shipped")


@dataclass(frozen=True, slots=True)
class Order:
    """A purchase that was paid."""

    item: str
    quantity: int


class Orders(orders_pb2_grpc.OrdersServicer):
    """Keeps the orders in memory."""

    def __init__(
        self, inventory: grpc.aio.Channel, payments: grpc.aio.Channel, pricing: grpc.aio.Channel
    ) -> None:
        """Take a channel to each service that orders depends on."""
        self._inventory = inventory_pb2_grpc.InventoryStub(inventory)
        self._payments = payments_pb2_grpc.PaymentsStub(payments)
        self._pricing = pricing_pb2_grpc.PricingStub(pricing)
        self.orders: list[Order] = []

    async def Place(self, request: pb.PlaceRequest, context: Context) -> pb.PlaceResponse:
        """Reserve, charge, book."""
        try:
            reserved = await self._inventory.Reserve(
                inventory_pb2.ReserveRequest(item=request.item, quantity=request.quantity)
            )
            charged = await self._payments.Charge(
                payments_pb2.ChargeRequest(customer=request.customer, cents=reserved.cents)
            )
        except grpc.aio.AioRpcError as error:
            await pass_on(context, error)
        self.orders.append(Order(request.item, request.quantity))
        return pb.PlaceResponse(order=len(self.orders), cents=charged.cents, receipt=charged.receipt)

    async def Watch(self, request: pb.WatchRequest, context: Context) -> AsyncIterator[pb.WatchResponse]:
        """Tell each stage."""
        if not 1 <= request.order <= len(self.orders):
            text = f"there is no order {request.order}"
            await refuse(context, grpc.StatusCode.NOT_FOUND, "UNKNOWN_ORDER", text)
        for stage in STAGES:
            yield pb.WatchResponse(stage=stage)

    async def Import(
        self, request_iterator: AsyncIterator[pb.ImportRequest], context: Context
    ) -> pb.ImportResponse:
        """Charge all as one batch: payments sees each entry as it comes, and books them together."""

        async def entries() -> AsyncIterator[payments_pb2.SettleRequest]:
            async for order in request_iterator:
                yield payments_pb2.SettleRequest(customer=order.customer, cents=order.cents)

        try:
            settled = await self._payments.Settle(entries())
        except grpc.aio.AioRpcError as error:
            await pass_on(context, error)
        return pb.ImportResponse(orders=settled.entries, cents=settled.cents)

    async def Screen(
        self, request_iterator: AsyncIterator[pb.ScreenOrderRequest], context: Context
    ) -> AsyncIterator[pb.ScreenOrderResponse]:
        """Ask payments about each purchase as it comes."""
        screening = self._payments.Screen()
        try:
            async for order in request_iterator:
                await screening.write(payments_pb2.ScreenRequest(customer=order.customer, cents=order.cents))
                judged = await screening.read()
                assert isinstance(judged, payments_pb2.ScreenResponse)
                yield pb.ScreenOrderResponse(welcome=judged.honest)
            await screening.done_writing()
        except grpc.aio.AioRpcError as error:
            await pass_on(context, error)

    async def Estimate(self, request: pb.EstimateRequest, context: Context) -> pb.EstimateResponse:
        """Ask pricing."""
        try:
            priced = await self._pricing.Price(
                pricing_pb2.PriceRequest(item=request.item, quantity=request.quantity)
            )
        except grpc.aio.AioRpcError as error:
            await pass_on(context, error)
        return pb.EstimateResponse(cents=priced.cents)

    async def List(
        self,
        request: pb.ListRequest,  # noqa: ARG002
        context: Context,  # noqa: ARG002
    ) -> AsyncIterator[pb.ListResponse]:
        """Give every order."""
        for number, order in enumerate(list(self.orders), start=1):
            yield pb.ListResponse(order=number, item=order.item, quantity=order.quantity)


def add_orders(node: mesh.Node) -> None:
    """Serve orders on a node, and let it call what it needs."""
    orders = Orders(node.channel("inventory"), node.channel("payments"), node.channel("pricing"))
    orders_pb2_grpc.add_OrdersServicer_to_server(orders, node.server())


if __name__ == "__main__":
    asyncio.run(serve_joined("orders", add_orders))
