"""Amending a slice: what a change says is new, the rest stays, and what does not fit is refused."""

from __future__ import annotations

import pytest

from mesh.core.amend import amended
from mesh.v1 import gatekeeper_pb2


def place(service: str, address: str = "h:1") -> gatekeeper_pb2.Destination:
    endpoint = gatekeeper_pb2.Endpoint(instance=bytes(16), address=address)
    return gatekeeper_pb2.Destination(service=service, endpoints=[endpoint])


HELD = gatekeeper_pb2.Slice(
    policy_version=5,
    rules=b"{}",
    destinations=[place("billing"), place("orders")],
    settling=True,
    max_stale_ms=600_000,
)


def test_what_is_not_in_a_change_stays() -> None:
    """A bare version changes the version; settling is always said."""
    newer = amended(HELD, gatekeeper_pb2.Change(policy_version=6, settling=True))
    assert newer == gatekeeper_pb2.Slice(
        policy_version=6,
        rules=HELD.rules,
        destinations=HELD.destinations,
        settling=True,
        max_stale_ms=600_000,
    )
    assert not amended(HELD, gatekeeper_pb2.Change(policy_version=5)).settling
    assert HELD.policy_version == 5


def test_destinations_come_move_and_go_in_their_order() -> None:
    """One that is there is replaced as a whole; the result is sorted as a whole slice is."""
    change = gatekeeper_pb2.Change(
        policy_version=6, destinations=[place("orders", "h:2"), place("inventory")], removed=["billing"]
    )
    assert list(amended(HELD, change).destinations) == [place("inventory"), place("orders", "h:2")]


def test_rules_may_become_empty() -> None:
    """Rules that are sent as nothing are not rules that are not sent."""
    assert amended(HELD, gatekeeper_pb2.Change(policy_version=6, rules=b"")).rules == b""


def test_the_own_traffic_changes_alone() -> None:
    """It stays if nothing is said of it, and may become nothing."""
    held = gatekeeper_pb2.Slice(policy_version=5, traffic=b"x")
    assert amended(held, gatekeeper_pb2.Change(policy_version=6)).traffic == b"x"
    assert amended(held, gatekeeper_pb2.Change(policy_version=6, traffic=b"")).traffic == b""


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (gatekeeper_pb2.Change(policy_version=4), "policy 4 does not fit policy 5"),
        (gatekeeper_pb2.Change(policy_version=5, removed=["nobody"]), "removes 'nobody'"),
        (gatekeeper_pb2.Change(policy_version=5, removed=["orders", "orders"]), "removes 'orders'"),
    ],
)
def test_what_does_not_fit_is_refused(change: gatekeeper_pb2.Change, wrong: str) -> None:
    """A change of an older policy, or about a destination that is not there, speaks of another slice."""
    with pytest.raises(ValueError, match=wrong):
        amended(HELD, change)
