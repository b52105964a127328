"""Children on a leash: they end when told or when their parent does, and are started again if they should."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from mesh.cli import child as kept_child
from mesh.cli.child import Child, EndedError, Kept
from tests.cli.command import alive, environment, until

#: A module that writes what it reads, and its arguments, to a file, and then waits for SIGTERM.
WAITS = """
import signal, sys
from pathlib import Path
line = sys.stdin.readline()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
Path(sys.argv[1]).write_text(line + repr(sys.argv[2:]))
signal.pause()
"""
STUBBORN = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGTERM, signal.SIG_IGN)
Path(sys.argv[1]).write_text("")
while True: signal.pause()
"""
SUPERVISOR = """
import asyncio
from mesh.cli.child import Child
async def main():
    child = await Child.start("waits", [{said!r}], "")
    print(child.pid, flush=True)
    await child.wait()
asyncio.run(main())
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the modules importable for children."""
    for name, text in (("waits", WAITS), ("stubborn", STUBBORN), ("fails", "raise SystemExit(5)")):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", f"{environment()['PYTHONPATH']}{os.pathsep}{tmp_path}")
    return tmp_path


async def waiting(modules: Path, module: str = "waits", secret: str = "") -> Child:
    said = modules / "said"
    said.unlink(missing_ok=True)
    child = await Child.start(module, [str(said), "a b", "--c"], secret)
    await asyncio.to_thread(until, said.exists, "the child runs")
    return child


def shown(said: Path, expected: str) -> None:
    until(lambda: said.read_text() == expected, "all is written")


def visible(pid: int) -> bytes:
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))


async def test_a_child_gets_its_secret_and_its_arguments(modules: Path) -> None:
    """The secret is a line of standard input, and nowhere else; the module sees its own arguments alone."""
    child = await waiting(modules, secret="mesh1.secret")
    try:
        await asyncio.to_thread(shown, modules / "said", "mesh1.secret\n['a b', '--c']")
        assert b"mesh1.secret" not in await asyncio.to_thread(visible, child.pid)
    finally:
        await child.stop()
    assert await child.wait() == 7


async def test_a_child_that_does_not_listen_is_killed(modules: Path) -> None:
    """After its grace nothing of it is left."""
    child = await waiting(modules, "stubborn")
    await child.stop(grace=0.1)
    assert await child.wait() == -signal.SIGKILL
    await child.stop()


async def test_children_end_with_a_killed_parent(modules: Path) -> None:
    """The leash is a pipe that the kernel closes, whatever ended the parent."""
    said = modules / "said"
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SUPERVISOR.format(said=str(said)), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await asyncio.wait_for(parent.stdout.readline(), 30))
    await asyncio.to_thread(until, said.exists, "the child runs")
    parent.kill()
    await parent.wait()
    await asyncio.to_thread(until, lambda: not alive(pid), "the child has ended")


async def never() -> None:
    """Never be ready."""
    await asyncio.get_running_loop().create_future()


async def at_once() -> None:
    """Be ready at once."""


@pytest.mark.usefixtures("modules")
async def test_a_child_that_fails_at_first_is_not_started_again() -> None:
    """What ends before it was ready is an error with its status."""
    kept = Kept("fails", lambda: Child.start("fails", []))
    with pytest.raises(EndedError, match="fails ended with status 5") as ended:
        await kept.begin(never)
    assert ended.value.status == 5
    await kept.stop()


async def test_a_kept_child_is_started_again_with_growing_pauses(
    modules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each end that comes soon after the start doubles the pause, up to its limit."""
    monkeypatch.setattr(kept_child, "PAUSE_FIRST", 0.01)
    monkeypatch.setattr(kept_child, "PAUSE_MOST", 0.03)
    pauses: list[float] = []
    real = asyncio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await real(0)

    kept = Kept("waits", lambda: waiting(modules))
    await kept.begin(at_once)
    monkeypatch.setattr(asyncio, "sleep", noted)
    keeping = asyncio.create_task(kept.keep())
    try:
        for count in (1, 2, 3):
            before = kept.pid
            os.kill(before, signal.SIGKILL)
            while kept.pid == before:
                await real(0.01)
            assert len(pauses) == count
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await kept.stop()
    assert pauses == [0.01, 0.02, 0.03]
