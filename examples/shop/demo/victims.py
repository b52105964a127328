"""The honest calls that the tap attacks: orders calls payments, with generated stubs, as it always does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from examples.shop.demo.attack import TIMEOUT
from examples.shop.v1 import payments_pb2 as pb
from examples.shop.v1 import payments_pb2_grpc

if TYPE_CHECKING:
    from examples.shop.demo.stage import Stage

TENANT = ("x-tenant", "acme")
CUSTOMER = "ada"


def _payments(stage: Stage) -> payments_pb2_grpc.PaymentsAsyncStub:
    return payments_pb2_grpc.PaymentsStub(stage.orders.channel("payments"))


async def charge(stage: Stage, cents: int = 1200) -> Any:
    """Charge once: unary, with metadata both ways."""
    request = pb.ChargeRequest(customer=CUSTOMER, cents=cents)
    return await _payments(stage).Charge(request, timeout=TIMEOUT, metadata=(TENANT,))


async def quote(stage: Stage, cents: int = 1200) -> Any:
    """Ask for a price."""
    request = pb.QuoteRequest(customer=CUSTOMER, cents=cents)
    return await _payments(stage).Quote(request, timeout=TIMEOUT)


async def settle(stage: Stage) -> Any:
    """Book a batch of three: client stream."""
    batch = [pb.SettleRequest(customer="bob", cents=cents) for cents in (100, 200, 300)]
    return await _payments(stage).Settle(iter(batch), timeout=TIMEOUT)


async def statement(stage: Stage, customer: str = CUSTOMER) -> list[int]:
    """List what a customer was charged: server stream."""
    lines = _payments(stage).Statement(pb.StatementRequest(customer=customer), timeout=TIMEOUT)
    return [line.cents async for line in lines]


async def statement_of_nobody(stage: Stage) -> list[int]:
    """Ask for a statement that there is not."""
    return await statement(stage, "nobody")


async def screen(stage: Stage) -> list[bool]:
    """Have three purchases judged: both ways at once."""
    purchases = [pb.ScreenRequest(customer="eve", cents=cents) for cents in (1, 999_999, 2)]
    judged = _payments(stage).Screen(iter(purchases), timeout=TIMEOUT)
    return [judgement.honest async for judgement in judged]


async def refund(stage: Stage) -> Any:
    """Ask for money back, which no rule allows."""
    return await _payments(stage).Refund(pb.RefundRequest(receipt=1), timeout=TIMEOUT)
