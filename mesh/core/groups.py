"""Groups: names for several principals, which rules and other groups refer to as ``group:<name>``.

    groups:
      backend: [orders, "warehouse.*"]       services and patterns, as rules have them
      trusted: [group:backend, billing]      groups within groups, in no circle

A group is never multiplied out: to the rules it is one more pattern that matches a service, found by climbing
from the service to the groups that hold it. So a hundred thousand groups within groups cost what they take to
write down.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from mesh.core import document
from mesh.core.document import Node, Object, PolicyError
from mesh.core.patterns import checked_principal, source_patterns

GROUP: Final = "group:"

_MISSPELT: Final = "groups:"
_NAME: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
#: How many names of a circle an error shows.
_SHOWN: Final = 4


@dataclass(frozen=True)
class Groups:
    """Groups with their members as they were written; ``parse`` has checked that they hold together."""

    members: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _above: dict[str, list[str]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        """Index every member by the groups that it stands in."""
        object.__setattr__(self, "members", MappingProxyType(dict(self.members)))
        for name, members in self.members.items():
            for member in members:
                self._above.setdefault(member, []).append(GROUP + name)

    @classmethod
    def parse(cls, at: str, node: Node) -> Groups:
        """Read groups; raise ``PolicyError``, also for one that is not there and for circles."""
        members = {}
        for name, listed in document.members(at, node).items():
            if not _NAME.fullmatch(name):
                raise PolicyError(at, f"bad group name {name!a:.80}: use a-z, 0-9 and inner hyphens", name)
            members[name] = principals(f"{at}.{name}", listed)
        groups = cls(members)
        for name, listed in groups.members.items():
            groups.check(f"{at}.{name}", listed)
        groups._check_circles(at)
        return groups

    def check(self, at: str, principals: Iterable[str]) -> None:
        """Raise ``PolicyError`` for a principal that is a group not among these."""
        for place, pattern in enumerate(principals):
            if pattern.startswith(GROUP) and pattern.removeprefix(GROUP) not in self.members:
                name = pattern.removeprefix(GROUP)
                known = ", ".join(sorted(self.members)[:_SHOWN]) or "none"
                raise PolicyError(
                    f"{at}[{place}]", f"there is no group {name!r}: define it below groups (there: {known})"
                )

    def patterns(self, source: str) -> tuple[str, ...]:
        """Give every principal that matches a service: the patterns of its name, and the groups it is in."""
        own = source_patterns(source)
        return self.holding(own) if self.members else own

    def holding(self, patterns: Iterable[str]) -> tuple[str, ...]:
        """Give the patterns, then every group that lists one of them, or one of those groups, and so on."""
        found = dict.fromkeys(patterns)
        waiting = list(found)
        while waiting:
            for group in self._above.get(waiting.pop(), ()):
                if group not in found:
                    found[group] = None
                    waiting.append(group)
        return tuple(found)

    def within(self, principals: Iterable[str]) -> Groups:
        """Give the groups among some principals, with those within them, and no other."""
        found: dict[str, tuple[str, ...]] = {}
        waiting = [pattern for pattern in principals if pattern.startswith(GROUP)]
        while waiting:
            name = waiting.pop().removeprefix(GROUP)
            if name not in found:
                found[name] = self.members[name]
                waiting.extend(member for member in found[name] if member.startswith(GROUP))
        return Groups(found) if found else NO_GROUPS

    def data(self) -> dict[str, Node]:
        """Give the groups as a document has them."""
        return dict(self.members)

    def _check_circles(self, at: str) -> None:
        # What holds no group, or only such as were taken away, is taken away; what is left has a circle.
        inner = {name: {m for m in listed if m.startswith(GROUP)} for name, listed in self.members.items()}
        waiting = [name for name, groups in inner.items() if not groups]
        while waiting:
            done = GROUP + waiting.pop()
            for above in self._above.get(done, ()):
                left = inner[above.removeprefix(GROUP)]
                if left and done in left:
                    left.remove(done)
                    if not left:
                        waiting.append(above.removeprefix(GROUP))
        circular = {name: sorted(groups) for name, groups in inner.items() if groups}
        if circular:
            circle = _circle(circular)
            shown = " holds ".join(circle[:_SHOWN]) + (" ..." if len(circle) > _SHOWN else "")
            raise PolicyError(f"{at}.{circle[0]}", f"holds itself ({shown}): take one out of the other")


NO_GROUPS: Final = Groups()


def principals(at: str, node: Node) -> tuple[str, ...]:
    """Give the principals of a list that has any; raise ``PolicyError`` for anything else."""
    found = document.some(at, node)
    for place, item in found:
        if isinstance(item, Object):
            raise PolicyError(place, f"has to be a text, not an object{_meant(item)}")
    return tuple(document.checked(place, item, principal) for place, item in found)


def principal(text: str) -> str:
    """Give back a principal, be it a pattern or ``group:<name>``; raise ``ValueError`` for anything else."""
    name = text.removeprefix(_MISSPELT)
    if name != text and _NAME.fullmatch(name):
        msg = f"bad principal {text!a:.80}: write 'group:{name}'"
        raise ValueError(msg)
    if not text.startswith(GROUP):
        return checked_principal(text)
    if not _NAME.fullmatch(text.removeprefix(GROUP)):
        msg = f"bad group {text!a:.80}: use group: and a name of a-z, 0-9 and inner hyphens"
        raise ValueError(msg)
    return text


def _meant(item: Object) -> str:
    # group: readers, with the blank, is a mapping to YAML.
    match item.pairs:
        case [("group" | "groups", str(name))] if _NAME.fullmatch(name):
            return f": write 'group:{name}', without a blank"
    return ""


def _circle(left: Mapping[str, Collection[str]]) -> list[str]:
    # Every group that is left has a group in it that is left, so walking on comes back to where it was.
    name, walked = min(left), dict[str, int]()
    while name not in walked:
        walked[name] = len(walked)
        name = min(left[name]).removeprefix(GROUP)
    return [*list(walked)[walked[name] :], name]
