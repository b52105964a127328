"""Which route of a destination holds for a method, and what it makes of the time that a call has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from mesh.core.patterns import method_patterns
from mesh.core.traffic import Route

#: How many methods are remembered with their routes.
REMEMBERED: Final = 1_000


class Routes:
    """The routes of one destination, in their order."""

    def __init__(self, routes: Iterable[Route]) -> None:
        """Index them by their paths: how many there are costs a call nothing."""
        self._routes = tuple(routes)
        self._first: dict[str, int] = {}
        for place, route in enumerate(self._routes):
            for path in route.paths:
                self._first.setdefault(path, place)
        self._known: dict[str, Route | None] = {}

    def of(self, method: str) -> Route | None:
        """Give the first route of which a path matches a full method."""
        if method not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            places = [self._first[path] for path in method_patterns(method) if path in self._first]
            self._known[method] = self._routes[min(places)] if places else None
        return self._known[method]


def shortened(timeout: float | None, route: Route) -> float | None:
    """Give the seconds that a call has: its own, or the route's if those are fewer."""
    if not route.timeout_ms:
        return timeout
    most = route.timeout_ms / 1000
    return most if timeout is None else min(timeout, most)
