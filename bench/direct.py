"""A variant as it runs, and the plainest one: client and server with nothing between them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.process import Process

#: The places a process may have on the way of a call; a variant without proxies has two of them.
CLIENT: Final = "client"
CLIENT_PROXY: Final = "client's proxy"
SERVER_PROXY: Final = "server's proxy"
SERVER: Final = "server"
PLACES: Final = (CLIENT, CLIENT_PROXY, SERVER_PROXY, SERVER)


@dataclass(frozen=True, slots=True)
class Variant:
    """The processes that a call goes through, by their place on the way; all are running and connected."""

    processes: Mapping[str, Process]

    @property
    def client(self) -> Process:
        """The one that takes loads."""
        return self.processes[CLIENT]

    def resident(self) -> dict[str, float]:
        """Give the bytes that each holds in memory now."""
        return {place: process.resident_bytes() for place, process in self.processes.items()}


@asynccontextmanager
async def server(
    scratch: Path, variant: str, service: str | None = None, environment: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[Process, int]]:
    """Run a server, in plaintext or embedded as a service; give it and its plaintext port."""
    command = [sys.executable, "-m", "bench.echo", *_join(service)]
    async with Process.started(f"{variant}-server", command, scratch, environment) as process:
        yield process, (await process.answer())["port"]


@asynccontextmanager
async def client(
    scratch: Path,
    variant: str,
    target: str,
    service: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[Process]:
    """Run a client, in plaintext or embedded as a service, that has had an answer from ``target``."""
    command = [sys.executable, "-m", "bench.load", "--target", target, *_join(service)]
    async with Process.started(f"{variant}-client", command, scratch, environment) as process:
        await process.answer()
        yield process


@asynccontextmanager
async def direct(scratch: Path) -> AsyncIterator[Variant]:
    """Run the client straight at the server, both in plaintext over loopback."""
    async with (
        server(scratch, "direct") as (far, port),
        client(scratch, "direct", f"127.0.0.1:{port}") as near,
    ):
        yield Variant({CLIENT: near, SERVER: far})


def _join(service: str | None) -> list[str]:
    return ["--join", service] if service else []
