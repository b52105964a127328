"""A service inside the mesh: generated servicer, unchanged; one line to join and one to serve."""

import asyncio
import signal

import hello_pb2
import hello_pb2_grpc

import mesh


class Greeter(hello_pb2_grpc.GreeterServiceServicer):
    """Greets, and says who asked."""

    async def Greet(self, request, context):
        """Greet once."""
        caller = mesh.peer(context).service
        return hello_pb2.GreetResponse(text=f"hello {request.name}, from {caller}")


async def main() -> None:
    """Serve until interrupted."""
    async with mesh.join("greeter") as node:
        server = node.server()
        hello_pb2_grpc.add_GreeterServiceServicer_to_server(Greeter(), server)
        await server.start()
        print("serving as", node.identity.uri, flush=True)
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await stop.wait()  # the end of the block takes this instance out of the directory


asyncio.run(main())
