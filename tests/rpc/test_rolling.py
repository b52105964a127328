"""The certificate of a server is replaced under many handshakes at once, and nothing breaks."""

from __future__ import annotations

import asyncio

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from mesh.rpc.connections import Connection
from mesh.rpc.server import HELLO
from tests.rpc.attack import shown_by
from tests.rpc.pair import World


async def test_rolls_under_handshakes() -> None:
    """While forty clients connect again and again, each new certificate comes into use and none fails."""
    world = World()
    callee, caller = world.member("callee"), world.member("caller")
    server = world.serve(callee)
    await server.start()
    done = asyncio.Event()

    async def connect() -> None:
        while not done.is_set():
            connection = Connection(callee.identity, f"127.0.0.1:{server.port}", caller.svid, -1)
            await connection.unary(HELLO)(b"", timeout=20)
            await connection.close()

    async with asyncio.timeout(50), asyncio.TaskGroup() as tasks:
        for _ in range(40):
            tasks.create_task(connect())
        for _ in range(3):
            callee.svid = world.svid(callee.identity, callee.instance)
            new = x509.load_pem_x509_certificate(callee.svid.chain_pem).public_bytes(Encoding.DER)
            while await shown_by(server, caller.svid) != new:
                pass  # each look is a connection of its own
        done.set()
    await server.stop(None)
