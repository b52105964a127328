"""One call, answered by a worker: its replies out, the script's own calls (``errands``) in between.

Whoever serves the call takes its replies with ``reply`` until there are no more, and then, or whenever it has
lost interest, lets ``finish`` see the worker through to where it is ready for the next call. The time of a
call is kept here, by the host's clock. A worker that says what it cannot mean is not corrected but ended.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Final

import grpc

from mesh.v1 import lua_pb2
from services.lua_host.checked import BadMessageError
from services.lua_host.errands import Errands, failed, proper
from services.lua_host.outside import Refused
from services.lua_host.protocol import State, ViolationError, WorkerFrame
from services.lua_host.rules import Asked, Method, Rules
from services.lua_host.wire import WorkerGoneError
from services.lua_host.worker import GREEDY, ImpatientError, TimedOutError, Worker

#: Seconds that a script may take to get ready, at first and after each call.
LOAD: Final = 5.0
#: A call with less time than this is not worth a worker's life: it is seen through for so many seconds.
SHORTEST: Final = 0.05
#: Seconds in which a script may come to an end that was waiting for something when its time was over, and for
#: which a call is seen through after its caller's patience has ended.
GRACE: Final = 0.25
#: Characters of an error that a caller is told.
MAX_MESSAGE: Final = 4096

_C = grpc.StatusCode
_BY_NUMBER: Final = {code.value[0]: code for code in _C if code is not _C.OK}


class FaultError(Exception):
    """The script broke. ``str`` of it is for its operator only."""

    def __init__(self, text: str, *, out_of_memory: bool) -> None:
        """Take what the script's error says, and whether memory was what it lacked."""
        super().__init__(text)
        self.out_of_memory = out_of_memory


