"""Why a call is permitted or denied, and the smallest change of the policy that would permit it.

The smallest change is the one that permits least besides this call: a rule of its own, or one more entry in a
rule that speaks of nothing else; where rules deny, an exception to each for this call alone. What is proposed
was tried: the changed policy is a good one, and permits the call.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from mesh.core.condition import MAX_VALUE, Call, Condition
from mesh.core.matcher import applies
from mesh.core.metadata import Entries
from mesh.core.names import ServiceName
from mesh.core.patterns import ANY, method_patterns
from mesh.core.policy import Policy
from mesh.core.remedy import Change, smallest
from mesh.core.rules import ALLOW, DENY, Placed, Rule
from mesh.core.verdict import Judge, Verdict

# How far a rule is from a call for what it lacks: least for what could be sent, less for what is alike.
_OTHER, _ALIKE, _SENT = 4, 3, 2
_EVERYTHING = Rule("everything", (ANY,), (ANY,))


@dataclass(frozen=True, slots=True)
class Lack:
    """What keeps a rule from applying to a call, in words, and how far that is from applying."""

    text: str
    distance: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """A verdict and the rules behind it.

    ``deciding`` gave the verdict; ``denying`` are all deny rules that apply, those in audit too. If no rule
    allows the call, ``nearest`` is the one that comes closest, and ``lacks`` what it lacks. ``changes``
    together are the smallest change that permits the call; none if it is permitted, or if there is none.
    """

    verdict: Verdict
    deciding: Placed | None
    denying: tuple[Placed, ...]
    nearest: Placed | None
    lacks: tuple[Lack, ...]
    changes: tuple[Change, ...]


def explain(policy: Policy, call: Call) -> Explanation:
    """Explain the verdict on a call between well-formed names to a well-formed method."""
    section = policy.section(ServiceName(call.destination))
    verdict = Judge(policy).verdict(call)
    patterns = frozenset(section.groups.patterns(call.source))
    denying = tuple(one for one in _placed(call, DENY, section.deny) if _denies(one.rule, call, patterns))
    lacking = [(_lacks(one.rule, call, patterns), one) for one in _placed(call, ALLOW, section.allow)]
    allowing = [one for lacks, one in lacking if not lacks]
    deciding = next((one for one in (*denying, *allowing) if one.rule.name == verdict.rule), None)
    lacks: tuple[Lack, ...] = ()
    nearest: Placed | None = None
    if lacking and not allowing:
        lacks, nearest = min(lacking, key=lambda pair: sum(lack.distance for lack in pair[0]))
    changes: tuple[Change, ...] = ()
    if not verdict.permitted:
        in_force = [one for one in denying if section.enforces(one.rule)]
        wanted = None if allowing or section.audits else nearest
        changes = smallest(policy, call, in_force, wanted, allowed=bool(allowing) or section.audits)
    return Explanation(verdict, deciding, denying, nearest, lacks, changes)


def _placed(call: Call, effect: str, rules: tuple[Rule, ...]) -> Iterator[Placed]:
    for index, rule in enumerate(rules):
        yield Placed(("services", call.destination, effect, index), rule)


def _denies(rule: Rule, call: Call, patterns: Collection[str]) -> bool:
    return (
        rule.speaks_of(patterns)
        and not set(rule.paths).isdisjoint(method_patterns(call.method))
        and applies(rule, call, denying=True)
    )


def _lacks(rule: Rule, call: Call, patterns: Collection[str]) -> tuple[Lack, ...]:
    found = []
    if not rule.speaks_of(patterns):
        alike = _alike(call.source, rule.principals, ".")
        found.append(Lack(f"{call.source} is not among its principals", _ALIKE if alike else _OTHER))
    if set(rule.paths).isdisjoint(method_patterns(call.method)):
        alike = _alike(call.method, rule.paths, "/")
        found.append(Lack(f"{call.method} is not among its paths", _ALIKE if alike else _OTHER))
    for header in rule.headers:
        if not applies(replace(_EVERYTHING, headers=(header,)), call, denying=False):
            wanted = " or ".join(header.values)
            found.append(
                Lack(f"{_sent(header.key, call.entries)}, and it wants {header.key}: {wanted}", _SENT)
            )
    if rule.when and not applies(replace(_EVERYTHING, when=rule.when), call, denying=False):
        found.append(Lack(_failing(rule.when, call), _SENT))
    return tuple(found)


def _alike(name: str, patterns: tuple[str, ...], joint: str) -> bool:
    parts = set(name.split(joint)) - {""}
    return any(parts & set(pattern.split(joint)) for pattern in patterns)


def _sent(key: str, entries: Entries) -> str:
    values = [str(value) for name, value in entries if name == key]
    return f"the call has {key}: {', '.join(values)}" if values else f"the call has no {key}"


def _unfit(key: str, entries: Entries) -> str:
    values = [value for name, value in entries if name == key]
    if len(values) != 1:
        return "comes several times" if values else "is not sent"
    return "is too long" if len(values[0]) > MAX_VALUE else ""


def _failing(condition: Condition, call: Call) -> str:
    if condition.holds(call) is False:
        return f"its condition is false: {condition.text}"
    why = [f"{key} {what}" for key in condition.keys if (what := _unfit(key, call.entries))]
    if call.now_ms is None and condition.timed:
        why.append("the time is not known")
    reason = f" ({', '.join(why)})" if why else ""
    return f"its condition cannot be judged{reason}: {condition.text}"
