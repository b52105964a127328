"""Slices: a node is told of exactly what it may call, and of every change to that."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.amend import amended
from mesh.core.errors import Denied
from mesh.core.names import InstanceId, ServiceName
from mesh.core.policy import Policy, Section
from mesh.v1 import gatekeeper_pb2
from services.gatekeeper.slices import TOLD, Endpoints, Places, Slicer

FRONTEND, ORDERS, INVENTORY, LEDGER = map(ServiceName, ("frontend", "orders", "inventory", "ledger"))
ONE = InstanceId(bytes(16))
POLICY: dict[str, Any] = {
    "services": {
        "frontend": {},
        "orders": {"allow": [{"principals": ["frontend"], "paths": ["/shop.v1.Orders/*"]}]},
        "inventory": {"allow": [{"principals": ["orders"], "paths": ["*"]}]},
        "ledger": {
            "allow": [{"principals": ["*"], "paths": ["*"]}],
            "deny": [{"principals": ["frontend"], "paths": ["*"]}],
        },
    }
}


def slicer(endpoints: Endpoints, document: object = None, before: Slicer | None = None) -> Slicer:
    places = Places(endpoints)
    return Slicer(7, Policy.parse(json.dumps(document or POLICY)), 600_000, places, before)


def everywhere(service: ServiceName) -> list[tuple[InstanceId, str]]:
    return [(ONE, f"{service}:1")]


def nowhere(_service: ServiceName) -> list[tuple[InstanceId, str]]:
    return []


def test_a_slice_holds_ones_own_rules_and_ones_destinations() -> None:
    """The rules are the service's section; the destinations what it may call, and where that is."""
    cut = slicer(everywhere).cut(ORDERS, settling=False).whole()
    section = Section.parse(cut.rules)
    assert section == Policy.parse(json.dumps(POLICY)).section(ORDERS)
    assert [(d.service, [e.address for e in d.endpoints]) for d in cut.destinations] == [
        ("inventory", ["inventory:1"]),
        ("ledger", ["ledger:1"]),
    ]
    assert (cut.policy_version, cut.max_stale_ms, cut.settling) == (7, 600_000, False)


def test_a_denied_destination_is_not_known() -> None:
    """Who may call nothing of a service does not learn that it exists, running or not."""
    cut = slicer(everywhere).cut(FRONTEND, settling=True).whole()
    assert [d.service for d in cut.destinations] == ["orders"]
    assert cut.settling
    assert b"ledger" not in cut.SerializeToString()


def test_a_service_outside_the_policy_gets_an_empty_section() -> None:
    """A node that the policy does not name may be called by nobody; wildcards may still let it call."""
    cut = slicer(everywhere).cut(ServiceName("stranger"), settling=False).whole()
    assert Section.parse(cut.rules) == Section()
    assert [d.service for d in cut.destinations] == ["ledger"]


def test_a_known_service_that_does_not_run_has_no_endpoint() -> None:
    """What may be called is known even while it is not there."""
    cut = slicer(nowhere).cut(FRONTEND, settling=False).whole()
    assert [(d.service, len(d.endpoints)) for d in cut.destinations] == [("orders", 0)]


def test_only_callers_are_affected() -> None:
    """A change of endpoints concerns those that may call that service, nobody else."""
    watching = [FRONTEND, ORDERS, INVENTORY, LEDGER]
    assert slicer(nowhere).affected(watching, frozenset({INVENTORY})) == [ORDERS]
    assert slicer(nowhere).affected(watching, frozenset({ORDERS, INVENTORY})) == [FRONTEND, ORDERS]
    assert slicer(nowhere).affected(watching, frozenset({ServiceName("stranger")})) == []


def test_matchers_judge_by_the_section_of_the_callee() -> None:
    """The rule that gates the slice gates the call."""
    cutter = slicer(nowhere)
    permit = cutter.matcher(ORDERS).permit("frontend", "/shop.v1.Orders/Get", ())
    assert permit.rule == "orders/allow/0"
    assert cutter.matcher(ORDERS) is cutter.matcher(ORDERS)
    for callee in (FRONTEND, INVENTORY, LEDGER, ServiceName("stranger")):
        with pytest.raises(Denied):
            cutter.matcher(callee).permit("frontend", "/shop.v1.Orders/Get", ())


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["orders", "inventory", "ledger"]),
            st.sampled_from(["allow", "deny"]),
            st.sampled_from(["*", "frontend", "orders", "team.*", "*.web", "team.web"]),
            st.sampled_from(["*", "/a.B/*", "*/C", "/a.B/C"]),
        ),
        max_size=8,
    ),
    st.sampled_from(["frontend", "orders", "inventory", "team.web", "stranger"]),
)
def test_slices_agree_with_the_policy(rows: list[tuple[str, str, str, str]], source: str) -> None:
    """Whatever the policy: the destinations, the answers to look-ups and ``permits_pair`` are one."""
    services: dict[str, dict[str, list[object]]] = {
        name: {} for name in ("frontend", "orders", "inventory", "ledger", "team.web")
    }
    for service, effect, principal, path in rows:
        services[service].setdefault(effect, []).append({"principals": [principal], "paths": [path]})
    policy = Policy.parse(json.dumps({"services": services}))
    cutter, asking = Slicer(1, policy, 1, Places(everywhere)), ServiceName(source)
    known = [ServiceName(d.service) for d in cutter.cut(asking, settling=False).whole().destinations]
    assert known == sorted(known) == policy.destinations(asking)
    for name in (*map(ServiceName, services), ServiceName("nobody")):
        allowed = policy.permits_pair(asking, name)
        assert (name in known) == (cutter.resolve(asking, name) is not None) == allowed
        assert cutter.affected([asking], frozenset({name})) == ([asking] if allowed else [])


