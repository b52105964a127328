"""Hedged calls: attempts beside one another, of which the first that answers is the call.

An attempt that ends with what may pass is no answer while others may still give one. The others are
cancelled, and nothing of theirs reaches the application.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, TypeVar

from mesh.core.errors import PeerError
from mesh.core.metadata import Entries
from mesh.core.repeats import Hedges, answers
from mesh.core.seal import CallSeal
from mesh.core.traffic import Route
from mesh.rpc.caller import CANCELLED, Caller, CallSpec
from mesh.rpc.exchange import Exchange
from mesh.rpc.faults import disturb
from mesh.rpc.held import MAX_HELD
from mesh.rpc.observing import Calling
from mesh.rpc.repeating import ended, may_pass, unary
from mesh.rpc.routing import Plan
from mesh.rpc.status import CallFailedError, Outcome

_T = TypeVar("_T")

_BARE: Final = Route(())


async def routed(caller: Caller, spec: CallSpec, payload: bytes, plan: Plan) -> tuple[Outcome, bytes]:
    """Make a call of one message each way as its route says, and give its end and its reply."""
    if plan.route.hedge is None or len(payload) > MAX_HELD:
        return await unary(caller, spec, payload, plan)

    async def attempt(one: CallSpec) -> tuple[Outcome, bytes]:
        try:
            return await caller.unary(one, payload)
        except CallFailedError as failed:
            return failed.outcome, b""

    await disturb(spec)
    return await _race(spec, Hedges(plan.route.hedge, plan.budget), attempt, lambda made: made[0])


def exchange(caller: Caller, spec: CallSpec, only: bytes | None = None) -> Exchange | HedgedExchange:
    """Give a call with streams, or one of bytes: hedged if its route says so and it has one request."""
    hedge = spec.plan.route.hedge if spec.plan is not None else None
    if spec.plan is None or hedge is None or only is None or len(only) > MAX_HELD:
        return Exchange(caller, spec, only)
    return HedgedExchange(caller, spec, only, Hedges(hedge, spec.plan.budget))


class HedgedExchange:
    """A call of one request, as ``Exchange``: the first attempt of which a reply begins is the call."""

    def __init__(self, caller: Caller, spec: CallSpec, only: bytes, hedges: Hedges) -> None:
        """Prepare; nothing is sent before ``start``."""
        self._caller, self._spec, self._only, self._hedges = caller, spec, only, hedges
        self._won: Exchange | None = None
        self._racing: asyncio.Task[Exchange] | None = None
        self.closed = True
        self.initial: asyncio.Future[Entries] = asyncio.get_running_loop().create_future()
        self.outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.started = asyncio.Event()

    async def start(self) -> None:
        """Make attempts until a reply begins, or none will. Failure is an outcome, never an exception."""
        try:
            await disturb(self._spec)
            if not self.outcome.done():
                self._racing = asyncio.ensure_future(
                    _race(self._spec, self._hedges, self._attempt, _outcome_of, Exchange.cancel)
                )
                self._take(await self._racing)
        except CallFailedError as failed:
            self._finish(failed.outcome)
        except asyncio.CancelledError:
            if not self.outcome.done():
                self.cancel()
                raise
        finally:
            self.started.set()

    async def send(self, _payload: bytes, *, last: bool = False) -> bool:  # noqa: ARG002
        """Say that nothing more can be sent: there is one request."""
        return False

    async def close(self) -> None:
        """Do nothing: the requests have ended."""

    async def receive(self) -> bytes | None:
        """Give the next message, or ``None`` once ``outcome`` is there."""
        message = await self._won.receive() if self._won is not None else None
        if message is None and self._won is not None:
            self._finish(await self._won.settled())
        return message

    async def settled(self) -> Outcome:
        """Wait for the end and give it. Whoever wants messages has to read them meanwhile."""
        await self.started.wait()
        if self._won is not None:
            self._finish(await self._won.settled())
        return self.outcome.result()

    async def initial_sealed(self) -> bool:
        """Whether the reply's initial metadata is sealed by itself, and so there now."""
        return self._won is not None and await self._won.initial_sealed() and self._began()

    async def initial_metadata(self) -> Entries:
        """Wait for the reply's initial metadata, verified, and give the application's part."""
        await self.started.wait()
        if self._won is not None:
            return await self._won.initial_metadata()
        return self.outcome.result().initial

    def cancel(self) -> bool:
        """Cancel the call. False if it had ended."""
        if self.outcome.done():
            return False
        self.abandon(CANCELLED)
        return True

    def abandon(self, outcome: Outcome) -> None:
        """End the call on this side, with an outcome of our own."""
        self._finish(outcome)
        if self._won is not None:
            self._won.abandon(outcome)
        elif self._racing is not None:
            self._racing.cancel()

    async def _attempt(self, spec: CallSpec) -> Exchange:
        made = Exchange(self._caller, spec, self._only)
        try:
            await made.start()
            await made.began()
        except asyncio.CancelledError:
            made.cancel()
            raise
        return made

    def _take(self, won: Exchange) -> None:
        self._won = won
        won.outcome.add_done_callback(lambda done: self._finish(done.result()))
        self._began()

    def _began(self) -> bool:
        if self._won is not None and self._won.initial.done() and not self.initial.done():
            self.initial.set_result(self._won.initial.result())
        return self.initial.done()

    def _finish(self, outcome: Outcome) -> None:
        self.started.set()
        if not self.outcome.done():
            self.outcome.set_result(outcome)
            self._spec.watched.ended(outcome)


