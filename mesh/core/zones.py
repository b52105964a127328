"""Time zones that conditions name: one that nobody knows is misspelt, and refuses the policy.

A condition with such a zone can never be judged, so an allow rule with it never applies, and a deny rule
always does. Only zones that are written out are looked up (``expression`` takes no others), never one that
came with a call.

This is asked of what a person writes, not of what is in force: a node that lacks a zone can still read its
slice, and denies what it cannot judge.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import lru_cache
from itertools import takewhile
from typing import Final

from mesh.core.condition import Call, Condition
from mesh.core.document import PolicyError
from mesh.core.policy import Policy

_LIST: Final = "use a TZ of https://data.iana.org/time-zones/tzdb/zone1970.tab, or an offset as +02:00"


@lru_cache(1024)
def is_known(zone: str) -> bool:
    """Whether conditions with a time zone can be judged where this runs: its judge has its own list."""
    return Condition.parse(f'time.getHours("{zone}") >= 0').holds(Call("", "", "", (), 0)) is not None


def check_zones(policy: Policy, names: Callable[[], Collection[str]]) -> None:
    """Raise ``PolicyError`` for the first zone that is neither known here nor among the names of all zones.

    ``names`` is asked only then. Where it has none either, nobody can tell, and nothing is refused.
    """
    for service, section in policy.services.items():
        for at, rule in section.rules(f"policy.services.{service}"):
            for zone in rule.when.zones if rule.when else ():
                if not is_known(zone):
                    _check(f"{at}.when", zone, names())


def _check(at: str, zone: str, names: Collection[str]) -> None:
    if not names or zone in names:
        return
    near = next((name for name in sorted(names) if _is_misspelt(zone.casefold(), name.casefold())), None)
    advice = f"did you mean {near!r}?" if near else _LIST
    raise PolicyError(at, f"there is no time zone {zone!r}: {advice}")


def _is_misspelt(zone: str, name: str) -> bool:
    # One letter too many, too few or another, or two that changed places: with another one, Munich is Zurich.
    begin = _shared(zone, name)
    end = _shared(zone[begin:][::-1], name[begin:][::-1])
    left, right = zone[begin : len(zone) - end], name[begin : len(name) - end]
    return max(len(left), len(right)) <= 1 or left == right[::-1]


def _shared(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
