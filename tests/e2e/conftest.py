"""Meshes for tests: one that many share, and ones of their own for those that break things."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.e2e.halves import Half, in_halves
from tests.e2e.world import Mesh, Timers, policy
from tests.postgres import Server

#: What the shared mesh allows.
PAIRS = (
    ("caller", "callee"),
    ("caller", "back"),
    ("caller", "front"),
    ("caller", "inventory"),
    ("front", "callee"),
    ("front", "back"),
    ("front", "inventory"),
    ("other", "secret"),
)


@pytest.fixture
def new_mesh() -> Iterator[Callable[[Timers | None], Mesh]]:
    """Give what makes a trust domain of which nothing runs; all end with the test."""
    made: list[Mesh] = []

    def make(timers: Timers | None = None) -> Mesh:
        made.append(Mesh(timers))
        return made[-1]

    yield make
    for mesh in made:
        mesh.close()


@pytest.fixture
def start_mesh(new_mesh: Callable[[Timers | None], Mesh]) -> Callable[[Timers | None], Awaitable[Mesh]]:
    """Give what makes a trust domain and starts auth and gatekeeper."""

    async def start(timers: Timers | None = None) -> Mesh:
        mesh = new_mesh(timers)
        await mesh.start()
        return mesh

    return start


@pytest.fixture
def halves(tmp_path: Path, postgres: Server) -> Iterator[tuple[Half, Half]]:
    """Give two halves of one mesh, not started."""
    timers = Timers(svid=6, epoch=8, grace=4, lease=10)
    with in_halves(tmp_path, postgres.url(postgres.database()), timers) as both:
        yield both


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared() -> AsyncIterator[Mesh]:
    """Give a running mesh that no test may break, nor give a policy."""
    mesh = Mesh()
    try:
        await mesh.start()
        await mesh.apply(policy(*PAIRS))
        yield mesh
    finally:
        mesh.close()
