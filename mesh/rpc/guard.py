"""A hold on a TCP port for as long as it is ours: nobody else's socket gets in between two listeners.

Several of our listeners share the port by ``SO_REUSEPORT``, which Linux grants to sockets of one user only
(socket(7)). The guard is bound without it, so that a port in use is an error, then allows it and never
listens: as long as it is open, another user's bind fails (EADDRINUSE). What it leaves: a process of the same
user, which could as well read this one's memory, may listen beside us if it asks for ``SO_REUSEPORT``.
"""

from __future__ import annotations

import errno
import socket
from typing import Final

_ANY: Final = {"0.0.0.0", "::"}  # noqa: S104  compared with, not bound to
#: An address of a name that this machine does not have, as ``::1`` of ``localhost`` without IPv6.
_NOT_HERE: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class Guard:
    """Holds one ``host:port`` until closed. ``address``: the same with the port that was found for 0."""

    def __init__(self, address: str) -> None:
        """Take the port on every address of the host; raise ``OSError`` if another process has it."""
        host, _, port = address.rpartition(":")
        self._sockets: list[socket.socket] = []
        self.port = int(port) if port.isdecimal() else 0
        try:
            self._hold(host.strip("[]"))
        except OSError as error:
            self.close()
            msg = f"cannot listen on {address}: the port is in use or the address is not this machine's"
            raise OSError(msg) from error
        self.address = f"{host}:{self.port}"

    def close(self) -> None:
        """Let go."""
        for held in self._sockets:
            held.close()
        self._sockets.clear()

    def _hold(self, host: str) -> None:
        missing: OSError | None = None
        for family, name in _addresses(host):
            try:
                self._bind(family, name)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missing = error
            else:
                if host in _ANY:
                    return
        if not self._sockets and missing is not None:
            raise missing

    def _bind(self, family: socket.AddressFamily, host: str) -> None:
        held = socket.socket(family, socket.SOCK_STREAM)
        try:
            if family == socket.AF_INET6:
                held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, host != "::")
            # Past the connections of a predecessor that are still closing (TIME_WAIT), not a moment longer.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind((host, self.port))
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        except OSError:
            held.close()
            raise
        self._sockets.append(held)
        self.port = held.getsockname()[1]


def _addresses(host: str) -> list[tuple[socket.AddressFamily, str]]:
    if host in _ANY:
        # As gRPC does: one socket for IPv6 and IPv4 alike; for IPv4 alone only where there is no IPv6.
        return [(socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")]  # noqa: S104  what was asked for
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((family, str(at[0])) for family, _, _, _, at in found))
