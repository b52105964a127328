"""The rules about calls to one service, as data.

    allow:
      - name: frontend-orders   optional; "orders/allow/0" without
        principals: [frontend, "group:partners"]
        paths: ["/shop.v1.Orders/*"]
        headers: [{key: x-tenant, values: [acme, "ac*", "*me"]}]     optional
        when: time.getHours() < 18                                   optional, see ``condition``
        mode: audit                                                  optional
    deny: [...]                 the same shape; deny wins
    mode: audit                 optional

A rule applies if one of its principals, one of its paths, every one of its headers and its condition match:
``patterns`` says what matches, ``matcher`` what that means for headers, conditions and modes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from mesh.core import document
from mesh.core.condition import Condition
from mesh.core.document import Node
from mesh.core.groups import NO_GROUPS, Groups, principals
from mesh.core.names import ServiceName
from mesh.core.patterns import ANY, checked_key, checked_path, checked_value, covered

ALLOW: Final = "allow"
DENY: Final = "deny"

_RULE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/:-]{0,159}")


class Mode(StrEnum):
    """What comes of a denial."""

    ENFORCE = "enforce"
    """It is one."""
    AUDIT = "audit"
    """The call is permitted, and the permit tells what would have denied it."""


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
    when: Condition | None = None
    mode: Mode | None = None

    @property
    def conditional(self) -> bool:
        """Whether more than source and method decides if it applies."""
        return bool(self.headers) or self.when is not None

    def speaks_of(self, patterns: Collection[str]) -> bool:
        """Whether one of the principals is among those that match a source."""
        return any(principal in patterns for principal in self.principals)


@dataclass(frozen=True, slots=True)
class Placed:
    """A rule, and where it stands in a document: ``("services", "orders", "allow", 0)``."""

    place: tuple[str | int, ...]
    rule: Rule


@dataclass(frozen=True, slots=True)
class Section:
    """All rules about calls to one service. The empty one denies everything.

    In a document a section leaves groups to the policy, and the mode where it is not said. By itself, as a
    slice carries it, it has all that it takes to judge a call: ``Policy.section`` gives it so.
    """

    allow: tuple[Rule, ...] = ()
    deny: tuple[Rule, ...] = ()
    mode: Mode | None = None
    groups: Groups = NO_GROUPS
    service: str = field(default="", compare=False)

    @classmethod
    def parse(cls, text: bytes | str) -> Section:
        """Read a section by itself, as a slice carries it; raise ``PolicyError``."""
        at = "section"
        found = document.fields(at, document.load(at, text), (), (*_FIELDS, "groups", "service"))
        groups = Groups.parse(f"{at}.groups", found["groups"]) if "groups" in found else NO_GROUPS
        service = document.text(f"{at}.service", found.get("service", ""))
        section = _section(at, found, "", groups, service)
        for place, rule in section.rules(at):
            groups.check(f"{place}.principals", rule.principals)
        return section

    @classmethod
    def parse_below(cls, at: str, node: Node, service: ServiceName) -> Section:
        """Read the section of a service within a document; raise ``PolicyError``."""
        return _section(at, document.fields(at, node, (), _FIELDS), service.text, NO_GROUPS, service.text)

    def encode(self) -> bytes:
        """Give canonical JSON, every rule with its name, as a slice carries it."""
        data = self.data(None)
        if self.groups.members:
            data["groups"] = self.groups.data()
        if self.service and any(rule.when for _, rule in self.rules("")):
            data["service"] = self.service
        return document.dump(data)

    def data(self, service: str | None) -> dict[str, Node]:
        """Give what a document has at this place: below its service, or by itself for ``None``."""
        # Below its service a default name is left out, so that a document can be edited without keeping them.
        data: dict[str, Node] = {
            effect: [
                _rule_data(rule, None if service is None else _default_name(service, effect, index))
                for index, rule in enumerate(rules)
            ]
            for effect, rules in ((ALLOW, self.allow), (DENY, self.deny))
            if rules
        }
        return data if self.mode is None else data | {"mode": self.mode.value}

    def rules(self, at: str) -> Iterator[tuple[str, Rule]]:
        """Give every rule with its place in a document, allow before deny."""
        for effect, rules in ((ALLOW, self.allow), (DENY, self.deny)):
            for index, rule in enumerate(rules):
                yield f"{at}.{effect}[{index}]", rule

    @property
    def audits(self) -> bool:
        """Whether what no rule allows is permitted all the same."""
        return self.mode is Mode.AUDIT

    def enforces(self, denial: Rule) -> bool:
        """Whether a deny rule denies: its own mode goes before the section's."""
        return (denial.mode or self.mode) is not Mode.AUDIT

    @property
    def denials(self) -> list[Rule]:
        """The deny rules that deny whatever the metadata and the time."""
        return [rule for rule in self.deny if not rule.conditional and self.enforces(rule)]

    @property
    def by_name(self) -> list[Rule]:
        """The rules that tell apart, by their conditions, services that the same principals match."""
        return [rule for rule in (*self.allow, *self.deny) if rule.when and rule.when.between]

    def admits(self, source: ServiceName) -> bool:
        """Whether there is any method that ``source`` may call, given the right metadata and time."""
        patterns = frozenset(self.groups.patterns(source.text))
        deny = (rule for rule in self.deny if self.enforces(rule) and not rule.headers)
        denied = {
            path for rule in deny if False not in self._says(rule, source, patterns) for path in rule.paths
        }
        if self.audits and ANY not in denied:
            return True
        allow = (rule for rule in self.allow if True in self._says(rule, source, patterns))
        return not all(covered(path, denied) for rule in allow for path in rule.paths)

    def _says(self, rule: Rule, source: ServiceName, patterns: Collection[str]) -> frozenset[bool | None]:
        """Give what principals and condition of a rule may say of the calls of a source."""
        if not rule.speaks_of(patterns):
            return frozenset({False})
        return rule.when.ever(source.text, self.service) if rule.when else frozenset({True})


