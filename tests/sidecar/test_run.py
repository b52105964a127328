"""A sidecar and its application in one go: environment, exit code, signals, and the end of either."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import sidecar.run
from sidecar.run import run
from sidecar.sidecar import Settings, Sidecar
from tests.rpc.attack import eventually

SETTINGS = Settings("orders", token="mesh1.secret", auth="127.0.0.1:1")


class Beside:
    """A sidecar that does nothing but run, and fail when told."""

    def __init__(self, run_dir: Path) -> None:
        """Take a run directory."""
        self.run_dir = run_dir
        self.broken = asyncio.Event()
        self.drained = asyncio.Event()
        self.drained.set()
        self.drains = 0
        self.ended = False

    async def drain(self) -> None:
        """Be the node's drain."""
        self.drains += 1
        await self.drained.wait()

    @asynccontextmanager
    async def __call__(self, settings: Settings) -> AsyncIterator[Sidecar]:
        """Run for the length of the block."""
        assert settings == SETTINGS

        async def follow() -> None:
            await self.broken.wait()
            msg = "the sidecar broke"
            raise OSError(msg)

        node: Any = self
        task = asyncio.ensure_future(follow())
        yield Sidecar(node, self.run_dir, 4711, None, (task,))
        self.ended = True
        task.cancel()


@pytest.fixture
async def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Beside:
    """Put it in the sidecar's place."""
    beside = Beside(tmp_path)
    monkeypatch.setattr(sidecar.run, "sidecar", beside)
    return beside


def python(code: str, *arguments: str) -> list[str]:
    """Give a command."""
    return [sys.executable, "-c", code, *arguments]


@pytest.mark.parametrize("code", [0, 1, 3, 255])
async def test_exit_code(beside: Beside, code: int) -> None:
    """The application's exit code is ours."""
    assert await run(SETTINGS, python(f"raise SystemExit({code})")) == code
    assert beside.ended


async def test_death_by_signal(beside: Beside) -> None:
    """An application that a signal ends gives 128 and the signal's number, as a shell does."""
    assert await run(SETTINGS, python("import os; os.kill(os.getpid(), 9)")) == 137
    assert beside.ended


async def test_environment(beside: Beside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application learns its way out, and no secret of the sidecar's."""
    monkeypatch.setenv("MESH_TOKEN", "mesh1.secret")
    monkeypatch.setenv("MESH_TOKEN_FILE", "/secret")
    monkeypatch.setenv("KEPT", "yes")
    out = tmp_path / "environment"
    code = "import json, os, sys; open(sys.argv[1], 'w').write(json.dumps(dict(os.environ)))"
    assert await run(SETTINGS, python(code, str(out))) == 0
    seen = json.loads(out.read_text())
    assert (seen["MESH_RUN_DIR"], seen["MESH_OUTBOUND"]) == (str(beside.run_dir), "127.0.0.1:4711")
    assert seen["KEPT"] == "yes"
    assert "MESH_TOKEN" not in seen
    assert "MESH_TOKEN_FILE" not in seen
    assert "secret" not in out.read_text()


CATCH = """
import pathlib, signal, sys
seen = []
def note(number, _frame):
    with open(sys.argv[1], "a") as out:
        out.write(f"{number}\\n")
    if number == signal.SIGTERM:
        raise SystemExit(7)
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, note)
open(sys.argv[1], "w").write("ready\\n")
while True:
    signal.pause()
"""


async def test_signals(beside: Beside, tmp_path: Path) -> None:
    """Signals go to the application, which decides what becomes of them."""
    out = tmp_path / "signals"
    running = asyncio.ensure_future(run(SETTINGS, python(CATCH, str(out))))
    expected = "ready\n"
    await eventually(lambda: out.exists() and out.read_text() == expected)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        os.kill(os.getpid(), number)
        expected += f"{int(number)}\n"
        await eventually(lambda: out.read_text() == expected)  # noqa: B023  awaited here
    assert await asyncio.wait_for(running, 10) == 7
    assert beside.ended
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("patient", [True, False])
async def test_sigterm_drains_first(beside: Beside, tmp_path: Path, patient: bool) -> None:
    """The application is told to end when the calls to it have ended, or when we are told again."""
    beside.drained.clear()
    out = tmp_path / "signals"
    running = asyncio.ensure_future(run(SETTINGS, python(CATCH, str(out))))
    await eventually(lambda: out.exists() and out.read_text() == "ready\n")
    os.kill(os.getpid(), signal.SIGTERM)
    await eventually(lambda: beside.drains == 1)
    os.kill(os.getpid(), signal.SIGUSR1)
    await eventually(lambda: out.read_text() == f"ready\n{int(signal.SIGUSR1)}\n")
    if patient:
        beside.drained.set()
    else:
        os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, 10) == 7
    assert out.read_text() == f"ready\n{int(signal.SIGUSR1)}\n{int(signal.SIGTERM)}\n"
    assert beside.drains == 1


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_sidecar_that_fails_ends_the_application(
    beside: Beside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stubborn: bool
) -> None:
    """The application never runs on without the mesh: it is asked to end, then made to."""
    monkeypatch.setattr(sidecar.run, "KILL_AFTER", 0.2)
    out = tmp_path / "pid"
    handler = "signal.SIG_IGN" if stubborn else "signal.SIG_DFL"
    code = (
        f"import os, signal, sys; signal.signal(15, {handler}); "
        "open(sys.argv[1] + '.new', 'w').write(str(os.getpid())); "
        "os.rename(sys.argv[1] + '.new', sys.argv[1])\nwhile True: signal.pause()"
    )
    running = asyncio.ensure_future(run(SETTINGS, python(code, str(out))))
    await eventually(out.exists)
    beside.broken.set()
    with pytest.raises(OSError, match="the sidecar broke"):
        await asyncio.wait_for(running, 10)
    with pytest.raises(ProcessLookupError):
        os.kill(int(out.read_text()), 0)


async def test_cancelled(beside: Beside, tmp_path: Path) -> None:
    """When the run itself is cancelled, the application does not stay behind."""
    out = tmp_path / "signals"
    running = asyncio.ensure_future(run(SETTINGS, python(CATCH, str(out))))
    await eventually(lambda: out.exists() and out.read_text() == "ready\n")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 10)
    assert out.read_text() == f"ready\n{int(signal.SIGTERM)}\n"
    assert not beside.broken.is_set()


async def test_a_command_that_is_not_there(beside: Beside) -> None:
    """A command that cannot be started is an error of its own, after which nothing runs."""
    with pytest.raises(OSError, match="no-such-command"):
        await run(SETTINGS, ["/no-such-command"])
    assert not beside.broken.is_set()
