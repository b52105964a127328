"""The good calls: every kind of RPC, through sidecars and embedded nodes, with metadata and statuses.

Each says what came of it, and raises if that is not what an honest shop would do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from examples.shop.demo import victims
from examples.shop.demo.attack import TIMEOUT
from examples.shop.refusal import reason_of
from examples.shop.v1 import (
    frontend_pb2,
    frontend_pb2_grpc,
    inventory_pb2,
    inventory_pb2_grpc,
    orders_pb2,
    orders_pb2_grpc,
    payments_pb2,
    payments_pb2_grpc,
    pricing_pb2,
    pricing_pb2_grpc,
)

if TYPE_CHECKING:
    from examples.shop.demo.stage import Stage


class WrongAnswerError(Exception):
    """An honest call gave what it should not have."""


@dataclass(frozen=True, slots=True)
class GoodCall:
    """One honest call: what is done, the way it takes, and how."""

    name: str
    way: str
    run: Callable[[Stage], Awaitable[str]]
    jailed: bool = False
    """Whether it takes a Lua service."""


def _expect(got: object, wanted: object) -> None:
    if got != wanted:
        raise WrongAnswerError(f"got {got!r} instead of {wanted!r}")


def _frontend(stage: Stage) -> frontend_pb2_grpc.FrontendAsyncStub:
    return frontend_pb2_grpc.FrontendStub(stage.frontend)


def _inventory(stage: Stage) -> inventory_pb2_grpc.InventoryAsyncStub:
    return inventory_pb2_grpc.InventoryStub(stage.orders.channel("inventory"))


async def buy(stage: Stage) -> str:
    """Buy two mugs."""
    request = frontend_pb2.BuyRequest(customer="ada", item="mug", quantity=2)
    bought = await _frontend(stage).Buy(request, timeout=TIMEOUT)
    _expect(bought.cents, 1800)
    return f"order {bought.order}, {bought.cents / 100:.2f}"


async def track(stage: Stage) -> str:
    """Follow the first order."""
    stages = _frontend(stage).Track(frontend_pb2.TrackRequest(order=1), timeout=TIMEOUT)
    told = [seen.stage async for seen in stages]
    _expect(told, ["placed", "packed", "shipped"])
    return ", ".join(told)


async def upload(stage: Stage) -> str:
    """Upload three orders."""
    orders = [frontend_pb2.UploadRequest(customer="bob", cents=cents) for cents in (500, 700, 900)]
    done = await _frontend(stage).Upload(iter(orders), timeout=TIMEOUT)
    _expect((done.orders, done.cents), (3, 2100))
    return f"{done.orders} orders, {done.cents / 100:.2f}"


async def browse(stage: Stage) -> str:
    """Ask about two items."""
    asked = [frontend_pb2.BrowseRequest(item=item) for item in ("poster", "unicorn")]
    answers = _frontend(stage).Browse(iter(asked), timeout=TIMEOUT)
    told = [(answer.item, answer.left) async for answer in answers]
    _expect(told, [("poster", 5), ("unicorn", 0)])
    return ", ".join(f"{left} {item}s" for item, left in told)


async def screen(stage: Stage) -> str:
    """Have orders screened, one at a time, each after the answer to the one before."""
    async with grpc.aio.insecure_channel(stage.orders_socket) as channel:
        dialogue = orders_pb2_grpc.OrdersStub(channel).Screen(timeout=TIMEOUT)
        told = []
        for cents in (1_000, 900_000):
            await dialogue.write(orders_pb2.ScreenOrderRequest(customer="eve", cents=cents))
            answer = await dialogue.read()
            assert isinstance(answer, orders_pb2.ScreenOrderResponse)
            told.append("welcome" if answer.welcome else "not welcome")
        await dialogue.done_writing()
        _expect(await dialogue.read(), grpc.aio.EOF)
    _expect(told, ["welcome", "not welcome"])
    return ", ".join(told)


async def out_of_stock(stage: Stage) -> str:
    """Buy more posters than there are."""
    return await _refused(stage, "poster", 6, "RESOURCE_EXHAUSTED shop.example/OUT_OF_STOCK", ("x-left", "5"))


async def declined(stage: Stage) -> str:
    """Buy a piano on a mug's budget."""
    return await _refused(stage, "piano", 1, "FAILED_PRECONDITION shop.example/CARD_DECLINED", None)


async def _refused(
    stage: Stage, item: str, quantity: int, wanted: str, trailing: tuple[str, str] | None
) -> str:
    request = frontend_pb2.BuyRequest(customer="ada", item=item, quantity=quantity)
    try:
        await _frontend(stage).Buy(request, timeout=TIMEOUT)
    except grpc.aio.AioRpcError as error:
        told = f"{error.code().name} {reason_of(error)}"
        _expect(told, wanted)
        if trailing is not None:
            _expect(trailing in tuple(error.trailing_metadata()), True)
        return told
    raise WrongAnswerError(f"{quantity} {item} were sold")


