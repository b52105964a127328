"""gatekeeper as a process: it waits for auth, says what is wrong in one line, and drains."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest

from mesh.cli.ports import Ports
from services.gatekeeper.__main__ import main
from tests.cli.command import TIMEOUT, environment, run, until

pytestmark = pytest.mark.timeout(120)

#: Looks like a token, and is nobody's.
FAKE = f"mesh1.{'0' * 16}.{'A' * 43}\n"


@contextmanager
def process(
    module: str, *arguments: str | Path, log: Path, stdin: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """Run a service with its stderr in a file."""
    with log.open("a") as stderr:
        started = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment(),
        )
    with started:
        assert started.stdin is not None
        started.stdin.write(stdin)
        started.stdin.close()
        try:
            yield started
        finally:
            if started.poll() is None:
                started.terminate()


class _Stage:
    """A trust domain on three ports."""

    def __init__(self, path: Path) -> None:
        self.data, self.log = path / "mesh", path / "log"
        self.log.touch()
        self.ports = Ports(0, 0, 0).chosen("127.0.0.1")
        assert run("init", self.data, "--trust-domain", "shop.example").returncode == 0

    def said(self) -> str:
        return self.log.read_text()

    @contextmanager
    def auth(self) -> Iterator[subprocess.Popen[str]]:
        options = (
            *("--data", self.data),
            *("--join-listen", f"127.0.0.1:{self.ports.join}"),
            *("--listen", f"127.0.0.1:{self.ports.auth}"),
            *("--gatekeeper", f"127.0.0.1:{self.ports.gatekeeper}"),
        )
        with process("services.auth", *options, log=self.log) as running:
            until((self.data / "addresses.json").exists, "auth is ready")
            yield running

    def token(self, service: str = "mesh.gatekeeper") -> str:
        made = run("token", "create", service, "--data", self.data)
        assert made.returncode == 0, made.stderr
        return made.stdout

    def options(self) -> tuple[str, ...]:
        return (
            *("--auth", f"127.0.0.1:{self.ports.join}"),
            *("--token-file", "-"),
            *("--listen", f"127.0.0.1:{self.ports.gatekeeper}"),
        )

    def refused(self, token: str, *more: str) -> tuple[int, str]:
        """Run gatekeeper to its end; give its status and its one line."""
        command = [sys.executable, "-m", "services.gatekeeper", *self.options(), *more]
        done = subprocess.run(
            command,
            check=False,
            input=token,
            text=True,
            capture_output=True,
            timeout=TIMEOUT,
            env=environment(),
        )
        assert "Traceback" not in done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        return done.returncode, line


@pytest.fixture
def stage(tmp_path: Path) -> _Stage:
    """Make a trust domain."""
    return _Stage(tmp_path)


def test_it_waits_for_auth_says_so_once_and_goes_on_by_itself(stage: _Stage) -> None:
    """Started without auth it says what it waits for; it serves when auth comes, and drains on SIGTERM."""
    with stage.auth():
        token = stage.token()
    with process("services.gatekeeper", *stage.options(), log=stage.log, stdin=token) as gatekeeper:
        until(lambda: "waiting for auth" in stage.said(), "it says what it waits for")
        with stage.auth():
            until(lambda: "serving on port" in stage.said(), "it serves")
            until(lambda: "policy 0 is in force" in stage.said(), "it has the policy")
            assert run("status", "--data", stage.data).returncode == 0
            gatekeeper.send_signal(signal.SIGTERM)
            assert gatekeeper.wait(TIMEOUT) == 0
    assert stage.said().count("waiting for auth") == 1
    assert "Traceback" not in stage.said()


def test_sigterm_ends_it_while_it_waits(stage: _Stage) -> None:
    """Waiting for auth is no reason to linger."""
    with process("services.gatekeeper", *stage.options(), log=stage.log, stdin=FAKE) as gatekeeper:
        until(lambda: "waiting for auth" in stage.said(), "it waits")
        gatekeeper.send_signal(signal.SIGTERM)
        assert gatekeeper.wait(TIMEOUT) == 0
    assert "Traceback" not in stage.said()


def test_what_keeps_it_from_serving_is_one_line(stage: _Stage) -> None:
    """A port in use, a token of another service, a used one: what it is, and a status that tells refusals."""
    with stage.auth():
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", stage.ports.gatekeeper))
            taken.listen()
            status, line = stage.refused(stage.token())
            assert status == 1
            assert f"127.0.0.1:{stage.ports.gatekeeper}" in line
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            status, line = stage.refused(stage.token(), "--ext-authz", address)
            assert status == 1
            assert address in line
        token = stage.token("orders")
        status, line = stage.refused(token)
        assert status == 3
        assert "the token is for orders" in line
        status, line = stage.refused(token)
        assert status == 3
        assert "refused" in line


@pytest.mark.parametrize("token", ["", "nonsense\n", "mesh1.short.hidden\n", f"{FAKE[:-2]}\n"])
def test_what_is_no_token_is_said_without_repeating_it(
    token: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slip of the hand does not put a secret into a log."""
    monkeypatch.setattr(sys, "stdin", StringIO(token))
    assert main(["--auth", "127.0.0.1:9", "--token-file", "-"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert "hidden" not in said
    assert "AAAA" not in said


def test_an_unreadable_token_file_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its name and the reason."""
    assert main(["--auth", "127.0.0.1:9", "--token-file", str(tmp_path / "nothing")]) == 1
    assert "nothing: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "1e9", "soon"])
def test_times_are_checked(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A lease that cannot be is a usage error."""
    with pytest.raises(SystemExit) as ended:
        main(["--auth", "127.0.0.1:9", "--token-file", "-", f"--lease-seconds={seconds}"])
    assert ended.value.code == 2
    assert "--lease-seconds" in capsys.readouterr().err
