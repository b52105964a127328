"""The policy as decisions: one section, compiled, judging one call after the other.

A rule applies to a call if one of its principals matches the caller, one of its paths the method, and every
one of its headers the metadata. A header of a rule looks at every entry of its key, each value as a whole
(nothing is split at commas):

    allow   there is an entry, and all of them match: sending a second value gains nothing
    deny    one of them matches: hiding it among others gains nothing

Without an entry of the key, a rule with that header does not apply, be it allow or deny. Deny wins; among
equals the first in the document gives its name. No rule, no permit.

Whom the caller is and what it calls was verified before (``receiver``). Which rules can apply to a source and
method is worked out once and remembered, up to a bound, so that a caller that tries methods at random costs
time but no memory. The rules of other services are not in a section and cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from mesh.core.errors import Denied
from mesh.core.metadata import Entries
from mesh.core.names import full_method, service_name
from mesh.core.patterns import method_patterns, source_patterns, value_matches
from mesh.core.policy import HeaderRule, Rule, Section

#: How many pairs of source and method a matcher remembers before it starts afresh.
REMEMBERED: Final = 4096


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to dispatch one method for one verified caller, and the rule that gives it."""

    source: str
    method: str
    rule: str


class _Undecided(NamedTuple):
    """The rules that apply to a source and method but for their headers, in order."""

    deny: tuple[Rule, ...]
    allow: tuple[Rule, ...]


class Matcher:
    """Judges calls to one service."""

    __slots__ = ("_allow", "_deny", "_known")

    def __init__(self, section: Section) -> None:
        """Compile the rules of a section."""
        self._allow, self._deny = _Index(section.allow), _Index(section.deny)
        self._known: dict[tuple[str, str], Permit | _Undecided] = {}

    def permit(self, source: str, method: str, entries: Entries) -> Permit:
        """Judge a call of ``source`` (a verified service name) with the application's metadata.

        Raises ``Denied``, naming the deny rule, or none where no rule allows the call.
        """
        known = self._known.get((source, method))
        if known is None:
            known = self._narrow(source, method)
        return known if isinstance(known, Permit) else _weigh(known, source, method, entries)

    def _narrow(self, source: str, method: str) -> Permit | _Undecided:
        try:
            service_name(source)
            full_method(method)
        except ValueError:
            # No rule speaks of what is no name; it is not remembered either, for it has no bounds.
            raise Denied(source, method, None) from None
        deny, allow = self._deny.applying(source, method), self._allow.applying(source, method)
        narrowed: Permit | _Undecided
        if not deny and allow and not allow[0].headers:
            narrowed = Permit(source, method, allow[0].name)
        else:
            narrowed = _Undecided(deny, allow)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
        self._known[source, method] = narrowed
        return narrowed


class _Index:
    """Rules by each of their patterns."""

    __slots__ = ("_by_path", "_by_principal", "_rules")

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._rules = rules
        self._by_principal = _places(rules, lambda rule: rule.principals)
        self._by_path = _places(rules, lambda rule: rule.paths)

    def applying(self, source: str, method: str) -> tuple[Rule, ...]:
        """Give the rules whose principals and paths match, in order, up to the first without headers."""
        if not self._rules:
            return ()
        of_source = [self._by_principal[p] for p in source_patterns(source) if p in self._by_principal]
        of_method = [self._by_path[p] for p in method_patterns(method) if p in self._by_path]
        # A set of places for each pair of patterns: the work follows the smaller one of the two.
        places = {place for first in of_source for second in of_method for place in first & second}
        rules = []
        for place in sorted(places):
            rules.append(self._rules[place])
            if not rules[-1].headers:
                break
        return tuple(rules)


def _places(rules: tuple[Rule, ...], patterns: Callable[[Rule], Iterable[str]]) -> dict[str, frozenset[int]]:
    places: dict[str, set[int]] = {}
    for place, rule in enumerate(rules):
        for pattern in patterns(rule):
            places.setdefault(pattern, set()).add(place)
    return {pattern: frozenset(found) for pattern, found in places.items()}


def _weigh(rules: _Undecided, source: str, method: str, entries: Entries) -> Permit:
    for rule in rules.deny:
        if all(any(_matches(header, entries)) for header in rule.headers):
            raise Denied(source, method, rule.name)
    for rule in rules.allow:
        if all(_all_of_some(_matches(header, entries)) for header in rule.headers):
            return Permit(source, method, rule.name)
    raise Denied(source, method, None)


def _matches(header: HeaderRule, entries: Entries) -> list[bool]:
    # Bytes under a text key compare as the bytes that they are: patterns are ASCII, as Latin-1 is below 128.
    return [
        value_matches(value if isinstance(value, str) else value.decode("latin-1"), header.values)
        for key, value in entries
        if key == header.key
    ]


def _all_of_some(matches: list[bool]) -> bool:
    return bool(matches) and all(matches)
