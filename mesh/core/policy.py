"""The policy as a document: who may call what of whom, read strictly or not at all.

    version: 4                      optional guard: apply only if newer than the version in force
    mode: audit                     optional; permit and tell what would have been denied, everywhere
    groups:                         optional, see ``groups``
      partners: [acme, "partner.*"]
    services:
      frontend: {}                  a service that nobody may call
      orders:                       its ``Section`` of rules, see ``rules``
        allow: [...]
        deny: [...]
    traffic:                        optional: how calls that are permitted are made, see ``traffic``
      orders: {...}

The default is to deny. A principal without wildcard has to be a service of the same document, one of its
groups, or the mesh's own, so that a misspelt name refuses it all; so does one in a condition. The mode of a
rule goes before that of its service, and that before the document's.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from mesh.core import document, traffic_document
from mesh.core.document import PolicyError
from mesh.core.groups import GROUP, NO_GROUPS, Groups
from mesh.core.names import AUTH, GATEKEEPER, OPERATOR, ServiceName
from mesh.core.patterns import ANY
from mesh.core.rules import HeaderRule, Mode, Rule, Section, mode_in
from mesh.core.traffic import NONE, Traffic

__all__ = ["MAX_VERSION", "HeaderRule", "Mode", "Policy", "PolicyError", "Rule", "Section"]

MAX_VERSION: Final = 2**63 - 1
#: Different conditions in one policy: each takes 0.1 ms to read and 5 kB to keep.
MAX_CONDITIONS: Final = 10_000

#: The mesh's own services, which a policy speaks of without listing them.
OWN: Final = frozenset(name.text for name in (AUTH, GATEKEEPER, OPERATOR))
_NOTHING: Final = Section()


@dataclass(frozen=True)
class Policy:
    """A whole document, with an index of who may know of whom."""

    services: Mapping[ServiceName, Section]
    version_guard: int | None = None
    groups: Groups = NO_GROUPS
    mode: Mode | None = None
    traffic: Mapping[ServiceName, Traffic] = field(default_factory=dict)
    _names: tuple[ServiceName, ...] = field(init=False, repr=False, compare=False)
    _allowing: dict[str, set[int]] = field(init=False, repr=False, compare=False, default_factory=dict)
    _denying: dict[str, set[int]] = field(init=False, repr=False, compare=False, default_factory=dict)
    _by_name: dict[str, set[int]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Index principals by the services, as their places in the sorted names, with rules about them."""
        object.__setattr__(self, "services", MappingProxyType(dict(self.services)))
        object.__setattr__(self, "traffic", MappingProxyType(dict(self.traffic)))
        object.__setattr__(self, "_names", tuple(sorted(self.services)))
        for place, name in enumerate(self._names):
            section = self._judging(name)
            _note(self._allowing, place, section.allow)
            if section.audits:
                self._allowing.setdefault(ANY, set()).add(place)
            _note(self._denying, place, section.denials)
            _note(self._by_name, place, section.by_name)

    @classmethod
    def parse(cls, text: bytes | str) -> Policy:
        """Read strict JSON of at most 10 MiB; raise ``PolicyError`` for the first thing that is wrong."""
        optional = ("version", "mode", "groups", "traffic")
        found = document.fields("policy", document.load("policy", text), ("services",), optional)
        at = "policy.services"
        services = {}
        for key, node in document.members(at, found["services"]).items():
            name = _service(at, key)
            services[name] = Section.parse_below(f"{at}.{name}", node, name)
        groups = Groups.parse("policy.groups", found["groups"]) if "groups" in found else NO_GROUPS
        _check_names(at, services, groups)
        guard = None
        if "version" in found:
            guard = document.count("policy.version", found["version"], MAX_VERSION)
        traffic = _traffic("policy.traffic", found["traffic"], services) if "traffic" in found else {}
        return cls(services, guard, groups, mode_in("policy", found), traffic)

    def encode(self) -> bytes:
        """Give canonical JSON: ``parse`` gives an equal policy back."""
        data: dict[str, object] = {
            "services": {name.text: section.data(name.text) for name, section in self.services.items()}
        }
        if self.groups.members:
            data["groups"] = self.groups.data()
        if self.mode:
            data["mode"] = self.mode.value
        if self.traffic:
            data["traffic"] = {name.text: traffic_document.data(said) for name, said in self.traffic.items()}
        if self.version_guard is not None:
            data["version"] = self.version_guard
        return document.dump(data)

    def section(self, name: ServiceName) -> Section:
        """Give what judges the calls to a service; the empty section for one that is not there."""
        if name not in self.services:
            return _NOTHING
        section = self._judging(name)
        spoken_of = (principal for _, rule in section.rules("") for principal in rule.principals)
        return replace(section, groups=self.groups.within(spoken_of))

    def traffic_to(self, name: ServiceName) -> Traffic:
        """Give how calls to a service are made; nothing in particular where the policy does not say."""
        return self.traffic.get(name, NONE)

    @property
    def shared(self) -> object:
        """What judges calls to every service: where it is equal, equal sections judge alike."""
        return self.groups, self.mode

    def kin(self, source: ServiceName) -> tuple[str, ...]:
        """Give the principals here that match a service: who shares them all has the same destinations."""
        patterns = self.groups.patterns(source.text)
        indexes = (self._allowing, self._denying, self._by_name)
        known = [pattern for pattern in patterns if any(pattern in index for index in indexes)]
        if any(pattern in self._by_name for pattern in known):
            # A condition on names may tell any two apart: this one is kin to itself alone.
            known.insert(0, source.text)
        return tuple(dict.fromkeys(known))

    def permits_pair(self, source: ServiceName, destination: ServiceName) -> bool:
        """Whether ``source`` may call ``destination`` at all: this gates its keys, and knowing of it."""
        return destination in self.services and self._judging(destination).admits(source)

    def destinations(self, source: ServiceName) -> list[ServiceName]:
        """Give, sorted, every service for which ``permits_pair`` holds."""
        patterns = self.kin(source)
        allowing = set[int]().union(*(self._allowing.get(pattern, ()) for pattern in patterns))
        denying = set[int]().union(
            *(index.get(pattern, ()) for index in (self._denying, self._by_name) for pattern in patterns)
        )
        # Only where a denial or a condition on names speaks of the source as well does it take a look at the
        # rules themselves.
        doubtful = allowing & denying
        refusing = {place for place in doubtful if not self.permits_pair(source, self._names[place])}
        return [self._names[place] for place in sorted(allowing - refusing)]

    def _judging(self, name: ServiceName) -> Section:
        # With all groups: whoever hands the section on takes only those it speaks of.
        section = self.services[name]
        if not self.groups.members and (section.mode or not self.mode):
            return section
        return replace(section, mode=section.mode or self.mode, groups=self.groups)


