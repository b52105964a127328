"""The nodes that watch: who is due news of its slice, and who a sign of life.

Nothing is queued: a watcher knows what its stream was sent last, and settles what it owes whenever the stream
takes a message: what makes the newest slice of that one, and one sign of life. So a node that reads slowly
costs only itself, after a storm of changes everyone gets one message, and that says only what is new.

Every message says when auth last confirmed the policy, for a slice holds so long from then, and no longer:
whoever stood still or was cut off cannot make an old policy young.

Belongs to one event loop. Nothing here waits but ``Watcher.next``, and nothing sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from mesh.core.names import InstanceId, ServiceName
from mesh.core.receiver import Peer
from mesh.core.revoked import Revoked
from mesh.v1 import gatekeeper_pb2, tap_pb2
from services.gatekeeper.confirmed import Confirmed
from services.gatekeeper.directory import Directory, Node, address
from services.gatekeeper.signed import VersionedPolicy
from services.gatekeeper.slices import NOBODY, Cut, Places, Slicer
from services.gatekeeper.taps import Taps

#: How often in one lease the directory is looked through for nodes that are gone.
LOOKS_PER_LEASE: Final = 5


class Watcher:
    """One stream of one instance: what it is owed."""

    __slots__ = (
        "_confirmed_ms",
        "_cut",
        "_news",
        "_sent",
        "_sign",
        "_tapped",
        "_taps",
        "_wake",
        "ended",
        "peer",
        "registering",
        "stream",
    )

    def __init__(
        self,
        peer: Peer,
        stream: int,
        cut: Callable[[ServiceName], Cut | None],
        confirmed_ms: Callable[[], int],
        taps: Callable[[ServiceName], tuple[tap_pb2.TapFilter, ...]],
    ) -> None:
        """Owe nothing yet. ``cut`` gives the newest slice of a service, ``None`` before the first policy.

        ``confirmed_ms`` gives when auth last confirmed that policy, by auth's clock; 0 for never. ``taps``
        gives which calls to a service operators want to see.
        """
        self.peer, self.stream = peer, stream
        self.ended = self.registering = False
        self._cut, self._confirmed_ms, self._taps = cut, confirmed_ms, taps
        self._tapped: tuple[tap_pb2.TapFilter, ...] = ()
        self._wake = asyncio.Event()
        self._sent: Cut | None = None
        self._news = self._sign = False

    def owe_news(self) -> None:
        """Note that the node's slice may have changed, which is of no matter if it comes from elsewhere."""
        if self.registering:
            return
        self._news = True
        self._wake.set()

    def owe_sign(self) -> None:
        """Note that the node was heard, and waits to hear back."""
        self._sign = True
        self._wake.set()

    def owe_orders(self) -> None:
        """Note that other calls of the node are wanted than before."""
        self._wake.set()

    def end(self) -> None:
        """Owe nothing more."""
        self.ended = True
        self._wake.set()

    async def next(self) -> gatekeeper_pb2.WatchResponse | None:
        """Wait until something is owed and give it as it is now; ``None`` once the watcher has ended."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self.ended:
                return None
            response = self._settle()
            if response is not None:
                return response

    def _settle(self) -> gatekeeper_pb2.WatchResponse | None:
        response, wanted = self._settle_news(), self._taps(self.peer.service)
        if wanted != self._tapped:
            self._tapped = wanted
            response = response or gatekeeper_pb2.WatchResponse(confirmed_ms=self._confirmed_ms())
            response.taps.CopyFrom(tap_pb2.TapOrders(filters=wanted))
        return response

    def _settle_news(self) -> gatekeeper_pb2.WatchResponse | None:
        sign, before = self._sign, self._sent
        newest = self._cut(self.peer.service) if self._news else None
        self._sign = self._news = False
        confirmed_ms = self._confirmed_ms()
        if newest is not None:
            self._sent = newest
            if before is None:
                return gatekeeper_pb2.WatchResponse(slice=newest.whole(), confirmed_ms=confirmed_ms)
            if newest is not before and (change := newest.change(before)) is not None:
                return gatekeeper_pb2.WatchResponse(change=change, confirmed_ms=confirmed_ms)
        return gatekeeper_pb2.WatchResponse(confirmed_ms=confirmed_ms) if sign else None


class Watchers:
    """All watchers, the directory that they fill, and the policy that their slices are cut from."""

    def __init__(
        self, lease_ms: int, max_stale_ms: int, now: Callable[[], int], confirmed: Confirmed
    ) -> None:
        """Take the lease, how long a slice holds, and a clock of milliseconds that only goes forward.

        ``confirmed`` tells when auth last confirmed the policy.
        """
        self.lease_ms, self.now = lease_ms, now
        self.directory = Directory(lease_ms, now())
        self.slicer: Slicer | None = None
        self._max_stale_ms, self._confirmed = max_stale_ms, confirmed
        self._settling = True
        self._streams = 0
        self._open: dict[InstanceId, Watcher] = {}
        self._places = Places(self.directory.endpoints)
        self.revoked = NOBODY
        self.banned: frozenset[str] = frozenset()
        self.taps = Taps()
        self.taps.changed = self._tapped

    def answering(self) -> Slicer | None:
        """Give what answers single questions; ``None`` while the policy may not be the one of record."""
        return self.slicer if self._confirmed.holds(self._max_stale_ms) else None

    def missing(self) -> str:
        """Give what keeps gatekeeper from answering for the policy, or ``""``."""
        if self.answering() is not None:
            return ""
        return "auth has not confirmed the policy for too long" if self.slicer else "it has no policy yet"

    def open(self, peer: Peer) -> Watcher:
        """Begin a stream. An older one of the same instance ends: it is the newer one that lives."""
        self._streams += 1
        older = self._open.get(peer.instance)
        if older:
            older.end()
        word_ms = lambda: self._confirmed.word_ms  # noqa: E731  of whichever moment
        watcher = Watcher(peer, self._streams, self._newest, word_ms, self.taps.orders)
        self._open[peer.instance] = watcher
        return watcher

    def heard(self, watcher: Watcher, host: str, beat: gatekeeper_pb2.WatchRequest, *, first: bool) -> None:
        """Take a heartbeat from ``host``; raise ``ValueError`` for a port that is none."""
        where = address(host, beat.port)
        peer = watcher.peer
        if peer.service.text in self.banned:
            watcher.end()
            return
        row = Node(peer.service, peer.instance, where, beat.policy_version, self.now(), watcher.stream)
        self._changed(self.directory.heartbeat(row))
        watcher.owe_sign()
        if beat.tapped or beat.untold:
            self.taps.told(peer, beat)
        if first:
            watcher.registering = beat.registering
            watcher.owe_news()

    def close(self, watcher: Watcher, *, clean: bool) -> None:
        """Note the end of a stream: ``clean`` if its node ended it as it should."""
        watcher.end()
        if self._open.get(watcher.peer.instance) is watcher:
            del self._open[watcher.peer.instance]
        end = self.directory.leave if clean else self.directory.broken
        self._changed(end(watcher.peer.instance, watcher.stream))

    def take(self, policy: VersionedPolicy) -> None:
        """Put a newer policy in force: everyone is due news, if only of its version."""
        version, places = policy.version, self._places
        self.slicer = Slicer(version, policy.policy, self._max_stale_ms, places, self.slicer)
        self._owe_all()

    def revoke(self, revoked: Revoked, banned: frozenset[str]) -> None:
        """Take out revoked instances, and tell everyone; their own streams are the server's to end.

        What banned services have is taken out as well: nodes may not be told of each of those.
        """
        added, self.banned = revoked.since(self.revoked), banned
        self.revoked = revoked
        out = {node.instance for node in self.directory.nodes() if node.service.text in banned}
        self._changed(self.directory.revoke(out | {instance for instance, _ in added}))
        if added:
            self._owe_all()

    async def keep_time(self) -> None:
        """Look for leases that ran out, for as long as this runs."""
        while True:
            await asyncio.sleep(self.lease_ms / LOOKS_PER_LEASE / 1000)
            self.look()

    def look(self) -> None:
        """Take out the nodes whose leases ran out by now, and end the settling when its time has come."""
        now_ms = self.now()
        self._changed(self.directory.expire(now_ms))
        if self._settling and not self.directory.settling(now_ms):
            self._settling = False
            self._owe_all()

    def drain(self) -> None:
        """End every watcher, so that the nodes go and look for the next gatekeeper."""
        for watcher in self._open.values():
            watcher.end()

    def _changed(self, services: frozenset[ServiceName]) -> None:
        if not services or not self.slicer:
            return
        self.slicer.moved(services)
        watching = {watcher.peer.service for watcher in self._open.values()}
        affected = frozenset(self.slicer.affected(watching, services))
        self._owe(watcher for watcher in self._open.values() if watcher.peer.service in affected)

    def instances(self, service: ServiceName) -> int:
        """Count the instances of a service that watch."""
        return sum(watcher.peer.service == service for watcher in self._open.values())

    def _tapped(self, service: ServiceName) -> None:
        for watcher in self._open.values():
            if watcher.peer.service == service:
                watcher.owe_orders()

    def _owe_all(self) -> None:
        self._owe(self._open.values())

    def _owe(self, watchers: Iterable[Watcher]) -> None:
        for watcher in watchers:
            watcher.owe_news()

    def _newest(self, service: ServiceName) -> Cut | None:
        if self.slicer is None:
            return None
        return self.slicer.cut(service, settling=self._settling, revoked=self.revoked)
