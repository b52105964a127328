"""The README's first five minutes, command by command, with the real command line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

MESH = [str(Path(sys.executable).with_name("mesh"))]
LIMIT = 50


class Machine:
    """A user's machine: a copy of the example, a data directory, and what was started."""

    def __init__(self, place: Path) -> None:
        """Copy the example to ``place``."""
        self.data = place / "mesh-data"
        self.hello = place / "hello"
        shutil.copytree(ROOT / "examples" / "hello", self.hello)
        self.started: list[subprocess.Popen[str]] = []
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.environment = {**os.environ, "MESH_DATA": str(self.data), "PYTHONPATH": paths}

    def run(self, *command: str, **more: str) -> str:
        """Run a command in the example's directory; give its output."""
        done = subprocess.run(
            command,
            cwd=self.hello,
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def start(self, said: str, *command: str, **more: str) -> str:
        """Start a command and wait until it says something on standard output; give that line."""
        process = subprocess.Popen(
            command, cwd=self.hello, env={**self.environment, **more}, stdout=subprocess.PIPE, text=True
        )
        self.started.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if said in line:
                return line
        pytest.fail(f"{command} ended without saying {said!r}")

    def end(self) -> None:
        """End everything that was started, the last first."""
        for process in reversed(self.started):
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=20)
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Set up a machine with a running mesh, as the README does, on free ports."""
    machine = Machine(tmp_path)
    machine.run(*MESH, "init", str(machine.data), "--trust-domain", "hello.example")
    try:
        up = machine.start("mesh is up", *MESH, "up", "--port-base", "0")
        join = up.split("join ")[1].split(",")[0].strip()
        machine.environment["MESH_AUTH"] = join
        yield machine
    finally:
        machine.end()


def test_first_five_minutes(machine: Machine, node_packages: Callable[[Path], None]) -> None:
    """A service and a caller of the README's work as it says, embedded and beside a sidecar in Node."""
    machine.run(*MESH, "policy", "apply", "policy.yaml")
    machine.run(*MESH, "generate", "hello.proto", "--out", ".")
    token = machine.run(*MESH, "token", "create", "greeter")
    machine.start("serving as spiffe://hello.example/greeter", sys.executable, "greeter.py", MESH_TOKEN=token)
    token = machine.run(*MESH, "token", "create", "visitor")
    said = machine.run(sys.executable, "visitor.py", "world", MESH_TOKEN=token)
    assert said == "hello world, from visitor"
    node_packages(machine.hello)
    said = machine.run(*MESH, "run", "--service", "visitor", "--", "node", "visitor.js", "node")
    assert said == "hello node, from visitor"
