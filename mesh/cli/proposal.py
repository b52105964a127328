"""A proposed change of a policy, as text that goes into its file as it stands.

``core.remedy`` says what to change; here it becomes whole keys and whole items of a list. What is replaced is
given anew with all that it holds, so nothing has to be written between its brackets. A condition is quoted so
that it may stand in ``{}`` as well. Removals come last and from the end, so that the places before stay.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import yaml

from mesh.core.policy import Policy
from mesh.core.remedy import Change, edited, in_order

Place: TypeAlias = tuple[str | int, ...]


def proposal(policy: Policy, changes: Sequence[Change]) -> Iterator[str]:
    """Give the lines for changes of a policy, in the order in which they are to be made."""
    before: Any = json.loads(policy.encode())
    after: Any = edited(policy, [change for change in changes if change.action != "remove"])
    told = set()
    for change in in_order(changes):
        if change.action == "remove":
            yield f"remove {path(change.place)}"
        elif (at := _anchor(before, change.place)) not in told:
            told.add(at)
            yield from _text(at, _below(before, at), _below(after, at), change)
        if change.drops:
            yield f"{_WITHOUT[change.action]} {'; '.join(change.drops)}"


_WITHOUT = {
    "add": "without what the nearest rule asks besides:",
    "set": "whatever is sent and whenever, though the rule denies this caller and method only with",
    "remove": "it denies no more than this caller and method, and only with",
}


def path(place: Place) -> str:
    """Give a place of a document in one word."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".")


def _anchor(document: Any, place: Place) -> Place:
    """Give the part of a place that ends where a document has nothing, or nothing that could be added to."""
    for length in range(1, len(place)):
        if not _below(document, place[:length]):
            return place[:length]
    return place


def _below(document: Any, place: Place) -> Any:
    for step in place:
        if isinstance(document, dict) and step not in document:
            return None
        document = document[step]
    return document


def _text(at: Place, had: Any, has: Any, change: Change) -> Iterator[str]:
    rules = bool(had) and isinstance(change.value, dict)
    where = at if rules else at[:-1]
    adds = rules or had is None
    yield f"{'add to' if adds else 'replace in'} {path(where) or 'the document'}:"
    yield from (f"  {line}" for line in _yaml([change.value] if rules else {at[-1]: has}))


def _yaml(value: Any) -> list[str]:
    text: str = yaml.safe_dump(value, sort_keys=False, default_flow_style=None, width=10_000)
    if text.startswith("{"):
        text = text.strip()[1:-1]
    return text.splitlines()
