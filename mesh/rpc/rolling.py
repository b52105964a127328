"""A server's certificate, replaced while it serves.

gRPC asks for the certificate at each handshake and frees the old one as soon as it is given a new one, even
under a handshake that has just begun with it (grpc/grpc#36693): the process then crashes, and anyone who can
connect can bring that about. So a new one is given once per roll, and only while an idle connection of our
own holds on to the old one, which it keeps alive past the moment at which anybody else could touch it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import grpc

from mesh.rpc.membership import Membership

log = logging.getLogger("mesh")

#: Seconds from a connection's being accepted, or its certificate's being fetched, to its use by gRPC. It is
#: microseconds; this leaves room for a machine that is badly overloaded.
SETTLE: Final = 0.1
#: Seconds that the old certificate is held after the new one is in place.
HOLD: Final = 0.5
#: Seconds that a connection to ourselves may take.
CONNECT: Final = 5.0
_ANY: Final = {"0.0.0.0": "127.0.0.1", "[::]": "::1", "": "127.0.0.1"}  # noqa: S104  connected to, not bound


class RollingCertificate:
    """The certificate of one listener. ``credentials`` are for ``add_secure_port``."""

    def __init__(self, membership: Membership) -> None:
        """Begin with the certificate in force."""
        self._membership = membership
        self._given = membership.svid
        self._give_new = False
        fetch: Any = self._fetch  # may give None, which the types of gRPC do not know
        self.credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            self._given.server_configuration(), fetch, require_client_authentication=True
        )

    async def roll(self, address: str) -> None:
        """Put the certificate now in force to use on the listener at ``host:port``."""
        host, _, port = address.rpartition(":")
        at = _ANY.get(host, host.strip("[]")), int(port)
        while self._given is not self._membership.svid:
            async with _connection(*at):
                await asyncio.sleep(SETTLE)
                self._give_new = True
                async with _connection(*at):
                    await asyncio.sleep(HOLD)

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        # Called by gRPC in threads of its own, one at a time; None: as before.
        if not self._give_new:
            return None
        self._give_new = False
        self._given = self._membership.svid
        return self._given.server_configuration()


@asynccontextmanager
async def _connection(host: str, port: int) -> AsyncIterator[None]:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), CONNECT)
    except (OSError, TimeoutError):
        log.warning("cannot connect to myself at %s:%d: the certificate rolls when others do", host, port)
        yield
        return
    try:
        yield
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
