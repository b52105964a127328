"""The nodes that watch: who is due a slice, and who a sign of life.

Nothing is queued: a watcher owes its node at most the newest slice and one sign of life, and settles that
whenever its stream takes a message. So a node that reads slowly costs only itself, and after a storm of
changes everyone gets one slice. Slices are cut once per service and kept until something in them changes.

Belongs to one event loop. Nothing here waits but ``Watcher.next``, and nothing sends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from mesh.core.names import InstanceId, ServiceName
from mesh.core.receiver import Peer
from mesh.v1 import gatekeeper_pb2
from services.gatekeeper.directory import Directory, Node, address
from services.gatekeeper.signed import VersionedPolicy
from services.gatekeeper.slices import Slicer

#: How often in one lease the directory is looked through for nodes that are gone.
LOOKS_PER_LEASE: Final = 5


class Watcher:
    """One stream of one instance: what it is owed."""

    __slots__ = ("_cut", "_sent", "_sign", "_slice", "_wake", "ended", "peer", "stream")

    def __init__(self, peer: Peer, stream: int, cut: Callable[[], gatekeeper_pb2.Slice | None]) -> None:
        """Owe nothing yet. ``cut`` gives the newest slice, ``None`` before the first policy."""
        self.peer, self.stream = peer, stream
        self.ended = False
        self._cut, self._wake = cut, asyncio.Event()
        self._sent: gatekeeper_pb2.Slice | None = None
        self._slice = self._sign = False

    def owe_slice(self) -> None:
        """Note that the node's slice may have changed."""
        self._slice = True
        self._wake.set()

    def owe_sign(self) -> None:
        """Note that the node was heard, and waits to hear back."""
        self._sign = True
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
        sign, newest = self._sign, self._cut() if self._slice else None
        self._sign = self._slice = False
        if newest is not None and newest != self._sent:
            self._sent = newest
            return gatekeeper_pb2.WatchResponse(slice=newest)
        return gatekeeper_pb2.WatchResponse() if sign else None


class Watchers:
    """All watchers, the directory that they fill, and the policy that their slices are cut from."""

    def __init__(self, lease_ms: int, max_stale_ms: int, now: Callable[[], int]) -> None:
        """Take the lease, how long a slice holds, and a clock of milliseconds that only goes forward."""
        self.lease_ms, self.now = lease_ms, now
        self.directory = Directory(lease_ms, now())
        self.slicer: Slicer | None = None
        self._max_stale_ms = max_stale_ms
        self._settling = True
        self._streams = 0
        self._open: dict[InstanceId, Watcher] = {}
        self._slices: dict[ServiceName, gatekeeper_pb2.Slice] = {}

    def open(self, peer: Peer) -> Watcher:
        """Begin a stream. An older one of the same instance ends: it is the newer one that lives."""
        self._streams += 1
        older = self._open.get(peer.instance)
        if older:
            older.end()
        watcher = Watcher(peer, self._streams, lambda: self._slice(peer.service))
        self._open[peer.instance] = watcher
        return watcher

    def heard(self, watcher: Watcher, host: str, beat: gatekeeper_pb2.WatchRequest, *, first: bool) -> None:
        """Take a heartbeat from ``host``; raise ``ValueError`` for a port that is none."""
        where = address(host, beat.port)
        peer = watcher.peer
        row = Node(peer.service, peer.instance, where, beat.policy_version, self.now(), watcher.stream)
        self._changed(self.directory.heartbeat(row))
        watcher.owe_sign()
        if first:
            watcher.owe_slice()

    def close(self, watcher: Watcher, *, clean: bool) -> None:
        """Note the end of a stream: ``clean`` if its node ended it as it should."""
        watcher.end()
        if self._open.get(watcher.peer.instance) is watcher:
            del self._open[watcher.peer.instance]
        end = self.directory.leave if clean else self.directory.broken
        self._changed(end(watcher.peer.instance, watcher.stream))

    def take(self, policy: VersionedPolicy) -> None:
        """Put a newer policy in force: everyone is due a slice, if only for its version."""
        self.slicer = Slicer(policy.version, policy.policy, self._max_stale_ms)
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
        # A slice outlives its last watcher, so those that nobody watches now go stale as well.
        known = self._slices.keys() | {watcher.peer.service for watcher in self._open.values()}
        affected = frozenset(self.slicer.affected(known, services))
        for service in affected:
            self._slices.pop(service, None)
        self._owe(watcher for watcher in self._open.values() if watcher.peer.service in affected)

    def _owe_all(self) -> None:
        self._slices.clear()
        self._owe(self._open.values())

    def _owe(self, watchers: Iterable[Watcher]) -> None:
        for watcher in watchers:
            watcher.owe_slice()

    def _slice(self, service: ServiceName) -> gatekeeper_pb2.Slice | None:
        if not self.slicer:
            return None
        known = self._slices.get(service)
        if known is None:
            known = self.slicer.cut(service, self.directory.endpoints, settling=self._settling)
            self._slices[service] = known
        return known
