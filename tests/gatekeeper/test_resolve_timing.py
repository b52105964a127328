"""Resolve takes as long for a name that is forbidden as for one that does not exist."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import grpc
import pytest

from mesh.core.names import ServiceName
from mesh.v1 import gatekeeper_pb2
from services.gatekeeper.slices import Slicer
from tests.gatekeeper.house import policy, serving
from tests.timing import BOUND, spin, told_apart


@pytest.mark.timeout(600)
async def test_forbidden_and_nonexistent_names_take_equally_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """In five thousand tries over a real socket, where fifty microseconds more are seen."""
    async with serving() as house:
        house.watchers.take(policy(1))
        running = await house.node("inventory").watch(port=5000)
        await running.read()
        stub = house.node("frontend").stub

        def resolving(name: str) -> Callable[[], Awaitable[None]]:
            request = gatekeeper_pb2.ResolveRequest(service=name)

            async def resolve() -> None:
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub.Resolve(request)

            return resolve

        resolve = Slicer.resolve

        def planted(
            self: Slicer, source: ServiceName, name: ServiceName
        ) -> gatekeeper_pb2.Destination | None:
            if name.text == "inventoty":
                spin()
            return resolve(self, source, name)

        monkeypatch.setattr(Slicer, "resolve", planted)
        kinds = {"forbidden": "inventory", "nowhere": "inventori", "planted": "inventoty"}
        found = await told_apart({kind: resolving(name) for kind, name in kinds.items()})
        assert abs(found) < BOUND
