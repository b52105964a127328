"""What a policy says of traffic: read strictly, given back in one form, told to those whom it concerns."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.names import ServiceName
from mesh.core.policy import HeaderRule, Policy, PolicyError
from mesh.core.traffic import (
    NONE,
    Balance,
    Breaker,
    By,
    Eject,
    Fault,
    Hedge,
    Rate,
    Retry,
    Route,
    Share,
    Traffic,
)
from mesh.core.traffic_document import decode, encode
from mesh.core.traffic_routes import ERRORS, RETRIED, written

ORDERS = ServiceName("orders")
FULL: dict[str, Any] = {
    "balance": {"by": "hash", "key": "x-customer"},
    "breaker": {"calls": 200, "queue": 50},
    "eject": {"failures": 5, "for": "10s", "most": 30},
    "rate": {"calls": 100, "burst": 200},
    "split": [
        {"service": "orders-next", "headers": [{"key": "x-canary", "values": ["*"]}]},
        {"service": "orders-next", "weight": 5},
        {"service": "orders", "weight": 95},
    ],
    "routes": [
        {
            "paths": ["/shop.v1.Orders/Get", "*/List"],
            "timeout": "2s",
            "retry": {
                "attempts": 3,
                "on": ["UNAVAILABLE", "ABORTED"],
                "per_try": "500ms",
                "backoff": "20ms",
                "longest": "1m",
                "budget": 10,
            },
        },
        {"paths": ["/shop.v1.Orders/*"], "hedge": {"attempts": 2, "after": "100ms"}},
        {"paths": ["*"], "fault": {"percent": 1, "delay": "3s", "abort": "INTERNAL"}},
    ],
}
READ = Traffic(
    Balance(By.HASH, "x-customer"),
    Breaker(200, 50),
    Eject(5, 10_000, 30),
    Rate(100, 200),
    (
        Share("orders-next", headers=(HeaderRule("x-canary", ("*",)),)),
        Share("orders-next", 5),
        Share("orders", 95),
    ),
    (
        Route(
            ("/shop.v1.Orders/Get", "*/List"),
            2_000,
            Retry(3, ("UNAVAILABLE", "ABORTED"), 500, 20, 60_000, 10),
        ),
        Route(("/shop.v1.Orders/*",), hedge=Hedge(2, 100)),
        Route(("*",), fault=Fault(1, 3_000, "INTERNAL")),
    ),
)
SHORT: dict[str, Any] = {
    "balance": {"by": "round-robin"},
    "breaker": {"calls": 1},
    "eject": {"failures": 1, "for": "1ms"},
    "rate": {"calls": 7},
    "routes": [
        {"paths": ["*/A"], "retry": {"attempts": 2}},
        {"paths": ["*/B"], "retry": {"attempts": 2, "backoff": "5s"}},
        {"paths": ["*/C"], "fault": {"percent": 100, "delay": "90s"}},
        {"paths": ["*/D"], "fault": {"percent": 100, "abort": "NOT_FOUND"}},
        {"paths": ["*/E"], "timeout": "60m"},
        {"paths": ["*/F"]},
    ],
}


def document(traffic: object, service: str = "orders") -> dict[str, Any]:
    """Give a policy with the traffic to one service."""
    return {"services": {"orders": {}, "orders-next": {}}, "traffic": {service: traffic}}


def parsed(traffic: object) -> Traffic:
    return Policy.parse(json.dumps(document(traffic))).traffic_to(ORDERS)


def of_route(**said: object) -> dict[str, Any]:
    return document({"routes": [{"paths": ["*"]} | said]})


def retry(**said: object) -> dict[str, Any]:
    return of_route(retry={"attempts": 2} | said)


def of_split(*shares: object) -> dict[str, Any]:
    return document({"split": list(shares)})


AT = "policy.traffic.orders"
ROUTE, SPLIT = f"{AT}.routes[0]", f"{AT}.split[0]"
HEADERS = [{"key": "k", "values": ["*"]}]
REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("policy.traffic", "has to be an object", {"services": {}, "traffic": []}),
    ("policy.traffic", "bad service name 'Orders'", document({}, "Orders")),
    ("policy.traffic.mesh.auth", "the mesh's own", document({}, "mesh.auth")),
    ("policy.traffic.order", "no service 'order'", document({}, "order")),
    (AT, "has to be an object", document(None)),
    (f"{AT}.balancing", "unknown field 'balancing': use balance, breaker", document({"balancing": {}})),
    (f"{AT}.retry", "is said of methods: write routes", document({"retry": {"attempts": 2}})),
    (f"{AT}.timeout", "is said of methods: write routes", document({"timeout": "1s"})),
    (f"{AT}.balance", "not a text", document({"balance": "hash"})),
    (f"{AT}.balance.by", "is missing", document({"balance": {}})),
    (f"{AT}.balance.by", "use least-loaded, round-robin, hash", document({"balance": {"by": "random"}})),
    (f"{AT}.balance.key", "say of which key", document({"balance": {"by": "hash"}})),
    (f"{AT}.balance.key", "has no key", document({"balance": {"by": "round-robin", "key": "k"}})),
    (f"{AT}.balance.key", "holds bytes", document({"balance": {"by": "hash", "key": "k-bin"}})),
    (f"{AT}.breaker.calls", "is missing", document({"breaker": {}})),
    (f"{AT}.breaker.calls", "between 1 and 1000000", document({"breaker": {"calls": 0}})),
    (f"{AT}.breaker.queue", "between 0 and 1000000", document({"breaker": {"calls": 1, "queue": -1}})),
    (f"{AT}.eject.for", "is missing", document({"eject": {"failures": 5}})),
    (f"{AT}.eject.failures", "between 1 and 1000", document({"eject": {"failures": 0, "for": "1s"}})),
    (f"{AT}.eject.most", "between 1 and 100", document({"eject": {"failures": 5, "for": "1s", "most": 101}})),
    (f"{AT}.eject.for", "bad duration '10'", document({"eject": {"failures": 5, "for": "10"}})),
    (f"{AT}.eject.for", "not a number: put it into quotes", document({"eject": {"failures": 5, "for": 10}})),
    (f"{AT}.eject.for", "bad duration '0s'", document({"eject": {"failures": 5, "for": "0s"}})),
    (f"{AT}.eject.for", "bad duration '1.5s'", document({"eject": {"failures": 5, "for": "1.5s"}})),
    (f"{AT}.eject.for", "bad duration '1h'", document({"eject": {"failures": 5, "for": "1h"}})),
    (
        f"{AT}.eject.for",
        "61m is too long: use at most 60m",
        document({"eject": {"failures": 5, "for": "61m"}}),
    ),
    (f"{AT}.rate.calls", "between 1 and", document({"rate": {"calls": 1_000_001}})),
    (f"{AT}.rate.burst", "not true or false", document({"rate": {"calls": 1, "burst": True}})),
    (f"{AT}.split", "is empty", document({"split": []})),
    (SPLIT, "one of weight and headers", of_split({"service": "orders"})),
    (SPLIT, "one of weight and headers", of_split({"service": "orders", "weight": 1, "headers": HEADERS})),
    (f"{SPLIT}.service", "no service 'order-next'", of_split({"service": "order-next", "weight": 1})),
    (f"{SPLIT}.service", "bad service name '*'", of_split({"service": "*", "weight": 1})),
    (f"{SPLIT}.service", "no service 'mesh.auth'", of_split({"service": "mesh.auth", "weight": 1})),
    (f"{SPLIT}.weight", "between 0 and 1000", of_split({"service": "orders", "weight": 1001})),
    (f"{SPLIT}.headers", "is empty", of_split({"service": "orders", "headers": []})),
    (f"{SPLIT}.headers", "'k' is there twice", of_split({"service": "orders", "headers": HEADERS * 2})),
    (f"{AT}.split", "all weights are 0", of_split({"service": "orders", "weight": 0})),
    (
        f"{AT}.split",
        "a weight for 'orders' is there twice",
        of_split(*[{"service": "orders", "weight": 1}] * 2),
    ),
    (f"{AT}.split", "65 entries are too many", of_split(*[{"service": "orders", "headers": HEADERS}] * 65)),
    (f"{AT}.routes", "257 entries are too many", document({"routes": [{"paths": ["*"]}] * 257})),
    (f"{ROUTE}.paths", "is missing", document({"routes": [{}]})),
    (f"{ROUTE}.paths[0]", "bad path '/p.S'", document({"routes": [{"paths": ["/p.S"]}]})),
    (f"{ROUTE}.rate", "unknown field", of_route(rate={})),
    (f"{ROUTE}.timeout", "bad duration", of_route(timeout="2 s")),
    (f"{ROUTE}.hedge", "keep one", of_route(retry={"attempts": 2}, hedge={"attempts": 2, "after": "1s"})),
    (f"{ROUTE}.hedge.after", "is missing", of_route(hedge={"attempts": 2})),
    (f"{ROUTE}.hedge.attempts", "between 2 and 10", of_route(hedge={"attempts": 1, "after": "1s"})),
    (
        f"{ROUTE}.hedge.after",
        "shorter than the timeout of the whole call, 2s",
        of_route(timeout="2s", hedge={"attempts": 2, "after": "2s"}),
    ),
    (f"{ROUTE}.retry.attempts", "is missing", of_route(retry={})),
    (f"{ROUTE}.retry.attempts", "between 2 and 10", retry(attempts=11)),
    (f"{ROUTE}.retry.on", "is empty", retry(on=[])),
    (f"{ROUTE}.retry.on", "the code 'ABORTED' is there twice", retry(on=["ABORTED", "ABORTED"])),
    (f"{ROUTE}.retry.on[0]", "did you mean 'UNAVAILABLE'?", retry(on=["unavailble"])),
    (f"{ROUTE}.retry.on[0]", "use one of UNAVAILABLE", retry(on=["503"])),
    (f"{ROUTE}.retry.on[0]", "'OK' is no error", retry(on=["OK"])),
    (f"{ROUTE}.retry.on[1]", "INVALID_ARGUMENT would come again", retry(on=["ABORTED", "INVALID_ARGUMENT"])),
    (
        f"{ROUTE}.retry.per_try",
        "shorter than the timeout",
        of_route(timeout="1s", retry={"attempts": 2, "per_try": "1s"}),
    ),
    (f"{ROUTE}.retry.longest", "shorter than the first pause, 2s", retry(backoff="2s", longest="1s")),
    (f"{ROUTE}.retry.budget", "between 1 and 100", retry(budget=0)),
    (f"{ROUTE}.fault", "does nothing", of_route(fault={"percent": 5})),
    (f"{ROUTE}.fault.percent", "is missing", of_route(fault={"delay": "1s"})),
    (f"{ROUTE}.fault.percent", "between 1 and 100", of_route(fault={"percent": 101, "delay": "1s"})),
    (f"{ROUTE}.fault.abort", "'OK' is no error", of_route(fault={"percent": 5, "abort": "OK"})),
]


@pytest.mark.parametrize(("path", "text", "bad"), REFUSED)
def test_refused(path: str, text: str, bad: dict[str, Any]) -> None:
    """What could do nothing, or not what it says, is refused whole: where, what, and what to do."""
    with pytest.raises(PolicyError) as caught:
        Policy.parse(json.dumps(bad))
    assert caught.value.path == path
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_full() -> None:
    """A section that uses everything is read as it stands."""
    assert parsed(FULL) == READ


def test_defaults() -> None:
    """What is not said is as the documentation has it, and a pause is never shorter than the first one."""
    short = parsed(SHORT)
    assert (short.balance, short.breaker) == (Balance(By.ROUND_ROBIN), Breaker(1, 0))
    assert (short.eject, short.rate, short.split) == (Eject(1, 1, 50), Rate(7, 7), ())
    first, second, *others, last = short.routes
    assert first.retry == Retry(2, ("UNAVAILABLE",), 0, 50, 1_000, 20)
    assert second.retry == Retry(2, ("UNAVAILABLE",), 0, 5_000, 5_000, 20)
    assert [one.fault for one in others] == [Fault(100, 90_000), Fault(100, abort="NOT_FOUND"), None]
    assert last == Route(("*/F",))
    assert parsed({}) == NONE == Policy.parse('{"services": {}}').traffic_to(ORDERS)


@pytest.mark.parametrize("said", [FULL, SHORT, {}])
def test_there_and_back(said: dict[str, Any]) -> None:
    """The canonical form reads as the same, has one form, and says nothing that is so by default."""
    policy = Policy.parse(json.dumps(document(said)))
    assert Policy.parse(policy.encode()) == policy
    assert Policy.parse(policy.encode()).encode() == policy.encode()
    assert json.loads(policy.encode())["traffic"]["orders"] == said
    traffic = policy.traffic_to(ORDERS)
    assert decode(encode(traffic)) == traffic


def test_nothing_is_no_bytes() -> None:
    """In a slice, what says nothing takes no room; what is malformed there is refused as in a policy."""
    assert encode(NONE) == b""
    assert decode(b"") == NONE
    with pytest.raises(PolicyError, match=r"^traffic\.breaker\.calls: has to lie"):
        decode(b'{"breaker": {"calls": 0}}')


DURATIONS = {
    1: "1ms",
    999: "999ms",
    1_000: "1s",
    1_500: "1500ms",
    60_000: "1m",
    90_000: "90s",
    3_600_000: "60m",
}


@pytest.mark.parametrize(("ms", "text"), DURATIONS.items())
def test_durations(ms: int, text: str) -> None:
    """They are written in the largest unit that fits."""
    assert written(ms) == text
    assert parsed({"routes": [{"paths": ["*"], "timeout": text}]}).routes[0].timeout_ms == ms


def test_only_errors_that_may_pass_are_retried() -> None:
    """The codes are gRPC's, of which those that say that the call itself is wrong are never repeated."""
    assert len({*ERRORS}) == 16
    assert {*RETRIED} < {*ERRORS}


