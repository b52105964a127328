"""What a node is asked for when its metrics are read: ages, versions, endpoints. Nothing is kept here.

Whoever holds the value registers what gives it. It is called in the thread that exports, so it only reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

Reading: TypeAlias = tuple[float, Mapping[str, str]]
"""A value, and the attributes that tell it from others of its name."""


class Gauges:
    """Those of one node, by the name of their metric."""

    def __init__(self) -> None:
        """Start with none."""
        self._readers: dict[str, Callable[[], Iterable[Reading]]] = {}

    def add(self, name: str, read: Callable[[], float | None]) -> None:
        """Have one value told; ``None``: there is none at the moment."""
        self.add_many(name, lambda: [] if (value := read()) is None else [(value, {})])

    def add_many(self, name: str, read: Callable[[], Iterable[Reading]]) -> None:
        """Have several values told."""
        self._readers[name] = read

    def read(self, name: str) -> list[Reading]:
        """Give what there is under a name."""
        reader = self._readers.get(name)
        return list(reader()) if reader else []
