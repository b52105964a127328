"""Which rules are about a source and a method: found by looking their patterns up, never by searching.

What a found rule says is for ``matcher`` to judge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from mesh.core.groups import Groups
from mesh.core.patterns import method_patterns
from mesh.core.rules import Rule

#: How many principals that match sources it remembers: a few for each, or all groups of a large policy.
PRINCIPALS: Final = 65_536


class Index:
    """Rules by each of their patterns."""

    __slots__ = ("_by_path", "_by_principal", "_rules")

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        """Take the rules in their order."""
        self._rules = rules
        self._by_principal = _places(rules, lambda rule: rule.principals)
        self._by_path = _places(rules, lambda rule: rule.paths)

    def applying(
        self, patterns: Iterable[str], method: str, settles: Callable[[Rule], bool]
    ) -> tuple[Rule, ...]:
        """Give the rules whose principals and paths match, in order, up to the first that settles it."""
        if not self._rules:
            return ()
        of_source = [self._by_principal[p] for p in patterns if p in self._by_principal]
        of_method = [self._by_path[p] for p in method_patterns(method) if p in self._by_path]
        # A set of places for each pair of patterns: the work follows the smaller one of the two.
        places = {place for first in of_source for second in of_method for place in first & second}
        rules = []
        for place in sorted(places):
            rules.append(self._rules[place])
            if not rules[-1].conditional and settles(rules[-1]):
                break
        return tuple(rules)


def _places(rules: tuple[Rule, ...], patterns: Callable[[Rule], Iterable[str]]) -> dict[str, frozenset[int]]:
    places: dict[str, set[int]] = {}
    for place, rule in enumerate(rules):
        for pattern in patterns(rule):
            places.setdefault(pattern, set()).add(place)
    return {pattern: frozenset(found) for pattern, found in places.items()}


class Matching:
    """The principals that match a source, remembered up to a bound: it may be in all groups there are."""

    __slots__ = ("_groups", "_known", "_left")

    def __init__(self, groups: Groups) -> None:
        """Take all groups that rules speak of."""
        self._groups = groups
        self._known: dict[str, tuple[str, ...]] = {}
        self._left = PRINCIPALS

    def patterns(self, source: str) -> tuple[str, ...]:
        """Give every principal that matches a service."""
        known = self._known.get(source)
        if known is None:
            known = self._groups.patterns(source)
            if len(known) > self._left:
                self._known.clear()
                self._left = PRINCIPALS
            self._left -= len(known)
            self._known[source] = known
        return known
