"""Which service a pod is: the first rule that matches, and no way to become the mesh itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.names import ServiceName
from mesh.core.workloads import Rules, Workload

RULES: list[dict[str, str]] = [
    {"namespace": "mesh", "serviceAccount": "gatekeeper", "service": "mesh.gatekeeper"},
    {"namespace": "mesh", "serviceAccount": "operator", "pod": "*", "service": "mesh.operator"},
    {"namespace": "shop", "serviceAccount": "orders", "pod": "canary-*", "service": "orders.canary"},
    {"namespace": "shop", "serviceAccount": "orders", "service": "orders"},
    {"namespace": "team-*", "serviceAccount": "*", "service": "{serviceAccount}.{namespace}"},
    {"namespace": "wild", "serviceAccount": "*", "service": "mesh-{serviceAccount}"},
    {"namespace": "*", "serviceAccount": "named", "service": "{namespace}.auth"},
    {"namespace": "free", "serviceAccount": "dotted.*", "service": "dotted"},
    {"namespace": "free", "serviceAccount": "*", "service": "{serviceAccount}"},
]
words = st.text(alphabet="ab.*-{}", max_size=6) | st.sampled_from(["mesh", "shop", "orders", "gatekeeper"])


def named(namespace: str, account: str, pod: str = "some-pod") -> str | None:
    found = Rules.parse(RULES).service_of(Workload(namespace, account, pod))
    return None if found is None else found.text


@pytest.mark.parametrize(
    ("workload", "service"),
    [
        (("shop", "orders"), "orders"),
        (("shop", "orders", "canary-7f"), "orders.canary"),
        (("shop", "order"), None),
        (("shopping", "orders"), None),
        (("team-a", "ledger"), "ledger.team-a"),
        (("team-", "ledger"), None),  # what comes out is no service name
        (("mesh", "gatekeeper"), "mesh.gatekeeper"),
        (("mesh", "gatekeeper", ""), None),
        (("mesh", "operator"), "mesh.operator"),
        (("mesh", "operator", ""), "mesh.operator"),
        (("shop", "orders", ""), None),
        (("any", "named"), "any.auth"),
        (("free", "ledger"), "ledger"),
        (("free", "ledger.team-a"), None),  # that is a service of team-a's
        (("team-a", "api.ledger"), None),
        (("free", "dotted.a"), "dotted"),
        (("mesh", "named"), None),  # a name of the mesh is never filled in
    ],
)
def test_the_first_rule_that_matches_decides(workload: tuple[str, ...], service: str | None) -> None:
    """Namespace, service account and pod together make a service, or none."""
    assert named(*workload) == service


def test_a_workload_is_written_with_its_three_parts() -> None:
    """The audit log has it so."""
    assert str(Workload("shop", "orders", "orders-1")) == "shop/orders/orders-1"
    assert str(Workload("shop", "orders", "")) == "shop/orders/-"


@pytest.mark.parametrize(
    ("rules", "wrong"),
    [
        ({}, "rules: has to be a list"),
        (["x"], r"rules\[0\]: has to be a mapping"),
        ([{**RULES[0], "labels": "x"}], r"rules\[0\]\.labels: use"),
        ([{**RULES[0], "pod": 1}], r"rules\[0\]\.pod: use"),
        ([{**RULES[0], "pod": ""}], r"rules\[0\]\.pod: use"),
        ([RULES[0], {"namespace": "a", "service": "b"}], r"rules\[1\]: serviceAccount is missing"),
        ([{**RULES[0], "namespace": "a*b"}], "not at its end"),
        ([{**RULES[0], "service": "Orders"}], r"rules\[0\]\.service: bad service name"),
        ([{**RULES[0], "service": "{pod}"}], r"rules\[0\]\.service: bad service name"),
        ([{**RULES[0], "service": "{serviceAccount}-{namespace}"}], "two workloads could be one: add a dot"),
        ([{**RULES[0], "service": "a.{namespace}{namespace}"}], "two workloads could be one: add a dot"),
        ([{**RULES[0], "service": "mesh.auth"}], "a name of the mesh itself"),
        ([{**RULES[0], "service": "mesh.{namespace}"}], "a name of the mesh itself"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rules: Any, wrong: str) -> None:
    """With the place."""
    with pytest.raises(ValueError, match=wrong):
        Rules.parse(rules)


@given(st.lists(st.tuples(words, words), min_size=2, max_size=2, unique=True))
def test_two_accounts_are_never_one_service_by_filling_both_in(workloads: list[tuple[str, str]]) -> None:
    """A rule with namespace and account in it tells all of them apart."""
    for service in (
        "{serviceAccount}.{namespace}",
        "{namespace}.of.{serviceAccount}",
        "a-{namespace}.{serviceAccount}-b",
    ):
        rules = Rules.parse([{"namespace": "*", "serviceAccount": "*", "service": service}])
        first, second = (rules.service_of(Workload(*one, "p")) for one in workloads)
        assert first is None or first != second


@given(words, words, words)
def test_nobody_becomes_the_mesh_by_choosing_names(namespace: str, account: str, pod: str) -> None:
    """Whatever somebody calls his namespace, account and pod, only a rule may make him the mesh."""
    rules = Rules.parse([*RULES[2:], {"namespace": "*", "serviceAccount": "*", "service": "{namespace}.x"}])
    found = rules.service_of(Workload(namespace, account, pod))
    assert found is None or (not found.reserved and ServiceName(found.text) == found)
