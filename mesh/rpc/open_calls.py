"""The calls in progress at a server, and whether they are still permitted.

A permit holds until the rules change (``recall``), the slice it came from goes stale, the certificate ends,
or, where a condition about time had a part in it, for a millisecond. Up to then a message costs one look at
the clock; after it the call is judged anew before the message passes (``OpenCall.check``). Calls without
messages are looked through every ``LOOK`` seconds, and at once when the rules have changed, some at a time,
so that ending a thousand keeps nobody else waiting.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from typing import Final

from mesh.core.errors import REVOKED, Denied
from mesh.core.matcher import Permit
from mesh.core.receiver import Admitted
from mesh.rpc.membership import Membership
from mesh.rpc.waiting import within

#: Seconds between looks for calls that are to be judged anew.
LOOK: Final = 0.5
#: How many of them are judged, and perhaps ended, before others have their turn.
BATCH: Final = 16


class OpenCall:
    """A dispatched call. Belongs to the task that made it."""

    __slots__ = ("_cancelled", "_membership", "_now", "_task", "_until", "admitted", "denied", "uncut")

    def __init__(self, admitted: Admitted, permit: Permit, membership: Membership) -> None:
        """Take a call that was just admitted, its permit, and who judges."""
        self.admitted, self._membership = admitted, membership
        self.denied: Denied | None = None
        self.uncut = False
        """While it is set, the task that is denied is not cut off in what it does: it looks afterwards."""
        self._task = asyncio.current_task()
        self._cancelled = 0
        self._now = membership.now
        self._until = membership.standing(permit)

    def check(self) -> None:
        """See before a message passes that the call is still permitted; raise ``Denied`` if not."""
        if self.due:
            self.judge()

    @property
    def due(self) -> bool:
        """Whether its permit has to be given anew."""
        return self._now() >= self._until

    def recall(self) -> None:
        """Take the permit back until the call is judged anew."""
        self._until = -math.inf

    def judge(self) -> None:
        """Judge it anew; end it and raise ``Denied`` if it is permitted no longer, and for ever after."""
        header = self.admitted.header
        try:
            if self.denied is not None:
                raise self.denied
            if header.source_instance in self._membership.receiver.revoked:
                raise Denied(header.source.text, header.method.text, REVOKED)  # noqa: TRY301  kept below
            entries = self.admitted.metadata
            permit = self._membership.authorize(header.source.text, header.method.text, entries)
        except Denied as denied:
            self.denied = denied
            self.recall()
            if self._task is not None and self._task is not asyncio.current_task() and not self.uncut:
                self._cancelled += self._task.cancel()
            raise
        self._until = self._membership.standing(permit)

    def settle(self) -> None:
        """Let its task go on, after the handler has ended, to say why."""
        while self._task is not None and self._cancelled:
            self._cancelled -= 1
            self._task.uncancel()


class OpenCalls(set[OpenCall]):
    """All of one server."""

    def __init__(self) -> None:
        """Start with none."""
        super().__init__()
        self._recalled = asyncio.Event()

    def recall(self) -> None:
        """Have every call judged under the rules now in force: before its next message, and soon."""
        for call in self:
            call.recall()
        self._recalled.set()

    async def keep(self) -> None:
        """End what is permitted no longer, for as long as this runs."""
        while True:
            with suppress(TimeoutError):
                await within(LOOK, self._recalled.wait())
            self._recalled.clear()
            await self._judge_due()

    async def _judge_due(self) -> None:
        due = [call for call in self if call.due]
        for start in range(0, len(due), BATCH):
            for call in self.intersection(due[start : start + BATCH]):
                with suppress(Denied):
                    call.judge()
            await asyncio.sleep(0)
