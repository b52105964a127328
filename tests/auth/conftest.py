"""Fixtures for auth's tests: a world per test, closed at its end; and on which databases each test runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.auth.world import World

#: What is about certificates, time, KMS, Kubernetes' word and guesses: it keeps what others keep as well, who
#: do so on both databases, and is not tried again on PostgreSQL.
ELSEWHERE: Final = frozenset(
    f"tests.auth.test_{part}" for part in ("ca", "clock", "join_service", "kms", "vouching")
)
#: Of what the oldest versions do with PostgreSQL, ``test_replicas`` is enough.
POSTGRES: Final = pytest.param("postgres", marks=pytest.mark.newest)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on each database that it is for, unless it says which."""
    said = (mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "engine" in metafunc.fixturenames and "engine" not in said:
        kept_elsewhere = metafunc.module.__name__ in ELSEWHERE
        metafunc.parametrize("engine", ["sqlite"] if kept_elsewhere else ["sqlite", POSTGRES])


@pytest.fixture
def world(tmp_path: Path, engine: str, request: pytest.FixtureRequest) -> Iterator[World]:
    """Found a trust domain and open it."""
    server = request.getfixturevalue("postgres") if engine == "postgres" else None
    made = World(tmp_path / "mesh", database=server.url(server.database()) if server else "")
    yield made
    made.stop()
