"""What the rules about calls to one service say, apart from whom they speak of.

Rules that say the same are one clause and have one number, on both sides of a comparison: so what is said of
a caller is a set of numbers, and where it is the same set nothing differs. ``difference`` compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, TypeAlias

from mesh.core.groups import GROUP
from mesh.core.reach import Demand, demand
from mesh.core.rules import Mode, Rule, Section

#: Clauses by their numbers.
Said: TypeAlias = frozenset[int]


class Does(IntEnum):
    """What a rule does with a call that it applies to."""

    DENY, RECORD, ALLOW, TRY = range(4)


class Clause(NamedTuple):
    """What a rule says, whoever it speaks of."""

    does: Does
    paths: frozenset[str]
    demand: Demand


@dataclass(slots=True)
class Work:
    """What may still be looked at, and the clauses that were met."""

    finding: int
    judging: int
    clauses: list[Clause] = field(default_factory=list)
    _numbers: dict[Clause, int] = field(default_factory=dict)

    def number(self, clause: Clause) -> int:
        """Give the number of a clause, the same for equal ones."""
        number = self._numbers.setdefault(clause, len(self.clauses))
        if number == len(self.clauses):
            self.clauses.append(clause)
        return number


class Side:
    """The rules about calls to one service, by whom they speak of."""

    def __init__(self, section: Section, work: Work) -> None:
        """Take a section with all groups that its rules speak of."""
        self.audits = section.audits
        self._groups, self._work = section.groups, work
        self._said: dict[str, set[int]] = {}
        for clause, rule in _clauses(section):
            number = work.number(clause)
            for principal in rule.principals:
                self._said.setdefault(principal, set()).add(number)
        members = (member for listed in section.groups.members.values() for member in listed)
        self._known = {*self._said, *members}
        self._about: dict[tuple[str, ...], Said] = {}
        self.principals = {name for name in self._known if not name.startswith(GROUP)}

    def about(self, patterns: tuple[str, ...]) -> Said | None:
        """Give what is said of the caller that some principals match, if there is time to."""
        if self._work.finding < 0:
            return None
        self._work.finding -= len(patterns)
        known = tuple([pattern for pattern in patterns if pattern in self._known])
        said = self._about.get(known)
        if said is None:
            said = self._about[known] = self._gathered(self._groups.holding(known))
        return said

    def _gathered(self, patterns: tuple[str, ...]) -> Said:
        said = [self._said[pattern] for pattern in patterns if pattern in self._said]
        self._work.finding -= len(patterns) + sum(map(len, said))
        return frozenset().union(*said)


def _clauses(section: Section) -> Iterator[tuple[Clause, Rule]]:
    for rule in section.deny:
        does = Does.DENY if section.enforces(rule) else Does.RECORD
        yield Clause(does, frozenset(rule.paths), demand(rule)), rule
    for rule in section.allow:
        does = Does.TRY if rule.mode is Mode.AUDIT else Does.ALLOW
        yield Clause(does, frozenset(rule.paths), demand(rule)), rule
