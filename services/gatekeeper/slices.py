"""What a node may know: the rules about calls to it, the services it may call, and where those are.

One rule gates calling and knowing: a destination is in the slice of exactly those whom the policy lets call
it, and ``Slicer.destinations`` is the only place where that is asked. A slice depends on a node's service
alone, so one cut does for all its instances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from mesh.core.decided import recordable
from mesh.core.matcher import Matcher
from mesh.core.names import InstanceId, ServiceName
from mesh.core.policy import Policy
from mesh.v1 import gatekeeper_pb2

Endpoints: TypeAlias = Callable[[ServiceName], list[tuple[InstanceId, str]]]
"""Where the instances of a service are; an empty list for one that is not there."""


class Slicer:
    """Cuts slices from one version of the policy, and answers single questions under the same one.

    What it remembers, it remembers per asking service; those have proved their names, so auth's list of
    services bounds it.
    """

    def __init__(self, version: int, policy: Policy, max_stale_ms: int) -> None:
        """Take a verified policy, and how long a slice holds without gatekeeper."""
        self.version = version
        self._policy, self._max_stale_ms = policy, max_stale_ms
        self._destinations: dict[ServiceName, dict[ServiceName, None]] = {}
        self._matchers: dict[ServiceName, Matcher] = {}
        self._recordable: dict[ServiceName, tuple[str, ...]] = {}

    def destinations(self, source: ServiceName) -> Iterable[ServiceName]:
        """Give the services that a service may call and know of, sorted."""
        return self._known(source)

    def may_know(self, source: ServiceName, destination: ServiceName) -> bool:
        """Whether a service may call and know of another, in a time that depends on the asker alone."""
        return destination in self._known(source)

    def matcher(self, service: ServiceName) -> Matcher:
        """Give what judges the calls to a service; one that the policy does not name permits none."""
        known = self._matchers.get(service)
        if known is None:
            known = self._matchers[service] = Matcher(self._policy.section(service))
        return known

    def recordable(self, service: ServiceName) -> tuple[str, ...]:
        """Give the metadata keys that the rules of a service look at and that may be recorded."""
        known = self._recordable.get(service)
        if known is None:
            known = self._recordable[service] = recordable(self._policy.section(service))
        return known

    def cut(self, service: ServiceName, endpoints: Endpoints, *, settling: bool) -> gatekeeper_pb2.Slice:
        """Cut the slice of a service as things are."""
        return gatekeeper_pb2.Slice(
            policy_version=self.version,
            rules=self._policy.section(service).encode(),
            destinations=[destination(name, endpoints) for name in self._known(service)],
            settling=settling,
            max_stale_ms=self._max_stale_ms,
        )

    def affected(self, watching: Iterable[ServiceName], changed: frozenset[ServiceName]) -> list[ServiceName]:
        """Which of the watching services have a destination among those whose endpoints changed."""
        return [service for service in watching if not changed.isdisjoint(self._known(service))]

    def _known(self, source: ServiceName) -> dict[ServiceName, None]:
        # A dict of nothing is an ordered set.
        known = self._destinations.get(source)
        if known is None:
            known = self._destinations[source] = dict.fromkeys(self._policy.destinations(source))
        return known


def destination(service: ServiceName, endpoints: Endpoints) -> gatekeeper_pb2.Destination:
    """Give a service and where it is."""
    return gatekeeper_pb2.Destination(
        service=service.text,
        endpoints=[
            gatekeeper_pb2.Endpoint(instance=instance.raw, address=address)
            for instance, address in endpoints(service)
        ],
    )
