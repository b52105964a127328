"""The least policy that permits what was observed: these callers, these methods, and nothing else.

For each service, callers with the same methods share a rule. A caller stands in one rule alone, so it permits
him what he was seen to do and no more. No wildcards, groups, headers or conditions are made up: where calls
came by a rule that had some, that is noted, for a person to put them back. So is how many calls were denied
that the suggested rule permits, and how many the policy that it is held against denies, or may deny.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Final

from mesh.core import document
from mesh.core.observed import AUDIT, DENY, Gap, Observation, Seen
from mesh.core.policy import OWN, Policy
from mesh.core.retrial import UNKNOWN, Outcome, Retrial
from mesh.core.rules import ALLOW, Rule

_MARKS: Final = {
    AUDIT: "permitted only because of mode: audit",
    DENY: "that were denied",
}
#: Of those that were not denied, or that say nothing of it, by the word of the policy it is held against.
_HELD: Final = {
    DENY: "that the policy this was held against denies",
    UNKNOWN: "that the policy this was held against may deny, by what was not recorded",
}


@dataclass(slots=True)
class Use:
    """How often something was seen, and when."""

    count: int = 0
    first_ms: int = 0
    last_ms: int = 0

    def add(self, seen: Seen | Use) -> None:
        """Count more."""
        self.first_ms = min(self.first_ms, seen.first_ms) if self.count else seen.first_ms
        self.last_ms = max(self.last_ms, seen.last_ms)
        self.count += seen.count


@dataclass(frozen=True, slots=True)
class Suggested:
    """A rule: callers and methods with how often each was seen, and what else there is to say of it."""

    principals: dict[str, Use]
    paths: dict[str, Use]
    notes: tuple[str, ...]

    def data(self) -> dict[str, list[str]]:
        """Give it as it stands in a document."""
        return {"principals": list(self.principals), "paths": list(self.paths)}


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A policy, by service; ``unused`` are rules of the one it was held against that decided none of it."""

    services: dict[str, list[Suggested]]
    use: Use
    unused: tuple[str, ...]
    unrecorded: dict[str, Use]

    def document(self) -> bytes:
        """Give it as canonical JSON, as ``Policy.parse`` reads it."""
        services = {
            service: {ALLOW: [rule.data() for rule in rules]} if rules else {}
            for service, rules in self.services.items()
        }
        return document.dump({"services": services})


@dataclass(slots=True)
class _Call:
    """What was seen of one caller's calls to one method; ``marks`` counts what is to be noted of them."""

    use: Use = field(default_factory=Use)
    marks: Counter[str] = field(default_factory=Counter)
    keys: set[str] = field(default_factory=set)


class Suggesting:
    """Takes observations, and makes a policy of them."""

    def __init__(self, base: Policy | None = None, *, include_denied: bool = False) -> None:
        """Take the policy to hold it against, if any, and whether what was denied is to be permitted too."""
        self._retrial = Retrial(base) if base else None
        self._rules = dict(_rules(base)) if base else {}
        self._used: set[tuple[str, str]] = set()
        self._include_denied = include_denied
        self._names: set[str] = set()
        self._calls: dict[str, dict[str, dict[str, _Call]]] = {}
        self._denied = Counter[tuple[str, str, str]]()
        self._unrecorded: dict[str, Use] = {}

    @property
    def held(self) -> bool:
        """Whether it is held against a policy."""
        return self._retrial is not None

    def take(self, seen: Seen) -> None:
        """Take what was seen."""
        self._names.add(seen.destination)
        if isinstance(seen, Gap):
            self._unrecorded.setdefault(seen.destination, Use()).add(seen)
            return
        self._names.add(seen.source)
        if seen.verdict == DENY and not self._include_denied:
            self._denied[seen.destination, seen.source, seen.method] += seen.count
            return
        methods = self._calls.setdefault(seen.destination, {}).setdefault(seen.source, {})
        call = methods.setdefault(seen.method, _Call())
        call.use.add(seen)
        call.keys.update(seen.keys)
        if seen.verdict in _MARKS:
            call.marks[_MARKS[seen.verdict]] += seen.count
        if self._retrial:
            self._hold(seen, call, self._retrial.outcome(seen))

    def _hold(self, seen: Observation, call: _Call, outcome: Outcome) -> None:
        if outcome.word == DENY != seen.verdict or (outcome.word == UNKNOWN and not seen.verdict):
            call.marks[_HELD[outcome.word]] += seen.count
        for rule in self._deciding(seen.destination, outcome):
            self._used.add((seen.destination, rule.name))
            if rule.conditional:
                call.marks[
                    f"that came by rule {rule.name!r}, which asks for more than caller and method"
                ] += seen.count

    def _deciding(self, destination: str, outcome: Outcome) -> set[Rule]:
        found = (self._rules.get((destination, verdict.rule or "")) for verdict in outcome.verdicts)
        return {rule for rule in found if rule is not None}

    def suggestion(self) -> Suggestion:
        """Give the least policy that permits what was taken so far."""
        names = sorted(self._names - OWN)
        services = {name: self._suggested(name) for name in names}
        whole = Use()
        for rules in services.values():
            for rule in rules:
                for use in rule.principals.values():
                    whole.add(use)
        unused = tuple(
            f"{service}: {name}" for service, name in self._rules if (service, name) not in self._used
        )
        return Suggestion(services, whole, unused, dict(sorted(self._unrecorded.items())))

    def _suggested(self, service: str) -> list[Suggested]:
        callers = self._calls.get(service, {})
        alike: dict[tuple[str, ...], list[str]] = {}
        for source in sorted(callers):
            alike.setdefault(tuple(sorted(callers[source])), []).append(source)
        return [
            Suggested(
                {source: _sum(callers[source][method].use for method in methods) for source in sources},
                {method: _sum(callers[source][method].use for source in sources) for method in methods},
                (
                    *_notes(call for source in sources for call in callers[source].values()),
                    *self._too_much(service, sources, methods),
                ),
            )
            for methods, sources in alike.items()
        ]

    def _too_much(self, service: str, sources: Iterable[str], methods: Iterable[str]) -> Iterator[str]:
        denied = sum(self._denied[service, *pair] for pair in product(sources, methods))
        if denied:
            yield f"would also permit calls that were denied: {denied}"


def _rules(base: Policy) -> Iterator[tuple[tuple[str, str], Rule]]:
    for name, section in base.services.items():
        for rule in section.allow:
            yield (name.text, rule.name), rule


def _sum(uses: Iterable[Use]) -> Use:
    whole = Use()
    for use in uses:
        whole.add(use)
    return whole


def _notes(calls: Iterable[_Call]) -> Iterator[str]:
    marks, keys = Counter[str](), set[str]()
    for call in calls:
        marks.update(call.marks)
        keys |= call.keys
    for mark in sorted(marks):
        yield f"calls {mark}: {marks[mark]}"
    if keys:
        yield f"the policy looked at metadata {', '.join(sorted(keys))}: put back what it asked for"
