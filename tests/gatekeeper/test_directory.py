"""The directory: heartbeats, leases, places taken over, and who hears of a change."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mesh.core.names import InstanceId, ServiceName
from services.gatekeeper.directory import Directory, Node, address

LEASE = 15_000
ORDERS, INVENTORY = ServiceName("orders"), ServiceName("inventory")
ONE, TWO, THREE = (InstanceId(bytes([n]) * 16) for n in (1, 2, 3))
CHANGED, SAME = frozenset({ORDERS}), frozenset[ServiceName]()


def beat(
    instance: InstanceId = ONE,
    port: int = 5000,
    now: int = 0,
    stream: int = 1,
    service: ServiceName = ORDERS,
    version: int = 7,
) -> Node:
    return Node(service, instance, address("10.0.0.1", port), version, now, stream)


def directory() -> Directory:
    return Directory(LEASE, 0)


def at(port: int, instance: InstanceId = ONE) -> list[tuple[InstanceId, str]]:
    return [(instance, f"10.0.0.1:{port}")]


def test_the_first_heartbeat_registers() -> None:
    """A node is an endpoint from its first heartbeat on, and later ones change nothing."""
    nodes = directory()
    assert nodes.heartbeat(beat()) == CHANGED
    assert nodes.heartbeat(beat(now=5_000, version=8)) == SAME
    assert nodes.endpoints(ORDERS) == at(5000)
    (row,) = nodes.nodes()
    assert (row.policy_version, row.last_seen_ms) == (8, 5_000)


def test_a_node_without_port_is_no_endpoint() -> None:
    """Port 0 registers a node that only calls, and nobody needs to hear of it."""
    nodes = directory()
    assert nodes.heartbeat(beat(port=0)) == SAME
    assert nodes.endpoints(ORDERS) == []
    assert [row.instance for row in nodes.nodes()] == [ONE]
    assert nodes.leave(ONE, 1) == SAME


def test_a_heartbeat_may_change_the_port() -> None:
    """The endpoint is where the last heartbeat said; port 0 takes it back."""
    nodes = directory()
    nodes.heartbeat(beat())
    assert nodes.heartbeat(beat(port=5001)) == CHANGED
    assert nodes.endpoints(ORDERS) == at(5001)
    assert nodes.heartbeat(beat(port=0)) == CHANGED
    assert nodes.endpoints(ORDERS) == []


def test_a_clean_end_removes_at_once() -> None:
    """A node that leaves is gone with all that was known of it."""
    nodes = directory()
    nodes.heartbeat(beat())
    assert nodes.leave(ONE, 1) == CHANGED
    assert nodes.endpoints(ORDERS) == []
    assert nodes.nodes() == []
    assert nodes.leave(ONE, 1) == SAME


def test_a_broken_stream_leaves_the_endpoint_until_its_lease_runs_out() -> None:
    """A lost connection is no lost node."""
    nodes = directory()
    nodes.heartbeat(beat())
    assert nodes.broken(ONE, 1) == SAME
    assert {nodes.expire(now) for now in (5_000, 10_000, LEASE - 1)} == {SAME}
    assert nodes.endpoints(ORDERS) == at(5000)
    assert nodes.expire(LEASE) == CHANGED
    assert nodes.nodes() == []


def test_heartbeats_keep_the_lease() -> None:
    """A node is believed in for one lease after its last heartbeat."""
    nodes = directory()
    nodes.heartbeat(beat())
    nodes.expire(5_000)
    nodes.heartbeat(beat(now=10_000))
    nodes.expire(11_000)
    nodes.expire(18_000)
    assert nodes.expire(24_999) == SAME
    assert nodes.expire(25_000) == CHANGED


def test_the_late_end_of_an_older_stream_removes_nothing() -> None:
    """After a reconnect only the newer stream speaks for the node."""
    nodes = directory()
    nodes.heartbeat(beat(stream=1))
    nodes.heartbeat(beat(stream=2))
    assert nodes.heartbeat(beat(stream=1, port=6000)) == SAME
    assert nodes.leave(ONE, 1) == SAME
    assert nodes.broken(ONE, 1) == SAME
    assert nodes.endpoints(ORDERS) == at(5000)
    assert nodes.leave(ONE, 2) == CHANGED


def test_a_new_instance_takes_the_place_of_a_dead_one() -> None:
    """A restarted service is not listed twice at its address, not even until the lease runs out."""
    nodes = directory()
    nodes.heartbeat(beat())
    nodes.broken(ONE, 1)
    assert nodes.heartbeat(beat(TWO, stream=2)) == CHANGED
    assert nodes.endpoints(ORDERS) == at(5000, TWO)
    assert [row.instance for row in nodes.nodes()] == [TWO]


@pytest.mark.parametrize("end", ["leave", "broken"])
def test_a_displaced_node_that_lives_stays_a_caller(end: str) -> None:
    """It pushes out nobody in turn, gets an endpoint by another port, and its end is final."""
    nodes = directory()
    nodes.heartbeat(beat())
    nodes.heartbeat(beat(TWO, stream=2))
    assert nodes.heartbeat(beat(now=1)) == SAME
    assert nodes.endpoints(ORDERS) == at(5000, TWO)
    assert nodes.heartbeat(beat(port=5001)) == CHANGED
    assert nodes.endpoints(ORDERS) == at(5001) + at(5000, TWO)
    assert nodes.heartbeat(beat(TWO, port=5001, stream=2)) == CHANGED
    assert nodes.endpoints(ORDERS) == at(5001, TWO)
    assert getattr(nodes, end)(ONE, 1) == SAME
    assert [row.instance for row in nodes.nodes()] == [TWO]


def test_another_service_takes_nobodys_place() -> None:
    """A service cannot push a stranger out by naming the stranger's port."""
    nodes = directory()
    nodes.heartbeat(beat())
    assert nodes.heartbeat(beat(TWO, stream=2, service=INVENTORY)) == frozenset({INVENTORY})
    assert nodes.endpoints(ORDERS) == at(5000)
    assert nodes.endpoints(INVENTORY) == at(5000, TWO)


