"""gRPC's interoperability cases between Go, Node and Python, through two sidecars and through embedded nodes.

Run by ``make interop``, which builds Go's official client and server and installs Node's packages. A pair's
cases are run once, by its client; each is a test of its own here.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import pytest_asyncio

from examples.shop import SHOP
from tests.e2e.process import Process, until
from tests.e2e.world import HOST, Mesh, appears, policy
from tests.interop import client as python_client

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

HERE: Final = Path(__file__).parent
GO: Final = HERE / "go" / "bin"
PACKAGES: Final = SHOP / "node"
SECONDS: Final = 60.0

CASES: Final = (*(case.__name__ for case in python_client.CASES), "unimplemented_service", "channel_soak")
#: Go's client has no case of its own for compression.
OF_GO: Final = tuple(case for case in CASES if not case.startswith("compressed"))
SOAK: Final = ("--soak_iterations=20", "--soak_overall_timeout_seconds=60")
PATIENT: Final = "--soak_per_iteration_max_acceptable_latency_ms=20000"

LANGUAGES: Final = ("go", "node", "python")
#: An embedded node on either side, or on both.
PAIRS: Final = [
    (client, server) for client in (*LANGUAGES, "embedded") for server in (*LANGUAGES, "embedded")
]
RUNS: Final = [
    pytest.param(client, server, case, id=f"{client}-{server}-{case}")
    for client, server in PAIRS
    for case in (OF_GO if client == "go" else CASES)
]


def port() -> int:
    """Give a free port of this host."""
    with socket.socket() as found:
        found.bind((HOST, 0))
        number: int = found.getsockname()[1]
        return number


class Field:
    """A mesh with a server of each kind, and the results of the clients that were run against them."""

    def __init__(self, mesh: Mesh) -> None:
        """Take the mesh."""
        self.mesh = mesh
        self._results: dict[tuple[str, str], dict[str, str]] = {}

    async def start(self) -> None:
        """Start the servers, each beside a sidecar but the embedded one, and the clients' sidecar."""
        ports = {language: port() for language in LANGUAGES}
        self.mesh.command("go", str(GO / "server"), "--port", str(ports["go"]))
        self.mesh.command("node", "node", str(HERE / "server.js"), str(PACKAGES), str(ports["node"]))
        self.mesh.python("python", "tests.interop.server", "--port", str(ports["python"]))
        await self._embedded("server", "embedded", "embedded")
        for language, at in ports.items():
            await self.mesh.sidecar(language, "--app-port", str(at))
        self._front = await self.mesh.sidecar("front")
        for server in (*LANGUAGES, "embedded"):
            await appears(self._front.socket(server))
            async with self._front.channel(server) as channel:
                empty: Any = channel.unary_unary("/grpc.testing.TestService/EmptyCall")
                async with asyncio.timeout(20):
                    while await empty(b"").code() is not grpc.StatusCode.OK:
                        pass

    async def result(self, client: str, server: str, case: str) -> str:
        """Give what was wrong in a case between two, running them if they were not."""
        if (client, server) not in self._results:
            self._results[client, server] = {}  # a pair that fails as a whole is not run once for each case
            self._results[client, server] = await self._run(client, server)
        return self._results[client, server].get(case, "the client did not come to it")

    async def _run(self, client: str, server: str) -> dict[str, str]:
        at = f"unix:{self._front.socket(server)}"
        if client == "go":
            return {case: await self._go(at, case) for case in OF_GO}
        if client == "node":
            running = self.mesh.command("client", "node", str(HERE / "client.js"), str(PACKAGES), at)
        elif client == "python":
            running = self.mesh.python("client", "tests.interop.client", "--target", at)
        else:
            running = await self._embedded("client", "caller", client, "--target", server)
        await until(lambda: not running.running, f"{client} to have called {server}", SECONDS)
        return {line["case"]: line["error"] for line in map(json.loads, running.out.splitlines())}

    async def _go(self, at: str, case: str) -> str:
        command = [str(GO / "client"), "--server_host", at, "--server_port", "0", "--test_case", case]
        running = self.mesh.command("client", *command, *SOAK, PATIENT)
        await until(lambda: not running.running, f"go to have done {case}", SECONDS)
        return running.log if running.process.returncode else ""

    async def _embedded(self, module: str, service: str, name: str, *more: str) -> Process:
        joining = ("--join", service, "--auth", self.mesh.join_address)
        token = await self.mesh.token(service)
        return self.mesh.python(name, f"tests.interop.{module}", *joining, *more, secret=f"{token}\n")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def field() -> AsyncIterator[Field]:
    """Set everything up, once."""
    async with AsyncExitStack() as stack:
        mesh = Mesh()
        stack.callback(mesh.close)
        await mesh.start()
        callers, called = ("front", "caller"), (*LANGUAGES, "embedded")
        await mesh.apply(policy(*((source, server) for source in callers for server in called)))
        found = Field(mesh)
        await found.start()
        yield found


@pytest.mark.parametrize(("client", "server", "case"), RUNS)
async def test_case(field: Field, client: str, server: str, case: str) -> None:
    """A case passes between two languages as it does without a mesh between."""
    assert await field.result(client, server, case) == ""
