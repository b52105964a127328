"""The policy as data: who may call what of whom, read strictly or not at all.

    version: 4                      optional guard: apply only if newer than the version in force
    services:
      frontend: {}                  a service that nobody may call
      orders:
        allow:
          - name: frontend-orders   optional; "orders/allow/0" without
            principals: [frontend]
            paths: ["/shop.v1.Orders/*"]
            headers: [{key: x-tenant, values: [acme, "ac*", "*me"]}]     optional
        deny: [...]                 the same shape; deny wins

The default is to deny. A rule applies if one of its principals, one of its paths and every one of its
headers match: ``patterns`` says what matches, ``matcher`` what that means for headers. A principal without
wildcard has to be a service of the same document, or the mesh's own, so that a misspelt name refuses it all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from mesh.core import document
from mesh.core.document import Node, Object, PolicyError
from mesh.core.metadata import is_application_key
from mesh.core.names import AUTH, GATEKEEPER, OPERATOR, ServiceName
from mesh.core.patterns import (
    ANY,
    checked_path,
    checked_principal,
    checked_value,
    covered,
    source_patterns,
)

__all__ = ["MAX_VERSION", "HeaderRule", "Policy", "PolicyError", "Rule", "Section"]

MAX_VERSION: Final = 2**63 - 1

_RULE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/:-]{0,159}")
_HEADER_KEY: Final = re.compile(r"[a-z0-9_.-]{1,128}")
_OWN: Final = frozenset(name.text for name in (AUTH, GATEKEEPER, OPERATOR))
_ALLOW, _DENY = "allow", "deny"


@dataclass(frozen=True, slots=True)
class HeaderRule:
    """One metadata key, and the patterns that its values may match."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """One row of an allow or deny list. Patterns keep their text; the parser has checked each."""

    name: str
    principals: tuple[str, ...]
    paths: tuple[str, ...]
    headers: tuple[HeaderRule, ...] = ()

    def speaks_of(self, source: ServiceName) -> bool:
        """Whether one of the principals matches."""
        return not set(source_patterns(source.text)).isdisjoint(self.principals)


@dataclass(frozen=True, slots=True)
class Section:
    """All rules about calls to one service. The empty one denies everything."""

    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, text: bytes | str) -> Section:
        """Read a section by itself, as a slice carries it; raise ``PolicyError``."""
        return _section("section", document.load("section", text), "")

    def encode(self) -> bytes:
        """Give canonical JSON, every rule with its name, as a slice carries it."""
        return document.dump(_section_data(self, None))

    def admits(self, source: ServiceName) -> bool:
        """Whether there is any method that ``source`` may call, given the right headers."""
        denied = {path for rule in unconditional(self.deny) if rule.speaks_of(source) for path in rule.paths}
        allowed = (path for rule in self.allow if rule.speaks_of(source) for path in rule.paths)
        return not all(covered(path, denied) for path in allowed)


_NOTHING: Final = Section()


@dataclass(frozen=True)
class Policy:
    """A whole document, with an index of who may know of whom."""

    services: Mapping[ServiceName, Section]
    version_guard: int | None = None
    _names: tuple[ServiceName, ...] = field(init=False, repr=False, compare=False)
    _allowing: dict[str, set[int]] = field(init=False, repr=False, compare=False, default_factory=dict)
    _denying: dict[str, set[int]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Index principals by the services, as their places in the sorted names, with rules about them."""
        object.__setattr__(self, "services", MappingProxyType(dict(self.services)))
        object.__setattr__(self, "_names", tuple(sorted(self.services)))
        for place, name in enumerate(self._names):
            _note(self._allowing, place, self.services[name].allow)
            _note(self._denying, place, unconditional(self.services[name].deny))

    @classmethod
    def parse(cls, text: bytes | str) -> Policy:
        """Read strict JSON of at most 10 MiB; raise ``PolicyError`` for the first thing that is wrong."""
        found = document.fields("policy", document.load("policy", text), ("services",), ("version",))
        at = "policy.services"
        services = {}
        for key, node in document.members(at, found["services"]).items():
            name = _service(at, key)
            services[name] = _section(f"{at}.{name}", node, name.text)
        _check_declared(at, services)
        version = found.get("version", _NOTHING)
        guard = None if version is _NOTHING else document.count("policy.version", version, MAX_VERSION)
        return cls(services, guard)

    def encode(self) -> bytes:
        """Give canonical JSON: ``parse`` gives an equal policy back."""
        services = {name.text: _section_data(section, name.text) for name, section in self.services.items()}
        guard = {} if self.version_guard is None else {"version": self.version_guard}
        return document.dump({"services": services, **guard})

    def section(self, name: ServiceName) -> Section:
        """Give the rules about calls to a service; the empty section for one that is not there."""
        return self.services.get(name, _NOTHING)

    def permits_pair(self, source: ServiceName, destination: ServiceName) -> bool:
        """Whether ``source`` may call ``destination`` at all: this gates its keys, and knowing of it."""
        return self.section(destination).admits(source)

    def destinations(self, source: ServiceName) -> list[ServiceName]:
        """Give, sorted, every service for which ``permits_pair`` holds."""
        patterns = source_patterns(source.text)
        allowing = set[int]().union(*(self._allowing.get(pattern, ()) for pattern in patterns))
        denying = set[int]().union(*(self._denying.get(pattern, ()) for pattern in patterns))
        # Only where a denial speaks of the source as well does it take a look at the rules themselves.
        doubtful = allowing & denying
        refusing = {place for place in doubtful if not self.permits_pair(source, self._names[place])}
        return [self._names[place] for place in sorted(allowing - refusing)]


