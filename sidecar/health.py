"""The sidecar's own health, its application's, and both together, as ``grpc.health.v1``, in plaintext.

""       SERVING from when the sidecar is in the mesh: the port does not answer before
"app"    SERVING while its application accepts connections and is well; unknown if it only calls
"ready"  SERVING while calls can be served: the same, or at once if it only calls; not once drained

It is for a kubelet's probes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh.rpc.lasting import OPTIONS as LASTING
from mesh.rpc.lasting import LastingServer
from mesh.rpc.swollen import Before
from mesh.rpc.warden import Warden

READY: Final = "ready"
APP: Final = "app"
_STATUS: Final = health_pb2.HealthCheckResponse
#: A question is a name.
_OPTIONS: Final = (*LASTING, ("grpc.max_receive_message_length", 1024), ("grpc.max_concurrent_streams", 16))


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # published without types
    """Answers ``Check``; what watches does so by asking again."""

    def __init__(self) -> None:
        """Begin in the mesh, and not ready."""
        self._good = {"": True, READY: False}
        self.warden = Warden()

    def ready(self, is_ready: bool) -> None:
        """Take note of whether calls can be served."""
        self._good[READY] = is_ready

    def app(self, is_well: bool) -> None:
        """Take note of whether the application is well."""
        self._good[APP] = is_well

    async def Check(  # noqa: N802  gRPC's own
        self,
        request: Any,
        context: Any,
    ) -> Any:
        """Say how it is."""
        self.warden.took(context.peer())
        good = self._good.get(request.service)
        if good is None:
            known = " or ".join(name for name in self._good if name)
            await context.abort(grpc.StatusCode.NOT_FOUND, f"unknown: ask for the empty name or {known}")
        return _STATUS(status=_STATUS.SERVING if good else _STATUS.NOT_SERVING)


@asynccontextmanager
async def serving_health(address: str | None) -> AsyncIterator[Health]:
    """Serve it at ``host:port`` for the length of the block, if there is one; raise ``OSError`` if in use."""
    health = Health()
    if address is None:
        yield health
        return
    try:
        server = LastingServer(partial(_bound, health), address)
    except OSError:
        msg = f"cannot listen on {address}: the port is in use; choose another with --health"
        raise OSError(msg) from None
    health.warden = server.warden
    await server.start()
    try:
        yield health
    finally:
        await server.stop(None)


def _bound(health: Health, address: str) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server(options=_OPTIONS)
    health_pb2_grpc.add_HealthServicer_to_server(health, Before(server, lambda: health.warden))
    try:
        return server, server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(str(error)) from error
