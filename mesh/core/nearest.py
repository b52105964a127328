"""How near the rules of a service come to a call that they do not apply to, and what each lacks."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from mesh.core.condition import MAX_VALUE, Call, Condition
from mesh.core.matcher import ALLOWING, DENYING, applies
from mesh.core.metadata import Entries
from mesh.core.patterns import ANY, method_patterns
from mesh.core.rules import ALLOW, DENY, Placed, Rule, Section
from mesh.core.zones import is_known

# How far a rule is from a call for what it lacks: least for what could be sent, less for what is alike.
_OTHER, _ALIKE, _SENT = 4, 3, 2
_EVERYTHING: Final = Rule("everything", (ANY,), (ANY,))


@dataclass(frozen=True, slots=True)
class Lack:
    """What keeps a rule from applying to a call, in words, and how far that is from applying."""

    text: str
    distance: int


class Near(NamedTuple):
    """A rule, where it stands, and what it lacks: nothing if it applies."""

    placed: Placed
    lacks: tuple[Lack, ...]


def near(section: Section, call: Call, effect: str) -> list[Near]:
    """Give the allow or the deny rules about a call's destination, in order, with what each lacks."""
    patterns = frozenset(section.groups.patterns(call.source))
    rules = section.deny if effect == DENY else section.allow
    return [
        Near(Placed(("services", call.destination, effect, index), rule), tuple(lacks))
        for index, rule in enumerate(rules)
        for lacks in [_lacks(rule, call, patterns, denying=effect == DENY)]
    ]


def nearest(rules: Collection[Near]) -> Near | None:
    """Give the rule that comes nearest, the first of several; ``None`` if there are none."""
    return min(rules, key=lambda one: sum(lack.distance for lack in one.lacks), default=None)


def instead(section: Section, call: Call, effect: str, name: str | None = None) -> Near | None:
    """Give the rule of a name, or else the nearest of an effect, if it does not apply to a call."""
    if name is not None:
        found = [
            one for kind in (ALLOW, DENY) for one in near(section, call, kind) if one.placed.rule.name == name
        ]
    else:
        found = near(section, call, effect)
    rule = nearest(found)
    return rule if rule is not None and rule.lacks else None


def unjudged(rule: Rule, call: Call) -> str:
    """Say that the condition of a rule cannot be judged, and why; nothing if it can."""
    return _failing(rule.when, call) if rule.when and rule.when.holds(call) is None else ""


def is_broken(rule: Rule, call: Call) -> bool:
    """Whether it is the condition's own fault that it cannot be judged, and not what the call lacks."""
    when = rule.when
    if when is None or when.holds(call) is not None:
        return False
    return not all(map(is_known, when.zones)) or not (when.keys or any(_unfit(when, call)))


def _lacks(rule: Rule, call: Call, patterns: Collection[str], *, denying: bool) -> Iterator[Lack]:
    if not rule.speaks_of(patterns):
        alike = _alike(call.source, rule.principals, ".")
        yield Lack(f"{call.source} is not among its principals", _ALIKE if alike else _OTHER)
    if set(rule.paths).isdisjoint(method_patterns(call.method)):
        alike = _alike(call.method, rule.paths, "/")
        yield Lack(f"{call.method} is not among its paths", _ALIKE if alike else _OTHER)
    for header in rule.headers:
        if not applies(replace(_EVERYTHING, headers=(header,)), call, denying=denying):
            wanted = " or ".join(header.values)
            yield Lack(f"{_sent(header.key, call.entries)}, and it wants {header.key}: {wanted}", _SENT)
    if rule.when and rule.when.holds(call) not in (DENYING if denying else ALLOWING):
        yield Lack(_failing(rule.when, call), _SENT)


def _alike(name: str, patterns: tuple[str, ...], joint: str) -> bool:
    parts = set(name.split(joint)) - {""}
    return any(parts & set(pattern.split(joint)) for pattern in patterns)


def _sent(key: str, entries: Entries) -> str:
    values = [str(value) for name, value in entries if name == key]
    return f"the call has {key}: {', '.join(values)}" if values else f"the call has no {key}"


def _failing(when: Condition, call: Call) -> str:
    if when.holds(call) is False:
        return f"its condition is false: {when.text}"
    why = ", ".join(_unfit(when, call))
    return f"its condition cannot be judged{f' ({why})' if why else ''}: {when.text}"


def _unfit(when: Condition, call: Call) -> Iterator[str]:
    for key in when.keys:
        values = [value for name, value in call.entries if name == key]
        if len(values) != 1:
            yield f"{key} {'comes several times' if values else 'is not sent'}"
        elif len(values[0]) > MAX_VALUE:
            yield f"{key} is too long"
    if call.now_ms is None and when.timed:
        yield "the time is not known"
    yield from (f"there is no time zone {zone!r} here" for zone in when.zones if not is_known(zone))
