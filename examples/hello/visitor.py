"""A caller inside the mesh: generated stub, unchanged."""

import asyncio
import sys

import hello_pb2
import hello_pb2_grpc

import mesh


async def main() -> None:
    """Call once."""
    async with mesh.join("visitor") as node:
        stub = hello_pb2_grpc.GreeterServiceStub(node.channel("greeter"))
        name = sys.argv[1] if len(sys.argv) > 1 else "you"
        response = await stub.Greet(hello_pb2.GreetRequest(name=name), timeout=5)
        print(response.text)


asyncio.run(main())