def _note(index: dict[str, set[int]], place: int, rules: Iterable[Rule]) -> None:
    for rule in rules:
        for principal in rule.principals:
            index.setdefault(principal, set()).add(place)


def _service(at: str, key: str) -> ServiceName:
    try:
        name = ServiceName(key)
    except ValueError as error:
        raise PolicyError(at, str(error), key) from None
    if name.reserved:
        raise PolicyError(f"{at}.{name}", "names below mesh are the mesh's own: choose another", key)
    return name


def _traffic(at: str, node: object, services: Container[ServiceName]) -> dict[ServiceName, Traffic]:
    found = {}
    for key, below in document.members(at, node).items():
        name = _service(at, key)
        if name not in services:
            raise PolicyError(f"{at}.{name}", _undeclared(key), key)
        found[name] = traffic_document.read(f"{at}.{name}", below)
        for index, share in enumerate(found[name].split):
            place = f"{at}.{name}.split[{index}].service"
            if document.checked(place, share.service, ServiceName) not in services:
                raise PolicyError(place, _undeclared(share.service))
    return found


def _check_names(at: str, services: Mapping[ServiceName, Section], groups: Groups) -> None:
    declared = {name.text for name in services} | OWN
    for group, members in groups.members.items():
        _check_declared(f"policy.groups.{group}", members, declared, groups)
    conditions = set()
    for name, section in services.items():
        for place, rule in section.rules(f"{at}.{name}"):
            _check_declared(f"{place}.principals", rule.principals, declared, groups)
            groups.check(f"{place}.principals", rule.principals)
            if rule.when:
                conditions.add(rule.when)
                for service in rule.when.services:
                    if service not in declared:
                        raise PolicyError(f"{place}.when", _undeclared(service))
    if len(conditions) > MAX_CONDITIONS:
        raise PolicyError(at, f"{len(conditions)} different conditions: use at most {MAX_CONDITIONS}")


def _check_declared(at: str, principals: Iterable[str], declared: Container[str], groups: Groups) -> None:
    for place, principal in enumerate(principals):
        if ANY not in principal and not principal.startswith(GROUP) and principal not in declared:
            wrong = _undeclared(principal)
            if principal in groups.members:
                wrong = f"{principal!r} is a group, not a service: write '{GROUP}{principal}'"
            raise PolicyError(f"{at}[{place}]", wrong)


def _undeclared(name: str) -> str:
    return f"this policy has no service {name!r}: correct the name, or add '{name}: {{}}' to the services"
