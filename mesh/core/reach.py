"""Rules that can never decide anything: the mistakes of a policy that reads well.

A rule is unreachable if another one has all its principals and paths, asks for no more (it has no headers and
condition, or the same), and is looked at before: a deny rule, or an earlier one of the same list. Only rules
that settle a call count as the other one; what is in audit does not.

This is asked of what a person writes, not of what is in force: a policy that was taken once stays readable.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeAlias

from mesh.core.condition import Condition
from mesh.core.document import PolicyError
from mesh.core.groups import Groups
from mesh.core.patterns import wider_paths, wider_principals
from mesh.core.policy import Policy
from mesh.core.rules import Mode, Rule

Demand: TypeAlias = tuple[frozenset[tuple[str, frozenset[str]]], Condition | None]
NOTHING: Final[Demand] = (frozenset(), None)


def check_reach(policy: Policy) -> None:
    """Raise ``PolicyError`` for the first rule that no call reaches."""
    for name in policy.services:
        section = policy.section(name)
        denying, allowing = _Rules(section.groups), _Rules(section.groups)
        for at, rule in _places(f"policy.services.{name}.deny", section.deny):
            _refuse(at, denying.covering(rule), "deny rule")
            if section.enforces(rule):
                denying.add(rule)
        for at, rule in _places(f"policy.services.{name}.allow", section.allow):
            _refuse(at, denying.covering(rule), "deny rule")
            _refuse(at, allowing.covering(rule), "earlier rule")
            if rule.mode is not Mode.AUDIT:
                allowing.add(rule)


def _places(at: str, rules: Iterable[Rule]) -> Iterable[tuple[str, Rule]]:
    return ((f"{at}[{index}]", rule) for index, rule in enumerate(rules))


def _refuse(at: str, covering: Rule | None, what: str) -> None:
    if covering is not None:
        wrong = f"is never reached: the {what} {covering.name!r} covers all of it: change or remove one"
        raise PolicyError(at, wrong)


class _Rules:
    """Rules by what they demand, and below that by each of their patterns."""

    def __init__(self, groups: Groups) -> None:
        self._groups = groups
        self._wider: dict[str, tuple[str, ...]] = {}
        self._rules: list[Rule] = []
        self._places: dict[tuple[Demand, str], set[int]] = {}

    def add(self, rule: Rule) -> None:
        asked = demand(rule)
        for pattern in (*rule.principals, *map(_path, rule.paths)):
            self._places.setdefault((asked, pattern), set()).add(len(self._rules))
        self._rules.append(rule)

    def covering(self, rule: Rule) -> Rule | None:
        """Give the first rule that applies whenever this one does."""
        wanted = [self._principals(pattern) for pattern in rule.principals]
        wanted += [tuple(map(_path, wider_paths(path))) for path in rule.paths]
        found = set[int]().union(*(self._all_of(one, wanted) for one in {NOTHING, demand(rule)}))
        return self._rules[min(found)] if found else None

    def _all_of(self, asked: Demand, wanted: list[tuple[str, ...]]) -> set[int]:
        # Each pattern of the rule needs one that is as wide. The rarest are looked at first.
        holding = [
            [self._places[asked, wide] for wide in wider if (asked, wide) in self._places] for wider in wanted
        ]
        holding.sort(key=lambda places: sum(map(len, places)))
        found = set[int]().union(*holding[0])
        for places in holding[1:]:
            if not found:
                break
            found = {place for place in found if any(place in some for some in places)}
        return found

    def _principals(self, pattern: str) -> tuple[str, ...]:
        known = self._wider.get(pattern)
        if known is None:
            known = self._wider[pattern] = self._groups.holding(wider_principals(pattern))
        return known


def demand(rule: Rule) -> Demand:
    """Give what a rule asks for beyond principal and path, as something to compare."""
    return frozenset((header.key, frozenset(header.values)) for header in rule.headers), rule.when


def _path(pattern: str) -> str:
    # Apart from the star, paths and principals are never alike.
    return f"path {pattern}"
