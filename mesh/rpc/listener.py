"""One listener with mTLS: it lasts (``lasting``), and its certificate rolls while it serves (``rolling``).

Who connects shows a certificate that our trust bundle vouches for. Whose it is, and what that one may, is
for the handlers to ask (``svid.tls_peer``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc

from mesh.rpc.lasting import OPTIONS as LASTING
from mesh.rpc.lasting import LastingServer
from mesh.rpc.membership import Membership
from mesh.rpc.rolling import RollingCertificate
from mesh.rpc.swollen import Swollen


class Listener:
    """Serves a handler at one address, with the certificate that its node has at the time."""

    def __init__(
        self,
        membership: Membership,
        address: str,
        handler: grpc.GenericRpcHandler,
        options: Sequence[tuple[str, Any]],
    ) -> None:
        """Bind ``host:port`` (port 0: any), with options of gRPC; raise ``OSError`` if it is in use."""
        self._membership, self._handler = membership, handler
        self._options = (*LASTING, *options)
        self._server = LastingServer(self._listen, address)
        self.port = self._server.port
        self.warden = self._server.warden
        self._address = f"{address.rpartition(':')[0]}:{self.port}"
        self._rolling: asyncio.Task[None] | None = None

    def _listen(self, address: str) -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server(options=self._options)
        swollen = Swollen(lambda: self.warden)
        server.add_generic_rpc_handlers((swollen, self._handler))
        self._certificate = RollingCertificate(self._membership)
        try:
            return server, server.add_secure_port(address, self._certificate.credentials)
        except RuntimeError as error:
            msg = f"cannot listen on {address}: the port is in use or the address is not this machine's"
            raise OSError(msg) from error

    async def start(self) -> None:
        """Begin to take calls."""
        await self._server.start()
        self._membership.on_svid(self._roll)

    async def stop(self, grace: float | None) -> None:
        """Take no more calls; give those in progress ``grace`` seconds."""
        await self._server.stop(grace)
        if self._rolling is not None:
            self._rolling.cancel()
            await asyncio.wait((self._rolling,))

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109  gRPC's own
        """Wait until it has stopped; True if the time-out came first."""
        return await self._server.wait_for_termination(timeout)

    def _roll(self) -> None:
        if self._rolling is None or self._rolling.done():
            self._rolling = asyncio.create_task(self._certificate.roll(self._address))
