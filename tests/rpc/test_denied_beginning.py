"""A call that is denied in the very moment in which its reply begins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import grpc
import pytest

from mesh.core.errors import Denied
from mesh.rpc.membership import Membership, deny_all
from mesh.rpc.server import MeshServer
from tests.rpc.attack import reason_of
from tests.rpc.pair import World


class Beginning(grpc.GenericRpcHandler):
    """Is denied while it sends its initial metadata, in whichever task."""

    def __init__(self, callee: Membership) -> None:
        """Take who serves it."""
        self._callee = callee
        self.server: MeshServer
        self.in_task = False

    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Serve every method."""
        return grpc.unary_stream_rpc_method_handler(self.begin)

    async def begin(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        """Begin, and answer."""
        asyncio.get_running_loop().call_soon(self._deny)
        if self.in_task:
            with suppress(Denied):
                await asyncio.ensure_future(context.send_initial_metadata(()))
        yield request

    def _deny(self) -> None:
        self._callee.authorize = deny_all
        self.server.recheck()
        for call in self.server.open_calls:
            with suppress(Denied):
                call.judge()


@pytest.mark.parametrize("in_task", [False, True])
async def test_its_caller_is_told(world: World, callee: Membership, in_task: bool) -> None:
    """Nobody is left waiting, though gRPC has begun to send and would not begin twice."""
    app = Beginning(callee)
    app.in_task = in_task
    app.server = server = world.serve(callee)
    server.add_generic_rpc_handlers((app,))
    await server.start()
    call: Any = world.channel(world.member("caller"), "callee").unary_stream("/p.S/Begin")(b"m")
    async with asyncio.timeout(10):
        assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
        assert reason_of(await call.trailing_metadata())[0] == "POLICY_DENIED"
    await server.stop(None)
