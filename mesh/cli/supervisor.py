"""auth and gatekeeper on this machine, as child processes, kept running.

    async with Supervisor(data, Ports(0, 0, 0)) as mesh:
        mesh.addresses.join        # both are ready here

A child that fails before it was ever ready ends the whole: what is wrong with it will not go away, and it has
said what it is. One that ends later is started again, gatekeeper each time with a fresh token over its
standard input. At the end gatekeeper goes first, then auth. If this process is killed, they end with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Self

import grpc

from mesh.cli.child import Child, EndedError, Kept
from mesh.cli.data import ADDRESSES, DECISIONS, Addresses, DataDirectory
from mesh.cli.errors import CliError, Exit
from mesh.cli.operator import Operator, operator
from mesh.cli.ports import Ports
from mesh.core.errors import MeshError
from mesh.core.names import AUTH, GATEKEEPER
from mesh.telemetry.sdk import next_prometheus
from mesh.v1 import auth_pb2, gatekeeper_pb2

log = logging.getLogger("mesh.up")

#: Seconds that both together have to become ready at first.
START: Final = 60.0
#: Seconds between looks at what can only be looked at.
LOOK: Final = 0.05
#: Seconds between attempts to get a token while auth is away.
PAUSE: Final = 0.5
#: Seconds that an answer may take before a look counts as failed.
PATIENCE: Final = 5.0


class ChildFailedError(CliError):
    """A child ended before it was ready. It has said why, so the command adds nothing but its status."""

    def __init__(self, ended: EndedError) -> None:
        """Take its end; death by a signal counts as a failure."""
        super().__init__(f"{ended}: see what it said", ended.status if ended.status > 0 else Exit.FAILED)


class Supervisor:
    """A running mesh. ``auth_options`` and ``gatekeeper_options`` are added to the children's arguments."""

    def __init__(
        self,
        data: Path,
        ports: Ports | None = None,
        *,
        host: str = "127.0.0.1",
        advertise: str | None = None,
        auth_options: Sequence[str] = (),
        gatekeeper_options: Sequence[str] = (),
    ) -> None:
        """Take the data directory and where to listen; ``advertise`` is the host that others are told."""
        self._data, self._host, self._advertise = DataDirectory(data), host, advertise or host
        self._ports = (ports or Ports()).chosen(host)
        self._auth_options, self._gatekeeper_options = auth_options, gatekeeper_options
        self.auth = Kept(AUTH.text, self._start_auth)
        self.gatekeeper = Kept(GATEKEEPER.text, self._start_gatekeeper)
        self._keeping: list[asyncio.Task[None]] = []
        self._stale: object = None

    @property
    def addresses(self) -> Addresses:
        """Where the mesh is."""
        return self._data.addresses()

    async def __aenter__(self) -> Self:
        """Start both; return when both are ready. Raises ``CliError`` if one does not get there."""
        self._data.credential()
        try:
            async with asyncio.timeout(START):
                await self.auth.begin(lambda: self._answering(_ask_auth))
                await self.gatekeeper.begin(lambda: self._answering(_ask_gatekeeper))
        except BaseException as error:
            await self._stop()
            if isinstance(error, EndedError):
                raise ChildFailedError(error) from None
            if isinstance(error, TimeoutError):
                raise CliError(f"the mesh of {self._data.path} was not ready within {START:.0f} s") from None
            raise
        self._keeping = [asyncio.create_task(kept.keep()) for kept in (self.auth, self.gatekeeper)]
        return self

    async def __aexit__(self, *_: object) -> None:
        """End both."""
        await self._stop()

    async def wait(self) -> None:
        """Wait for ever, while both are kept running."""
        await asyncio.gather(*self._keeping)

    async def ready(self) -> None:
        """Wait until both answer, as after one of them was started again."""
        await self._answering(_ask_auth)
        await self._answering(_ask_gatekeeper)

    async def _stop(self) -> None:
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        await self.gatekeeper.stop()
        await self.auth.stop()

    async def _start_auth(self) -> Child:
        self._stale = self._published()
        listen = [
            *("--data", str(self._data.path)),
            *("--join-listen", f"{self._host}:{self._ports.join}"),
            *("--listen", f"{self._host}:{self._ports.auth}"),
            *("--gatekeeper", f"{self._advertise}:{self._ports.gatekeeper}"),
            *("--advertise", self._advertise),
        ]
        return await Child.start("services.auth", [*listen, *self._auth_options])

    async def _start_gatekeeper(self) -> Child:
        listen = [
            *("--auth", f"{self._advertise}:{self._ports.join}"),
            *("--token-file", "-"),
            *("--listen", f"{self._host}:{self._ports.gatekeeper}"),
            *("--decisions", str(self._data.path / DECISIONS)),
        ]
        token = await self._mint()
        options = [*listen, *self._gatekeeper_options]
        return await Child.start("services.gatekeeper", options, token, next_prometheus())

    async def _mint(self) -> str:
        told = False
        while True:
            try:
                async with operator(self._data, PATIENCE) as connected:
                    request = auth_pb2.CreateTokenRequest(service=GATEKEEPER.text)
                    return (await connected.auth.CreateToken(request, timeout=PATIENCE)).token
            except (CliError, MeshError, grpc.aio.AioRpcError) as error:
                if not told:
                    log.warning(
                        "waiting for a token for %s: %s", GATEKEEPER, getattr(error, "message", error)
                    )
                    told = True
                await asyncio.sleep(PAUSE)

    async def _answering(self, ask: Callable[[Operator], Awaitable[object]]) -> None:
        # What a run before this one has published says nothing about this one.
        while self._published() == self._stale:  # noqa: ASYNC110  a file tells nobody when it changes
            await asyncio.sleep(LOOK)
        while True:
            try:
                async with operator(self._data, PATIENCE) as connected:
                    return await _answered(connected, ask)
            except CliError:
                await asyncio.sleep(LOOK)

    def _published(self) -> object:
        try:
            found = (self._data.path / ADDRESSES).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns


async def _answered(connected: Operator, ask: Callable[[Operator], Awaitable[object]]) -> None:
    while True:
        try:
            await ask(connected)
        except grpc.aio.AioRpcError:
            await asyncio.sleep(LOOK)
        else:
            return


async def _ask_auth(connected: Operator) -> object:
    return await connected.auth.GetAuthStatus(auth_pb2.GetAuthStatusRequest(), timeout=PATIENCE)


async def _ask_gatekeeper(connected: Operator) -> object:
    return await connected.gatekeeper.ListNodes(gatekeeper_pb2.ListNodesRequest(), timeout=PATIENCE)