# Who is told what


def test_a_caller_is_told_of_what_it_knows() -> None:
    """A share of a service that it may not know is cut out, with its headers; the rate is the callee's."""
    told = READ.of_caller({"orders", "orders-next"})
    assert told.split == READ.split
    assert told.rate is None
    assert b"next" not in encode(READ.of_caller({"orders"}))
    assert READ.of_caller({"orders"}).split == (Share("orders", 95),)


def test_weights_that_are_left_with_nothing() -> None:
    """If only shares of no calls are left, there is no split by weight; headers still hold."""
    header = Share("c", headers=(HeaderRule("k", ("*",)),))
    traffic = Traffic(split=(header, Share("a", 1), Share("b", 0)))
    assert traffic.of_caller({"b", "c"}).split == (header,)
    assert traffic.of_caller({"a", "b"}).split == (Share("a", 1), Share("b", 0))


def test_the_callee_is_told_its_rate() -> None:
    """And nothing of what its callers do."""
    assert READ.of_callee == Traffic(rate=Rate(100, 200))


@given(st.sets(st.sampled_from(["orders", "orders-next"])))
def test_what_is_told_can_be_read(known: set[str]) -> None:
    """Whatever is cut out, what is left is good."""
    told = READ.of_caller(known)
    assert decode(encode(told)) == told


_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 200) | st.sampled_from(["1s", "*", "hash", "ABORTED", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["by", "key"]), inner),
    max_leaves=4,
)


@given(_values, st.data())
def test_anything_in_any_place(value: object, data: st.DataObject) -> None:
    """Whatever stands in whatever place gives a policy that can be written again, or a ``PolicyError``."""
    bad = json.loads(json.dumps(document(FULL)))
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, child in pairs:
            places.append((node, key))
            walk(child)

    walk(bad["traffic"])
    node, key = data.draw(st.sampled_from(places))
    node[key] = value
    try:
        policy = Policy.parse(json.dumps(bad))
    except PolicyError:
        return
    assert Policy.parse(policy.encode()) == policy
