"""What is noted of traffic that is good and yet does nothing, or more than may be meant."""

from __future__ import annotations

import json
from typing import Any

from mesh.core.policy import Policy
from mesh.core.traffic_effect import without_effect


def notes(document: dict[str, Any]) -> list[str]:
    return list(without_effect(Policy.parse(json.dumps(document))))


def test_traffic_without_effect() -> None:
    """What traffic says and cannot do is noted, and so is what is done on purpose."""
    rule = {"principals": ["a"], "paths": ["*"]}
    canary = {"service": "next", "headers": [{"key": "k", "values": ["1"]}]}
    narrower = {"service": "next", "headers": [*canary["headers"], {"key": "l", "values": ["*"]}]}
    services = {"a": {}, "b": {}, "next": {"allow": [rule]}, "orders": {"allow": [rule]}}
    traffic: dict[str, Any] = {
        "a": {"breaker": {"calls": 1}},
        "next": {},
        "orders": {
            "split": [canary, narrower, {"service": "b", "weight": 1}],
            "routes": [
                {"paths": ["*/Get", "/p.S/*"]},
                {"paths": ["/p.S/Put", "/q.S/Get"], "timeout": "1s"},
                {"paths": ["/q.S/*"], "fault": {"percent": 3, "delay": "1s"}},
            ],
        },
    }
    assert notes({"services": services, "traffic": traffic}) == [
        "traffic.a: no service of this policy may call a",
        "traffic.next: says nothing",
        "traffic.orders.split[1]: is never reached: an earlier one takes the same calls",
        "traffic.orders.split[2]: nobody who may call orders may call b: it takes no calls",
        "traffic.orders.split: b takes all calls, for weights are parts of their sum",
        "traffic.orders.routes[1]: is never reached: earlier ones have all its paths",
        "traffic.orders.routes[2].fault: disturbs 3 % of these calls on purpose",
    ]
    traffic = {"orders": {"split": [canary, {"service": "orders", "weight": 1}]}}
    assert notes({"services": services, "traffic": traffic}) == []
