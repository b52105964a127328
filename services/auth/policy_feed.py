"""Tells whoever watches of each new policy of record and of who is revoked, and again that nothing is new.

Belongs to one event loop.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Final

from mesh.v1 import auth_pb2, revocation_pb2

#: Seconds from one word to the next where there is nothing new.
BEAT: Final = 0.5


class PolicyFeed:
    """What gatekeeper is told, as a stream. What is overtaken while nobody looked is left out."""

    def __init__(
        self, current: auth_pb2.SignedPolicy, revocations: revocation_pb2.Revocations | None = None
    ) -> None:
        """Start with what is on record."""
        self._current, self._closed = current, False
        self._revocations = revocations or revocation_pb2.Revocations()
        self._changed = asyncio.Event()
        self._revision = 0
        self.on_revoked: Callable[[revocation_pb2.Revocations], None] = lambda _: None
        """Told as well of who is revoked."""

    def publish(self, policy: auth_pb2.SignedPolicy) -> None:
        """Put a newer version on; an older one changes nothing."""
        if policy.version > self._current.version:
            self._current = policy
            self._wake()

    def revoke(self, revocations: revocation_pb2.Revocations, revision: int) -> None:
        """Tell who is revoked and banned now, all of it; what is older than told before changes nothing."""
        if revision <= self._revision:
            return
        self._revocations, self._revision = revocations, revision
        self.on_revoked(revocations)
        self._wake()

    def close(self) -> None:
        """End every stream."""
        self._closed = True
        self._wake()

    async def words(self) -> AsyncIterator[auth_pb2.WatchPolicyResponse]:
        """Give what is on record now and whatever takes its place, and an empty word for still the same."""
        policy: auth_pb2.SignedPolicy | None = None
        revocations: revocation_pb2.Revocations | None = None
        while not self._closed:
            changed = self._changed
            if policy is self._current and revocations is self._revocations:
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), BEAT)
                if changed.is_set() and policy is self._current and revocations is self._revocations:
                    continue
            word = auth_pb2.WatchPolicyResponse(
                policy=None if policy is self._current else self._current,
                revocations=None if revocations is self._revocations else self._revocations,
            )
            policy, revocations = self._current, self._revocations
            yield word

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
