"""What the tests of calls share: a trust domain, an application served as ``callee``, and a way to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from mesh.core import conduct
from mesh.rpc.channel import MeshChannel
from mesh.rpc.membership import Membership, Rejection
from mesh.rpc.server import MeshServer
from tests.rpc.app import Echo
from tests.rpc.attack import Attacker
from tests.rpc.keeper import Keeper
from tests.rpc.pair import World

#: The modules whose every test is run with members that have keys, and with members whose keys auth keeps.
CONFORMANCE = frozenset(
    f"test_{name}"
    for name in (
        "attacks_frames",
        "attacks_header",
        "attacks_reply",
        "calls",
        "compression",
        "limits",
        "open_calls",
        "policy",
        "repeat",
        "routes",
    )
)


#: Of those, the tests that are about thousands of messages, each of which would be a round trip.
LOADS = frozenset(("test_ten_thousand_replies_after_half_close", "test_a_thousand_open_streams_end"))

#: And those about what auth answers, whom only members without keys ask.
KEPT = frozenset(("test_requests_that_auth_does_not_seal_again", "test_a_call_that_auth_does_not_seal"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Say where the keys are."""
    if "keys" in metafunc.fixturenames:
        both = metafunc.module.__name__.rpartition(".")[2] in CONFORMANCE
        both = both and metafunc.function.__name__ not in LOADS
        at = ["remote"] if metafunc.function.__name__ in KEPT else ["local", "remote"] if both else ["local"]
        metafunc.parametrize("keys", at)


@pytest.fixture
async def world(keys: str) -> AsyncIterator[World]:
    """Make a trust domain."""
    world = World()
    if keys == "remote":
        keeper = Keeper(world)
        await keeper.server.start()
        world.keeper = keeper
    yield world
    if world.keeper is not None:
        await world.keeper.close()


@pytest.fixture
async def app() -> Echo:
    """Make an application."""
    return Echo()


@pytest.fixture
def callee(world: World) -> Membership:
    """Let the service in that is called."""
    return world.member("callee")


@pytest.fixture
def caller(world: World) -> Membership:
    """Let the service in that calls."""
    return world.member("caller")


@pytest.fixture
async def server(world: World, callee: Membership, app: Echo) -> AsyncIterator[MeshServer]:
    """Serve the application as ``callee``."""
    server = world.serve(callee)
    server.add_generic_rpc_handlers((app,))
    await server.start()
    yield server
    await server.stop(None)


@pytest.fixture
def channel(world: World, server: MeshServer, caller: Membership) -> MeshChannel:  # noqa: ARG001
    """Give ``caller``'s channel to it."""
    return world.channel(caller, "callee")


@pytest.fixture
def rejected(callee: Membership) -> list[Rejection]:
    """Record what ``callee``'s operator is told."""
    told: list[Rejection] = []
    callee.on_rejected(told.append)
    return told


@pytest.fixture
async def attacker(world: World, server: MeshServer, caller: Membership) -> AsyncIterator[Attacker]:  # noqa: ARG001
    """Stand where TLS ends, with ``caller``'s certificate: what it sends is told apart by the seal alone."""
    attacker = Attacker(caller.svid, server.port)
    yield attacker
    await attacker.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have refused calls answered, however many: what hangs up on who makes them has tests of its own."""
    monkeypatch.setattr(conduct, "BURST", 1e9)
