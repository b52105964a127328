"""What a policy may cost the nodes that judge by it.

A rule without header and condition costs a call nothing, for whether it applies is known beforehand. Of those
with either, the ones that a call may meet are looked at one after the other: so these are bounded, for each
caller and method, and not how many a policy has. Groups are climbed once for each caller, and bounded as
such.

Like ``reach``, this is asked of what a person writes, not of what is in force. Callers and methods that are
not written out, and that a prefix and a suffix match both, may meet what is bounded for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from mesh.core.document import PolicyError
from mesh.core.groups import GROUP, Groups
from mesh.core.patterns import wider_paths, wider_principals
from mesh.core.policy import Policy
from mesh.core.rules import Rule

#: Each takes about 5 us to climb.
MAX_GROUPS: Final = 10_000
#: A header takes about 2 us, a condition 10.
MAX_MET: Final = 256
#: Each takes about 0.1 us.
MAX_VALUES: Final = 10_000


def check_burden(policy: Policy) -> None:
    """Raise ``PolicyError`` for too many groups, or where one call may meet too much."""
    if len(policy.groups.members) > MAX_GROUPS:
        raise PolicyError(
            "policy.groups", f"{len(policy.groups.members)} are too many groups: use at most {MAX_GROUPS}"
        )
    for name in policy.services:
        section = policy.section(name)
        rules = [rule for _, rule in section.rules("") if rule.conditional]
        for weight, most, what in _BOUNDS:
            for caller, path, found in _above(rules, section.groups, weight, most):
                wrong = (
                    f"calls of {caller!r} to {path!r} may meet {found} {what}: use at most {most}, "
                    "with fewer callers or methods in each rule, or wildcards for values"
                )
                raise PolicyError(f"policy.services.{name}", wrong)


def _one(_rule: Rule) -> int:
    return 1


def _values(rule: Rule) -> int:
    return sum(len(header.values) for header in rule.headers)


_BOUNDS: Final = (
    (_one, MAX_MET, "rules with headers or conditions"),
    (_values, MAX_VALUES, "values of headers"),
)


def _above(
    rules: list[Rule], groups: Groups, weight: Callable[[Rule], int], most: int
) -> Iterator[tuple[str, str, int]]:
    """Give callers and methods, or wildcards for them, that may meet more than is allowed, and how much."""
    if sum(map(weight, rules)) <= most:
        return
    by_path: dict[str, set[int]] = {}
    for place, rule in enumerate(rules):
        for path in rule.paths:
            by_path.setdefault(path, set()).add(place)
    for path in by_path:
        met = [rules[place] for place in set[int]().union(*(by_path.get(p, ()) for p in wider_paths(path)))]
        if sum(map(weight, met)) > most:
            for caller, found in _by_caller(met, groups, weight):
                if found > most:
                    yield caller, path, found


def _by_caller(rules: list[Rule], groups: Groups, weight: Callable[[Rule], int]) -> Iterator[tuple[str, int]]:
    by_principal: dict[str, set[int]] = {}
    for place, rule in enumerate(rules):
        for principal in rule.principals:
            by_principal.setdefault(principal, set()).add(place)
    members = (member for listed in groups.members.values() for member in listed)
    for caller in dict.fromkeys((*by_principal, *members)):
        if not caller.startswith(GROUP):
            patterns = groups.holding(wider_principals(caller))
            places = set[int]().union(*(by_principal.get(pattern, ()) for pattern in patterns))
            yield caller, sum(weight(rules[place]) for place in places)
