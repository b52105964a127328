"""What an attack is, and how it is judged.

An attack is stopped when the one who made the call, or the attacker, got an error and no result; when the
node that should have stopped it gave the reason that should have stopped it; and when the application
attacked was reached exactly as often as honest calls reached it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

from examples.shop.refusal import reason_of
from mesh.core.errors import Cause, Reason

if TYPE_CHECKING:
    from examples.shop.demo.stage import Stage

#: Longest that a call of the demo may take, in seconds.
TIMEOUT = 5.0


@dataclass(frozen=True, slots=True)
class Seen:
    """How a call ended for the one who made it: an error, or a result."""

    code: grpc.StatusCode
    reason: str = ""
    details: str = ""
    result: object = None

    def __str__(self) -> str:
        """Give it as one line."""
        if self.code is grpc.StatusCode.OK:
            return f"OK: {self.result}".replace("\n", " ").strip()
        return self.reason.removeprefix("mesh/") or self.code.name


async def seen(call: Awaitable[Any]) -> Seen:
    """Wait for a call and say how it ended."""
    try:
        return Seen(grpc.StatusCode.OK, result=await call)
    except grpc.aio.AioRpcError as error:
        return Seen(error.code(), reason_of(error), error.details() or "")


@dataclass(frozen=True, slots=True)
class Stop:
    """Which node stops an attack, and why, also in words.

    A ``Cause`` is what that node told its operator; a ``Reason`` or a gRPC status is what it told the caller.
    """

    node: str
    why: Cause | Reason | grpc.StatusCode
    words: str

    def __str__(self) -> str:
        """Say it for the table."""
        return f"{self.node}: {self.words}"


@dataclass(frozen=True, slots=True)
class Reached:
    """How many calls came to payments' application, and how much it booked."""

    calls: int
    bookings: int

    def __sub__(self, other: Reached) -> Reached:
        """Give what came in between."""
        return Reached(self.calls - other.calls, self.bookings - other.bookings)


#: What honest calls alone come to: none at all; one that books; one that books nothing, for it only asks or
#: did not come to its end.
NOTHING, BOOKED, UNBOOKED = Reached(0, 0), Reached(1, 1), Reached(1, 0)

Run: TypeAlias = Callable[["Stage"], Awaitable[Seen]]


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack: what is tried, how, what should stop it, and what may reach payments meanwhile."""

    name: str
    run: Run
    stop: Stop
    reached: Reached = NOTHING
    jailed: bool = False
    """Whether it takes a Lua service."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How an attack went."""

    attack: Attack
    seen: Seen
    reached: Reached
    stopped_there: bool

    @property
    def stopped(self) -> bool:
        """Whether it failed, and for the reason it should."""
        return not self.fault

    @property
    def fault(self) -> str:
        """Say what is wrong with how it went; nothing if it was stopped."""
        if self.seen.code is grpc.StatusCode.OK:
            return f"got through: {self.seen}"
        if self.reached != self.attack.reached:
            return f"reached payments: {self.reached}"
        if not self.stopped_there:
            return f"failed for another reason: {self.seen} {self.seen.details}"
        return ""


async def judge(stage: Stage, attack: Attack) -> Verdict:
    """Carry out an attack and say how it went."""
    stage.rejections.clear()
    before = stage.reached()
    try:
        ended = await attack.run(stage)
    except Exception as error:  # noqa: BLE001  an attack that breaks proves nothing: it is not stopped
        ended = Seen(grpc.StatusCode.UNKNOWN, details=f"the attack itself broke: {error!r}")
        return Verdict(attack, ended, stage.reached() - before, stopped_there=False)
    return Verdict(attack, ended, stage.reached() - before, _stopped_there(stage, attack.stop, ended))


def _stopped_there(stage: Stage, stop: Stop, ended: Seen) -> bool:
    if isinstance(stop.why, Cause):
        return (stop.node, stop.why) in stage.rejections
    if isinstance(stop.why, Reason):
        return ended.reason == f"mesh/{stop.why}"
    return ended.code is stop.why
