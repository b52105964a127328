"""The policy as decisions: one section, compiled, judging one call after the other.

A rule applies to a call if one of its principals matches the caller, one of its paths the method, and every
one of its headers the metadata. A header of a rule looks at every entry of its key, each value as a whole
(nothing is split at commas):

    allow   there is an entry, and all of them match: sending a second value gains nothing
    deny    one of them matches: hiding it among others gains nothing

Without an entry of the key, a rule with that header does not apply, be it allow or deny. A condition that
cannot be judged denies: an allow rule applies if its condition is true, a deny rule unless it is false. Deny
wins; among equals the first in the document gives its name. No rule, no permit.

Under ``mode: audit`` nothing is denied, and the permit says what would have denied it: a deny rule in audit
does not deny, a section in audit permits what no rule allows, and an allow rule in audit permits, and tells
where nothing else would have.

Whom the caller is and what it calls was verified before (``receiver``). Which rules can apply to a source and
method is worked out once and remembered, up to a bound, so that a caller that tries methods at random costs
time but no memory. What hangs on metadata or time is judged anew for each call. The rules of other services
are not in a section and cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol

from mesh.core.condition import Call
from mesh.core.errors import Denied
from mesh.core.metadata import Entries
from mesh.core.names import full_method, service_name
from mesh.core.patterns import method_patterns, value_matches
from mesh.core.rules import HeaderRule, Mode, Rule, Section

#: How many pairs of source and method a matcher remembers before it starts afresh.
REMEMBERED: Final = 4096

#: What a condition has to say for a rule to apply; ``None``: it cannot be judged.
ALLOWING: Final[frozenset[bool | None]] = frozenset({True})
DENYING: Final[frozenset[bool | None]] = frozenset({True, None})


@dataclass(frozen=True, slots=True)
class Audited:
    """What would have denied a call, were nothing in audit: a rule, or ``None`` for the want of one."""

    rule: str | None


@dataclass(frozen=True, slots=True)
class Permit:
    """Leave to dispatch one method for one verified caller, and the rule that gives it.

    The rule is empty where only ``mode: audit`` permits.
    """

    source: str
    method: str
    rule: str
    audited: Audited | None = None


class Undecided(NamedTuple):
    """The rules that apply to a source and method but for headers and conditions, in order."""

    deny: tuple[Rule, ...]
    allow: tuple[Rule, ...]


class Applies(Protocol):
    """Says whether a rule applies to a call that its principals and paths match."""

    def __call__(self, rule: Rule, call: Call, *, denying: bool) -> bool:
        """Answer for a deny or an allow rule."""


class Matcher:
    """Judges calls to one service."""

    __slots__ = ("_allow", "_deny", "_known", "_section")

    def __init__(self, section: Section) -> None:
        """Compile the rules of a section."""
        self._section = section
        self._allow, self._deny = _Index(section.allow), _Index(section.deny)
        self._known: dict[tuple[str, str], Permit | Undecided] = {}

    def permit(self, source: str, method: str, entries: Entries, now_ms: int | None = None) -> Permit:
        """Judge a call of ``source`` (a verified service name) with the application's metadata.

        ``now_ms`` is Unix time by the mesh's clock; without it no condition about time can be judged. Raises
        ``Denied``, naming the deny rule, or none where no rule allows the call.
        """
        known = self._known.get((source, method))
        if known is None:
            known = self._narrow(source, method)
        if isinstance(known, Permit):
            return known
        return weigh(self._section, known, Call(source, self._section.service, method, entries, now_ms))

    def narrowed(self, source: str, method: str) -> Permit | Undecided:
        """Give what holds of all calls of a source to a method: a permit, or the rules that decide each.

        Raises ``Denied`` for what is no name or no method.
        """
        return self._known.get((source, method)) or self._narrow(source, method)

    def _narrow(self, source: str, method: str) -> Permit | Undecided:
        try:
            service_name(source)
            full_method(method)
        except ValueError:
            # No rule speaks of what is no name; it is not remembered either, for it has no bounds.
            raise Denied(source, method, None) from None
        patterns = self._section.groups.patterns(source)
        call = Call(source, self._section.service, method, (), None)
        deny = _lasting(self._deny.applying(patterns, method, self._section.enforces), call, DENYING)
        allow = _lasting(self._allow.applying(patterns, method, _settles), call, ALLOWING)
        narrowed: Permit | Undecided
        if not deny and allow and not allow[0].conditional and _settles(allow[0]):
            narrowed = Permit(source, method, allow[0].name)
        else:
            narrowed = Undecided(deny, allow)
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


def _lasting(rules: Iterable[Rule], call: Call, applying: frozenset[bool | None]) -> tuple[Rule, ...]:
    # What a condition says of all calls of a source to a method needs to be asked only once.
    kept = []
    for rule in rules:
        if rule.when is None or not rule.when.lasting:
            kept.append(rule)
        elif rule.when.holds(call) in applying:
            kept.append(replace(rule, when=None))
    return tuple(kept)


def _settles(allowing: Rule) -> bool:
    return allowing.mode is not Mode.AUDIT


def applies(rule: Rule, call: Call, *, denying: bool) -> bool:
    """Whether the headers and the condition of a deny or an allow rule are met."""
    return _denies(rule, call) if denying else _allows(rule, call)


def weigh(section: Section, rules: Undecided, call: Call, met: Applies = applies) -> Permit:
    """Judge a call by the rules that are left; raise ``Denied``.

    ``met`` is asked only of rules whose answer can still make a difference.
    """
    audited = None
    for rule in rules.deny:
        enforced = section.enforces(rule)
        if (enforced or audited is None) and met(rule, call, denying=True):
            if enforced:
                raise Denied(call.source, call.method, rule.name)
            audited = Audited(rule.name)
    on_trial = None
    for rule in rules.allow:
        settles = _settles(rule)
        if (settles or on_trial is None) and met(rule, call, denying=False):
            if settles:
                return Permit(call.source, call.method, rule.name, audited)
            on_trial = rule.name
    if on_trial is None and not section.audits:
        raise Denied(call.source, call.method, None)
    return Permit(call.source, call.method, on_trial or "", audited or Audited(None))


def _denies(rule: Rule, call: Call) -> bool:
    return all(any(_matches(header, call.entries)) for header in rule.headers) and (
        rule.when is None or rule.when.holds(call) in DENYING
    )


def _allows(rule: Rule, call: Call) -> bool:
    return all(_all_of_some(_matches(header, call.entries)) for header in rule.headers) and (
        rule.when is None or rule.when.holds(call) in ALLOWING
    )


def _matches(header: HeaderRule, entries: Entries) -> list[bool]:
    # Bytes under a text key compare as the bytes that they are: patterns are ASCII, as Latin-1 is below 128.
    return [
        value_matches(value if isinstance(value, str) else value.decode("latin-1"), header.values)
        for key, value in entries
        if key == header.key
    ]


def _all_of_some(matches: list[bool]) -> bool:
    return bool(matches) and all(matches)
