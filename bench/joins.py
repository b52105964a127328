"""How many joins one auth process takes per second, over SQLite, many nodes at once.

Tokens and requests are made beforehand, for on real machines those costs are each node's own. What is timed
is from the first request sent to the last answer; that each answer opens is checked afterwards.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from typing import Final

import grpc

from bench.meshed import JOINER, Domain
from bench.process import NotMeasuredError
from mesh.core.errors import PeerError
from mesh.core.join import JoinRequester, JoinToken
from mesh.rpc.svid import new_key
from mesh.v1 import auth_pb2, auth_pb2_grpc

AT_ONCE: Final = 16
JOIN_SECONDS: Final = 20.0


async def measure(domain: Domain, count: int) -> dict[str, float]:
    """Join ``count`` times; give joins per second, and auth's CPU time for each in milliseconds."""
    requesters = []
    for _ in range(count):
        token = JoinToken.parse(await domain.token(JOINER))
        requesters.append(JoinRequester(token, new_key()[1], secrets.token_bytes(16)))
    requests = iter([(requester, requester.request()) for requester in requesters])
    try:
        async with grpc.aio.insecure_channel(domain.addresses.join) as channel:
            stub = auth_pb2_grpc.JoinServiceStub(channel)
            cpu, begun = domain.auth.cpu_seconds(), time.perf_counter()
            answers = await asyncio.gather(*(_join(stub, requests) for _ in range(AT_ONCE)))
            seconds, cpu = time.perf_counter() - begun, domain.auth.cpu_seconds() - cpu
        for requester, response in (pair for some in answers for pair in some):
            requester.open(response)
    except (grpc.aio.AioRpcError, PeerError) as error:
        raise NotMeasuredError(f"joins: {error}") from None
    return {
        "count": count,
        "at_once": AT_ONCE,
        "per_second": count / seconds,
        "auth_cpu_ms": 1000 * cpu / count,
    }


async def _join(
    stub: auth_pb2_grpc.JoinServiceAsyncStub, requests: Iterator[tuple[JoinRequester, auth_pb2.JoinRequest]]
) -> list[tuple[JoinRequester, auth_pb2.JoinResponse]]:
    # All share the one iterator: each takes the next request as soon as it has its answer.
    return [(requester, await stub.Join(request, timeout=JOIN_SECONDS)) for requester, request in requests]
