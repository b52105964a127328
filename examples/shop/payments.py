"""payments: takes the money. Embedded: the mesh is a library in this process.

It counts what reached it, so that the demo can show that an attack did not.
"""
# ruff: noqa: N802  methods are named by the protos

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

import mesh
from examples.shop.joined import serve_joined
from examples.shop.refusal import refuse
from examples.shop.v1 import payments_pb2 as pb
from examples.shop.v1 import payments_pb2_grpc

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]

LIMIT_CENTS = 100_000
FEE_CENTS = 30


@dataclass(frozen=True, slots=True)
class Booking:
    """Money taken from a customer."""

    customer: str
    cents: int


class Payments(payments_pb2_grpc.PaymentsServicer):
    """Keeps the books in memory."""

    def __init__(self) -> None:
        """Start with empty books."""
        self.bookings: list[Booking] = []
        self.dispatched: Counter[str] = Counter()
        """Calls that reached this application, by method."""

    async def Charge(self, request: pb.ChargeRequest, context: Context) -> pb.ChargeResponse:
        """Take the amount at once."""
        self.dispatched["Charge"] += 1
        if request.cents > LIMIT_CENTS:
            text = f"{request.customer}'s card does not hold {request.cents} cents: buy less"
            await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "CARD_DECLINED", text)
        self.bookings.append(Booking(request.customer, request.cents))
        await context.send_initial_metadata((("x-currency", "EUR"),))
        context.set_trailing_metadata((("x-receipt", str(len(self.bookings))),))
        return pb.ChargeResponse(receipt=len(self.bookings), cents=request.cents)

    async def Quote(self, request: pb.QuoteRequest, context: Context) -> pb.QuoteResponse:  # noqa: ARG002
        """Add the fee."""
        self.dispatched["Quote"] += 1
        return pb.QuoteResponse(cents=request.cents + FEE_CENTS)

    async def Statement(
        self, request: pb.StatementRequest, context: Context
    ) -> AsyncIterator[pb.StatementResponse]:
        """List what was booked for the customer."""
        self.dispatched["Statement"] += 1
        found = False
        for receipt, booking in enumerate(list(self.bookings), start=1):
            if booking.customer == request.customer:
                found = True
                yield pb.StatementResponse(receipt=receipt, cents=booking.cents)
        if not found:
            text = f"no customer {request.customer!r} was ever charged"
            await refuse(context, grpc.StatusCode.NOT_FOUND, "UNKNOWN_CUSTOMER", text)

    async def Settle(
        self,
        request_iterator: AsyncIterator[pb.SettleRequest],
        context: Context,  # noqa: ARG002
    ) -> pb.SettleResponse:
        """Book the batch, once all of it is there."""
        self.dispatched["Settle"] += 1
        batch = [Booking(entry.customer, entry.cents) async for entry in request_iterator]
        self.bookings += batch
        return pb.SettleResponse(entries=len(batch), cents=sum(entry.cents for entry in batch))

    async def Screen(
        self,
        request_iterator: AsyncIterator[pb.ScreenRequest],
        context: Context,  # noqa: ARG002
    ) -> AsyncIterator[pb.ScreenResponse]:
        """Trust whoever stays within the limit."""
        self.dispatched["Screen"] += 1
        async for purchase in request_iterator:
            yield pb.ScreenResponse(honest=purchase.cents <= LIMIT_CENTS)

    async def Refund(self, request: pb.RefundRequest, context: Context) -> pb.RefundResponse:  # noqa: ARG002
        """Give the money back."""
        self.dispatched["Refund"] += 1
        booking = self.bookings[request.receipt - 1]
        self.bookings.append(Booking(booking.customer, -booking.cents))
        return pb.RefundResponse(cents=booking.cents)


def add_payments(node: mesh.Node, books: Payments) -> None:
    """Serve payments on a node."""
    payments_pb2_grpc.add_PaymentsServicer_to_server(books, node.server())


if __name__ == "__main__":
    asyncio.run(serve_joined("payments", lambda node: add_payments(node, Payments())))
