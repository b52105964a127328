"""Tells whoever watches of each new policy of record. Belongs to one event loop."""

import asyncio
from collections.abc import AsyncIterator

from mesh.v1 import auth_pb2


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

    async def versions(self) -> AsyncIterator[auth_pb2.SignedPolicy]:
        """Give the policy of record now, and each that takes its place."""
        given: auth_pb2.SignedPolicy | None = None
        while not self._closed:
            changed = self._changed
            if given is not self._current:
                given = self._current
                yield given
            else:
                await changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
