"""What rules together grant one caller for one method, and which of two grants is the wider one.

Conditions are compared, not solved: one is as wide as another if its text is the same, or if there is none.
So of many pairs it is not known which is wider, and then nothing else is said.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias

from mesh.core.clauses import Does
from mesh.core.patterns import value_covered
from mesh.core.reach import NOTHING, Demand

_Demands: TypeAlias = frozenset[Demand]

_WORDS: Final = {
    Does.DENY: "deny",
    Does.RECORD: "deny in audit",
    Does.ALLOW: "allow",
    Does.TRY: "allow in audit",
}


class Grant(StrEnum):
    """What a caller may do with a method."""

    DENY = "deny"
    CONDITION = "on condition"
    AUDIT = "audit"
    ALLOW = "allow"
    UNKNOWN = "not compared"


class Scope(StrEnum):
    """What a grant permits, held against one before it."""

    WIDER = "wider"
    NARROWER = "narrower"
    SAME = "as wide"
    UNKNOWN = "not known"


class Judgement(NamedTuple):
    """A grant with all that it hangs on; ``undenied`` is what it would be but for conditional deny rules."""

    grant: Grant
    undenied: Grant = Grant.DENY
    allowing: _Demands = frozenset()
    trying: _Demands = frozenset()
    denying: _Demands = frozenset()
    recording: _Demands = frozenset()

    @property
    def terms(self) -> frozenset[str]:
        """The rules behind it in words, without whom and what they speak of."""
        asked = {
            Does.ALLOW: self.allowing,
            Does.TRY: self.trying,
            Does.DENY: self.denying,
            Does.RECORD: self.recording,
        }
        return frozenset(_told(does, demand) for does, demands in asked.items() for demand in demands)

    def covers(self, other: Judgement) -> bool:
        """Whether it surely permits all that the other permits."""
        permitted = other._permitting
        return not permitted or (_met(permitted, self._permitting) and _met(self.denying, other.denying))

    @property
    def _permitting(self) -> Collection[Demand]:
        return {NOTHING} if self.undenied is Grant.AUDIT else self.allowing | self.trying


_DENIED: Final = Judgement(Grant.DENY)


def judgement(
    deny: _Demands, record: _Demands, allow: _Demands, trial: _Demands, *, audits: bool
) -> Judgement:
    """Judge by what the rules of each kind demand that speak of a caller and a method."""
    if NOTHING in deny:
        return _DENIED
    if NOTHING in allow:
        grant, allow, trial = Grant.ALLOW, frozenset({NOTHING}), frozenset()
    elif audits or NOTHING in trial:
        grant = Grant.AUDIT
    elif allow or trial:
        grant = Grant.CONDITION
    else:
        return _DENIED
    return Judgement(Grant.CONDITION if deny else grant, grant, allow, trial, deny, record)


def scope(had: Judgement, has: Judgement) -> Scope:
    """Hold what is permitted now against what was before."""
    more, less = has.covers(had), had.covers(has)
    if more and less:
        return Scope.SAME
    return Scope.WIDER if more else Scope.NARROWER if less else Scope.UNKNOWN


def _met(demands: Collection[Demand], by: Collection[Demand]) -> bool:
    return all(any(_asks_no_more(other, one) for other in by) for one in demands)


def _asks_no_more(wide: Demand, narrow: Demand) -> bool:
    # Holds of headers in deny rules, where one value decides, as in allow rules, where all do.
    (headers, when), (known, known_when) = wide, narrow
    asked = dict(known)
    return when in (None, known_when) and all(
        key in asked and all(value_covered(value, values) for value in asked[key]) for key, values in headers
    )


def _told(does: Does, demand: Demand) -> str:
    headers, when = demand
    wanted = [f"{key}: {' or '.join(sorted(values))}" for key, values in sorted(headers, key=_key)]
    parts = [_WORDS[does], *([f"with {', '.join(wanted)}"] if wanted else [])]
    return " ".join([*parts, *(["when", *when.text.split()] if when else [])])


def _key(header: tuple[str, frozenset[str]]) -> str:
    return header[0]
