"""Tells whoever watches of each new policy of record, and again and again that it still is the one.

Belongs to one event loop.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from mesh.v1 import auth_pb2

#: Seconds from one word to the next where there is nothing new.
BEAT: Final = 0.5


class PolicyFeed:
    """The policy of record as a stream of versions. One that is overtaken while nobody looked is left out."""

    def __init__(self, current: auth_pb2.SignedPolicy) -> None:
        """Start with what is on record."""
        self._current, self._closed = current, False
        self._changed = asyncio.Event()

    def publish(self, policy: auth_pb2.SignedPolicy) -> None:
        """Put a newer version on; an older one changes nothing."""
        if policy.version > self._current.version:
            self._current = policy
            self._wake()

    def close(self) -> None:
        """End every stream."""
        self._closed = True
        self._wake()

    async def versions(self) -> AsyncIterator[auth_pb2.SignedPolicy | None]:
        """Give the policy of record now, each that takes its place, and ``None`` for still the same."""
        given: auth_pb2.SignedPolicy | None = None
        while not self._closed:
            changed = self._changed
            if given is not self._current:
                given = self._current
                yield given
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), BEAT)
                if given is self._current and not self._closed:
                    yield None

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