_FIELDS: Final = (ALLOW, DENY, "mode")


def mode_in(at: str, found: Mapping[str, Node]) -> Mode | None:
    """Give the mode among the members of an object, if there is one; raise ``PolicyError``."""
    return document.checked(f"{at}.mode", found["mode"], _mode) if "mode" in found else None


def _mode(text: str) -> Mode:
    if text not in tuple(Mode):
        msg = f"bad mode {text!a:.80}: use enforce or audit"
        raise ValueError(msg)
    return Mode(text)


def _section(at: str, found: Mapping[str, Node], prefix: str, groups: Groups, service: str) -> Section:
    allow, deny = (_rules(at, effect, found.get(effect, []), prefix) for effect in (ALLOW, DENY))
    document.once(at, (rule.name for rule in (*allow, *deny)), "the name")
    return Section(allow, deny, mode_in(at, found), groups, service)


def _rules(at: str, effect: str, node: Node, service: str) -> tuple[Rule, ...]:
    return tuple(
        _rule(place, item, _default_name(service, effect, index))
        for index, (place, item) in enumerate(document.items(f"{at}.{effect}", node))
    )


def _default_name(service: str, effect: str, index: int) -> str:
    return f"{service}/{effect}/{index}" if service else f"{effect}/{index}"


def checked_name(text: str) -> str:
    """Give back a name of a rule; raise ``ValueError`` for anything else."""
    if not _RULE_NAME.fullmatch(text):
        msg = f"bad name {text!a:.80}: use up to 160 letters, digits, blanks and . _ / : -"
        raise ValueError(msg)
    return text


def _rule(at: str, node: Node, unnamed: str) -> Rule:
    found = document.fields(at, node, ("principals", "paths"), ("name", "headers", "when", "mode"))
    name = document.checked(f"{at}.name", found.get("name", unnamed), checked_name)
    return Rule(
        name,
        principals(f"{at}.principals", found["principals"]),
        document.texts(f"{at}.paths", found["paths"], checked_path),
        checked_headers(f"{at}.headers", found["headers"]) if "headers" in found else (),
        document.checked(f"{at}.when", found["when"], Condition.parse) if "when" in found else None,
        mode_in(at, found),
    )


def checked_headers(at: str, node: Node) -> tuple[HeaderRule, ...]:
    """Read a list of headers that has any, each key once; raise ``PolicyError``."""
    headers = tuple(_header(place, item) for place, item in document.some(at, node))
    document.once(at, (header.key for header in headers), "the key")
    return headers


def header_data(headers: Iterable[HeaderRule]) -> list[Node]:
    """Give what a document has for headers."""
    return [{"key": header.key, "values": header.values} for header in headers]


def _header(at: str, node: Node) -> HeaderRule:
    found = document.fields(at, node, ("key", "values"), ())
    key = document.checked(f"{at}.key", found["key"], checked_key)
    return HeaderRule(key, document.texts(f"{at}.values", found["values"], checked_value))


def _rule_data(rule: Rule, unnamed: str | None) -> dict[str, Node]:
    data: dict[str, Node] = {"principals": rule.principals, "paths": rule.paths}
    if rule.name != unnamed:
        data["name"] = rule.name
    if rule.headers:
        data["headers"] = header_data(rule.headers)
    if rule.when:
        data["when"] = rule.when.text
    if rule.mode:
        data["mode"] = rule.mode.value
    return data