def test_callers_without_port_displace_nobody() -> None:
    """Nodes that only call share the empty address in peace."""
    nodes = directory()
    nodes.heartbeat(beat(port=0))
    nodes.heartbeat(beat(TWO, port=0, stream=2))
    assert len(nodes.nodes()) == 2


def test_a_gatekeeper_that_stood_still_blames_nobody() -> None:
    """After a pause of the whole machine every node has its lease back."""
    nodes = directory()
    nodes.heartbeat(beat())
    nodes.expire(3_000)
    assert nodes.expire(100_000) == SAME
    assert nodes.expire(103_000) == SAME
    nodes.expire(106_000)
    nodes.expire(109_000)
    assert nodes.expire(112_000) == CHANGED


def test_settling_is_the_first_lease() -> None:
    """For one lease after its start, a missing endpoint may only not have come back."""
    nodes = Directory(LEASE, 1_000)
    assert nodes.settling(1_000 + LEASE - 1)
    assert not nodes.settling(1_000 + LEASE)


def test_nodes_are_listed_by_service_then_instance() -> None:
    """The listing has one order, whoever came first."""
    nodes = directory()
    for number, (service, instance) in enumerate(((ORDERS, TWO), (ORDERS, ONE), (INVENTORY, THREE))):
        nodes.heartbeat(beat(instance, port=5000 + number, service=service, stream=number))
    assert [row.instance for row in nodes.nodes()] == [THREE, ONE, TWO]
    assert nodes.endpoints(ORDERS) == at(5001) + at(5000, TWO)


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [("10.0.0.1", 80, "10.0.0.1:80"), ("::1", 65535, "[::1]:65535"), ("10.0.0.1", 0, ""), ("::1", 0, "")],
)
def test_address(host: str, port: int, expected: str) -> None:
    """An address is what was seen and what was said, IPv6 in brackets."""
    assert address(host, port) == expected


@pytest.mark.parametrize("port", [65536, 2**32 - 1])
def test_no_such_port(port: int) -> None:
    """A port that none can have is refused, not cut down to one that somebody has."""
    with pytest.raises(ValueError, match="bad port"):
        address("10.0.0.1", port)


class _DirectoryMachine(RuleBasedStateMachine):
    """Whatever happens: the changes told are exactly the endpoints that changed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.stream = 0
        self.streams: dict[InstanceId, int] = {}
        self.nodes = Directory(LEASE, 0)
        self.seen = self.endpoints()

    def endpoints(self) -> dict[ServiceName, list[tuple[InstanceId, str]]]:
        return {service: self.nodes.endpoints(service) for service in (ORDERS, INVENTORY)}

    def told(self, changed: frozenset[ServiceName]) -> None:
        before, self.seen = self.seen, self.endpoints()
        assert {service for service in before if before[service] != self.seen[service]} == changed

    @rule(
        instance=st.sampled_from([ONE, TWO, THREE]),
        port=st.sampled_from([0, 1, 2]),
        passed=st.integers(0, 4_000),
        anew=st.booleans(),
    )
    def heartbeat(self, instance: InstanceId, port: int, passed: int, *, anew: bool) -> None:
        self.now += passed
        if anew or instance not in self.streams:
            self.stream += 1
            self.streams[instance] = self.stream
        service = INVENTORY if instance == THREE else ORDERS
        row = beat(instance, port, self.now, self.streams[instance], service)
        self.told(self.nodes.heartbeat(row))

    @rule(instance=st.sampled_from([ONE, TWO, THREE]), clean=st.booleans(), stale=st.booleans())
    def end(self, instance: InstanceId, *, clean: bool, stale: bool) -> None:
        stream = self.streams.get(instance, 1) - stale
        self.told((self.nodes.leave if clean else self.nodes.broken)(instance, stream))

    @rule(passed=st.integers(0, 20_000))
    def expire(self, passed: int) -> None:
        self.now += passed
        self.told(self.nodes.expire(self.now))

    @invariant()
    def no_two_of_a_service_at_one_address(self) -> None:
        for found in self.endpoints().values():
            addresses = [where for _, where in found]
            assert len(set(addresses)) == len(addresses)

    @invariant()
    def every_endpoint_is_a_node(self) -> None:
        rows = {(row.service, row.instance) for row in self.nodes.nodes()}
        for service, found in self.endpoints().items():
            assert {(service, instance) for instance, _ in found} <= rows


_DirectoryMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestDirectoryMachine = _DirectoryMachine.TestCase