def unconditional(rules: Iterable[Rule]) -> list[Rule]:
    """Give the rules that apply whatever the metadata."""
    return [rule for rule in rules if not rule.headers]


def _note(index: dict[str, set[int]], place: int, rules: Iterable[Rule]) -> None:
    for rule in rules:
        for principal in rule.principals:
            index.setdefault(principal, set()).add(place)


def _service(at: str, key: str) -> ServiceName:
    try:
        name = ServiceName(key)
    except ValueError as error:
        raise PolicyError(at, str(error)) from None
    if name.reserved:
        raise PolicyError(f"{at}.{name}", "names below mesh are the mesh's own: choose another")
    return name


def _check_declared(at: str, services: Mapping[ServiceName, Section]) -> None:
    declared = {name.text for name in services} | _OWN
    for name, section in services.items():
        for effect, rules in ((_ALLOW, section.allow), (_DENY, section.deny)):
            for index, rule in enumerate(rules):
                for place, principal in enumerate(rule.principals):
                    if ANY not in principal and principal not in declared:
                        raise PolicyError(
                            f"{at}.{name}.{effect}[{index}].principals[{place}]",
                            f"this policy has no service {principal!r}: correct the name, or add "
                            f"'{principal}: {{}}' to the services",
                        )


def _section(at: str, node: Node, service: str) -> Section:
    found = document.fields(at, node, (), (_ALLOW, _DENY))
    allow, deny = (_rules(at, effect, found.get(effect, []), service) for effect in (_ALLOW, _DENY))
    document.once(at, (rule.name for rule in (*allow, *deny)), "the name")
    return Section(allow, deny)


def _rules(at: str, effect: str, node: Node, service: str) -> tuple[Rule, ...]:
    return tuple(
        _rule(place, item, _default_name(service, effect, index))
        for index, (place, item) in enumerate(document.items(f"{at}.{effect}", node))
    )


def _default_name(service: str, effect: str, index: int) -> str:
    return f"{service}/{effect}/{index}" if service else f"{effect}/{index}"


def _rule(at: str, node: Node, unnamed: str) -> Rule:
    if isinstance(node, Object) and any(key == "condition" for key, _ in node.pairs):
        raise PolicyError(f"{at}.condition", "conditions are not supported yet: remove it")
    found = document.fields(at, node, ("principals", "paths"), ("name", "headers"))
    name = document.text(f"{at}.name", found.get("name", unnamed))
    if not _RULE_NAME.fullmatch(name):
        wrong = f"bad name {name!r:.80}: use up to 160 letters, digits, blanks and . _ / : -"
        raise PolicyError(f"{at}.name", wrong)
    headers = document.some(f"{at}.headers", found["headers"]) if "headers" in found else []
    rule = Rule(
        name,
        document.texts(f"{at}.principals", found["principals"], checked_principal),
        document.texts(f"{at}.paths", found["paths"], checked_path),
        tuple(_header(place, item) for place, item in headers),
    )
    document.once(f"{at}.headers", (header.key for header in rule.headers), "the key")
    return rule


def _header(at: str, node: Node) -> HeaderRule:
    found = document.fields(at, node, ("key", "values"), ())
    key = document.text(f"{at}.key", found["key"])
    if not _HEADER_KEY.fullmatch(key):
        raise PolicyError(f"{at}.key", f"bad metadata key {key!r:.80}: use lower-case a-z, 0-9 and _ . -")
    if key.endswith("-bin"):
        raise PolicyError(f"{at}.key", f"{key!r} holds bytes, which no rule can match: use a text key")
    if key.startswith("grpc-") or not is_application_key(key):
        raise PolicyError(f"{at}.key", f"{key!r} is not the application's and no rule sees it: use another")
    return HeaderRule(key, document.texts(f"{at}.values", found["values"], checked_value))


def _section_data(section: Section, service: str | None) -> dict[str, Node]:
    # Below its service a default name is left out, so that a document can be edited without keeping old ones.
    return {
        effect: [
            _rule_data(rule, None if service is None else _default_name(service, effect, index))
            for index, rule in enumerate(rules)
        ]
        for effect, rules in ((_ALLOW, section.allow), (_DENY, section.deny))
        if rules
    }


def _rule_data(rule: Rule, unnamed: str | None) -> dict[str, Node]:
    data: dict[str, Node] = {"principals": rule.principals, "paths": rule.paths}
    if rule.name != unnamed:
        data["name"] = rule.name
    if rule.headers:
        data["headers"] = [{"key": header.key, "values": header.values} for header in rule.headers]
    return data
