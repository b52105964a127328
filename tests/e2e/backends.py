"""Real backends of telemetry, each a process of its own on loopback: Phoenix takes OTLP, Prometheus scrapes.

``make .venv-backend/ready`` installs the first, the system's package manager the second. Where one is
missing a test that needs it fails, and says so.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from mesh.cli.ports import Ports
from tests.e2e.process import ROOT

HOST: Final = "127.0.0.1"
PHOENIX: Final = ROOT / ".venv-backend" / "bin" / "phoenix"
#: Seconds that a backend may take to be there, and to show what it was sent.
PATIENCE: Final = 60.0
#: Seconds that Phoenix, which brings half of PyPI, may take to start on a busy machine.
START: Final = 180.0

_T = TypeVar("_T")


def free_ports() -> tuple[int, int, int]:
    """Give three free ports."""
    ports = Ports(0, 0, 0).chosen(HOST)
    return ports.join, ports.auth, ports.gatekeeper


def asked(url: str, **query: str) -> Any:
    """Ask a backend for JSON; ``None`` if it does not answer."""
    try:
        with urlopen(f"{url}?{urlencode(query)}" if query else url, timeout=10) as answer:
            return json.loads(answer.read() or b"null")
    except (URLError, ConnectionError, TimeoutError):
        return None


def shown(ask: Callable[[], _T], what: str, seconds: float = PATIENCE) -> _T:
    """Ask until there is an answer; fail the test if there is none in time."""
    end = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.1)
    return answer


@contextmanager
def _running(command: Sequence[str], where: Path, environment: Mapping[str, str]) -> Iterator[None]:
    with (where / "backend.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=where, env=dict(environment))
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Phoenix:
    """A receiver of OTLP that can be asked for the spans it got."""

    url: str

    def spans(self) -> list[dict[str, Any]]:
        """Give all of them."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            query = {"limit": "1000", **({"cursor": cursor} if cursor else {})}
            page = asked(f"{self.url}/v1/projects/default/spans", **query)
            if page is None:
                return found
            found += page["data"]
            cursor = page["next_cursor"]
            if not cursor:
                return found


@contextmanager
def phoenix(where: Path) -> Iterator[Phoenix]:
    """Run Phoenix for the length of the block; it keeps all it has in a directory."""
    if not PHOENIX.exists():
        pytest.fail("no Phoenix, which takes the traces of this test: make .venv-backend/ready")
    port, grpc_port, _ = free_ports()
    environment = {
        "PATH": str(PHOENIX.parent),
        "HOME": str(where),
        "PHOENIX_HOST": HOST,
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(grpc_port),
        "PHOENIX_WORKING_DIR": str(where),
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    }
    with _running([str(PHOENIX), "serve"], where, environment):
        yield Phoenix(f"http://{HOST}:{port}")


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus that scrapes, and can be asked."""

    url: str

    def query(self, text: str) -> list[dict[str, Any]]:
        """Give the result of a query, empty if there is none yet."""
        answer = asked(f"{self.url}/api/v1/query", query=text)
        return answer["data"]["result"] if answer and answer["status"] == "success" else []


@contextmanager
def prometheus(where: Path, targets: Sequence[int]) -> Iterator[Prometheus]:
    """Run Prometheus for the length of the block, scraping loopback ports every second."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.fail("no Prometheus, which scrapes in this test: apt install prometheus")
    port = free_ports()[0]
    config = where / "prometheus.yml"
    names = ", ".join(f"'{HOST}:{target}'" for target in targets)
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: mesh, static_configs: [{{targets: [{names}]}}]}}]\n"
    )
    command = [binary, f"--config.file={config}", f"--storage.tsdb.path={where / 'tsdb'}"]
    with _running([*command, f"--web.listen-address={HOST}:{port}"], where, {"PATH": "/usr/bin:/bin"}):
        yield Prometheus(f"http://{HOST}:{port}")
