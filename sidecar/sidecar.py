"""One sidecar: a node, the application's way out, and the mesh's way in."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import mesh
from mesh.telemetry.backends import AMBIENT, Backend
from sidecar.health import Health, serving_health
from sidecar.inbound import Inbound
from sidecar.outbound import Outbound

#: The largest message a sidecar carries, in bytes: 64 MiB. The applications' own limits hold beside it.
MAX_MESSAGE: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """What one sidecar is told.

    ``app``: ``host:port``, ``unix:/path``, or ``None`` if it only calls. ``health``: ``host:port`` of its
    health service, if it is to have one. ``app_health``: whether to ask the application for its health.
    ``keys``: "local" or "remote", as for ``mesh.join``.
    """

    service: str
    token: str | None = None
    auth: str | None = None
    app: str | None = None
    listen: str = "127.0.0.1:0"
    advertise_port: int | None = None
    run_dir: Path | None = None
    outbound_port: int = 0
    health: str | None = None
    app_health: bool = True
    max_message: int = MAX_MESSAGE
    telemetry: Backend = AMBIENT
    keys: str | None = None


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A running sidecar, and where to find it."""

    node: mesh.Node
    run_dir: Path
    outbound_port: int
    inbound_port: int | None
    tasks: tuple[asyncio.Task[None], ...]
    drain: Callable[[], None] = lambda: None
    """Leave the directory, for the end is near, and go on with the calls that come all the same."""

    async def failed(self) -> None:
        """Wait until a part fails, and raise what it raised."""
        working = set(self.tasks)
        while working:
            done, working = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()


@asynccontextmanager
async def sidecar(settings: Settings) -> AsyncIterator[Sidecar]:
    """Run a sidecar for the length of the block.

    Raises what ``mesh.join`` does, and ``OSError`` where it cannot listen.
    """
    async with (
        mesh.join(
            settings.service,
            token=settings.token,
            auth=settings.auth,
            listen=settings.listen,
            advertise_port=settings.advertise_port,
            telemetry=settings.telemetry,
            keys=settings.keys,
        ) as node,
        _directory(settings) as run_dir,
        serving_health(settings.health) as health,
    ):
        outbound = Outbound(node, run_dir, settings.max_message)
        inbound = _inbound(settings, node, health)
        health.ready(inbound is None)
        tasks: list[asyncio.Task[None]] = []
        try:
            port = await outbound.open_port(settings.outbound_port)
            tasks = [asyncio.create_task(part) for part in (outbound.follow(), _served(inbound))]
            at = inbound.port if inbound else None
            yield Sidecar(node, run_dir, port, at, tuple(tasks), partial(_drain, health, inbound))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # In this order: calls to the application may be waiting for calls that it makes.
            try:
                if inbound is not None:
                    await inbound.close()
            finally:
                await outbound.close()


def _inbound(settings: Settings, node: mesh.Node, health: Health) -> Inbound | None:
    if not settings.app:
        return None
    return Inbound(node, settings.app, settings.max_message, health, asking=settings.app_health)


def _drain(health: Health, inbound: Inbound | None) -> None:
    health.ready(False)
    if inbound is not None:
        inbound.drain()


async def _served(inbound: Inbound | None) -> None:
    if inbound is not None:
        await inbound.follow()
        await inbound.keep_listed()


@asynccontextmanager
async def _directory(settings: Settings) -> AsyncIterator[Path]:
    if settings.run_dir is not None:
        settings.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = settings.run_dir.stat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            msg = f"others can change {settings.run_dir}: choose a directory that only you can write to"
            raise OSError(msg)
        yield settings.run_dir
        return
    made = Path(tempfile.mkdtemp(prefix=f"mesh-{settings.service}-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