class Turn:
    """One call on one worker. ``begin`` it, take every ``reply``, and ``finish`` it in any case."""

    def __init__(self, rules: Rules, worker: Worker, asked: Asked, abandoned: Callable[[], None]) -> None:
        """Take the service's rules, a worker that is ready, and a call of a method that is served.

        ``abandoned`` is called when the call is over before its caller has taken all: ``finish`` is due.
        """
        self.worker: Final = worker
        self._rules, self._asked = rules, asked
        self._method: Final[Method] = rules.served[asked.method.text]
        self._began = asyncio.get_running_loop().time()
        limit = self._began + rules.seconds
        self._limit = limit
        self._deadline = limit if asked.deadline is None else min(limit, asked.deadline)
        # A caller with little patience must not wipe out what a service keeps, nor cost it its workers.
        patience = max(self._deadline, self._began + SHORTEST) + GRACE
        self._end: Final = limit if rules.kept else min(limit, patience)
        self._errands = Errands(rules, asked, self._deadline)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._abandoned = abandoned
        self._sending = False
        self._over = False
        self._computed = 0.0

    def begin(self) -> None:
        """Ask the worker; raise ``Refused`` for a request that is none."""
        try:
            payload = self._method.request.clean(self._asked.payload)
        except BadMessageError as error:
            raise Refused(_C.INVALID_ARGUMENT, f"request of {self._method.name}: {error}") from None
        loop = asyncio.get_running_loop()
        self._timers["end"] = loop.call_at(self._end, self._overdue)
        self._timers["look"] = loop.call_later(GREEDY, self._look)
        self.worker.ask(self._request(payload), streaming=self._method.streaming)

    def _request(self, payload: bytes) -> lua_pb2.Request:
        asked = self._asked
        return lua_pb2.Request(
            method=self._method.name.text,
            payload=payload,
            identity=asked.identity,
            service=asked.service,
            instance=asked.instance,
            metadata=[
                lua_pb2.Metadatum(key=key, value=value.encode() if isinstance(value, str) else value)
                for key, value in asked.metadata
            ],
            remaining_ms=max(0, int((self._deadline - self._began) * 1000)),
            now_ms=asked.now_ms,
            seed=secrets.randbits(63),
            next_seed=secrets.randbits(63),
        )

    def _overdue(self) -> None:
        """End the worker if it computes; if it waits for us, have it told, and give it a moment."""
        if self.worker.turns.state is not State.WAITING:
            return self._kill()
        self._timers["end"] = asyncio.get_running_loop().call_later(GRACE, self._kill)
        if self._sending:
            # It waits for a caller that does not read on.
            self._over = True
            self._abandoned()
        return None

    def _kill(self) -> None:
        what = f"{self._method.name} took longer than it may"
        self.worker.kill(TimedOutError(what) if self._end == self._limit else ImpatientError(what))

    def _look(self) -> None:
        """Have the worker give way to others if it has computed for long."""
        loop = asyncio.get_running_loop()
        computing = self.worker.turns.state is not State.WAITING
        left = GREEDY - self._computed - (loop.time() - self._began if computing else 0.0)
        if left <= 0:
            self.worker.give_way()
        else:
            self._timers["look"] = loop.call_later(left, self._look)

    async def reply(self) -> bytes | None:
        """Give the next reply message, ``None`` after the last.

        Raises ``Refused`` for any other end, and ``FaultError`` if the script broke.
        """
        if self._over:
            raise Refused(_C.DEADLINE_EXCEEDED, "the reply was not read in its time")
        try:
            if self._sending:
                self._sending = False
                self._answer(lua_pb2.Result(done=True))
            return await self._reply()
        except TimedOutError:
            raise Refused(_C.DEADLINE_EXCEEDED, "the script did not answer in its time") from None
        except WorkerGoneError:
            raise Refused(_C.INTERNAL, "the script's worker was lost: see the service's log") from None
        except ViolationError as error:
            self.worker.kill(error)
            raise Refused(_C.INTERNAL, "the script's worker was ended: see the service's log") from None

    async def _reply(self) -> bytes | None:
        while True:
            frame = await self._heard()
            kind = frame.WhichOneof("kind")
            if kind == "reply":
                return self._last(frame.reply)
            if kind == "item":
                self._sending = True
                await self._errands.slowed(frame)
                return proper(self._method.reply, frame.item.payload)
            self._answer(await self._errands.run(frame))

    async def _heard(self) -> WorkerFrame:
        frame = await self.worker.receive()
        self._computed += asyncio.get_running_loop().time() - self._began
        return frame

    def _last(self, reply: lua_pb2.Reply) -> bytes | None:
        kind = reply.WhichOneof("kind")
        if kind == "payload":
            return proper(self._method.reply, reply.payload)
        if kind == "done":
            return None
        if kind == "fault":
            raise FaultError(reply.fault.text, out_of_memory=reply.fault.out_of_memory)
        code = _BY_NUMBER.get(reply.failure.code)
        if code is None:
            raise ViolationError(f"{reply.failure.code} for a status")
        raise Refused(code, reply.failure.message[:MAX_MESSAGE])

    def _answer(self, result: lua_pb2.Result) -> None:
        self._began = asyncio.get_running_loop().time()
        self.worker.answer(result)

    async def finish(self) -> None:
        """See the worker through to where it is ready, or to its end. To be called once, after all else."""
        try:
            await self._wind_down()
            self._stop_timers()
            if self.worker.turns.state is State.LOADING:
                said = await self.worker.settled(LOAD)
                if isinstance(said, lua_pb2.Report):
                    self.worker.kill(ViolationError("the script did not load again"))
        except (WorkerGoneError, ViolationError):
            return  # the worker keeps why
        finally:
            self._stop_timers()
            await self._errands.close()

    async def _wind_down(self) -> None:
        """Answer whatever a script still asks for, though nobody waits for what it is about."""
        turns = self.worker.turns
        while turns.state not in {State.LOADING, State.IDLE}:
            if turns.state is State.WAITING:
                self._answer(failed(Refused(_C.CANCELLED, "nobody waits for this call any more")))
            frame = await self._heard()
            if turns.state is State.WAITING:
                await self._errands.slowed(frame)

    def _stop_timers(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