async def metadata(stage: Stage) -> str:
    """Charge with metadata, and look at what comes back: initial, and trailing."""
    request = payments_pb2.ChargeRequest(customer=victims.CUSTOMER, cents=300)
    stub = payments_pb2_grpc.PaymentsStub(stage.orders.channel("payments"))
    call = stub.Charge(request, timeout=TIMEOUT, metadata=(victims.TENANT,))
    charged = await call
    told = dict((*await call.initial_metadata(), *await call.trailing_metadata()))
    _expect(told, {"x-currency": "EUR", "x-receipt": str(charged.receipt)})
    return ", ".join(f"{key}: {value!s}" for key, value in told.items())


async def statement(stage: Stage) -> str:
    """List what ada was charged."""
    told = await victims.statement(stage)
    _expect(told, [1800, 300])
    return ", ".join(f"{cents / 100:.2f}" for cents in told)


async def restock(stage: Stage) -> str:
    """Deliver twice, and list the stock."""
    delivered = [inventory_pb2.RestockRequest(item="poster", quantity=2)] * 2
    done = await _inventory(stage).Restock(iter(delivered), timeout=TIMEOUT)
    _expect(done.deliveries, 2)
    levels = _inventory(stage).Levels(inventory_pb2.LevelsRequest(), timeout=TIMEOUT)
    left = {level.item: level.left async for level in levels}
    _expect(left["poster"], 9)
    asked_by = str(dict(tuple(await levels.initial_metadata()))["x-asked-by"])
    _expect(asked_by, stage.orders.identity.uri)
    return f"{left['poster']} posters; asked by {asked_by}"


async def reconcile(stage: Stage) -> str:
    """Have inventory compare its books with those of orders, which it calls through its sidecar."""
    counted = await _inventory(stage).Reconcile(inventory_pb2.ReconcileRequest(), timeout=TIMEOUT)
    _expect((counted.sold, counted.reserved), (2, 2))
    return f"{counted.sold} sold, {counted.reserved} reserved"


async def price(stage: Stage) -> str:
    """Ask a script for two prices; it asks inventory what is left."""
    stub = pricing_pb2_grpc.PricingStub(stage.orders.channel("pricing"))
    told = []
    for item in ("mug", "piano"):
        priced = await stub.Price(pricing_pb2.PriceRequest(item=item, quantity=1), timeout=TIMEOUT)
        told.append((priced.cents, priced.scarce))
    _expect(told, [(900, False), (1_080_000, True)])
    return ", ".join(f"{cents / 100:.2f}" for cents, _ in told)


async def estimate(stage: Stage) -> str:
    """Ask orders what a mug would be, past frontend's application, through its sidecar's socket."""
    async with grpc.aio.insecure_channel(stage.orders_socket) as channel:
        request = orders_pb2.EstimateRequest(item="mug", quantity=1)
        estimated = await orders_pb2_grpc.OrdersStub(channel).Estimate(request, timeout=TIMEOUT)
    _expect(estimated.cents, 900)
    return f"{estimated.cents / 100:.2f}"


async def still_open(stage: Stage) -> str:
    """Buy again, after all the attacks, through every service."""
    request = frontend_pb2.BuyRequest(customer="eve", item="mug", quantity=1)
    bought = await _frontend(stage).Buy(request, timeout=TIMEOUT)
    _expect(await victims.statement(stage, "eve"), [bought.cents])
    return f"order {bought.order}, {bought.cents / 100:.2f}"


GOOD_CALLS = (
    GoodCall("unary: ada buys two mugs", "frontend > orders > inventory, payments", buy),
    GoodCall("server stream: she tracks her order", "frontend > orders", track),
    GoodCall("client stream: bob uploads three orders", "frontend > orders > payments", upload),
    GoodCall("both ways: a visitor browses", "frontend > inventory, by mesh-to", browse),
    GoodCall("both ways, in turns: purchases are screened", "frontend > orders > payments", screen),
    GoodCall("a refusal with details and metadata", "frontend > orders > inventory", out_of_stock),
    GoodCall("metadata in, initial and trailing out", "orders > payments", metadata),
    GoodCall("server stream: ada's statement", "orders > payments", statement),
    GoodCall("client stream, then server stream: a delivery", "orders > inventory", restock),
    GoodCall("a service in another language calls out", "orders > inventory > orders", reconcile),
    GoodCall("a service in Lua, in its jail, calls out", "orders > pricing > inventory", price, jailed=True),
    GoodCall(
        "an estimate, through all kinds of nodes",
        "frontend > orders > pricing > inventory",
        estimate,
        jailed=True,
    ),
    GoodCall("a refusal from the other branch", "frontend > orders > payments", declined),
)

LAST_CALL = GoodCall(
    "after the attacks: eve buys a mug", "frontend > orders > inventory, payments", still_open
)
