"""Other people's stubs, from other languages, unchanged: all four kinds, metadata, errors with details."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from examples.shop import SHOP
from examples.shop.inventory import Inventory
from examples.shop.v1 import inventory_pb2 as pb
from examples.shop.v1 import inventory_pb2_grpc
from mesh.cli.ports import Ports
from mesh.rpc.status import DETAILS
from tests.e2e.echo import works
from tests.e2e.world import DOMAIN, HOST, TIMEOUT, Mesh, appears

pytestmark = pytest.mark.asyncio(loop_scope="session")

NODE: Final = SHOP / "node"
PROTO: Final = SHOP / "v1" / "inventory.proto"
CLIENT: Final = Path(__file__).parent / "client.js"
#: Where nobody serves: inventory would call orders there, and is not asked to.
ORDERS: Final = "unix:/nowhere"

Served = Callable[[Mesh, AsyncExitStack], Any]


@pytest.fixture
def node(node_packages: Callable[[Path], None]) -> None:
    """Have Node's packages for gRPC in place."""
    node_packages(NODE)


async def embedded(mesh: Mesh, stack: AsyncExitStack) -> None:
    """Serve inventory in an embedded node."""
    found = await stack.enter_async_context(mesh.node("inventory"))
    inventory_pb2_grpc.add_InventoryServicer_to_server(Inventory(ORDERS), found.server())
    await found.server().start()


async def python(mesh: Mesh, stack: AsyncExitStack) -> None:
    """Serve inventory as an ordinary Python application behind a sidecar."""
    app = grpc.aio.server()
    inventory_pb2_grpc.add_InventoryServicer_to_server(Inventory(ORDERS), app)
    port = app.add_insecure_port(f"{HOST}:0")
    await app.start()
    stack.push_async_callback(app.stop, 0)
    await behind_a_sidecar(mesh, stack, port)


async def javascript(mesh: Mesh, stack: AsyncExitStack) -> None:
    """Serve inventory in Node behind a sidecar."""
    port = Ports(0, 0, 0).chosen(HOST).join
    app = mesh.command(
        "node", "node", str(NODE / "inventory.js"), "--listen", f"{HOST}:{port}", "--orders", ORDERS
    )
    stack.callback(app.kill)
    await behind_a_sidecar(mesh, stack, port)


async def behind_a_sidecar(mesh: Mesh, stack: AsyncExitStack, port: int) -> None:
    sidecar = await mesh.sidecar("inventory", "--app-port", str(port))
    stack.push_async_callback(sidecar.process.stop)


@asynccontextmanager
async def serving(mesh: Mesh, serve: Served) -> AsyncIterator[None]:
    """Run inventory afresh, and nothing of it afterwards."""
    async with AsyncExitStack() as stack:
        await serve(mesh, stack)
        yield


async def answers(stub: inventory_pb2_grpc.InventoryAsyncStub) -> None:
    """Wait until inventory is called through."""
    check = pb.RestockRequest()

    async def once() -> bytes:
        await stub.Restock(iter([check][:0]), timeout=TIMEOUT)
        return b""

    await works(once)


def expected(caller: str, found: dict[str, Any]) -> None:
    """See that inventory gave what it gives when it is asked without a mesh between."""
    status = status_pb2.Status.FromString(base64.b64decode(found.pop("details")))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (status.code, info.domain, info.reason) == (8, "shop.example", "OUT_OF_STOCK")
    assert status.message == found["text"]
    assert found == {
        "reserved": {"cents": "1800", "left": 18},
        "code": 8,
        "text": "5 of 'poster' left: order fewer",
        "left": "5",
        "levels": [["mug", 18], ["piano", 1], ["poster", 5]],
        "asked_by": f"spiffe://{DOMAIN}/{caller}",
        "restocked": 2,
        "checked": [["mug", 18], ["unicorn", 0]],
    }


@pytest.mark.usefixtures("node")
@pytest.mark.parametrize("way", ["socket", "port"])
@pytest.mark.parametrize("serve", [embedded, python], ids=["embedded", "sidecar"])
async def test_a_client_in_node_through_a_sidecar(shared: Mesh, serve: Served, way: str) -> None:
    """grpc-js calls a Python service, embedded or behind a sidecar, by socket and by the loopback port."""
    front = await shared.sidecar("front")
    try:
        async with serving(shared, serve):
            await appears(front.socket("inventory"))
            async with front.channel("inventory") as channel:
                await answers(inventory_pb2_grpc.InventoryStub(channel))
            at = [front.outbound, str(NODE), str(PROTO), "inventory"]
            if way == "socket":
                at = [f"unix:{front.socket('inventory')}", str(NODE), str(PROTO)]
            client = shared.command("client", "node", str(CLIENT), *at)
            assert await client.ended() == 0, client.log
            expected("front", json.loads(client.out))
    finally:
        await front.process.stop()


SERVERS: Final = {"embedded": embedded, "python": python, "javascript": javascript}


@pytest.mark.parametrize("server", sorted(SERVERS))
async def test_generated_stubs_in_an_embedded_node(
    shared: Mesh, server: str, node_packages: Callable[[Path], None]
) -> None:
    """Stubs as protoc makes them, on a mesh channel, call inventory in Python and in Node."""
    if server == "javascript":
        node_packages(NODE)
    async with serving(shared, SERVERS[server]), shared.node("caller") as caller:
        stub = inventory_pb2_grpc.InventoryStub(caller.channel("inventory"))
        await answers(stub)
        reserved = await stub.Reserve(pb.ReserveRequest(item="mug", quantity=2), timeout=TIMEOUT)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Reserve(pb.ReserveRequest(item="poster", quantity=9), timeout=TIMEOUT)
        trailing = dict(tuple(caught.value.trailing_metadata()))
        levels = stub.Levels(pb.LevelsRequest(), timeout=TIMEOUT)
        listed = [[level.item, level.left] async for level in levels]
        deliveries = [pb.RestockRequest(item="poster", quantity=1)] * 2
        restocked = await stub.Restock(iter(deliveries), timeout=TIMEOUT)
        dialogue = stub.Check(timeout=TIMEOUT)
        checked = []
        for item in ("mug", "unicorn"):
            await dialogue.write(pb.CheckRequest(item=item))
            answer = await dialogue.read()
            assert isinstance(answer, pb.CheckResponse)
            checked.append([answer.item, answer.left])
        await dialogue.done_writing()
        assert await dialogue.read() is grpc.aio.EOF
        found = {
            "reserved": {"cents": str(reserved.cents), "left": reserved.left},
            "code": caught.value.code().value[0],
            "text": caught.value.details(),
            "left": trailing["x-left"],
            "details": base64.b64encode(trailing[DETAILS]),
            "levels": listed,
            "asked_by": dict(tuple(await levels.initial_metadata()))["x-asked-by"],
            "restocked": restocked.deliveries,
            "checked": checked,
        }
        expected("caller", found)
