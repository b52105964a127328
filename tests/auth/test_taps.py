"""That an operator looks at calls is written before it does: gatekeeper's word, about a true operator."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from mesh.core.audit import Entry, Kind
from mesh.core.names import GATEKEEPER
from mesh.core.receiver import Peer
from mesh.v1 import audit_pb2, tap_pb2
from services.auth.audit_service import AuditServicer
from services.auth.errors import AuditError, InvalidError, RefusedError
from tests.auth.test_audit_log import failing
from tests.auth.world import World

M = "/shop.v1.Orders/Buy"


def record(
    world: World, operator: bytes, by: Peer | None = None, destination: str = "orders", **wanted: Any
) -> None:
    """Record a tap, as gatekeeper has auth do it."""
    by = by or world.node(GATEKEEPER.text).peer
    request = audit_pb2.RecordTapRequest(
        operator=operator, destination=destination, filter=tap_pb2.TapFilter(**wanted)
    )
    AuditServicer(world.authority, None)._record_tap(request, by)  # type: ignore[arg-type]


def taps(world: World) -> list[Entry]:
    return [entry for entry in world.audit() if entry.kind is Kind.TAP]


def test_a_tap_is_an_action(world: World) -> None:
    """Who looks at which calls to what."""
    operator = world.operator()
    record(world, operator.instance.raw, source="frontend", verdict="deny", method=M)
    (entry,) = taps(world)
    assert (entry.event, entry.service, entry.method) == ("tap begun", "orders", M)
    assert (entry.by, entry.detail) == (f"mesh.operator/{operator.instance}", "from frontend, verdict deny")


@pytest.mark.parametrize(
    ("destination", "wanted"),
    [("No", {}), ("orders", {"source": "No"}), ("orders", {"method": "no"})],
)
def test_what_is_no_tap(world: World, destination: str, wanted: dict[str, Any]) -> None:
    """What no gatekeeper says is refused."""
    with pytest.raises(InvalidError, match="bad tap"):
        record(world, world.operator().instance.raw, destination=destination, **wanted)
    with pytest.raises(InvalidError, match="bad instance id"):
        record(world, b"short")
    assert taps(world) == []


def test_operators_that_there_are_not(world: World) -> None:
    """An instance that is no operator's looks at nothing; nor does one tell of it that is no gatekeeper."""
    orders = world.node("orders").peer
    with pytest.raises(RefusedError):
        record(world, orders.instance.raw)
    world.sql("DELETE FROM instance WHERE service = 'orders'")
    with pytest.raises(RefusedError):
        record(world, world.operator().instance.raw, by=orders)
    assert taps(world) == []


def test_a_log_that_cannot_be_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there is no tap."""
    operator, gatekeeper = world.operator(), world.node(GATEKEEPER.text).peer
    with failing(monkeypatch, "pwrite", errno.ENOSPC), pytest.raises(AuditError):
        record(world, operator.instance.raw, by=gatekeeper)
    assert taps(world) == []
