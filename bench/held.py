"""Streams that many embedded nodes hold open to one instance, until that is revoked.

All are in this process, the revoked one too: what ends a stream is each node's own slice, as it is shipped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Final

import grpc

import mesh
from bench.meshed import Domain
from bench.process import NotMeasuredError
from mesh.core.errors import Reason
from mesh.core.names import InstanceId
from mesh.rpc.status import DOMAIN, reason_of
from mesh.v1 import auth_pb2, revocation_pb2

LEAKED: Final = "leaked"
HOLDER: Final = "holder"
METHOD: Final = "/bench.v1.Held/Hold"
POLICY: Final = b'{"services":{"holder":{},"leaked":{"allow":[{"principals":["holder"],"paths":["*"]}]}}}'


class Hold(grpc.GenericRpcHandler):
    """Answers once, and then holds the stream."""

    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Give the one handler."""
        return grpc.stream_stream_rpc_method_handler(self.hold)

    async def hold(self, requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        """Give back what comes, for as long as it comes."""
        async for request in requests:
            yield request


async def revoke(domain: Domain, instance: InstanceId) -> float:
    """Revoke an instance; give when that was asked, by the machine's monotonic clock."""
    request = revocation_pb2.RevokeRequest(service=LEAKED, instance=instance.raw)
    begun = time.monotonic()
    await domain.operator.revocation.Revoke(request)
    return begun


async def streams(domain: Domain, nodes: int) -> list[float]:
    """Give for each node the seconds from the operator's command until its stream had ended at its end."""
    await domain.operator.auth.ApplyPolicy(auth_pb2.ApplyPolicyRequest(document=POLICY))
    async with AsyncExitStack() as stack:
        leaked = await stack.enter_async_context(_join(domain, LEAKED, await domain.token(LEAKED)))
        leaked.server().add_generic_rpc_handlers((Hold(),))
        await leaked.server().start()
        # It does not do as it is told: what is measured is what the others do.
        vars(leaked.slice)["withdraw"] = lambda: None
        calls = []
        for _ in range(nodes):
            node = await stack.enter_async_context(_join(domain, HOLDER, await domain.token(HOLDER)))
            calls.append(await _held(node))
        ending = [asyncio.create_task(_ended(call)) for call in calls]
        begun = await revoke(domain, leaked.instance)
        return [moment - begun for moment in await asyncio.gather(*ending)]


def _join(domain: Domain, service: str, token: str) -> Any:
    return mesh.join(service, token=token, auth=domain.addresses.join)


async def _held(node: mesh.Node) -> Any:
    call: Any = node.channel(LEAKED).stream_stream(METHOD)(wait_for_ready=True)
    await call.write(b"held")
    await call.read()
    return call


async def _ended(call: Any) -> float:
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        if reason_of(error) == f"{DOMAIN}/{Reason.PEER_REVOKED}":
            return time.monotonic()
    raise NotMeasuredError("a stream did not end for its peer's revocation")
