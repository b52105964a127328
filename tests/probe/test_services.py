"""auth and gatekeeper as a kubelet sees them: ready to be asked, or alive and waiting for another."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mesh.cli.ports import Ports
from mesh.core.names import TrustDomain
from services.auth.founding import found
from tests.cli.command import environment, until
from tests.gatekeeper.test_process import _Stage, process
from tests.postgres import server

pytestmark = pytest.mark.timeout(120)


def probed(what: str, path: Path) -> tuple[int, str]:
    """Run a probe as the chart has it."""
    command = [sys.executable, "-m", "services.probe", what, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
    return done.returncode, done.stdout.strip()


def is_ready(path: Path) -> bool:
    return probed("ready", path) == (0, "ready")


def test_auth_is_not_ready_without_its_database_and_alive(tmp_path: Path) -> None:
    """Killing it would not bring the database back; it is ready again when that answers."""
    ports, path = Ports(0, 0, 0).chosen("127.0.0.1"), tmp_path / "probe"
    with server() as postgres:
        found(tmp_path / "mesh", TrustDomain("shop.example"), 1, database=postgres.url(postgres.database()))
        options = (
            *("--data", tmp_path / "mesh", "--probe", path),
            *("--join-listen", f"127.0.0.1:{ports.join}", "--listen", f"127.0.0.1:{ports.auth}"),
        )
        with process("services.auth", *options, log=tmp_path / "log"):
            until(lambda: is_ready(path), "auth is ready")
            postgres.stop()
            until(lambda: not is_ready(path), "auth is not ready")
            assert probed("ready", path)[1].startswith("not ready: ")
            assert "database" in probed("ready", path)[1]
            assert probed("alive", path)[0] == 0
            postgres.start()
            until(lambda: is_ready(path), "auth is ready again")


def test_gatekeeper_is_ready_while_its_policy_is_confirmed(tmp_path: Path) -> None:
    """Not before it has joined, and not when auth has been away for longer than the policy stands."""
    with tempfile.TemporaryDirectory(prefix="mesh") as short:  # a socket's path is short
        path, stage = Path(short, "probe"), _Stage(tmp_path)
        with stage.auth():
            token = stage.token()
        options = (*stage.options(), "--probe", str(path), "--max-stale-seconds", "3")
        with process("services.gatekeeper", *options, log=stage.log, stdin=token):
            waits = f"not ready: it waits to join at 127.0.0.1:{stage.ports.join}"
            until(lambda: probed("ready", path) == (1, waits), "gatekeeper waits")
            assert probed("alive", path) == (0, waits)
            with stage.auth():
                until(lambda: is_ready(path), "gatekeeper is ready")
            stale = "not ready: auth has not confirmed the policy for too long"
            until(lambda: probed("ready", path) == (1, stale), "the policy is stale")
            assert probed("alive", path) == (0, stale)
            with stage.auth():
                until(lambda: is_ready(path), "gatekeeper is ready again")
