"""Recorded calls judged again under another policy, by the code that judges them in the mesh.

A call is recorded in part: not all of its metadata, and of many alike the first and the last time. So every
answer that the missing rest could give to a rule is tried, through ``matcher.weigh``: if they all come to one
verdict, that is it; if they all permit, then that; else the outcome is that it cannot be told, and why. Never
a guess.

With time a verdict changes at full minutes and at the moments that conditions name (``Condition.turns``), so
it is enough to look at those between first and last. Of two calls, one was the first, the other the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from mesh.core.condition import Call, Condition
from mesh.core.errors import Denied
from mesh.core.matcher import ALLOWING, DENYING, Applies, Matcher, Permit, Undecided, applies, weigh
from mesh.core.names import ServiceName
from mesh.core.observed import ALLOW, DENY, Observation
from mesh.core.policy import Policy
from mesh.core.rules import Rule, Section
from mesh.core.verdict import Verdict

UNKNOWN: Final = "unknown"
#: Permitted, and whether only because of an audit cannot be told.
PERMITTED: Final = "allow or audit"
#: The most minutes of one observation that are looked at: a day of them. And the most that is tried of one.
MOMENTS: Final = 24 * 60
TRIED: Final = 2 * (MOMENTS + 2)
#: How many outcomes are remembered.
REMEMBERED: Final = 65_536

_MINUTE: Final = 60_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """``word`` is that of the verdicts, if they all have the same.

    Else it is ``allow or audit`` if they all permit, and ``unknown`` if one denies, both for a reason.
    """

    word: str
    verdicts: tuple[Verdict, ...]
    because: str = ""

    @property
    def why(self) -> str:
        """What decides, or why that cannot be told."""
        return self.because or " or ".join(dict.fromkeys(verdict.why for verdict in self.verdicts))


class Retrial:
    """Judges observations under one policy."""

    def __init__(self, policy: Policy) -> None:
        """Take a policy. Each service's rules are compiled at the first call to it."""
        self._policy = policy
        self._courts: dict[str, _Court] = {}
        self._known: dict[object, Outcome] = {}

    def outcome(self, seen: Observation) -> Outcome:
        """Judge an observation."""
        key = (seen.source, seen.destination, seen.method, seen.metadata)
        outcome = self._known.get(key)
        if outcome is None:
            outcome, lasting = self._court(seen.destination).judge(seen)
            if lasting:
                if len(self._known) >= REMEMBERED:
                    self._known.clear()
                self._known[key] = outcome
        return outcome

    def _court(self, destination: str) -> _Court:
        court = self._courts.get(destination)
        if court is None:
            section = self._policy.section(ServiceName(destination))
            court = self._courts[destination] = _Court(section, Matcher(section))
        return court


@dataclass(frozen=True, slots=True)
class _Court:
    """Judges the calls to one service."""

    section: Section
    matcher: Matcher

    def judge(self, seen: Observation) -> tuple[Outcome, bool]:
        """Give the outcome, and whether it is the same at every time."""
        rules = self.matcher.narrowed(seen.source, seen.method)
        if isinstance(rules, Permit):
            return Outcome(ALLOW, (_permitted(rules),)), True
        timed = [rule for rule in (*rules.deny, *rules.allow) if rule.when and rule.when.timed]
        moments = _moments(seen, timed)
        trial = _Trial(self.section, rules, frozenset(seen.keys), timeless=moments is None)
        found: dict[Verdict, None] = {}
        words: dict[str, str] = {}
        for tried, (verdict, why) in enumerate(trial.verdicts(seen, moments or (seen.first_ms,))):
            found[verdict] = None
            words.setdefault(verdict.word, why or _at_times(timed))
            if DENY in words and len(words) > 1:
                return Outcome(UNKNOWN, tuple(found), words[verdict.word]), not timed
            if tried >= TRIED:
                return Outcome(UNKNOWN, tuple(found), "more than can be tried was not recorded"), not timed
        word, *other = words
        if other:
            return Outcome(PERMITTED, tuple(found), words[other[0]]), not timed
        return Outcome(word, tuple(found)), not timed


