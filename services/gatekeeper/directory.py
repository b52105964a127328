"""Which nodes are there: one row per instance, kept alive by heartbeats.

    no row ──heartbeat──▶ registered ──leave──▶ gone at once
                             │ ▲
                       broken│ │heartbeat on a new stream
                             ▼ │
                          orphaned ──lease runs out──▶ gone

A node is an endpoint if it named a port. A row belongs to one stream at a time, the newest: what an older
stream of the same instance still says is not heard, so the late end of a lost connection removes nothing.

A new instance of a service at the address of an older one takes its place at once: the older one has died
there. If that one is alive all the same, it stays a node that can call, and is no endpoint until it names
another port; so two that share one address do not push each other out in turns. Only the same service can
take a place: any other at that address would be pushing out a stranger, which TLS will tell apart anyway.

Times are milliseconds of a clock that only goes forward. Who a node is, was verified before it gets here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from mesh.core.names import InstanceId, ServiceName

MAX_PORT: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class Node:
    """One registered instance. ``address`` is ``host:port``, or empty for a node that only calls."""

    service: ServiceName
    instance: InstanceId
    address: str
    policy_version: int
    last_seen_ms: int
    stream: int
    connected: bool = True
    displaced: bool = False

    @property
    def endpoint(self) -> str:
        """The address at which calls reach it; empty if none do."""
        return "" if self.displaced else self.address


def address(host: str, port: int) -> str:
    """Join what was seen and what was said to ``host:port``; empty for port 0.

    Raises ``ValueError`` for a port above 65535. An IPv6 host gets its brackets (RFC 3986 section 3.2.2).
    """
    if not 0 <= port <= MAX_PORT:
        raise ValueError(f"bad port {port}: not 0 to 65535")
    if port == 0:
        return ""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Directory:
    """The registered nodes. Every change gives the services whose endpoints are others than before."""

    def __init__(self, lease_ms: int, now_ms: int) -> None:
        """Start empty; ``lease_ms`` is how long a node is believed in without a heartbeat."""
        self._lease_ms = lease_ms
        self._settled_ms = now_ms + lease_ms
        self._looked_ms = now_ms
        self._nodes: dict[InstanceId, Node] = {}
        self._services: dict[ServiceName, set[InstanceId]] = {}

    def settling(self, now_ms: int) -> bool:
        """Whether the first lease has not passed: nodes known before a restart may not be back yet."""
        return now_ms < self._settled_ms

    def nodes(self) -> list[Node]:
        """All that are registered, by service, then instance."""
        return sorted(self._nodes.values(), key=lambda node: (node.service, node.instance))

    def endpoints(self, service: ServiceName) -> list[tuple[InstanceId, str]]:
        """Where the instances of a service are, by instance; none for a service that is not here."""
        rows = sorted(self._services.get(service, ()))
        return [(instance, found) for instance in rows if (found := self._nodes[instance].endpoint)]

    def heartbeat(self, node: Node) -> frozenset[ServiceName]:
        """Take the word of a node, as its stream says it now. The first one of a stream registers."""
        before = self._nodes.get(node.instance)
        if before and before.stream > node.stream:
            return frozenset()
        self._put(replace(node, displaced=_still_displaced(before, node)))
        arrived = before is None or before.address != node.address
        displaced = self._displace_others(node) if arrived and node.address else False
        changed = displaced or (before.endpoint if before else "") != self._nodes[node.instance].endpoint
        return frozenset((node.service,) if changed else ())

    def leave(self, instance: InstanceId, stream: int) -> frozenset[ServiceName]:
        """Take out a node that ended its stream as it should."""
        node = self._nodes.get(instance)
        return self._drop((node,)) if node and node.stream == stream else frozenset()

    def revoke(self, instances: Iterable[InstanceId]) -> frozenset[ServiceName]:
        """Take out revoked nodes, whatever their streams say."""
        return self._drop([self._nodes[instance] for instance in instances if instance in self._nodes])

    def broken(self, instance: InstanceId, stream: int) -> frozenset[ServiceName]:
        """Note that a stream broke: its node may well be running, so the lease decides."""
        node = self._nodes.get(instance)
        if node is None or node.stream != stream:
            return frozenset()
        if node.displaced:
            return self._drop((node,))
        self._nodes[instance] = replace(node, connected=False)
        return frozenset()

    def expire(self, now_ms: int) -> frozenset[ServiceName]:
        """Take out every node whose lease ran out. To be called several times per lease.

        If the last call lies further back than that, then gatekeeper itself stood still (a paused machine):
        nobody could be heard, and everybody gets that time back.
        """
        stood_still = now_ms - self._looked_ms
        self._looked_ms = now_ms
        if 2 * stood_still > self._lease_ms:
            self._nodes = {
                instance: replace(node, last_seen_ms=min(now_ms, node.last_seen_ms + stood_still))
                for instance, node in self._nodes.items()
            }
        over = now_ms - self._lease_ms
        return self._drop([node for node in self._nodes.values() if node.last_seen_ms <= over])

    def _put(self, node: Node) -> None:
        self._nodes[node.instance] = node
        self._services.setdefault(node.service, set()).add(node.instance)

    def _displace_others(self, node: Node) -> bool:
        rows = [self._nodes[instance] for instance in self._services[node.service] - {node.instance}]
        others = [row for row in rows if row.endpoint == node.address]
        self._drop([row for row in others if not row.connected])
        for row in others:
            if row.connected:
                self._nodes[row.instance] = replace(row, displaced=True)
        return bool(others)

    def _drop(self, nodes: Iterable[Node]) -> frozenset[ServiceName]:
        changed = set()
        for node in nodes:
            del self._nodes[node.instance]
            left = self._services[node.service]
            left.discard(node.instance)
            if not left:
                del self._services[node.service]
            if node.endpoint:
                changed.add(node.service)
        return frozenset(changed)


def _still_displaced(before: Node | None, node: Node) -> bool:
    return before is not None and before.displaced and before.address == node.address
