"""frontend: the shop's door. An ordinary gRPC service that knows nothing of the mesh.

It shows both ways out of a sidecar: orders is called through its unix socket, inventory through the one
loopback port, where metadata ``mesh-to`` names the destination. ``mesh run`` says where they are.
"""
# ruff: noqa: N802  methods are named by the protos

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc

from examples.shop.refusal import pass_on
from examples.shop.serve import serve
from examples.shop.v1 import frontend_pb2 as pb
from examples.shop.v1 import (
    frontend_pb2_grpc,
    inventory_pb2,
    inventory_pb2_grpc,
    orders_pb2,
    orders_pb2_grpc,
)

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class Frontend(frontend_pb2_grpc.FrontendServicer):
    """Keeps nothing; asks others."""

    def __init__(self, orders: grpc.aio.Channel, mesh: grpc.aio.Channel) -> None:
        """Take a channel to the sidecar's socket for orders, and one to its loopback port."""
        self._orders = orders_pb2_grpc.OrdersStub(orders)
        self._inventory = inventory_pb2_grpc.InventoryStub(mesh)

    async def Buy(self, request: pb.BuyRequest, context: Context) -> pb.BuyResponse:
        """Place an order."""
        try:
            placed = await self._orders.Place(
                orders_pb2.PlaceRequest(
                    customer=request.customer, item=request.item, quantity=request.quantity
                )
            )
        except grpc.aio.AioRpcError as error:
            await pass_on(context, error)
        return pb.BuyResponse(order=placed.order, cents=placed.cents)

    async def Track(self, request: pb.TrackRequest, context: Context) -> AsyncIterator[pb.TrackResponse]:
        """Tell each stage of an order."""
        try:
            async for seen in self._orders.Watch(orders_pb2.WatchRequest(order=request.order)):
                yield pb.TrackResponse(stage=seen.stage)
        except grpc.aio.AioRpcError as error:
            await pass_on(context, error)

    async def Upload(
        self, request_iterator: AsyncIterator[pb.UploadRequest], context: Context
    ) -> pb.UploadResponse:
        """Hand over orders, each as it comes."""

        async def orders() -> AsyncIterator[orders_pb2.ImportRequest]:
            async for order in request_iterator:
                yield orders_pb2.ImportRequest(customer=order.customer, cents=order.cents)

        try:
            imported = await self._orders.Import(orders())
        except grpc.aio.AioRpcError as error:
            await pass_on(context, error)
        return pb.UploadResponse(orders=imported.orders, cents=imported.cents)

    async def Browse(
        self, request_iterator: AsyncIterator[pb.BrowseRequest], context: Context
    ) -> AsyncIterator[pb.BrowseResponse]:
        """Ask inventory about each item as it comes."""

        async def items() -> AsyncIterator[inventory_pb2.CheckRequest]:
            async for asked in request_iterator:
                yield inventory_pb2.CheckRequest(item=asked.item)

        try:
            async for seen in self._inventory.Check(items(), metadata=(("mesh-to", "inventory"),)):
                yield pb.BrowseResponse(item=seen.item, left=seen.left)
        except grpc.aio.AioRpcError as error:
            await pass_on(context, error)


async def run(listen: str, orders: str, mesh: str) -> None:
    """Serve at ``listen``, with a channel to each way out of the sidecar."""
    async with grpc.aio.insecure_channel(orders) as to_orders, grpc.aio.insecure_channel(mesh) as to_mesh:
        frontend = Frontend(to_orders, to_mesh)
        await serve(listen, lambda to: frontend_pb2_grpc.add_FrontendServicer_to_server(frontend, to))


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description="the shop's frontend")
    parser.add_argument("--listen", required=True, help="where customers call this service, host:port")
    parser.add_argument("--orders", default=f"unix:{os.environ.get('MESH_RUN_DIR', '.')}/orders.sock")
    parser.add_argument("--mesh", default=os.environ.get("MESH_OUTBOUND", "127.0.0.1:0"))
    args = parser.parse_args()
    asyncio.run(run(args.listen, args.orders, args.mesh))


if __name__ == "__main__":
    main()
