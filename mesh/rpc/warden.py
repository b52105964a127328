"""Hangs up on connections that are a nuisance, and shuts their addresses out for a while.

What is a nuisance, ``core.conduct`` says; what can be done about it, ``lines``. Servers tell of calls that
were taken and of calls that were refused. An address behind which a member stands is never shut out, nor is
this host's own, behind which everybody stands who runs here: only the one connection is hung up on. What
comes over a unix socket has one user behind it, this process's own, and is not watched.

It does not protect from calls that are as they should be, however many: those have callers with names.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final
from urllib.parse import unquote

from mesh.core.conduct import Addresses, Line
from mesh.rpc.lines import Lines

log = logging.getLogger("mesh")

#: Seconds between looks; longer where a look takes long, so that it never takes more than SHARE of the time.
LOOK: Final = 0.05
SHARE: Final = 0.05
#: Seconds without a line in the log after one.
QUIET: Final = 10.0
#: Addresses behind which all stand who run on this host.
OWN: Final = frozenset({"127.0.0.1", "::1/64"})
_IPV6_BITS: Final = 64


class Warden:
    """Watches the connections of one listener. ``port`` 0: of none."""

    def __init__(self, port: int = 0) -> None:
        """Take the port that it listens on."""
        self._lines = Lines(port) if port else None
        self._port = port
        self._kept: dict[str, Line] = {}
        self._addresses = Addresses(OWN)
        self._out: frozenset[str] = frozenset()
        self._hung_up, self._quiet_until = 0, 0.0
        self._nobody = Line()

    def line(self, peer: str) -> Line:
        """Give the connection of a peer, as gRPC writes it."""
        if self._lines is None:
            return self._nobody
        found = self._kept.get(peer)
        if found is None:
            found = self._kept[peer] = Line()
        return found

    def took(self, peer: str) -> None:
        """Take note of a member's call that is over as soon as it was taken."""
        line = self.line(peer)
        line.begin()
        line.end()

    def heard(self, peer: str) -> None:
        """Take note of a call that is none of a member's, or denied, and no nuisance either."""
        self.line(peer).heard()

    def gone(self, peer: str) -> bool:
        """Say whether a connection was hung up on: what it had sent before is nobody's any more."""
        found = self._kept.get(peer)
        return found is not None and found.gone

    def refused(self, peer: str) -> None:
        """Take note of a call that had no business here."""
        line = self.line(peer)
        if self._lines is None or line.gone:
            return
        now = time.monotonic()
        if self._addresses.refuse(address_of(peer), line, now):
            self._strike(self._lines, peer, now)

    def struck(self, peer: str) -> None:
        """Hang up on who sent what is a nuisance by itself."""
        line = self.line(peer)
        if self._lines is not None and not line.gone:
            self._strike(self._lines, peer, time.monotonic())

    async def keep(self) -> None:
        """Look at all connections, again and again, for ever."""
        while self._lines is not None:
            begun = time.monotonic()
            self._look(self._lines, begun)
            await asyncio.sleep(max(LOOK, (time.monotonic() - begun) / SHARE))

    def _look(self, lines: Lines, now: float) -> None:
        self._vouch(now)
        received = lines.received()
        for peer in self._kept.keys() - received.keys():
            if not self._kept[peer].open:
                del self._kept[peer]
        for peer, size in received.items():
            line = self.line(peer)
            if line.look(size) and not line.gone:
                self._strike(lines, peer, now)
        self._shut_out(lines, now)

    def _vouch(self, now: float) -> None:
        for peer, line in self._kept.items():
            if line.vouches():
                self._addresses.vouch(address_of(peer), now)

    def _strike(self, lines: Lines, peer: str, now: float) -> None:
        self._vouch(now)
        address, received = address_of(peer), lines.received()
        if self._addresses.strike(address, now):
            self._shut_out(lines, now)
            for other in received:
                if address_of(other) == address:
                    self._hang_up(lines, other)
        else:
            self._hang_up(lines, peer)
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET
            log.warning("port %d: hung up on %s for a flood, %d so far", self._port, peer, self._hung_up)

    def _hang_up(self, lines: Lines, peer: str) -> None:
        self.line(peer).gone = True
        self._hung_up += lines.hang_up(peer)

    def _shut_out(self, lines: Lines, now: float) -> None:
        out = self._addresses.out(now)
        if out or self._out:
            lines.shut_out(out)  # each time: a listener may have had a successor
        self._out = out


def address_of(peer: str) -> str:
    """Give whom to hold to account for a peer: an IPv4 address, or a network of IPv6."""
    kind, _, rest = peer.partition(":")
    host = unquote(rest).rpartition(":")[0].strip("[]")
    return f"{host}/{_IPV6_BITS}" if kind == "ipv6" else host
