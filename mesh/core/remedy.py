"""Changes of a policy that permit one call, and as little else as can be.

Several are thought of, from the one that is easiest to read to the one that always works; the first that
gives a good policy in which the call is permitted is taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from mesh.core.burden import check_burden
from mesh.core.condition import Call
from mesh.core.document import PolicyError
from mesh.core.matcher import applies
from mesh.core.names import ServiceName
from mesh.core.patterns import ANY, checked_value
from mesh.core.policy import OWN, Policy
from mesh.core.reach import check_reach
from mesh.core.rules import ALLOW, HeaderRule, Mode, Placed, Rule
from mesh.core.verdict import Judge

#: A value of JSON, and an object or a list of it.
Json: TypeAlias = "str | list[Json] | dict[str, Json]"
#: A rule that asks nothing.
_NONE: Final = Rule("", (ANY,), (ANY,))


@dataclass(frozen=True, slots=True)
class Change:
    """One edit of a document: ``add`` to the list at a place, ``set`` what is there, or ``remove`` it.

    ``drops`` says what the nearest rule, or the one that goes or gets an exception, asks and this does not.
    """

    action: str
    place: tuple[str | int, ...]
    value: Json = ""
    drops: tuple[str, ...] = ()


def smallest(
    policy: Policy, call: Call, denying: Sequence[Placed], nearest: Placed | None, *, allowed: bool
) -> tuple[Change, ...]:
    """Give the changes that together permit a call, or none.

    Takes the enforced deny rules that apply to it, the allow rule that comes nearest, and whether an allow
    rule applies already.
    """
    if ServiceName(call.destination).reserved or (
        ServiceName(call.source).reserved and call.source not in OWN
    ):
        return ()
    # Under the document's audit a new service would be open to all.
    empty: Json = {"mode": Mode.ENFORCE.value} if policy.mode is Mode.AUDIT else {}
    declared = [
        Change("set", ("services", name), empty)
        for name in dict.fromkeys((call.source, call.destination))
        if ServiceName(name) not in policy.services and name not in OWN
    ]
    excepted = [_exception(one, call) for one in denying]
    for allowing in _allowing(call, nearest) if not allowed else iter([[]]):
        changes = (*declared, *allowing, *excepted)
        if _permitted(policy, changes, call):
            return changes
    return ()


def changed(policy: Policy, changes: Sequence[Change]) -> Policy:
    """Give a policy with changes made; raise ``PolicyError`` if it is none."""
    return Policy.parse(json.dumps(edited(policy, changes)))


def edited(policy: Policy, changes: Sequence[Change]) -> Json:
    """Give the document of a policy with changes made, whether or not it is a policy then."""
    data: Json = json.loads(policy.encode())
    for change in in_order(changes):
        _edit(data, change)
    return data


def in_order(changes: Sequence[Change]) -> list[Change]:
    """Give changes in an order in which they can be made: what is removed goes last, from the end."""
    removing = [change for change in changes if change.action == "remove"]
    return [*(one for one in changes if one not in removing), *reversed(removing)]


def _edit(data: Json, change: Change) -> None:
    node: Any = data
    for step in change.place[:-1]:
        node = node[step]
    last = change.place[-1]
    if change.action == "remove":
        del node[last]
    elif change.action == "set":
        node[last] = json.loads(json.dumps(change.value))
    else:
        node.setdefault(last, []).append(change.value)


def _allowing(call: Call, nearest: Placed | None) -> Iterator[list[Change]]:
    rule = nearest.rule if nearest else _NONE
    if nearest is not None and rule.mode is None and applies(rule, call, denying=False):
        if rule.paths == (call.method,):
            yield [Change("add", (*nearest.place, "principals"), call.source)]
        if rule.principals == (call.source,):
            yield [Change("add", (*nearest.place, "paths"), call.method)]
    place = ("services", call.destination, ALLOW)
    speaks: dict[str, Json] = {"principals": [call.source], "paths": [call.method]}
    asks, drops = _kept(rule, call)
    yield [Change("add", place, speaks | asks, drops)]


def _kept(rule: Rule, call: Call) -> tuple[dict[str, Json], tuple[str, ...]]:
    """Give what a rule may ask besides caller and method so that it applies, and what it cannot ask."""
    headers: list[Json] = []
    drops = []
    for header in rule.headers:
        values = header.values
        if not applies(replace(_NONE, headers=(header,)), call, denying=False):
            values = _as_sent(header.key, call)
        if values:
            headers.append({"key": header.key, "values": list(values)})
        else:
            drops.append(_header(header))
    asks: dict[str, Json] = {"headers": headers} if headers else {}
    if rule.when and rule.when.holds(call):
        asks["when"] = rule.when.text
    elif rule.when:
        drops.append(f"when: {rule.when.text}")
    return asks, tuple(drops)


def _as_sent(key: str, call: Call) -> tuple[str, ...]:
    # As values that are written out, if they can be: a star would stand for more than itself.
    sent = tuple(dict.fromkeys(value for name, value in call.entries if name == key))
    if any(not isinstance(value, str) or ANY in value for value in sent):
        return ()
    try:
        return tuple(checked_value(str(value)) for value in sent)
    except ValueError:
        return ()


def _header(header: HeaderRule) -> str:
    return f"header {header.key}: {' or '.join(header.values)}"


def _exception(denying: Placed, call: Call) -> Change:
    rule = denying.rule
    parts = []
    if rule.principals != (call.source,):
        parts.append(f'source != "{call.source}"')
    if rule.paths != (call.method,):
        parts.append(f'method != "{call.method}"')
    asked = [_header(header) for header in rule.headers]
    asked += [f"when: {rule.when.text}"] if rule.when else []
    if not parts:
        return Change("remove", denying.place, drops=tuple(asked))
    text = " || ".join(parts)
    if rule.when:
        text = f"({rule.when.text}) && ({text})"
    return Change("set", (*denying.place, "when"), text, tuple(asked))


def _permitted(policy: Policy, changes: Sequence[Change], call: Call) -> bool:
    try:
        tried = changed(policy, changes)
        check_reach(tried)
        check_burden(tried)
    except PolicyError:
        return False
    return Judge(tried).verdict(call).permitted