class _Part:
    """One attempt among several, as ``Calling``: its end is not the call's."""

    def __init__(self, whole: Calling, *, hedge: bool) -> None:
        self._whole, self._hedge, self.entries = whole, hedge, whole.entries

    def attempt(self, address: str, sealed: bytes, seal: CallSeal, *, hedge: bool = False) -> None:
        self._whole.attempt(address, sealed, seal, hedge=self._hedge or hedge)
        self._hedge = False  # what is made again for a refusal is no further hedge

    def disturbed(self, fault: str) -> None:
        self._whole.disturbed(fault)

    def refused(self, why: PeerError, call_id: str) -> None:
        self._whole.refused(why, call_id)

    def ended(self, outcome: Outcome) -> None:
        pass


def _outcome_of(made: Exchange) -> Outcome | None:
    return made.outcome.result() if made.outcome.done() else None


async def _race(
    spec: CallSpec,
    hedges: Hedges,
    attempt: Callable[[CallSpec], Coroutine[Any, Any, _T]],
    outcome_of: Callable[[_T], Outcome | None],
    drop: Callable[[_T], object] = lambda _: None,
) -> _T:
    """Give what the first attempt that answers gives; without one, the last that failed."""
    loop = asyncio.get_running_loop()
    running: list[asyncio.Task[_T]] = []

    def begin(*, hedge: bool) -> float:
        assert spec.plan is not None
        part = replace(spec, plan=Plan(_BARE, spec.plan.budget), watched=_Part(spec.watched, hedge=hedge))
        running.append(loop.create_task(attempt(part)))
        return loop.time() + hedges.after_ms / 1000

    due = begin(hedge=False)
    try:
        while True:
            done = await _some(running, due if hedges.open else None)
            for task in done:
                running.remove(task)
                made = task.result()
                outcome = outcome_of(made)
                if outcome is None or outcome.ok or not may_pass(outcome) or answers(ended(outcome)):
                    return made
                left = math.inf if spec.deadline is None else spec.deadline - loop.time()
                due = loop.time() + hedges.wait(ended(outcome), left * 1000) / 1000
            if hedges.open and loop.time() >= due and hedges.more(loop.time()):
                due = begin(hedge=True)
            elif not running and not hedges.open:
                return made
    finally:
        await _let_go(running, drop)


async def _some(running: list[asyncio.Task[_T]], due: float | None) -> list[asyncio.Task[_T]]:
    # Those that have ended, in their order, as soon as one has, or it is time for another.
    wait = None if due is None else max(0.0, due - asyncio.get_running_loop().time())
    if not running:
        await asyncio.sleep(wait or 0)
        return []
    await asyncio.wait(running, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
    return [task for task in running if task.done()]


async def _let_go(running: list[asyncio.Task[_T]], drop: Callable[[_T], object]) -> None:
    for task in running:
        task.cancel()
    for made in await asyncio.gather(*running, return_exceptions=True):
        if not isinstance(made, BaseException):
            drop(made)
