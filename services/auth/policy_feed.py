"""Tells whoever watches of each new policy of record and of who is revoked, and again that nothing is new.

Where other auths may replace it the word is as of when the database was last looked at, and while that cannot
be done every stream ends: who watches finds an auth that can.

Belongs to one event loop.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Final

from mesh.rpc.waiting import within
from mesh.v1 import auth_pb2, revocation_pb2

#: Seconds from one word to the next where there is nothing new.
BEAT: Final = 0.5
#: Seconds for which this auth's word stands without a look at the database that it shares.
UNSURE: Final = 2.0


class PolicyFeed:
    """What gatekeeper is told, as a stream. What is overtaken while nobody looked is left out."""

    def __init__(
        self,
        current: auth_pb2.SignedPolicy,
        revocations: revocation_pb2.Revocations | None = None,
        *,
        shared: bool = False,
    ) -> None:
        """Start with what is on record; ``shared``: other auths may replace it."""
        self._current, self._closed, self._shared = current, False, shared
        self._confirmed_ms, self._sure_until = 0, 0.0
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

    def confirm(self, policy: auth_pb2.SignedPolicy, at_ms: int) -> None:
        """Note that this was the policy of record at a time by auth's clock, not long ago."""
        self._confirmed_ms, self._sure_until = at_ms, asyncio.get_running_loop().time() + UNSURE
        self.publish(policy)

    def word_ms(self, now_ms: int) -> int:
        """Give as of when what was told last is known to be what is on record."""
        return self._confirmed_ms if self._shared else now_ms

    @property
    def _ended(self) -> bool:
        return self._closed or (self._shared and asyncio.get_running_loop().time() > self._sure_until)

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
        while not self._ended:
            changed = self._changed
            if policy is self._current and revocations is self._revocations:
                with suppress(TimeoutError):
                    await within(BEAT, changed.wait())
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
