"""Time zones that conditions name: one that nobody knows is misspelt, and refuses the policy.

A condition with such a zone can never be judged, so an allow rule with it never applies, and a deny rule
always does. Only zones that are written out are looked up (``expression`` takes no others), never one that
came with a call.

This is asked of what a person writes, not of what is in force: a node that lacks a zone can still read its
slice, and denies what it cannot judge.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from difflib import get_close_matches
from functools import lru_cache

from mesh.core.condition import Call, Condition
from mesh.core.document import PolicyError
from mesh.core.policy import Policy


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
    near = get_close_matches(zone, sorted(names), 1)
    advice = f"did you mean {near[0]!r}?" if near else "use one of the tz database, or an offset as +02:00"
    raise PolicyError(at, f"there is no time zone {zone!r}: {advice}")
