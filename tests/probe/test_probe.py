"""A service says how it is at a socket of its own, and a loop that hangs says nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from services.probe import __main__ as asking
from services.probe.answering import Probe, answering


async def asked(what: str, path: Path) -> tuple[int, str]:
    """Ask as a kubelet does: by a process."""
    command = [sys.executable, "-m", "services.probe", what, str(path)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode().strip()


async def test_it_is_ready_when_nothing_is_missing(tmp_path: Path) -> None:
    """And alive from the start, whatever it waits for; what it says is told on."""
    path = tmp_path / "probe"
    async with answering(path) as probe:
        assert await asked("ready", path) == (1, "not ready: it is starting")
        assert await asked("alive", path) == (0, "not ready: it is starting")
        probe.missing = lambda: ""
        assert await asked("ready", path) == (0, "ready")
        probe.missing = lambda: "the database is away"
        assert await asked("ready", path) == (1, "not ready: the database is away")
        assert await asked("alive", path) == (0, "not ready: the database is away")
    for what in ("ready", "alive"):
        status, said = await asked(what, path)
        assert (status, said.startswith("no answer: ")) == (1, True)


async def test_nobody_else_may_ask(tmp_path: Path) -> None:
    """The socket is its user's; one that a killed process left is replaced, and a file is not."""
    path = tmp_path / "probe"
    for _ in range(2):
        async with answering(path):
            assert path.stat().st_mode & 0o777 == 0o600
    path.unlink(missing_ok=True)
    path.write_text("mine")
    with pytest.raises(OSError, match="cannot listen on"):
        async with answering(path):
            pass
    assert path.read_text() == "mine"


async def test_without_a_socket_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens that was not asked for."""
    monkeypatch.delattr(asyncio, "start_unix_server")
    async with answering(None) as probe:
        assert isinstance(probe, Probe)


async def test_a_loop_that_hangs_is_not_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the connection, for that is the kernel's doing, and gives no answer."""
    monkeypatch.setattr(asking, "PATIENCE", 0.05)
    async with answering(tmp_path / "probe"):
        assert asking.main("alive", str(tmp_path / "probe")) == 1  # asked in the very loop that should answer
