"""What differs between two policies: not in their text, but in who may call what.

Callers and methods are without number, but policies tell only so many of each ``apart``. Those of whom and of
which the two do not say the same are judged under both. Conditions are compared, not solved: a rule with
another condition is a difference, whatever it says.

What would take too long is not compared, and told as such: only silence means that nothing differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeAlias

from mesh.core.apart import Apart
from mesh.core.clauses import Clause, Said, Side, Work
from mesh.core.grants import Grant, Judgement, Scope, judgement, scope
from mesh.core.names import OPERATOR
from mesh.core.patterns import ANY, wider_paths, wider_principals
from mesh.core.policy import Policy
from mesh.core.reach import Demand
from mesh.core.rules import Mode, Section

#: How many names that a prefix and a suffix match both are compared: callers, or methods of one of them.
MEETINGS: Final = 10_000
#: How many patterns and rules are looked at to judge, and six times as many to find whom they speak of: less
#: than ten seconds, and enough for a thousand services that all change.
LOOKED_AT: Final = 2_000_000


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
    #: Which of the two permits more calls. Where both hang on conditions, or both are the same grant, what
    #: those rules asked that are gone, and what those ask that are new.
    scope: Scope = Scope.UNKNOWN
    lost: tuple[str, ...] = ()
    gained: tuple[str, ...] = ()

    @property
    def sign(self) -> str:
        """``+`` if more is granted, ``-`` if less, ``~`` if something else, ``?`` if that is not known."""
        if self.after is Grant.UNKNOWN:
            return "?"
        gained = _RANK[self.after] - _RANK[self.before]
        if gained:
            return "+" if gained > 0 else "-"
        return {Scope.WIDER: "+", Scope.NARROWER: "-"}.get(self.scope, "~")

    def may_take_from(self, source: str) -> bool:
        """Whether a caller may lose calls by it; of one condition for another, often nobody can tell."""
        concerned = not self.sources or source in self.sources
        doubtful = self.before is self.after is Grant.CONDITION and self.scope is Scope.UNKNOWN
        return concerned and (self.sign in "-?" or doubtful)


class _Turn(NamedTuple):
    """What a grant was, what it is, and what it hung and hangs on where that is a difference."""

    before: Grant
    after: Grant
    scope: Scope = Scope.UNKNOWN
    lost: tuple[str, ...] = ()
    gained: tuple[str, ...] = ()


_NOT_COMPARED: Final = _Turn(Grant.UNKNOWN, Grant.UNKNOWN)
_Change: TypeAlias = tuple[tuple[str, ...], _Turn]
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


def taken_from(source: str, old: Policy, new: Policy) -> list[Difference]:
    """Give what takes, or may take, from a caller what rules permit it: not what only an audit let pass."""
    return [one for one in differences(_earned(old), _earned(new)) if one.may_take_from(source)]


def _earned(policy: Policy) -> Policy:
    """Give a policy in which no call is permitted for want of a rule, and all rules do what they did."""
    services = {
        name: replace(
            section,
            mode=None,
            deny=tuple(replace(rule, mode=rule.mode or Mode.AUDIT) for rule in section.deny),
        )
        if (section.mode or policy.mode) is Mode.AUDIT
        else section
        for name, section in policy.services.items()
    }
    return replace(policy, services=services, mode=None)


def _patterns(callers: Iterable[str]) -> _Patterns:
    return {caller: wider_principals(caller) for caller in callers}


def _of_service(
    name: str, old: Section, new: Section, callers: _Patterns, work: Work
) -> Iterator[Difference]:
    if old == new:
        return
    if work.finding < 0 or work.judging < 0:
        yield Difference((), name, (), *_NOT_COMPARED)
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
        found.setdefault(((), _NOT_COMPARED), []).extend(unknown)
    told = [(sorted(set(sources), key=_place), methods, turn) for (methods, turn), sources in found.items()]
    for sources, methods, turn in sorted(told, key=lambda one: [*map(_place, one[0])]):
        yield Difference(tuple(sources), name, methods, *turn)


def _place(source: str) -> tuple[bool, bool, str]:
    # Whom nobody named and the operator come first: of many, only the first are shown.
    return source != ANY, source != OPERATOR.text, source


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
    changed: dict[_Turn, list[str]] = {}
    for method in (*names, *met):
        had, has = before.judge(method), after.judge(method)
        if had is None or has is None:
            yield (), _NOT_COMPARED
            break
        if had != has:
            changed.setdefault(_turn(had, has), []).append(method)
    if too_many:
        yield tuple(too_many), _NOT_COMPARED
    every = len(apart.names) + len(met) if not too_many and len(names) == len(apart.names) else None
    for turn, methods in changed.items():
        yield () if len(methods) == every else tuple(methods), turn


def _turn(had: Judgement, has: Judgement) -> _Turn:
    if had.grant is not has.grant and Grant.CONDITION not in (had.grant, has.grant):
        return _Turn(had.grant, has.grant, scope(had, has))
    lost, gained = had.terms - has.terms, has.terms - had.terms
    return _Turn(had.grant, has.grant, scope(had, has), tuple(sorted(lost)), tuple(sorted(gained)))


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

    def judge(self, method: str) -> Judgement | None:
        """Judge a method, or all others that a wildcard matches, if there is time to."""
        if self._work.judging < 0:
            return None
        asked: tuple[set[Demand], ...] = (set(), set(), set(), set())
        patterns = wider_paths(method)
        clauses = [clause for path in patterns for clause in self._by_path.get(path, ())]
        self._work.judging -= len(patterns) + len(clauses)
        for clause in clauses:
            asked[clause.does].add(clause.demand)
        return judgement(*map(frozenset, asked), audits=self.audits)
