"""What the tests of the sidecar share."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.rpc.app import Echo
from tests.rpc.pair import World
from tests.sidecar.beside import Beside


@pytest.fixture
async def beside() -> AsyncIterator[Beside]:
    """Run two sidecars beside two plain applications."""
    with tempfile.TemporaryDirectory(prefix="mesh-") as run_dir:
        beside = Beside(World(), Path(run_dir), Echo())
        await beside.start()
        yield beside
        await beside.close()
