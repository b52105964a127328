"""A script that answers calls, whoever brings them: workers, rules, and what comes of each call.

It knows the service's bundle and how it reaches others; it knows no network and no identity of its own. Calls
come in with ``unary`` and ``stream``, checked and bounded on their way to a worker and on their way back.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

import grpc
from opentelemetry.trace import SpanKind

from mesh.core.names import FullMethod
from mesh.telemetry.names import LUA_RUN, SERVICE
from mesh.telemetry.spans import Tracing
from mesh.v1 import lua_pb2
from services.lua_host.budget import Budget
from services.lua_host.bundle import Bundle
from services.lua_host.checked import Checker
from services.lua_host.outside import Outside, Refused
from services.lua_host.plain import plain
from services.lua_host.pool import BusyError, Pool
from services.lua_host.rules import Asked, Method, Rules
from services.lua_host.turns import LOAD, FaultError, Turn
from services.lua_host.worker import Cell, UnfitError, Worker

log = logging.getLogger("mesh.lua")

_C = grpc.StatusCode
_LEVELS: Final = {
    lua_pb2.Log.LEVEL_DEBUG: logging.DEBUG,
    lua_pb2.Log.LEVEL_INFO: logging.INFO,
    lua_pb2.Log.LEVEL_WARNING: logging.WARNING,
    lua_pb2.Log.LEVEL_ERROR: logging.ERROR,
}
#: Messages of streams that may pass for each call that may be made.
MESSAGES_PER_CALL: Final = 10
#: Problems of a script that are told.
MAX_PROBLEMS: Final = 100
Said = Callable[[int, str], None]


class LuaService:
    """One script on its workers. ``start`` it, and ``close`` it."""

    def __init__(
        self, bundle: Bundle, outside: Outside, *, jailed: bool = True, said: Said | None = None
    ) -> None:
        """Take the bundle, the way to others, and who hears the script's log lines (the logging module)."""
        manifest, limits = bundle.manifest, bundle.manifest.limits
        self.name = manifest.name.text
        self._said = said or self._log
        now = asyncio.get_running_loop().time()
        self._lines = Budget(limits.logs_per_second, limits.logs_per_second, now)
        self._rules = Rules(
            name=self.name,
            served=_served(bundle),
            grants=_grants(bundle),
            seconds=limits.deadline,
            kept=manifest.kept,
            calls_per_request=limits.calls_per_request,
            calls=Budget(limits.calls_per_second, limits.calls_per_second, now),
            messages=Budget(*2 * (MESSAGES_PER_CALL * limits.calls_per_second,), now),
            outside=outside,
        )
        self._cell = Cell(limits.memory, limits.message, jailed=jailed)
        self._start = start_of(bundle)
        self._pool = Pool(self.name, self._spawn, limits.workers, limits.calls_per_worker)
        self.tracing = Tracing()
        self._keeping: asyncio.Task[None] | None = None
        self._finishing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start the first worker, and keep others ready; raise what ``pool.FAILURES`` lists."""
        await self._pool.fill()
        self._keeping = asyncio.create_task(self._pool.keep())

    async def close(self) -> None:
        """End all workers."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        await self._pool.close()
        await asyncio.gather(*self._finishing, return_exceptions=True)

    @property
    def kills(self) -> int:
        """How many of its workers were ended by force."""
        return self._pool.kills

    def serves(self, method: str) -> Method | None:
        """Give a method that it serves."""
        return self._rules.served.get(method)

    async def unary(self, asked: Asked) -> bytes:
        """Answer a call with one reply; raise ``Refused``."""
        async with self._turn(asked) as turn:
            reply = await turn.reply()
            assert reply is not None, "a call with one reply has one"
            return reply

    async def stream(self, asked: Asked) -> AsyncGenerator[bytes]:
        """Answer a call with many replies; raise ``Refused``."""
        async with self._turn(asked) as turn:
            while (reply := await turn.reply()) is not None:
                yield reply

    @asynccontextmanager
    async def _turn(self, asked: Asked) -> AsyncIterator[Turn]:
        worker = await self._worker(asked)
        finishing: list[asyncio.Task[None]] = []

        def finish() -> None:
            # The caller does not wait until the worker is in order; one that is gone does not end it.
            if not finishing:
                finishing.append(asyncio.ensure_future(self._finish(turn)))
                self._finishing.update(finishing)
                finishing[0].add_done_callback(self._finishing.discard)

        span, entries = self.tracing.call(
            LUA_RUN, asked.metadata, lambda: {SERVICE: self.name}, SpanKind.INTERNAL
        )
        turn = Turn(self._rules, worker, replace(asked, metadata=entries), finish)
        try:
            turn.begin()
            yield turn
        except FaultError as fault:
            raise self._broken(asked.method, fault, worker) from None
        finally:
            finish()
            if span is not None:
                span.end()

    async def _worker(self, asked: Asked) -> Worker:
        end = asyncio.get_running_loop().time() + self._rules.seconds
        try:
            async with asyncio.timeout_at(end if asked.deadline is None else min(end, asked.deadline)):
                return await self._pool.take()
        except BusyError:
            raise Refused(_C.RESOURCE_EXHAUSTED, f"{self.name} is busy: try again later") from None
        except TimeoutError:
            raise Refused(
                _C.UNAVAILABLE, f"{self.name} had no worker free in time: try again later"
            ) from None

    async def _finish(self, turn: Turn) -> None:
        worker = turn.worker
        try:
            await turn.finish()
        finally:
            worker.worn = not worker.come_back() and not self._rules.kept
            self._pool.give_back(worker)

    def _broken(self, method: FullMethod, fault: FaultError, worker: Worker) -> Refused:
        if not self._lines.spend(asyncio.get_running_loop().time()):
            log.error("%s: %s failed in worker %d: %s", self.name, method, worker.pid, plain(str(fault)))
        if fault.out_of_memory:
            worker.spent = not self._rules.kept  # its state is whole, and perhaps smaller again
            return Refused(_C.RESOURCE_EXHAUSTED, "the script ran out of memory")
        return Refused(_C.UNKNOWN, "the script failed: see the service's log")

    async def _spawn(self) -> Worker:
        worker = await Worker.spawn(self._cell, self._hear)
        try:
            said = await worker.load(self._start, LOAD)
        except BaseException:
            await worker.close()
            raise
        if isinstance(said, lua_pb2.Ready):
            return worker
        await worker.close()
        raise UnfitError([(problem.line, plain(problem.text)) for problem in said.problems[:MAX_PROBLEMS]])

    async def _hear(self, line: lua_pb2.Log) -> None:
        if pause := self._lines.spend(asyncio.get_running_loop().time()):
            await asyncio.sleep(pause)
        self._said(_LEVELS.get(line.level, logging.INFO), plain(line.text))

    def _log(self, level: int, text: str) -> None:
        logging.getLogger(f"mesh.lua.{self.name}").log(level, "%s", text)


