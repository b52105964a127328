"""Tells whoever watches of each new policy of record, and again and again that it still is the one.

Where other auths may replace it the word is as of when the database was last looked at, and while that cannot
be done every stream ends: who watches finds an auth that can.

Belongs to one event loop.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from mesh.v1 import auth_pb2

#: Seconds from one word to the next where there is nothing new.
BEAT: Final = 0.5
#: Seconds for which this auth's word stands without a look at the database that it shares.
UNSURE: Final = 2.0


class PolicyFeed:
    """The policy of record as a stream of versions. One that is overtaken while nobody looked is left out."""

    def __init__(self, current: auth_pb2.SignedPolicy, *, shared: bool = False) -> None:
        """Start with what is on record; ``shared``: other auths may replace it."""
        self._current, self._closed, self._shared = current, False, shared
        self._confirmed_ms, self._sure_until = 0, 0.0
        self._changed = asyncio.Event()

    def publish(self, policy: auth_pb2.SignedPolicy) -> None:
        """Put a newer version on; an older one changes nothing."""
        if policy.version > self._current.version:
            self._current = policy
            self._wake()

    def confirm(self, policy: auth_pb2.SignedPolicy, at_ms: int) -> None:
        """Note that this was the policy of record at a time by auth's clock, not long ago."""
        self._confirmed_ms, self._sure_until = at_ms, asyncio.get_running_loop().time() + UNSURE
        self.publish(policy)

    def word_ms(self, now_ms: int) -> int:
        """Give as of when the policy that is given is known to be the one of record."""
        return self._confirmed_ms if self._shared else now_ms

    @property
    def _ended(self) -> bool:
        return self._closed or (self._shared and asyncio.get_running_loop().time() > self._sure_until)

    def close(self) -> None:
        """End every stream."""
        self._closed = True
        self._wake()

    async def versions(self) -> AsyncIterator[auth_pb2.SignedPolicy | None]:
        """Give the policy of record now, each that takes its place, and ``None`` for still the same."""
        given: auth_pb2.SignedPolicy | None = None
        while not self._ended:
            changed = self._changed
            if given is not self._current:
                given = self._current
                yield given
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), BEAT)
                if given is self._current and not self._ended:
                    yield None

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
