"""A sidecar's loopback port takes as long for a name that is forbidden as for one that does not exist."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import grpc
import pytest

from mesh.core.names import ServiceName
from mesh.rpc.connections import Endpoint
from tests.rpc.app import path
from tests.sidecar.beside import Beside
from tests.timing import BOUND, spin, told_apart


@pytest.mark.timeout(600)
async def test_forbidden_and_nonexistent_names_take_equally_long(
    beside: Beside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In five thousand tries over real sockets, where fifty microseconds more are seen."""
    unary = beside.channel("port").unary_unary(path("Unary"))
    # It is somebody's name here, and not among those that this node may call.
    beside.callee.know({"other": [(bytes(16), "127.0.0.1:9")]})

    def calling(name: str) -> Callable[[], Awaitable[None]]:
        async def call() -> None:
            with pytest.raises(grpc.aio.AioRpcError):
                await unary(b"m", metadata=(("mesh-to", name),))

        return call

    endpoints = beside.caller.slice.endpoints

    def planted(service: ServiceName) -> list[Endpoint] | None:
        if service.text == "othes":
            spin()
        return endpoints(service)

    monkeypatch.setattr(beside.caller.slice, "endpoints", planted)
    kinds = {"forbidden": "other", "nowhere": "otheq", "planted": "othes"}
    found = await told_apart({kind: calling(name) for kind, name in kinds.items()})
    assert abs(found) < BOUND
