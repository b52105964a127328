"""What differs in how calls are made, in words."""

from __future__ import annotations

import json

from mesh.core.policy import Policy
from mesh.core.traffic_turns import turns
from tests.core.test_traffic import FULL, SHORT, document


def told(old: object, new: object) -> list[str]:
    first, second = (Policy.parse(json.dumps(document(said))) for said in (old, new))
    return [turn.text.removeprefix("~ traffic to orders: ") for turn in turns(first, second)]


def test_every_part() -> None:
    """Each is told with what it was and what it is."""
    assert told({}, FULL) == [
        "balance: none => by hash, key x-customer",
        "breaker: none => calls 200, queue 50",
        "eject: none => failures 5, for 10s, most 30",
        "rate: none => calls 100, burst 200",
        "split: none => orders-next if x-canary is *, orders-next 5, orders 95",
        (
            "route /shop.v1.Orders/Get */List: none => timeout 2s, retry attempts 3, per_try 500ms, "
            "on UNAVAILABLE ABORTED, backoff 20ms, longest 1m, budget 10"
        ),
        "route /shop.v1.Orders/*: none => hedge attempts 2, after 100ms",
        "route *: none => fault percent 1, delay 3s, abort INTERNAL",
    ]
    assert told(SHORT, {})[-1] == "route */F: as everywhere => none"
    assert told(FULL, FULL) == told(SHORT, SHORT) == []


def test_only_what_differs() -> None:
    """A part that says the same is not told, however it is written."""
    assert told({"rate": {"calls": 5}}, {"rate": {"calls": 5, "burst": 5}}) == []
    assert told({"rate": {"calls": 5}}, {"rate": {"calls": 6}}) == ["rate: calls 5 => calls 6"]


def test_the_order_of_routes() -> None:
    """The first that matches is the one, so their order is told; of two with the same paths, both."""
    one, other = {"paths": ["*/A"]}, {"paths": ["*"], "timeout": "1s"}
    assert told({"routes": [one, other]}, {"routes": [other, one]}) == [
        "order: route */A, route * => route *, route */A"
    ]
    assert told({"routes": [one]}, {"routes": [one, one]}) == ["route */A again: none => as everywhere"]
