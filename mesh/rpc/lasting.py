"""A ``grpc.aio`` server that goes on listening when gRPC's own serving loop has ended.

One request whose path is not UTF-8 ends that loop for good (grpcio 1.85: ``AioServer._server_main_loop``
decodes it unguarded), so whoever can connect could silence a node. Here a successor listens on the same
address before the old listener closes. Calls in progress stay with the old server, which is ended when the
last of them is. For two listeners at a time the port is shared, with none but ourselves (``guard``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias

import grpc

from mesh.rpc.guard import Guard
from mesh.rpc.warden import Warden

log = logging.getLogger("mesh")

#: Options of every server that lasts. Who connects and then says nothing is hung up on after 10 s, not 120;
#: who does not answer a ping, after 80 s; who makes no call, after a quarter of an hour. One connection's
#: requests are read four at a time, not 32, before others have their turn. Pings are only answered: to count
#: them costs gRPC up to 150 us each, where their sender does not read; the warden counts them as bytes.
#: A thousand calls that were not begun are a second's work, and more are turned away, for those of who was
#: hung up on wait among them: gRPC would take three thousand, some of them.
OPTIONS: Final = (
    ("grpc.so_reuseport", 1),
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.max_connection_idle_ms", 900_000),
    ("grpc.max_allowed_incoming_connections", 16_384),
    ("grpc.http2.max_requests_per_read", 4),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.server.max_pending_requests_hard_limit", 1000),
)

#: Gives a server with those options that is bound to an address, not started, and its port. Raises
#: ``OSError`` if it cannot, as long as a unix socket's file exists: its listener removes it when it closes.
Make: TypeAlias = Callable[[str], tuple[grpc.aio.Server, int]]

#: Seconds between attempts to listen again, where it has to wait: for a unix socket's old listener to close.
RETRY: Final = 0.02
#: Seconds without a line in the log after one.
QUIET: Final = 10.0
#: Seconds that calls in progress have: as long as they like.
_FOREVER: Final = 365 * 86400.0
#: What gRPC names the coroutine whose end is the end of its serving, and what it calls back then.
_LOOP: Final = "_server_main_loop"
_CRASH: Final = "_serving_task_crash_handler"


class LastingServer:
    """Serves at one address until it is stopped."""

    def __init__(self, make: Make, address: str) -> None:
        """Bind at once; raise ``OSError`` if the address is in use, and what ``make`` raises."""
        self._guard = None if address.startswith("unix:") else Guard(address)
        self._make = make
        self._address = self._guard.address if self._guard else address
        self.warden = Warden(self._guard.port if self._guard else 0)
        """Hangs up on who is a nuisance. It wants to be told of calls that were taken, and refused."""
        self._watching: asyncio.Task[None] | None = None
        try:
            self._server, self.port = make(self._address)
        except BaseException:
            if self._guard is not None:
                self._guard.close()
            raise
        self._dead = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._successor: grpc.aio.Server | None = None
        self._old: set[asyncio.Task[None]] = set()
        self._ending: set[grpc.aio.Server] = set()
        self._stopped = asyncio.Event()
        self._stopping = False
        self._ends, self._quiet_until = 0, 0.0

    async def start(self) -> None:
        """Begin to take calls."""
        await self._begin()
        self._keeper = asyncio.create_task(self._keep())
        self._watching = asyncio.create_task(self.warden.keep())

    async def stop(self, grace: float | None) -> None:
        """Take no more calls; give those in progress ``grace`` seconds."""
        self._stopping = True
        self._dead.set()
        if self._keeper is not None:
            await asyncio.wait(
                (self._keeper,)
            )  # not cancelled: a server that is half started cannot be stopped
        await asyncio.gather(*(_stop(server, grace) for server in {self._server, *self._ending}))
        await asyncio.gather(*self._old)
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait((self._watching,))
        if self._guard is not None:
            self._guard.close()
        self._stopped.set()

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109  gRPC's own
        """Wait until the server was stopped; True if the time-out came first."""
        try:
            await asyncio.wait_for(self._stopped.wait(), timeout)
        except TimeoutError:
            return True
        return False

    async def _begin(self) -> None:
        before = asyncio.all_tasks()
        starting = asyncio.create_task(self._server.start())
        await asyncio.sleep(0)  # gRPC's loop is a task now that has not run yet, so it cannot have ended
        for task in asyncio.all_tasks() - before:
            if getattr(task.get_coro(), "__name__", "") == _LOOP:
                # It would log a traceback per bad request and close the listener before another listens.
                crash: Any = getattr(getattr(self._server, "_server", None), _CRASH, None)
                task.remove_done_callback(crash)
                task.add_done_callback(self._ended)
        await starting

    def _ended(self, serving: asyncio.Task[None]) -> None:
        # Not a step later: until its listener closes, calls come in that nobody will answer.
        if serving.cancelled() or serving.exception() is None or self._stopping:
            return
        with suppress(OSError):
            self._successor = self._make(self._address)[0]
        self._retire(self._server)
        self._dead.set()

    async def _keep(self) -> None:
        while not self._stopping:
            await self._dead.wait()
            self._dead.clear()
            while self._successor is None and not self._stopping:
                await asyncio.sleep(RETRY)
                with suppress(OSError):
                    self._successor = self._make(self._address)[0]
            if self._successor is not None:
                self._server, self._successor = self._successor, None
                await self._begin()
                self._tell()

    def _retire(self, old: grpc.aio.Server) -> None:
        self._ending.add(old)
        ending = asyncio.create_task(_stop(old, _FOREVER))
        self._old.add(ending)
        ending.add_done_callback(self._old.discard)
        ending.add_done_callback(lambda _: self._ending.discard(old))

    def _tell(self) -> None:
        self._ends += 1
        now = asyncio.get_running_loop().time()
        if now < self._quiet_until:
            return
        self._quiet_until = now + QUIET
        log.error("%s: requests that gRPC cannot take, so far %d: listening anew", self._address, self._ends)


async def _stop(server: grpc.aio.Server, grace: float | None) -> None:
    # The first attempt closes the listener, then raises what ended the loop; the second waits for the calls.
    with suppress(Exception):
        await server.stop(grace)
    await server.stop(grace)
