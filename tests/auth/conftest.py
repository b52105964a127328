"""Fixtures for auth's tests: a world per test, closed at its end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.auth.world import World


@pytest.fixture(params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> str:
    """Give what keeps the database: each test runs on each. One about a file of SQLite's names that alone."""
    return str(request.param)


@pytest.fixture
def world(tmp_path: Path, engine: str, request: pytest.FixtureRequest) -> Iterator[World]:
    """Found a trust domain and open it."""
    server = request.getfixturevalue("postgres") if engine == "postgres" else None
    made = World(tmp_path / "mesh", database=server.url(server.database()) if server else "")
    yield made
    made.stop()
