"""What a node may know: the rules about calls to it, and the services it may call, where and how.

One rule gates both calling and knowing: a destination is in the slice of exactly those whom the policy lets
call it, and ``Slicer.resolve`` and ``Slicer.cut`` ask one index. A slice depends on a node's service alone,
so one ``Cut`` does for all its instances; and what several services know alike is held once: a destination's
message, and all the destinations of services that no rule tells apart. A cut is never changed, so the
difference between any two of them is what brings a node from one to the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeAlias

from mesh.core.decided import recordable
from mesh.core.matcher import Matcher
from mesh.core.names import InstanceId, ServiceName
from mesh.core.policy import Policy
from mesh.core.revoked import Revoked
from mesh.core.traffic_document import encode
from mesh.v1 import gatekeeper_pb2, revocation_pb2

Endpoints: TypeAlias = Callable[[ServiceName], list[tuple[InstanceId, str]]]
"""Where the instances of a service are; an empty list for one that is not there."""
Known: TypeAlias = Mapping[str, gatekeeper_pb2.Destination]
"""The services that some may call, by their names and sorted, each with where it is."""
NOBODY: Final = Revoked()
#: How many ways to call one service are held once for all: those of policies that are gone are forgotten.
TOLD: Final = 16


class Cut:
    """The slice of a service as things were when it was cut."""

    __slots__ = ("_since", "known", "max_stale_ms", "revoked", "rules", "settling", "traffic", "version")

    def __init__(
        self,
        version: int,
        rules: bytes,
        known: Known,
        *,
        settling: bool = False,
        max_stale_ms: int = 0,
        revoked: Revoked = NOBODY,
        traffic: bytes = b"",
    ) -> None:
        """Take what a slice holds; nothing of it may change any more."""
        self.revoked, self.traffic = revoked, traffic
        self.version, self.rules, self.known = version, rules, known
        self.settling, self.max_stale_ms = settling, max_stale_ms
        self._since: tuple[Cut, gatekeeper_pb2.Change | None] | None = None

    def whole(self) -> gatekeeper_pb2.Slice:
        """Give it as the first of a stream."""
        return gatekeeper_pb2.Slice(
            policy_version=self.version,
            rules=self.rules,
            destinations=self.known.values(),
            settling=self.settling,
            max_stale_ms=self.max_stale_ms,
            revoked=_told(self.revoked.items()),
            traffic=self.traffic,
        )

    def change(self, before: Cut) -> gatekeeper_pb2.Change | None:
        """Give what makes this of an earlier cut for the same service; ``None`` if they say the same."""
        # One answer is remembered: that for the instances which all were told of the same one before.
        if self._since is None or self._since[0] is not before:
            before._since = None  # or each would hold all those before it
            self._since = before, self._difference(before)
        return self._since[1]

    def _difference(self, before: Cut) -> gatekeeper_pb2.Change | None:
        moved, removed = _compare(before.known, self.known)
        change = gatekeeper_pb2.Change(
            policy_version=self.version,
            rules=None if self.rules == before.rules else self.rules,
            destinations=moved,
            removed=removed,
            settling=self.settling,
            revoked=_told(self.revoked.since(before.revoked)),
            traffic=None if self.traffic == before.traffic else self.traffic,
        )
        same = gatekeeper_pb2.Change(policy_version=before.version, settling=before.settling)
        return None if change == same else change


def _compare(before: Known, after: Known) -> tuple[list[gatekeeper_pb2.Destination], list[str]]:
    if after is before:
        return [], []
    moved = [found for name, found in after.items() if (old := before.get(name)) is not found != old]
    return moved, [name for name in before if name not in after]


class Places:
    """Where each destination is, as the one message that all share who may know of it."""

    def __init__(self, endpoints: Endpoints) -> None:
        """Take who knows."""
        self._endpoints = endpoints
        self._known: dict[str, dict[bytes, gatekeeper_pb2.Destination]] = {}

    def of(self, name: str, traffic: bytes = b"") -> gatekeeper_pb2.Destination:
        """Give a service, where it is, and how callers who are told so call it."""
        told = self._known.setdefault(name, {})
        known = told.get(traffic)
        if known is None:
            if len(told) >= TOLD:
                told.clear()
            known = told[traffic] = _destination(name, self._endpoints(ServiceName(name)), traffic)
        return known

    def moved(self, names: Iterable[str]) -> None:
        """Note that the endpoints of services are others than before."""
        for name in names:
            self._known.pop(name, None)


class _Shelf:
    """The destinations of all services that no rule tells apart."""

    __slots__ = ("_known", "_moved", "_places", "names", "traffic")

    def __init__(self, names: list[str], traffic: dict[str, bytes], places: Places) -> None:
        self.names, self.traffic, self._places = names, traffic, places
        self._moved: set[str] = set()
        self._known: Known = {name: self._place(name) for name in names}

    @property
    def known(self) -> Known:
        """Them as they are now: another mapping whenever one of them is elsewhere than before."""
        if self._moved:
            self._known = {**self._known, **{name: self._place(name) for name in self._moved}}
            self._moved.clear()
        return self._known

    def _place(self, name: str) -> gatekeeper_pb2.Destination:
        return self._places.of(name, self.traffic.get(name, b""))

    def holds(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self._known]

    def moved(self, names: Iterable[str]) -> None:
        self._moved.update(self.holds(names))


class _Rules:
    """The sections of one policy, as they are sent and as they judge, each made when first asked for."""

    def __init__(self, policy: Policy, before: _Rules | None) -> None:
        self.policy = policy
        self.encoded: dict[ServiceName, bytes] = {}
        self.matchers: dict[ServiceName, Matcher] = {}
        self._recordable: dict[ServiceName, tuple[str, ...]] = {}
        if before and policy.shared == before.policy.shared:
            is_now, was = policy.services, before.policy.services
            same = {name for name in before.encoded if is_now.get(name) == was.get(name)}
            self.encoded = {name: before.encoded[name] for name in same}
            self.matchers = {name: before.matchers[name] for name in same & before.matchers.keys()}

    def matcher(self, service: ServiceName) -> Matcher:
        known = self.matchers.get(service)
        if known is None:
            known = self.matchers[service] = Matcher(self.policy.section(service))
        return known

    def recordable(self, service: ServiceName) -> tuple[str, ...]:
        known = self._recordable.get(service)
        if known is None:
            known = self._recordable[service] = recordable(self.policy.section(service))
        return known

    def encode(self, service: ServiceName) -> bytes:
        known = self.encoded.get(service)
        if known is None:
            known = self.encoded[service] = self.policy.section(service).encode()
        return known

    def traffic(self, names: Iterable[str]) -> dict[str, bytes]:
        """Give how those are told to call each of some services who know all of these, and no other."""
        known = frozenset(names)
        told = {
            service.text: encode(said.of_caller(known))
            for service, said in self.policy.traffic.items()
            if service.text in known
        }
        return {name: said for name, said in told.items() if said}


class Slicer:
    """Cuts slices from one version of the policy, and answers single questions under the same one.

    What it remembers, it remembers per asking service; those have proved their names, so auth's list of
    services bounds it.
    """

    def __init__(
        self, version: int, policy: Policy, max_stale_ms: int, places: Places, before: Slicer | None = None
    ) -> None:
        """Take a verified policy, how long a slice holds without gatekeeper, and where services are.

        Of the slicer ``before``, what this policy has not changed is taken over as it is.
        """
        self.version = version
        self._max_stale_ms, self._places = max_stale_ms, places
        self.rules: _Rules = _Rules(policy, before.rules if before else None)
        self.shelves: dict[tuple[str, ...], _Shelf] = {}
        self._before = dict(before.shelves) if before else {}
        self._kin: dict[ServiceName, _Shelf] = {}
        self._cuts: dict[ServiceName, Cut] = {}

    def resolve(self, source: ServiceName, name: ServiceName) -> gatekeeper_pb2.Destination | None:
        """Give where a service is to one that may know of it; ``None`` for forbidden and unknown names.

        The time it takes depends on the asker alone.
        """
        return self._shelf(source).known.get(name.text)

    def matcher(self, service: ServiceName) -> Matcher:
        """Give what judges the calls to a service; one that the policy does not name permits none."""
        return self.rules.matcher(service)

    def recordable(self, service: ServiceName) -> tuple[str, ...]:
        """Give the metadata keys that the rules of a service look at and that may be recorded."""
        return self.rules.recordable(service)

    def cut(self, service: ServiceName, *, settling: bool, revoked: Revoked = NOBODY) -> Cut:
        """Give the slice of a service as things are."""
        known, cut = self._shelf(service).known, self._cuts.get(service)
        same = cut and cut.known is known and cut.settling is settling and cut.revoked is revoked
        if cut is None or not same:
            rules, holds = self.rules.encode(service), self._max_stale_ms
            own = encode(self.rules.policy.traffic_to(service).of_callee)
            cut = Cut(
                self.version,
                rules,
                known,
                settling=settling,
                max_stale_ms=holds,
                revoked=revoked,
                traffic=own,
            )
            self._cuts[service] = cut
        return cut

    def moved(self, services: Iterable[ServiceName]) -> None:
        """Take note that the endpoints of services are others than before."""
        names = [service.text for service in services]
        self._places.moved(names)
        for shelf in (*self.shelves.values(), *self._before.values()):
            shelf.moved(names)

    def affected(self, watching: Iterable[ServiceName], changed: Iterable[ServiceName]) -> list[ServiceName]:
        """Which of the watching services have a destination among those whose endpoints changed."""
        names = [service.text for service in changed]
        return [service for service in watching if self._shelf(service).holds(names)]

    def _shelf(self, source: ServiceName) -> _Shelf:
        shelf = self._kin.get(source)
        if shelf is None:
            kin = self.rules.policy.kin(source)
            shelf = self.shelves.get(kin) or self._shelve(kin, source)
            self._kin[source] = self.shelves[kin] = shelf
        return shelf

    def _shelve(self, kin: tuple[str, ...], source: ServiceName) -> _Shelf:
        names = [service.text for service in self.rules.policy.destinations(source)]
        traffic = self.rules.traffic(names)
        before = self._before.pop(kin, None)
        same = before and before.names == names and before.traffic == traffic
        return before if before and same else _Shelf(names, traffic, self._places)


def _told(revoked: Iterable[tuple[InstanceId, int]]) -> list[revocation_pb2.RevokedInstance]:
    return [revocation_pb2.RevokedInstance(instance=one.raw, until_ms=until) for one, until in revoked]


def _destination(
    name: str, endpoints: Iterable[tuple[InstanceId, str]], traffic: bytes
) -> gatekeeper_pb2.Destination:
    return gatekeeper_pb2.Destination(
        service=name,
        traffic=traffic,
        endpoints=[
            gatekeeper_pb2.Endpoint(instance=instance.raw, address=address) for instance, address in endpoints
        ],
    )
