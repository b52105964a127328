"""What differs between two policies: not in their text, but in who may call what.

Callers and methods are without number, but policies tell only so many of each ``apart``. Those of whom and of
which the two do not say the same are judged under both. Conditions are compared, not solved: a rule with
another condition is a difference, whatever it says.

What would take too long is not compared, and told as such: only silence means that nothing differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

from mesh.core.apart import Apart
from mesh.core.clauses import Clause, Said, Side, Work
from mesh.core.names import OPERATOR
from mesh.core.patterns import ANY, wider_paths, wider_principals
from mesh.core.policy import Policy
from mesh.core.reach import NOTHING, Demand
from mesh.core.rules import Section

#: How many names that a prefix and a suffix match both are compared: callers, or methods of one of them.
MEETINGS: Final = 10_000
#: How many patterns and rules are looked at to judge, and six times as many to find whom they speak of: less
#: than ten seconds, and enough for a thousand services that all change.
LOOKED_AT: Final = 2_000_000


class Grant(StrEnum):
    """What a caller may do with a method."""

    DENY = "deny"
    CONDITION = "on condition"
    AUDIT = "audit"
    ALLOW = "allow"
    UNKNOWN = "not compared"


_RANK: Final = {Grant.DENY: 0, Grant.CONDITION: 1, Grant.AUDIT: 2, Grant.ALLOW: 2}


@dataclass(frozen=True, slots=True)
class Difference:
    """Callers and methods of one service for which the same has changed, or that were not all compared.

    A caller or method with a star stands for all that it matches and that neither policy tells apart from one
    another. Without sources, or methods, it is about every one.
    """

    sources: tuple[str, ...]
    destination: str
    methods: tuple[str, ...]
    before: Grant
    after: Grant

    @property
    def sign(self) -> str:
        """``+`` if more is granted, ``-`` if less, ``~`` if something else, ``?`` if that is not known."""
        if self.after is Grant.UNKNOWN:
            return "?"
        gained = _RANK[self.after] - _RANK[self.before]
        return "+" if gained > 0 else "-" if gained < 0 else "~"

    def may_take_from(self, source: str) -> bool:
        """Whether a caller may lose calls by it: of one condition for another, nobody can tell."""
        concerned = not self.sources or source in self.sources
        return concerned and (self.sign in "-?" or self.before is self.after is Grant.CONDITION)


class _Judgement(NamedTuple):
    """A grant with all that it hangs on; ``undenied`` is what it would be but for conditional deny rules."""

    grant: Grant
    undenied: Grant = Grant.DENY
    allowing: frozenset[Demand] = frozenset()
    trying: frozenset[Demand] = frozenset()
    denying: frozenset[Demand] = frozenset()
    recording: frozenset[Demand] = frozenset()


_DENIED: Final = _Judgement(Grant.DENY)
_Change: TypeAlias = tuple[tuple[str, ...], Grant, Grant]
#: Callers, each with the principals that match it.
_Patterns: TypeAlias = dict[str, tuple[str, ...]]


def differences(old: Policy, new: Policy, looked_at: int = LOOKED_AT) -> list[Difference]:
    """Give what differs, by destination, and what was not compared."""
    names = old.services.keys() | new.services.keys()
    # The operator comes early, for what is taken from it matters most.
    callers = _patterns((ANY, OPERATOR.text, *sorted(name.text for name in names)))
    work = Work(6 * looked_at, looked_at)
    return [
        difference
        for name in sorted(names)
        for difference in _of_service(name.text, old.section(name), new.section(name), callers, work)
    ]


def _patterns(callers: Iterable[str]) -> _Patterns:
    return {caller: wider_principals(caller) for caller in callers}


def _of_service(
    name: str, old: Section, new: Section, callers: _Patterns, work: Work
) -> Iterator[Difference]:
    if old == new:
        return
    if work.finding < 0 or work.judging < 0:
        yield Difference((), name, (), Grant.UNKNOWN, Grant.UNKNOWN)
        return
    alike, unknown = _alike(Side(old, work), Side(new, work), callers)
    found: dict[_Change, list[str]] = {}
    for (had, has), sources in alike.items():
        if work.judging < 0:
            unknown += sources
            continue
        for change in _changes(_Methods(old, had, work), _Methods(new, has, work), had ^ has, work):
            found.setdefault(change, []).extend(sources)
    if unknown:
        found.setdefault(_NOT_COMPARED, []).extend(unknown)
    for (methods, grant, now), sources in found.items():
        yield Difference(tuple(dict.fromkeys(sources)), name, methods, grant, now)


_NOT_COMPARED: Final[_Change] = ((), Grant.UNKNOWN, Grant.UNKNOWN)


def _alike(
    before: Side, after: Side, callers: _Patterns
) -> tuple[dict[tuple[Said, Said], list[str]], list[str]]:
    """Give the callers of whom not the same is said on both sides, by what is said, and those left out."""
    apart = Apart(before.principals | after.principals, ".")
    alike: dict[tuple[Said, Said], list[str]] = {}
    unknown = _sort(alike, before, after, callers | _patterns(apart.names))
    # Of those whom two wildcards match, what is said of either is said, and so they need a look if one did.
    changed = {caller for sources in (*alike.values(), unknown) for caller in sources}
    met, too_many = apart.meetings(changed, MEETINGS)
    return alike, [*unknown, *too_many, *_sort(alike, before, after, _patterns(met))]


def _sort(
    alike: dict[tuple[Said, Said], list[str]], before: Side, after: Side, callers: _Patterns
) -> list[str]:
    unknown = []
    for caller, patterns in callers.items():
        had, has = before.about(patterns), after.about(patterns)
        if had is None or has is None:
            unknown.append(caller)
        elif had != has or before.audits is not after.audits:
            alike.setdefault((had, has), []).append(caller)
    return unknown


def _changes(before: _Methods, after: _Methods, otherwise: Said, work: Work) -> Iterator[_Change]:
    apart = Apart(before.paths | after.paths, "/")
    concerned = {path for number in otherwise for path in work.clauses[number].paths}
    if before.audits is not after.audits or ANY in concerned:
        concerned.update(apart.names)
    names = [name for name in apart.names if not concerned.isdisjoint(wider_paths(name))]
    met, too_many = apart.meetings(concerned, MEETINGS)
    changed: dict[tuple[Grant, Grant], list[str]] = {}
    for method in (*names, *met):
        had, has = before.judge(method), after.judge(method)
        if had is None or has is None:
            yield _NOT_COMPARED
            break
        if had != has:
            changed.setdefault((had.grant, has.grant), []).append(method)
    if too_many:
        yield tuple(too_many), Grant.UNKNOWN, Grant.UNKNOWN
    every = len(apart.names) + len(met) if not too_many and len(names) == len(apart.names) else None
    for (grant, now), methods in changed.items():
        yield () if len(methods) == every else tuple(methods), grant, now


class _Methods:
    """What one caller may do with each method of one service."""

    def __init__(self, section: Section, said: Said, work: Work) -> None:
        self.audits = section.audits
        self._work = work
        self._by_path: dict[str, list[Clause]] = {}
        for number in said:
            clause = work.clauses[number]
            work.judging -= len(clause.paths)
            for path in clause.paths:
                self._by_path.setdefault(path, []).append(clause)
        self.paths = self._by_path.keys()

    def judge(self, method: str) -> _Judgement | None:
        """Judge a method, or all others that a wildcard matches, if there is time to."""
        if self._work.judging < 0:
            return None
        asked: tuple[set[Demand], ...] = (set(), set(), set(), set())
        patterns = wider_paths(method)
        clauses = [clause for path in patterns for clause in self._by_path.get(path, ())]
        self._work.judging -= len(patterns) + len(clauses)
        for clause in clauses:
            asked[clause.does].add(clause.demand)
        return _judgement(*map(frozenset, asked), audits=self.audits)


_Demands: TypeAlias = frozenset[Demand]


def _judgement(
    deny: _Demands, record: _Demands, allow: _Demands, trial: _Demands, *, audits: bool
) -> _Judgement:
    if NOTHING in deny:
        return _DENIED
    free = NOTHING in allow
    if free:
        grant, allow, trial = Grant.ALLOW, frozenset(), frozenset()
    elif audits or NOTHING in trial:
        grant = Grant.AUDIT
    elif allow or trial:
        grant = Grant.CONDITION
    else:
        return _DENIED
    return _Judgement(Grant.CONDITION if deny else grant, grant, allow, trial, deny, record)
