"""Asking gatekeeper whether a call to this node is permitted, for what has no slice of its own.

``Authorize`` answers for the node that asks, by its verified name. There is one outcome besides a permit:
whatever goes wrong, in whatever way, and however long it would take, is a denial.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import grpc

from mesh.core.errors import Denied
from mesh.core.matcher import Permit
from mesh.core.metadata import Entries
from mesh.v1 import gatekeeper_pb2, gatekeeper_pb2_grpc

log = logging.getLogger("mesh")

#: Seconds for an answer, connecting included.
DEADLINE: Final = 0.2


async def authorize(channel: grpc.aio.Channel, source: str, method: str, entries: Entries = ()) -> Permit:
    """Give the permit for a call of ``source``, a verified service name, to the node that asks.

    ``channel`` leads to gatekeeper: ``node.channel("mesh.gatekeeper")``. ``entries`` is the application's
    metadata, for rules with headers. Raises ``Denied`` unless gatekeeper permits it within ``DEADLINE``.
    """
    headers = [gatekeeper_pb2.Header(key=key, value=_bytes(value)) for key, value in entries]
    request = gatekeeper_pb2.AuthorizeRequest(source=source, method=method, headers=headers)
    stub = gatekeeper_pb2_grpc.GatekeeperServiceStub(channel)
    try:
        async with asyncio.timeout(DEADLINE):
            answer = await stub.Authorize(request, timeout=DEADLINE)
    except (grpc.aio.AioRpcError, TimeoutError) as error:
        why = error.details() if isinstance(error, grpc.aio.AioRpcError) else "no answer in time"
        log.warning("denied without an answer of gatekeeper: source=%r method=%r: %s", source, method, why)
        raise Denied(source, method, None) from None
    if not answer.permitted:
        raise Denied(source, method, answer.rule or None)
    return Permit(source, method, answer.rule)


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()
