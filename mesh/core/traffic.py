"""What a policy says of the calls that it permits: where they go, how often they are tried, how many at once.

    traffic:
      orders:                                      every call to orders, whoever makes it
        balance: {by: hash, key: x-customer}       or least-loaded (the default), round-robin
        breaker: {calls: 200, queue: 50}           of one calling node
        eject: {failures: 5, for: 10s, most: 50}
        rate: {calls: 100, burst: 200}             a second, of one calling service, at each instance
        split:                                     the first whose headers match, or by weight
          - {service: orders-next, headers: [{key: x-canary, values: ["*"]}]}
          - {service: orders-next, weight: 5}
          - {service: orders, weight: 95}
        routes:                                    the first whose paths match the method
          - paths: ["/shop.v1.Orders/Get"]
            timeout: 2s
            retry: {attempts: 3, on: [UNAVAILABLE], per_try: 500ms, backoff: 50ms, longest: 1s, budget: 20}
            hedge: {attempts: 2, after: 100ms}
            fault: {percent: 1, delay: 3s}         or abort: UNAVAILABLE

Nothing here permits a call: a split sends no caller to a service whose rules do not admit it. Durations are
whole milliseconds. The empty ``Traffic`` is what holds where a policy says nothing.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar

from mesh.core.rules import HeaderRule


class By(StrEnum):
    """How an instance is chosen."""

    LEAST_LOADED = "least-loaded"
    """The one of two random ones that has fewer calls of this node."""
    ROUND_ROBIN = "round-robin"
    """Each in turn."""
    HASH = "hash"
    """The same one for the same value of a key of the metadata, as long as it is there."""


@dataclass(frozen=True, slots=True)
class Balance:
    """How an instance is chosen; ``key`` is that of the metadata for ``By.HASH``, else empty."""

    by: By = By.LEAST_LOADED
    key: str = ""


@dataclass(frozen=True, slots=True)
class Breaker:
    """How many calls of one node to a service may be open at once, and how many more may wait."""

    calls: int
    queue: int = 0


@dataclass(frozen=True, slots=True)
class Eject:
    """When an instance is left out: after failures in a row, for a time, at most so many of a hundred."""

    MOST: ClassVar[int] = 50

    failures: int
    for_ms: int
    most: int = MOST


@dataclass(frozen=True, slots=True)
class Rate:
    """Calls a second that each instance takes of one calling service, and at once after a rest."""

    calls: int
    burst: int


@dataclass(frozen=True, slots=True)
class Share:
    """A service that takes a part of the calls: those with such headers, or so many by weight."""

    service: str
    weight: int = 0
    headers: tuple[HeaderRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Retry:
    """How a call that is safe to repeat is tried again: attempts in all, codes, pauses, and for how many.

    ``budget``: retries for each hundred calls. ``per_try_ms`` is 0 for no other limit than the call's own.
    """

    attempts: int
    codes: tuple[str, ...] = ("UNAVAILABLE",)
    per_try_ms: int = 0
    backoff_ms: int = 50
    longest_ms: int = 1_000
    budget: int = 20


@dataclass(frozen=True, slots=True)
class Hedge:
    """How a call that is safe to make twice is made again while the first has not answered yet."""

    attempts: int
    after_ms: int


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to some calls on purpose: a delay, an end with a status, or both."""

    percent: int
    delay_ms: int = 0
    abort: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """What holds for the methods that a path pattern matches."""

    paths: tuple[str, ...]
    timeout_ms: int = 0
    retry: Retry | None = None
    hedge: Hedge | None = None
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """All of it for one destination."""

    balance: Balance = Balance()
    breaker: Breaker | None = None
    eject: Eject | None = None
    rate: Rate | None = None
    split: tuple[Share, ...] = ()
    routes: tuple[Route, ...] = ()

    def of_caller(self, known: Container[str]) -> Traffic:
        """Give what a caller has to do with it, who knows only some services: it hears of no others."""
        # What is left without a share of calls would take them all, so then the service itself does.
        split = tuple(share for share in self.split if share.service in known)
        if not any(share.weight for share in split):
            split = tuple(share for share in split if share.headers)
        return replace(self, rate=None, split=split)

    @property
    def of_callee(self) -> Traffic:
        """What the service itself has to do with it."""
        return Traffic(rate=self.rate)


NONE = Traffic()
