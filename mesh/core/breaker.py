"""How many calls may be open at once, and who waits for a place, in the order of coming.

Tickets are whatever tells callers apart. The waiting itself, and for how long, is for others.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from mesh.core.traffic import Breaker

T = TypeVar("T", bound=Hashable)


class Turnstile(Generic[T]):
    """Calls come in, wait and leave. Without limits all come in, and are counted."""

    def __init__(self) -> None:
        """Start empty, without limits."""
        self._limits: Breaker | None = None
        self._waiting: dict[T, None] = {}
        self.open = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def enter(self) -> bool:
        """Let a call in if there is a place, for which then nobody waits. False if there is none."""
        if not self._has_place():
            return False
        self.open += 1
        return True

    def wait(self, ticket: T) -> bool:
        """Let a call wait that found no place. False if there is no room to wait."""
        if self._limits is None or len(self._waiting) >= self._limits.queue:
            return False
        self._waiting[ticket] = None
        return True

    def leave(self) -> list[T]:
        """Take a call out; give those whose turn it is, who have their places now."""
        self.open -= 1
        return self._admitted() if self._waiting else []

    def give_up(self, ticket: T) -> None:
        """Take back a call that waits."""
        self._waiting.pop(ticket, None)

    def limit(self, limits: Breaker | None) -> list[T]:
        """Change the limits; give those whose turn it is. Nobody who is in, or waits, is turned out."""
        self._limits = limits
        return self._admitted()

    def _has_place(self) -> bool:
        return self._limits is None or self.open < self._limits.calls

    def _admitted(self) -> list[T]:
        admitted = []
        while self._waiting and self._has_place():
            ticket = next(iter(self._waiting))
            del self._waiting[ticket]
            self.open += 1
            admitted.append(ticket)
        return admitted