NAMES = ("frontend", "inventory", "ledger", "orders", "team.web")
INSTANCES = tuple(InstanceId(bytes([number]) * 16) for number in range(3))
World = tuple[dict[str, object], dict[str, list[int]]]


traffics = st.fixed_dictionaries(
    {},
    optional={
        "rate": st.just({"calls": 5}),
        "breaker": st.builds(lambda calls: {"calls": calls}, st.integers(1, 2)),
        "split": st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True).map(
            lambda names: [{"service": name, "weight": 1} for name in names]
        ),
    },
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Make a policy and, for each of its services, which instances of it run."""
    services: dict[str, dict[str, list[object]]] = {name: {} for name in NAMES}
    for service in draw(st.sets(st.sampled_from(NAMES))):
        principals = draw(st.lists(st.sampled_from(("*", "team.*", *NAMES)), min_size=1, unique=True))
        services[service]["allow"] = [{"principals": principals, "paths": ["*"]}]
    running = {name: draw(st.lists(st.integers(0, 2), unique=True)) for name in NAMES}
    traffic = {name: draw(traffics) for name in draw(st.sets(st.sampled_from(NAMES)))}
    return {"services": services, "traffic": traffic}, running


@given(
    st.lists(st.tuples(worlds(), st.booleans(), st.booleans()), min_size=2, max_size=6),
    st.sampled_from(NAMES),
)
def test_a_change_makes_the_one_of_the_other(history: list[tuple[World, bool, bool]], service: str) -> None:
    """Whatever becomes of policy, endpoints and settling: who amends ends with what is cut afresh."""
    asking, running = ServiceName(service), dict[str, list[int]]()

    def endpoints(name: ServiceName) -> list[tuple[InstanceId, str]]:
        return [(INSTANCES[number], f"h:{number}") for number in running.get(name.text, ())]

    places = Places(endpoints)
    policy, cutter = Policy.parse('{"services": {}}'), Slicer(0, Policy.parse('{"services": {}}'), 1, places)
    told = cutter.cut(asking, settling=True)
    held = told.whole()
    for version, ((document, now), settling, applied) in enumerate(history, 1):
        moved = {name for name in NAMES if running.get(name, []) != now[name]}
        running.update(now)
        cutter.moved(map(ServiceName, moved))
        if applied:
            policy = Policy.parse(json.dumps(document))
            cutter = Slicer(version, policy, 1, places, cutter)
        cut = cutter.cut(asking, settling=settling)
        change = cut.change(told)
        assert (change is None) is (cut.whole() == held)
        held, told = amended(held, change) if change else held, cut
        fresh = Slicer(cutter.version, policy, 1, Places(endpoints)).cut(asking, settling=settling)
        assert held == cut.whole() == fresh.whole()


def test_a_change_says_what_is_new_and_nothing_else() -> None:
    """Another version alone, another endpoint alone, other rules alone."""
    running = {"inventory": "h:1", "ledger": "h:2"}

    def endpoints(service: ServiceName) -> list[tuple[InstanceId, str]]:
        return [(ONE, running[service.text])] if service.text in running else []

    places = Places(endpoints)
    first = Slicer(1, Policy.parse(json.dumps(POLICY)), 600_000, places)
    one = first.cut(ORDERS, settling=False)
    second = Slicer(2, Policy.parse(json.dumps(POLICY)), 600_000, places, first)
    two = second.cut(ORDERS, settling=False)
    assert two.change(one) == gatekeeper_pb2.Change(policy_version=2)
    assert (two.rules is one.rules, two.known is one.known) == (True, True)
    running["inventory"] = "h:3"
    second.moved([INVENTORY])
    three = second.cut(ORDERS, settling=False)
    change = three.change(two)
    assert change is not None
    assert [(d.service, d.endpoints[0].address) for d in change.destinations] == [("inventory", "h:3")]
    assert not change.HasField("rules")
    document = {"services": {**POLICY["services"], "orders": {}}}
    third = Slicer(3, Policy.parse(json.dumps(document)), 600_000, places, second)
    assert third.cut(ORDERS, settling=False).change(three) == gatekeeper_pb2.Change(
        policy_version=3, rules=b"{}"
    )


def test_what_a_policy_did_not_change_is_not_made_anew() -> None:
    """Sections and matchers are taken over, unless groups or the mode, which concern all, are others."""
    places = Places(nowhere)
    first = Slicer(1, Policy.parse(json.dumps(POLICY)), 600_000, places)
    for service in (ORDERS, INVENTORY):
        first.cut(service, settling=False)
    matchers = first.matcher(ORDERS), first.matcher(INVENTORY)
    document = {"services": {**POLICY["services"], "inventory": {}}}
    second = Slicer(2, Policy.parse(json.dumps(document)), 600_000, places, first)
    assert second.matcher(ORDERS) is matchers[0]
    assert second.matcher(INVENTORY) is not matchers[1]
    assert second.rules.encode(ORDERS) is first.rules.encode(ORDERS)
    third = Slicer(3, Policy.parse(json.dumps({**POLICY, "mode": "audit"})), 600_000, places, first)
    assert third.matcher(ORDERS) is not matchers[0]


def test_what_nobody_has_asked_for_again_moves_as_well() -> None:
    """Destinations that a newer policy may still take over from the one before are kept true meanwhile."""
    running: dict[str, str] = {}

    def endpoints(service: ServiceName) -> list[tuple[InstanceId, str]]:
        return [(ONE, running[service.text])] if service.text in running else []

    places = Places(endpoints)
    first = Slicer(1, Policy.parse(json.dumps(POLICY)), 600_000, places)
    assert not first.cut(FRONTEND, settling=False).known["orders"].endpoints
    second = Slicer(2, Policy.parse(json.dumps(POLICY)), 600_000, places, first)
    running["orders"] = "h:1"
    second.moved([ORDERS])
    assert second.cut(FRONTEND, settling=False).known["orders"].endpoints[0].address == "h:1"


TRAFFIC: dict[str, Any] = {
    "orders": {
        "rate": {"calls": 5},
        "breaker": {"calls": 9},
        "split": [{"service": "ledger", "weight": 1}, {"service": "orders", "weight": 1}],
    },
    "ledger": {"rate": {"calls": 7}},
}


def test_traffic_goes_to_those_whom_it_concerns() -> None:
    """A caller is told how to call, the callee its rate, and nobody the name of what he may not call."""
    cutter = slicer(everywhere, POLICY | {"traffic": TRAFFIC})
    told = cutter.cut(FRONTEND, settling=False).whole()
    assert told.destinations[0].traffic == (
        b'{"breaker":{"calls":9},"split":[{"service":"orders","weight":1}]}'
    )
    assert b"ledger" not in told.SerializeToString()
    assert cutter.cut(ORDERS, settling=False).whole().traffic == b'{"rate":{"calls":5}}'
    assert [d.traffic for d in cutter.cut(ORDERS, settling=False).whole().destinations] == [b"", b""]
    resolved = cutter.resolve(FRONTEND, ORDERS)
    assert resolved is not None
    assert resolved.traffic == told.destinations[0].traffic


def test_a_change_of_traffic_alone_sends_that_destination_alone() -> None:
    """What else is known is the very same, and so it is for those whom it does not concern."""
    places = Places(everywhere)
    document = POLICY | {"traffic": TRAFFIC}
    first = Slicer(1, Policy.parse(json.dumps(document)), 600_000, places)
    before = {name: first.cut(name, settling=False) for name in (FRONTEND, ORDERS, INVENTORY)}
    changed = document | {"traffic": TRAFFIC | {"orders": {"rate": {"calls": 6}, "breaker": {"calls": 8}}}}
    second = Slicer(2, Policy.parse(json.dumps(changed)), 600_000, places, first)
    change = second.cut(FRONTEND, settling=False).change(before[FRONTEND])
    assert change is not None
    assert [(d.service, d.traffic) for d in change.destinations] == [("orders", b'{"breaker":{"calls":8}}')]
    assert (change.HasField("rules"), change.HasField("traffic")) == (False, False)
    own = second.cut(ORDERS, settling=False).change(before[ORDERS])
    assert own == gatekeeper_pb2.Change(policy_version=2, traffic=b'{"rate":{"calls":6}}')
    assert second.cut(INVENTORY, settling=False).known is before[INVENTORY].known


def test_traffic_that_is_gone_is_not_held() -> None:
    """However often it changes, gatekeeper holds what some last changes have said of a service."""
    places = Places(everywhere)
    made = [places.of("orders", b"%d" % number) for number in range(3 * TOLD)]
    assert places.of("orders", made[-1].traffic) is made[-1]
    assert places.of("orders", made[0].traffic) is not made[0]
    assert {one.endpoints[0].address for one in made} == {"orders:1"}


def test_services_that_no_rule_tells_apart_share_their_destinations() -> None:
    """A thousand services that may call a thousand cost a thousand entries, not a million."""
    anybody = {"allow": [{"principals": ["*"], "paths": ["*"]}]}
    cutter = slicer(nowhere, {"services": {f"service-{number}": anybody for number in range(9)}})
    one, other = (cutter.cut(ServiceName(f"service-{number}"), settling=False) for number in range(2))
    assert len(one.known) == 9
    assert one.known is other.known