def start_of(bundle: Bundle, *, check_only: bool = False) -> lua_pb2.Start:
    """Give what a worker of a service is started with."""
    manifest = bundle.manifest
    return lua_pb2.Start(
        script_name=manifest.script,
        script=bundle.script,
        descriptors=bundle.protos.raw,
        allow=manifest.allow,
        serves=manifest.serves,
        calls=[
            lua_pb2.Grant(service=grant.service.text, methods=[method.text for method in grant.methods])
            for grant in manifest.calls
        ],
        kept=manifest.kept,
        max_depth=manifest.limits.depth,
        max_message=manifest.limits.message,
        check_only=check_only,
        seed=secrets.randbits(63),
    )


def _method(bundle: Bundle, name: FullMethod) -> Method:
    found, limits = bundle.protos.methods[name.text], bundle.manifest.limits
    request, reply = (Checker(kind, limits.message, limits.depth) for kind in (found.input, found.output))
    return Method(name, found.server_streaming, request, reply)


def _served(bundle: Bundle) -> dict[str, Method]:
    names = [name for name, found in bundle.protos.methods.items() if found.service in bundle.manifest.serves]
    return {name: _method(bundle, FullMethod(name)) for name in names}


def _grants(bundle: Bundle) -> dict[tuple[str, str], Method]:
    return {
        (grant.service.text, method.text): _method(bundle, method)
        for grant in bundle.manifest.calls
        for method in grant.methods
    }
