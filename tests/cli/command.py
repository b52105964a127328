"""The command as a process, and a mesh that it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TIMEOUT = 60


def command(*arguments: str | Path) -> list[str]:
    """Give the command line."""
    return [sys.executable, "-m", "mesh.cli", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    """Give an environment that says nothing of another mesh."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MESH_")}
    return {**kept, "PYTHONPATH": str(ROOT), **more}


def run(*arguments: str | Path, stdin: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command(*arguments),
        check=False,
        input=stdin,
        text=True,
        capture_output=True,
        timeout=TIMEOUT,
        env=environment(**more),
    )


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition outside this process."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.02)  # a look, not a wait: nobody tells when another process has changed


def children(pid: int) -> set[int]:
    """Give the child processes of a process."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has just ended has none
            found.update(map(int, (task / "children").read_text().split()))
    return found


def alive(pid: int) -> bool:
    """Whether a process runs, not counting one that only waits to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def module_of(pid: int) -> str:
    """Give the module that a supervised process runs."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return words[words.index("mesh.cli.leash") + 2] if "mesh.cli.leash" in words else ""


class Up:
    """A running ``mesh up``."""

    def __init__(self, data: Path, *options: str) -> None:
        """Start it and wait until it is up."""
        self.data = data
        self.process = subprocess.Popen(
            command("up", "--data", data, "--port-base", "0", *options),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        self.said: list[str] = []
        assert self.process.stderr is not None
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self.said.extend, args=(self.process.stderr,))
        self._reader.start()
        self.line = self.process.stdout.readline()
        assert self.line.startswith("mesh is up: "), self.said

    def child(self, module: str) -> int:
        """Give the process id of one part, 0 while it is not running."""
        return next((pid for pid in children(self.process.pid) if module_of(pid) == module), 0)

    def mesh(self, *arguments: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command on this mesh."""
        return run(*arguments, stdin=stdin, MESH_DATA=str(self.data))

    def json(self, *arguments: str | Path, stdin: str = "") -> Any:
        """Run a command on this mesh, and give what it shows."""
        done = self.mesh(*arguments, "-o", "json", stdin=stdin)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal it, and wait for its end."""
        self.process.send_signal(number)
        status = self.process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)  # ends with the last process that could write there
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()
        return status


@contextmanager
def up(data: Path, *options: str) -> Iterator[Up]:
    """Run ``mesh up`` on a new trust domain for the length of the block."""
    made = run("init", data, "--trust-domain", "shop.example")
    assert made.returncode == 0, made.stderr
    running = Up(data, *options)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.end()