@dataclass(frozen=True, slots=True)
class _Trial:
    """Tries every answer of the rules that look at what was not recorded."""

    section: Section
    rules: Undecided
    recorded: frozenset[str]
    timeless: bool

    def verdicts(self, seen: Observation, moments: Iterable[int]) -> Iterator[tuple[Verdict, str]]:
        """Give every verdict that there may be, each with the doubt that parts it from the one before."""
        for moment in moments:
            call = Call(seen.source, self.section.service, seen.method, seen.entries, moment)
            yield from self._at_once(call)

    def _at_once(self, call: Call) -> Iterator[tuple[Verdict, str]]:
        # The answers to the doubtful questions, in the order of asking. All are yes at first; then the last
        # yes becomes a no, and what came after it is asked anew, until all are no.
        answers: list[bool] = []
        doubt = ""
        while True:
            asked: list[Rule] = []

            def met(rule: Rule, call: Call, *, denying: bool, asked: list[Rule] = asked) -> bool:
                known = self._answer(rule, call, denying=denying)
                if known is not None:
                    return known
                asked.append(rule)
                if len(asked) > len(answers):
                    answers.append(True)
                return answers[len(asked) - 1]

            yield self._verdict(call, met), doubt
            while answers and not answers[-1]:
                answers.pop()
            if not answers:
                return
            answers[-1] = False
            doubt = self._doubt(asked[len(answers) - 1])

    def _verdict(self, call: Call, met: Applies) -> Verdict:
        try:
            return _permitted(weigh(self.section, self.rules, call, met))
        except Denied as denied:
            return Verdict(permitted=False, rule=denied.rule)

    def _answer(self, rule: Rule, call: Call, *, denying: bool) -> bool | None:
        """Say whether a rule applies, or ``None`` if that hangs on what was not recorded."""
        headers = tuple(header for header in rule.headers if header.key in self.recorded)
        doubtful = rule.when if rule.when and self._hides(rule.when) else None
        if doubtful is None and len(headers) == len(rule.headers):
            return applies(rule, call, denying=denying)
        known = replace(rule, headers=headers, when=None if doubtful else rule.when)
        if not applies(known, call, denying=denying):
            return False
        found = {True} if len(headers) == len(rule.headers) else {True, False}
        if doubtful:
            applying = DENYING if denying else ALLOWING
            unknown = frozenset(doubtful.keys) - self.recorded
            said = {one in applying for one in doubtful.possible(call, unknown, timeless=self.timeless)}
            found = said | found if True in said else said
        return None if len(found) > 1 else True in found

    def _hides(self, when: Condition) -> bool:
        return (self.timeless and when.timed) or not self.recorded.issuperset(when.keys)

    def _doubt(self, rule: Rule) -> str:
        keys = {header.key for header in rule.headers} | set(rule.when.keys if rule.when else ())
        missing = ", ".join(sorted(keys - self.recorded))
        if missing:
            return f"rule {rule.name!r} looks at metadata {missing}, which was not recorded"
        return f"rule {rule.name!r} looks at the time, and of these calls only the first and last are known"


def _permitted(permit: Permit) -> Verdict:
    return Verdict(permitted=True, rule=permit.rule or None, audited=permit.audited)


def _at_times(timed: list[Rule]) -> str:
    names = " or ".join(repr(rule.name) for rule in timed)
    return (
        f"rule {names} looks at the time, and says otherwise of the first of these calls than of later ones"
    )


def _moments(seen: Observation, timed: list[Rule]) -> tuple[int, ...] | None:
    """Give the moments that stand for all between first and last; ``None`` if none do."""
    first, last = seen.first_ms, seen.last_ms
    if not timed or first == last:
        return (first,)
    if seen.count == 2:  # noqa: PLR2004  one of them was the first, the other the last
        return first, last
    minutes = range(first // _MINUTE * _MINUTE + _MINUTE, last + 1, _MINUTE)
    turns = [rule.when.turns for rule in timed if rule.when]
    if None in turns or len(minutes) > MOMENTS:
        return None
    named = (moment + beside for found in turns for moment in found or () for beside in (-1, 0, 1))
    return tuple(sorted({first, last, *minutes, *(one for one in named if first <= one <= last)}))
