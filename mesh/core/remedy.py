"""Changes of a policy that permit one call, and as little else as can be.

Several are thought of, from the one that is easiest to read to the one that always works; the first that
gives a good policy in which the call is permitted is taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from mesh.core.burden import check_burden
from mesh.core.condition import Call
from mesh.core.document import PolicyError
from mesh.core.names import ServiceName
from mesh.core.policy import OWN, Policy
from mesh.core.reach import check_reach
from mesh.core.rules import ALLOW, Mode, Placed
from mesh.core.verdict import Judge

#: A value of JSON, and an object or a list of it.
Json: TypeAlias = "str | list[Json] | dict[str, Json]"


@dataclass(frozen=True, slots=True)
class Change:
    """One edit of a document: ``add`` to the list at a place, ``set`` what is there, or ``remove`` it."""

    action: str
    place: tuple[str | int, ...]
    value: Json = ""


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
    data: Json = json.loads(policy.encode())
    # What is removed goes last, from the end, so that the places before it stay what they are.
    removing = [change for change in changes if change.action == "remove"]
    for change in (*(one for one in changes if one not in removing), *reversed(removing)):
        _edit(data, change)
    return Policy.parse(json.dumps(data))


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
    if nearest is not None and not nearest.rule.conditional and nearest.rule.mode is None:
        if nearest.rule.paths == (call.method,):
            yield [Change("add", (*nearest.place, "principals"), call.source)]
        if nearest.rule.principals == (call.source,):
            yield [Change("add", (*nearest.place, "paths"), call.method)]
    rule: Json = {"principals": [call.source], "paths": [call.method]}
    yield [Change("add", ("services", call.destination, ALLOW), rule)]


def _exception(denying: Placed, call: Call) -> Change:
    rule = denying.rule
    parts = []
    if rule.principals != (call.source,):
        parts.append(f'source != "{call.source}"')
    if rule.paths != (call.method,):
        parts.append(f'method != "{call.method}"')
    if not parts:
        return Change("remove", denying.place)
    text = " || ".join(parts)
    if rule.when:
        text = f"({rule.when.text}) && ({text})"
    return Change("set", (*denying.place, "when"), text)


def _permitted(policy: Policy, changes: Sequence[Change], call: Call) -> bool:
    try:
        tried = changed(policy, changes)
        check_reach(tried)
        check_burden(tried)
    except PolicyError:
        return False
    return Judge(tried).verdict(call).permitted
