"""What a node denied, on its way to the audit log: to gatekeeper, and from there to auth.

A denial is answered once it is in the log, if the way there is open: ``written`` waits for that, for at most
``PATIENCE``, for at most ``WAITING`` calls at a time, and not at all while gatekeeper is known to be away.
What could not be sent yet is kept, within the bounds of a ``tally``: alike ones as one with a count, of each
caller so many different ones and exact counts of the rest. A call that the peer may repeat elsewhere (it was
sealed for an instance that is gone) is no denial and not reported.

What audit lets pass is told the same way, from a tally of its own, so that neither takes room from the other;
no call waits for it, and alike ones are told once in ``AGAIN``.

What is lost: if a node is killed, what it had not sent. If an answer of gatekeeper is lost, what was sent is
sent again, and stands in the log twice under the same call id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

import grpc

from mesh.core.errors import Cause
from mesh.core.matcher import Permit
from mesh.core.names import FullMethod, InstanceId, ServiceName
from mesh.core.receiver import Peer
from mesh.core.tally import Limits, Tally, Told
from mesh.pauses import backoff
from mesh.rpc.membership import Membership, Rejection
from mesh.rpc.waiting import within
from mesh.v1 import audit_pb2

log = logging.getLogger("mesh")

#: Seconds that a denied call waits for its place in the log, and how many do at a time.
PATIENCE: Final = 0.25
WAITING: Final = 64
#: Denials in one report, and seconds that it may take.
BATCH: Final = 64
TIMEOUT: Final = 5.0
#: Seconds between looks for counts that are due.
LOOK: Final = 1.0
#: Seconds that a node which leaves has for what it has left to tell.
LEAVE: Final = 1.0
#: Milliseconds for which what audit lets pass is not told again.
AGAIN: Final = 60_000
#: The cause of what is no denial yet: the policy is in audit.
AUDITED: Final = "audited"
#: Causes that are no denials: the caller finds the instance that took over, or the newer key.
_STALE: Final = (Cause.NOT_THIS_INSTANCE, Cause.UNKNOWN_EPOCH)


@dataclass(frozen=True, slots=True)
class Denial:
    """What was denied, to whom, by whom; times and counts are the tally's."""

    by: Peer
    source: str
    source_instance: str
    method: str
    rule: str
    cause: str

    def message(self, told: Told[Denial]) -> audit_pb2.Denial:
        """Give it as it is sent."""
        return audit_pb2.Denial(
            source=self.source,
            source_instance=bytes.fromhex(self.source_instance),
            method=self.method,
            rule=self.rule,
            cause=self.cause,
            call_id=told.id,
            count=told.count,
            first_ms=told.first_ms,
            last_ms=told.last_ms,
        )


Send: TypeAlias = Callable[[Sequence[Told[Denial]]], Awaitable[None]]
"""Sends denials; returns when they are in the log, raises ``grpc.aio.AioRpcError`` or ``OSError`` if not."""


class Reporter:
    """Tells what one node denies."""

    def __init__(self, membership: Membership, send: Send) -> None:
        """Take the node, and the way to the log."""
        self._membership, self._send = membership, send
        self.own = Peer(membership.name, membership.instance)
        self._tally = Tally[Denial]()
        self._audits = Tally[Denial](Limits(counts_every_ms=AGAIN, again_every_ms=AGAIN))
        self._noted = self._sent = self._waiting = 0
        self._away = False
        self._wake, self._moved = asyncio.Event(), asyncio.Event()
        membership.on_rejected(self._rejected)
        membership.written = self.written

    def audited(self, permit: Permit, by: Peer | None = None) -> None:
        """Take a call that audit alone let pass, to this node or to the one that asks about it."""
        if permit.audited is not None:
            rule = permit.audited.rule or ""
            audited = Denial(by or self.own, permit.source, "", permit.method, rule, AUDITED)
            self._note(self._audits, audited)

    def note(self, denial: Denial, call_id: str = "") -> None:
        """Take a denial."""
        if self._note(self._tally, denial, call_id):
            self._noted += 1
        self._wake.set()

    def _note(self, tally: Tally[Denial], denial: Denial, call_id: str = "") -> bool:
        now_ms = self._membership.clock.now_ms()
        # Who asks gatekeeper to judge may name whom it likes as the caller: that has no budget of its own.
        source = denial.source if denial.by == self.own else denial.by.service.text
        return tally.note(Told(denial, source, call_id, 1, now_ms, now_ms), now_ms)

    async def written(self) -> None:
        """Wait until what was noted by itself is in the log, within the bounds of this module."""
        goal = self._noted
        if self._sent >= goal or self._away or self._waiting >= WAITING:
            return
        self._waiting += 1
        try:
            async with asyncio.timeout(PATIENCE):
                while self._sent < goal and not self._away:
                    await self._moved.wait()
        except TimeoutError:
            self._away = True  # until the report that is under way says otherwise
        finally:
            self._waiting -= 1

    async def keep(self) -> None:
        """Tell, for as long as this runs."""
        delays = backoff()
        while True:
            with suppress(TimeoutError):
                await within(LOOK, self._wake.wait())
            self._wake.clear()
            if await self._tell():
                delays = backoff()
            else:
                await asyncio.sleep(next(delays))
                self._wake.set()

    async def close(self) -> None:
        """Tell what is left, if that is possible at once."""
        with suppress(TimeoutError):
            await within(LEAVE, self._tell(everything=True))

    async def _tell(self, *, everything: bool = False) -> bool:
        while (taken := self._take(everything=everything)) is not None:
            tally, told = taken
            goal = self._noted if not len(self._tally) else self._sent
            try:
                await self._send(told if tally is self._tally else [self._audit(one) for one in told])
            except BaseException as error:
                tally.give_back(told)
                if not isinstance(error, (grpc.aio.AioRpcError, OSError)):
                    raise
                self._is_away(True)
                return False
            self._sent = max(self._sent, goal)
            self._is_away(False)
        return True

    def _take(self, *, everything: bool) -> tuple[Tally[Denial], list[Told[Denial]]] | None:
        now_ms = self._membership.clock.now_ms()
        for tally in (self._tally, self._audits):
            if told := tally.take(BATCH, now_ms, everything=everything):
                return tally, told
        return None

    def _audit(self, told: Told[Denial]) -> Told[Denial]:
        # Counts say of what, or they would be taken for denials.
        return replace(told, what=told.what or Denial(self.own, told.source, "", "", "", AUDITED))

    def _is_away(self, away: bool) -> None:
        self._away = away
        self._moved.set()
        self._moved = asyncio.Event()

    def _rejected(self, rejection: Rejection) -> None:
        if rejection.cause in _STALE:
            return
        service, _, instance = rejection.peer.partition("/")
        reply = "reply: " if rejection.detail.startswith("reply: ") else ""
        # A caller without an instance was not verified. Of a reply it is known whose it should be.
        known = _reads(InstanceId.parse, instance) or (reply and _reads(ServiceName, service))
        denial = Denial(
            self.own,
            service if known else "",
            instance if known else "",
            rejection.method if _reads(FullMethod, rejection.method) else "",
            rejection.rule,
            f"{reply}{rejection.cause}",
        )
        self.note(denial, rejection.id)


def messages(told: Sequence[Told[Denial]]) -> list[audit_pb2.Denial]:
    """Give denials as they are sent, counts as denials without a cause."""
    return [
        one.what.message(one)
        if one.what
        else audit_pb2.Denial(source=one.source, count=one.count, first_ms=one.first_ms, last_ms=one.last_ms)
        for one in told
    ]


def _reads(parse: Callable[[str], object], text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True
