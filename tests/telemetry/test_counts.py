"""Counters: what they count, and that no caller can make them many."""

import grpc
import pytest

from mesh.core.matcher import Permit
from mesh.core.names import FullMethod, Identity, ServiceName, TrustDomain
from mesh.core.receiver import Admitted
from mesh.rpc.status import Outcome
from mesh.telemetry.counts import BOUNDS, MAX_KEYS, MAX_METHODS, CallKey, Counts
from mesh.telemetry.names import OTHER
from mesh.telemetry.observer import NodeTelemetry
from tests.core.world import header


def test_durations() -> None:
    """A call is counted in the bucket of its duration: bounds are inclusive, as in OpenTelemetry."""
    counts = Counts()
    for seconds in (0.0001, 0.0005, 0.00051, 99.0):
        counts.call("server", "orders", "a.B/C", "OK", seconds)
    (held,) = counts.calls.values()
    assert held.buckets == [2, 1, *[0] * (len(BOUNDS) - 2), 1]
    assert (held.least, held.most) == (0.0001, 99.0)


def test_ten_thousand_methods() -> None:
    """Methods that nobody serves have no names; those that are served have, up to a bound."""
    counts = Counts()
    assert {counts.method(f"/a.B/M{n}", served=False) for n in range(10_000)} == {OTHER}
    assert counts.method("/a.B/Real", served=True) == "a.B/Real"
    assert counts.method("/a.B/Real", served=False) == "a.B/Real"
    told = {counts.method(f"/a.B/S{n}", served=True) for n in range(10_000)}
    assert len(told) == MAX_METHODS
    assert OTHER in told


def test_ten_thousand_callers() -> None:
    """Series have a bound, past which calls are counted together, and none is lost."""
    counts = Counts()
    for number in range(10_000):
        counts.call("server", f"s{number}", "a.B/C", "OK", 0.001)
    assert len(counts.calls) <= MAX_KEYS + 1
    assert sum(sum(held.buckets) for held in counts.calls.values()) == 10_000
    assert sum(counts.calls[CallKey("server", OTHER, OTHER, "OK")].buckets) == 10_000 - MAX_KEYS


def test_ten_thousand_callers_in_another_sdk() -> None:
    """Who is told of each call at once hears of no more series than are counted."""
    told: set[CallKey] = set()
    counts = Counts(lambda key, _seconds: told.add(key))
    for number in range(10_000):
        counts.call("server", f"s{number}", "a.B/C", "OK", 0.001)
    assert told == set(counts.calls)


@pytest.mark.parametrize("code", ["UNIMPLEMENTED", "CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"])
def test_ten_thousand_methods_behind_a_sidecar(code: str) -> None:
    """A sidecar hands on whatever is called: how it ends says whether there is such a method."""
    node = NodeTelemetry(Identity(TrustDomain("test.example"), ServiceName("orders")))

    def end(method: str, with_code: grpc.StatusCode) -> None:
        called = header(method=FullMethod(method))
        permit = Permit("frontend", method, "all")
        admitted = Admitted(called, None, permit, ())  # type: ignore[arg-type]
        with node.serving(admitted, str, known=True) as watched:
            watched.ended(Outcome(with_code, ""))

    for number in range(MAX_METHODS):
        end(f"/a.B/M{number}", grpc.StatusCode[code])
    for ending in (grpc.StatusCode.OK, grpc.StatusCode[code]):
        end("/a.B/Real", ending)
    assert {key.method for key in node.counts.calls} == {OTHER, "a.B/Real"}
    end("/a.B/Failing", grpc.StatusCode.UNAVAILABLE)
    assert CallKey("server", "frontend", "a.B/Failing", "UNAVAILABLE") in node.counts.calls


def test_each_call_is_told_to_who_asks() -> None:
    """Where each call is wanted at once, it is told as it is counted."""
    told: list[tuple[CallKey, float]] = []
    Counts(lambda key, seconds: told.append((key, seconds))).call("client", "b", "a.B/C", "OK", 0.5)
    assert told == [(CallKey("client", "b", "a.B/C", "OK"), 0.5)]
