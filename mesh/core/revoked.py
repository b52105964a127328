"""Instances that are members no more, for as long as anything they hold could still be used.

A revocation is final: an instance is never let in again, its service may join anew as another. So sets of
them only grow together, whatever order they come in, and what is stale takes nothing away. An entry is
forgotten once the last certificate and the last key of its instance have ended. There are only ids here:
whoever is told of them learns no names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from mesh.core.names import InstanceId

#: The most that are kept at a time; each is 30 bytes at most on its way.
MAX_REVOKED: Final = 5000


class Revoked:
    """A set of revoked instances, never changed, each with the time in milliseconds when it is forgotten."""

    __slots__ = ("_until",)

    def __init__(self, until: Mapping[InstanceId, int] = MappingProxyType({})) -> None:
        """Take the instances."""
        self._until = dict(until)

    def __contains__(self, instance: object) -> bool:
        """Whether an instance is revoked."""
        return instance in self._until

    def __iter__(self) -> Iterator[InstanceId]:
        """Give the instances."""
        return iter(self._until)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._until)

    def items(self) -> list[tuple[InstanceId, int]]:
        """Give the instances, and when each is forgotten."""
        return list(self._until.items())

    def joined(self, more: Mapping[InstanceId, int], now_ms: int) -> Revoked:
        """Give these and more, without those that are over; itself if that is the same."""
        both = {**self._until}
        for instance, until_ms in more.items():
            both[instance] = max(until_ms, both.get(instance, 0))
        left = {instance: until_ms for instance, until_ms in both.items() if now_ms < until_ms}
        return self if left == self._until else Revoked(left)

    def since(self, before: Revoked) -> list[tuple[InstanceId, int]]:
        """Give what is in this set and not in an earlier one."""
        return [] if self is before else [one for one in self.items() if one[0] not in before]
