"""Calls made again, as their routes say; what is decided is decided in ``mesh.core.repeats``.

``Tries`` is for calls with streams (``exchange``), ``unary`` for those of one message each way.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import grpc

from mesh.core.errors import Reason
from mesh.core.repeats import Ended, Repeats
from mesh.core.traffic import Retry
from mesh.rpc.caller import Caller, CallSpec
from mesh.rpc.faults import disturb
from mesh.rpc.held import MAX_HELD
from mesh.rpc.routing import Plan
from mesh.rpc.status import CallFailedError, Outcome, mesh_info

OVERTIME: Final = Outcome(
    grpc.StatusCode.DEADLINE_EXCEEDED, "no attempt was answered within the time that policy gives each"
)


class Tries:
    """The attempts of a call with streams, one after the other, as its route says."""

    def __init__(self, spec: CallSpec) -> None:
        """Begin with the first."""
        retry = spec.plan.route.retry if spec.plan is not None else None
        self._spec, self._limit = spec, None if retry is None else retry.per_try_ms / 1000
        self._repeats = Repeats(retry, spec.plan.budget) if spec.plan is not None and retry else None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def more(self) -> bool:
        """Whether there may be more than one."""
        return self._repeats is not None

    def begun(self, give_up: Callable[[], None]) -> None:
        """Have an attempt that has begun given up when it has taken too long."""
        if self._limit:
            self.over()
            self._timer = asyncio.get_running_loop().call_later(self._limit, give_up)

    def over(self) -> None:
        """Give up nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    async def again(
        self,
        outcome: Outcome,
        make: Callable[[], Awaitable[None]],
        may: Callable[[], bool],
        *,
        overtime: bool,
    ) -> Outcome | None:
        """Make the call again; ``None`` once it is made, else the outcome that is its end.

        ``make`` makes it, or raises ``CallFailedError``; ``may``: whether nothing of a reply has come.
        """
        while self._repeats is not None and may():
            pause = pause_before(self._repeats, self._spec, outcome, overtime=overtime)
            if pause is None:
                return outcome
            await asyncio.sleep(pause)
            try:
                await make()
            except CallFailedError as failed:
                outcome, overtime = failed.outcome, False
            else:
                return None
        return outcome


async def unary(caller: Caller, spec: CallSpec, payload: bytes, plan: Plan) -> tuple[Outcome, bytes]:
    """Make the call, and give its end and its reply; raise ``CallFailedError`` as ``Caller.unary`` does."""
    await disturb(spec)
    retry = plan.route.retry
    if retry is None or len(payload) > MAX_HELD:
        return await caller.unary(spec, payload)
    repeats = Repeats(retry, plan.budget)
    while True:
        outcome, reply, overtime = await _tried(caller, spec, payload, retry)
        pause = pause_before(repeats, spec, outcome, overtime=overtime)
        if pause is None:
            return outcome, reply
        await asyncio.sleep(pause)


def pause_before(
    repeats: Repeats, spec: CallSpec, outcome: Outcome, *, overtime: bool = False
) -> float | None:
    """Give the seconds to wait before a call is made again; ``None`` if that outcome is its end."""
    if outcome.ok or not may_pass(outcome):
        return None
    now = asyncio.get_running_loop().time()
    left = math.inf if spec.deadline is None else spec.deadline - now
    chance = random.random()  # noqa: S311  no secret
    pause = repeats.pause(ended(outcome, overtime=overtime), left * 1000, now, chance)
    return None if pause is None else pause / 1000


def may_pass(outcome: Outcome) -> bool:
    """Whether it is none that this node makes itself, as policy says: a limit, or a fault on purpose."""
    return mesh_info(outcome.trailing)[0] not in (Reason.OVERLOADED, Reason.FAULT)


def ended(outcome: Outcome, *, overtime: bool = False) -> Ended:
    """Give how an attempt ended, for the core to judge."""
    return Ended(outcome.code.name, outcome.pushback, overtime)


async def _tried(caller: Caller, spec: CallSpec, payload: bytes, retry: Retry) -> tuple[Outcome, bytes, bool]:
    one = _limited(spec, retry)
    try:
        outcome, reply = await caller.unary(one, payload)
    except CallFailedError as failed:
        outcome, reply = failed.outcome, b""
    if one is not spec and outcome.code is grpc.StatusCode.DEADLINE_EXCEEDED and one.late():
        return OVERTIME, b"", True
    return outcome, reply, False


def _limited(spec: CallSpec, retry: Retry) -> CallSpec:
    if not retry.per_try_ms:
        return spec
    until = asyncio.get_running_loop().time() + retry.per_try_ms / 1000
    return spec if spec.deadline is not None and spec.deadline <= until else replace(spec, deadline=until)
