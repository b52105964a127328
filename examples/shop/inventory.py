"""inventory in Python: the twin of ``node/inventory.js``, for machines without Node.

An ordinary gRPC service that knows nothing of the mesh. Its sidecar calls it at ``--listen``, and it calls
orders at ``--orders``: the socket that its sidecar opens, in the directory that ``mesh run`` names.
"""
# ruff: noqa: N802  methods are named by the protos

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc

from examples.shop.refusal import refuse
from examples.shop.serve import serve
from examples.shop.v1 import inventory_pb2 as pb
from examples.shop.v1 import inventory_pb2_grpc, orders_pb2, orders_pb2_grpc

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

PRICES = {"mug": 900, "poster": 1500, "piano": 900_000}


class Inventory(inventory_pb2_grpc.InventoryServicer):
    """Keeps the stock in memory."""

    def __init__(self, orders: str) -> None:
        """Take the address of the sidecar's socket for orders."""
        self._orders = orders
        self._left = {"mug": 20, "poster": 5, "piano": 1}
        self._reserved = 0

    async def Reserve(self, request: pb.ReserveRequest, context: Context) -> pb.ReserveResponse:
        """Take goods off the shelf."""
        left = self._left.get(request.item, 0)
        if left < request.quantity:
            text = f"{left} of {request.item!r} left: order fewer"
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            await refuse(context, code, "OUT_OF_STOCK", text, ("x-left", str(left)))
        self._left[request.item] = left - request.quantity
        self._reserved += request.quantity
        cents = PRICES[request.item] * request.quantity
        return pb.ReserveResponse(cents=cents, left=self._left[request.item])

    async def Levels(
        self,
        request: pb.LevelsRequest,  # noqa: ARG002
        context: Context,
    ) -> AsyncIterator[pb.LevelsResponse]:
        """Give the stock of every item, and say to whom."""
        await context.send_initial_metadata((("x-asked-by", _caller(context)),))
        for item, left in sorted(self._left.items()):
            yield pb.LevelsResponse(item=item, left=left)

    async def Restock(
        self,
        request_iterator: AsyncIterator[pb.RestockRequest],
        context: Context,  # noqa: ARG002
    ) -> pb.RestockResponse:
        """Put deliveries on the shelf."""
        deliveries = [delivery async for delivery in request_iterator]
        for delivery in deliveries:
            self._left[delivery.item] = self._left.get(delivery.item, 0) + delivery.quantity
        return pb.RestockResponse(deliveries=len(deliveries))

    async def Check(
        self,
        request_iterator: AsyncIterator[pb.CheckRequest],
        context: Context,  # noqa: ARG002
    ) -> AsyncIterator[pb.CheckResponse]:
        """Answer for each item as it is asked."""
        async for asked in request_iterator:
            yield pb.CheckResponse(item=asked.item, left=self._left.get(asked.item, 0))

    async def Reconcile(
        self,
        request: pb.ReconcileRequest,  # noqa: ARG002
        context: Context,  # noqa: ARG002
    ) -> pb.ReconcileResponse:
        """Ask orders for its list, through the sidecar."""
        async with grpc.aio.insecure_channel(self._orders) as channel:
            listed = orders_pb2_grpc.OrdersStub(channel).List(orders_pb2.ListRequest())
            sold = sum([order.quantity async for order in listed])
        return pb.ReconcileResponse(sold=sold, reserved=self._reserved)


def _caller(context: Context) -> str:
    """Who calls: the sidecar has verified it, and nobody but the sidecar can say it."""
    return next((str(value) for key, value in context.invocation_metadata() or () if key == "mesh-peer"), "")


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description="the shop's inventory, in Python")
    parser.add_argument("--listen", required=True, help="where the sidecar calls this service")
    parser.add_argument("--orders", default=f"unix:{os.environ.get('MESH_RUN_DIR', '.')}/orders.sock")
    args = parser.parse_args()
    inventory = Inventory(args.orders)
    asyncio.run(
        serve(args.listen, lambda to: inventory_pb2_grpc.add_InventoryServicer_to_server(inventory, to))
    )


if __name__ == "__main__":
    main()
