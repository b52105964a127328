"""The three ports of a mesh on one machine, fixed or free."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

#: Free ports are looked for below those that the kernel gives to outgoing connections: a port has to stay
#: ours through every restart, and an outgoing connection would take one of its own without asking.
_LOWEST: Final = 15_000
_EPHEMERAL: Final = 32_768
_TRIES: Final = 100


@dataclass(frozen=True, slots=True)
class Ports:
    """Where auth takes joins, auth takes sealed calls, and gatekeeper takes sealed calls. 0 is any."""

    join: int = 7700
    auth: int = 7701
    gatekeeper: int = 7702

    @classmethod
    def from_base(cls, base: int) -> Ports:
        """Give three in a row; all 0 for base 0."""
        return cls(base, base + 1, base + 2) if base else cls(0, 0, 0)

    def chosen(self, host: str) -> Ports:
        """Give the same with a free port for every 0; raises ``OSError`` if none is found."""
        taken = {self.join, self.auth, self.gatekeeper}
        found = {}
        for name in ("join", "auth", "gatekeeper"):
            if getattr(self, name) == 0:
                found[name] = _free(host, taken)
                taken.add(found[name])
        return replace(self, **found)


def _free(host: str, taken: set[int]) -> int:
    family, *_, address = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)[0]
    for _ in range(_TRIES):
        port = random.randrange(_LOWEST, _first_ephemeral())  # noqa: S311  any will do
        with suppress(OSError), socket.socket(family) as probe:
            if port not in taken:
                probe.bind((address[0], port))
                return port
    raise OSError(f"no free port found on {host}: name the ports")


def _first_ephemeral() -> int:
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        first = _EPHEMERAL
    return first if first > _LOWEST + _TRIES else _EPHEMERAL
