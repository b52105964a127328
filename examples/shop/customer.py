"""A customer at the shop's door: ``python -m examples.shop.customer --frontend HOST:PORT mug 2``."""

import argparse
import asyncio
import sys

import grpc

from examples.shop.refusal import reason_of
from examples.shop.v1 import frontend_pb2, frontend_pb2_grpc


async def buy(frontend: str, customer: str, item: str, quantity: int) -> str:
    """Buy, and give a line about it. Raises ``grpc.aio.AioRpcError`` as the shop answers."""
    async with grpc.aio.insecure_channel(frontend) as channel:
        shop = frontend_pb2_grpc.FrontendStub(channel)
        bought = await shop.Buy(
            frontend_pb2.BuyRequest(customer=customer, item=item, quantity=quantity), timeout=10
        )
    return f"order {bought.order}: {quantity} {item} for {bought.cents / 100:.2f}"


def main() -> int:
    """Return 0 if it was bought."""
    parser = argparse.ArgumentParser(description="buy something in the shop")
    parser.add_argument("--frontend", required=True, help="host:port of the shop's frontend")
    parser.add_argument("--customer", default="ada")
    parser.add_argument("item")
    parser.add_argument("quantity", type=int, nargs="?", default=1)
    args = parser.parse_args()
    try:
        print(asyncio.run(buy(args.frontend, args.customer, args.item, args.quantity)))
    except grpc.aio.AioRpcError as error:
        print(f"{error.code().name}: {error.details()} {reason_of(error)}".strip(), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
