"""What policy says of the methods of one service, for each call that this node makes to it.

All of a node's channels to a service share one ``Routing``, for they share its budget of repetitions. A call
goes to its end by what was said when it began.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from mesh.core.budget import Budget
from mesh.core.names import ServiceName
from mesh.core.routes import Routes
from mesh.core.traffic import NONE, Retry, Route, Traffic

#: What hedged calls add to the budget, of which a hedge says nothing.
HEDGED: Final = Retry(2).budget


@dataclass(frozen=True, slots=True)
class Plan:
    """What holds for one call: its route, and the budget that its repetitions come from."""

    route: Route
    budget: Budget


class Routings:
    """The one ``Routing`` of each service that a node calls."""

    def __init__(self, traffic: Callable[[ServiceName], Traffic], now: Callable[[], float]) -> None:
        """Take what gives the traffic to a service that is in force, and a clock."""
        self._traffic, self._now = traffic, now
        self._known: dict[ServiceName, Routing] = {}

    def of(self, service: ServiceName) -> Routing:
        """Give that of a service."""
        known = self._known.get(service)
        if known is None:
            known = self._known[service] = Routing(partial(self._traffic, service), self._now)
        return known


class Routing:
    """The routes of one service, as they are in force."""

    def __init__(self, traffic: Callable[[], Traffic], now: Callable[[], float]) -> None:
        """Take what gives the traffic in force, the same object while it is the same, and a clock."""
        self._traffic, self._read = NONE, traffic
        self._routes, self.budget = Routes(()), Budget(now())

    def plan(self, method: str) -> Plan | None:
        """Give what holds for a call that begins now; ``None`` for nothing in particular."""
        traffic = self._read()
        if traffic is not self._traffic:
            self._traffic, self._routes = traffic, Routes(traffic.routes)
        route = self._routes.of(method) if traffic.routes else None
        if route is None:
            return None
        if route.retry or route.hedge:
            self.budget.called(route.retry.budget if route.retry else HEDGED)
        return Plan(route, self.budget)
