"""Fixtures for auth's tests: a world per test, closed at its end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.auth.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Found a trust domain and open it."""
    made = World(tmp_path / "mesh")
    yield made
    made.stop()
