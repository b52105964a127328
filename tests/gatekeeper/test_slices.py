"""Slices: a node is told of exactly what it may call, and of every change to that."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.errors import Denied
from mesh.core.names import InstanceId, ServiceName
from mesh.core.policy import Policy, Section
from services.gatekeeper.slices import Slicer, destination

FRONTEND, ORDERS, INVENTORY, LEDGER = map(ServiceName, ("frontend", "orders", "inventory", "ledger"))
ONE = InstanceId(bytes(16))
POLICY = {
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


def slicer(document: object = None) -> Slicer:
    return Slicer(7, Policy.parse(json.dumps(document or POLICY)), 600_000)


def everywhere(service: ServiceName) -> list[tuple[InstanceId, str]]:
    return [(ONE, f"{service}:1")]


def nowhere(_service: ServiceName) -> list[tuple[InstanceId, str]]:
    return []


def test_a_slice_holds_ones_own_rules_and_ones_destinations() -> None:
    """The rules are the service's section; the destinations what it may call, and where that is."""
    cut = slicer().cut(ORDERS, everywhere, settling=False)
    section = Section.parse(cut.rules)
    assert section == Policy.parse(json.dumps(POLICY)).section(ORDERS)
    assert [(d.service, [e.address for e in d.endpoints]) for d in cut.destinations] == [
        ("inventory", ["inventory:1"]),
        ("ledger", ["ledger:1"]),
    ]
    assert (cut.policy_version, cut.max_stale_ms, cut.settling) == (7, 600_000, False)


def test_a_denied_destination_is_not_known() -> None:
    """Who may call nothing of a service does not learn that it exists, running or not."""
    cut = slicer().cut(FRONTEND, everywhere, settling=True)
    assert [d.service for d in cut.destinations] == ["orders"]
    assert cut.settling
    assert b"ledger" not in cut.SerializeToString()


def test_a_service_outside_the_policy_gets_an_empty_section() -> None:
    """A node that the policy does not name may be called by nobody; wildcards may still let it call."""
    cut = slicer().cut(ServiceName("stranger"), everywhere, settling=False)
    assert Section.parse(cut.rules) == Section()
    assert [d.service for d in cut.destinations] == ["ledger"]


def test_a_known_service_that_does_not_run_has_no_endpoint() -> None:
    """What may be called is known even while it is not there."""
    cut = slicer().cut(FRONTEND, nowhere, settling=False)
    assert [(d.service, len(d.endpoints)) for d in cut.destinations] == [("orders", 0)]
    assert destination(ORDERS, nowhere).service == "orders"


def test_only_callers_are_affected() -> None:
    """A change of endpoints concerns those that may call that service, nobody else."""
    watching = [FRONTEND, ORDERS, INVENTORY, LEDGER]
    assert slicer().affected(watching, frozenset({INVENTORY})) == [ORDERS]
    assert slicer().affected(watching, frozenset({ORDERS, INVENTORY})) == [FRONTEND, ORDERS]
    assert slicer().affected(watching, frozenset({ServiceName("stranger")})) == []


def test_matchers_judge_by_the_section_of_the_callee() -> None:
    """The rule that gates the slice gates the call."""
    cutter = slicer()
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
    cutter, asking = Slicer(1, policy, 1), ServiceName(source)
    known = [ServiceName(d.service) for d in cutter.cut(asking, everywhere, settling=False).destinations]
    assert known == sorted(known) == list(cutter.destinations(asking))
    for name in (*map(ServiceName, services), ServiceName("nobody")):
        allowed = policy.permits_pair(asking, name)
        assert (name in known) == cutter.may_know(asking, name) == allowed
        assert cutter.affected([asking], frozenset({name})) == ([asking] if allowed else [])
