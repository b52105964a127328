"""What differs between two policies: not in their text, but in who may call what.

Callers and methods are without number, but a policy tells apart only so many of each: the services that it
lists and, for each wildcard, all others that it matches; the methods that it names and, for each wildcard,
the others. Each pair of these is judged under both policies, for every service whose rules are not the same.
Conditions are compared, not solved: a rule with another condition is a difference, whatever it says.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

from mesh.core.groups import GROUP
from mesh.core.names import OPERATOR, ServiceName
from mesh.core.patterns import ANY, wider_paths, wider_principals
from mesh.core.policy import Policy
from mesh.core.reach import Demand, demand
from mesh.core.rules import Mode, Rule, Section

#: Names that a prefix and a suffix match both are told apart as long as there are no more of them than this.
MEETINGS: Final = 10_000


class Grant(StrEnum):
    """What a caller may do with a method."""

    DENY = "deny"
    CONDITION = "on condition"
    AUDIT = "audit"
    ALLOW = "allow"


_RANK: Final = {Grant.DENY: 0, Grant.CONDITION: 1, Grant.AUDIT: 2, Grant.ALLOW: 2}


class _Judgement(NamedTuple):
    """A grant with all that it hangs on."""

    grant: Grant
    allowing: frozenset[Demand] = frozenset()
    on_trial: frozenset[Demand] = frozenset()
    denying: frozenset[Demand] = frozenset()
    recorded: frozenset[Demand] = frozenset()


@dataclass(frozen=True, slots=True)
class Difference:
    """Callers and methods of one service for which the same has changed.

    A caller or method with a star stands for all that it matches and that neither policy tells apart from one
    another. Without methods it is about every one.
    """

    sources: tuple[str, ...]
    destination: str
    methods: tuple[str, ...]
    before: Grant
    after: Grant

    @property
    def sign(self) -> str:
        """``+`` if more is granted, ``-`` if less, ``~`` if something else."""
        gained = _RANK[self.after] - _RANK[self.before]
        return "+" if gained > 0 else "-" if gained < 0 else "~"


_DENIED: Final = _Judgement(Grant.DENY)
_Places: TypeAlias = tuple[int, ...]
_Change: TypeAlias = tuple[tuple[str, ...], Grant, Grant]


def differences(old: Policy, new: Policy) -> list[Difference]:
    """Give what differs, by destination."""
    names = old.services.keys() | new.services.keys()
    callers = {OPERATOR.text, *(name.text for name in names)}
    return [
        difference
        for name in sorted(names)
        for difference in _of_service(name, old.section(name), new.section(name), callers)
    ]


def _of_service(
    name: ServiceName, old: Section, new: Section, callers: Iterable[str]
) -> Iterator[Difference]:
    if old == new:
        return
    before, after = _Side(old), _Side(new)
    # Callers of whom the same rules speak, on both sides, need to be looked at once.
    alike: dict[tuple[_Places, _Places], list[str]] = {}
    others = _told_apart(before.principals | after.principals, ".")
    for caller in dict.fromkeys((ANY, *sorted(callers), *others)):
        alike.setdefault((before.about(caller), after.about(caller)), []).append(caller)
    found: dict[_Change, list[str]] = {}
    for (had, has), sources in alike.items():
        for change in _changes(before.methods(had), after.methods(has)):
            found.setdefault(change, []).extend(sources)
    for (methods, grant, now), sources in found.items():
        yield Difference(tuple(sources), name.text, methods, grant, now)


def _changes(before: _Methods, after: _Methods) -> Iterator[_Change]:
    methods = _told_apart(before.paths | after.paths, "/")
    changed: dict[tuple[Grant, Grant], list[str]] = {}
    for method in methods:
        had, has = before.judge(method), after.judge(method)
        if had != has:
            changed.setdefault((had.grant, has.grant), []).append(method)
    for (grant, now), its_methods in changed.items():
        yield () if len(its_methods) == len(methods) else tuple(its_methods), grant, now


def _told_apart(patterns: Collection[str], joint: str) -> list[str]:
    """Give the names that some patterns tell apart: those named, then the others of each wildcard."""
    ends = {pattern for pattern in patterns if pattern.startswith(ANY + joint)}
    begins = {pattern for pattern in patterns if pattern.endswith(joint + ANY)}
    exact = set(patterns) - ends - begins - {ANY}
    if len(begins) * len(ends) <= MEETINGS:
        exact |= {begin[:-1] + end[2:] for begin in begins for end in ends}
    return [*sorted(exact), *sorted(begins), *sorted(ends), ANY]


class _Side:
    """The rules about calls to one service, by whom they speak of."""

    def __init__(self, section: Section) -> None:
        self._section = section
        self._rules = (*section.deny, *section.allow)
        self._places: dict[str, list[int]] = {}
        for place, rule in enumerate(self._rules):
            for principal in rule.principals:
                self._places.setdefault(principal, []).append(place)
        members = (member for listed in section.groups.members.values() for member in listed)
        self.principals = {name for name in (*self._places, *members) if not name.startswith(GROUP)}

    def about(self, caller: str) -> _Places:
        """Give the places of the rules that speak of a caller, or of all others that a wildcard matches."""
        patterns = self._section.groups.holding(wider_principals(caller))
        return tuple(sorted({place for pattern in patterns for place in self._places.get(pattern, ())}))

    def methods(self, places: _Places) -> _Methods:
        """Give what some of the rules say of methods."""
        denials = len(self._section.deny)
        by_path: dict[str, tuple[list[Rule], list[Rule]]] = {}
        for place in places:
            for path in self._rules[place].paths:
                by_path.setdefault(path, ([], []))[place >= denials].append(self._rules[place])
        return _Methods(self._section, by_path)


class _Methods:
    """What one caller may do with each method of one service."""

    def __init__(self, section: Section, by_path: Mapping[str, tuple[list[Rule], list[Rule]]]) -> None:
        self._section, self._by_path = section, by_path
        self.paths = by_path.keys()

    def judge(self, method: str) -> _Judgement:
        found = [self._by_path[path] for path in wider_paths(method) if path in self._by_path]
        deny = [rule for rules, _ in found for rule in rules]
        allow = [rule for _, rules in found for rule in rules]
        enforced = [rule for rule in deny if self._section.enforces(rule)]
        if any(not rule.conditional for rule in enforced):
            return _DENIED
        settled = [rule for rule in allow if rule.mode is not Mode.AUDIT]
        on_trial = [rule for rule in allow if rule.mode is Mode.AUDIT]
        free = any(not rule.conditional for rule in settled)
        if free:
            grant = Grant.ALLOW
        elif self._section.audits or any(not rule.conditional for rule in on_trial):
            grant = Grant.AUDIT
        elif allow:
            grant = Grant.CONDITION
        else:
            return _DENIED
        return _Judgement(
            Grant.CONDITION if enforced else grant,
            frozenset() if free else _demands(settled),
            frozenset() if free else _demands(on_trial),
            _demands(enforced),
            _demands(rule for rule in deny if rule not in enforced),
        )


def _demands(rules: Iterable[Rule]) -> frozenset[Demand]:
    return frozenset(demand(rule) for rule in rules)
