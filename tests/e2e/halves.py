"""Two auths and two gatekeepers on one PostgreSQL: two halves of one mesh."""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import mesh
from mesh.core.names import TrustDomain
from services.auth.founding import found
from services.auth.replicating import replicate
from tests.e2e.process import Process
from tests.e2e.world import DOMAIN, HOST, Mesh, Timers


class Half(Mesh):
    """One auth, and one gatekeeper that may follow either."""

    def __init__(self, timers: Timers, data: Path) -> None:
        """Take a data directory that there is, or is to be."""
        super().__init__(timers)
        shutil.rmtree(self.data)
        self.data = data
        self.all: tuple[Half, ...] = ()

    def auth_arguments(self, data: Path | None = None) -> list[str]:
        """Name both of each to nodes."""
        return [
            *super().auth_arguments(data),
            *("--auths", ",".join(one.auth_address for one in self.all)),
            *("--gatekeeper", ",".join(one.gatekeeper_address for one in self.all)),
        ]

    @property
    def join_addresses(self) -> str:
        """Where nodes join, at both."""
        return ",".join(f"{HOST}:{one.ports.join}" for one in self.all)

    def begin_gatekeeper(self, token: str) -> Process:
        """Start gatekeeper, which joins at either auth."""
        self.gatekeeper = self.python(
            "gatekeeper",
            "services.gatekeeper",
            *("--auth", self.join_addresses, "--token-file", "-", "--listen", self.gatekeeper_address),
            *("--lease-seconds", str(self.timers.lease)),
            secret=f"{token}\n",
        )
        return self.gatekeeper


@contextmanager
def in_halves(where: Path, url: str, timers: Timers) -> Iterator[tuple[Half, Half]]:
    """Give two halves of one mesh on the database at a URL, not started."""
    now_ms = int(time.time() * 1000)
    found(where / "first", TrustDomain(DOMAIN), now_ms, database=url)
    replicate(where / "second", url, where / "first" / "kek", now_ms)
    shutil.copy(where / "first" / "operator.json", where / "second")
    both = Half(timers, where / "first"), Half(timers, where / "second")
    for half in both:
        half.all = both
    try:
        yield both
    finally:
        for half in both:
            half.close()


async def started(halves: Sequence[Mesh]) -> None:
    """Start all auths, then all gatekeepers."""
    for half in halves:
        await half.start_auth()
    for half in halves:
        await half.start_gatekeeper()


@asynccontextmanager
async def joined(halves: Sequence[Half], service: str) -> AsyncIterator[mesh.Node]:
    """Be a node that joined at either, for the length of the block."""
    token = await halves[0].token(service, 600)
    async with mesh.join(service, token=token, auth=halves[0].join_addresses) as node:
        yield node
