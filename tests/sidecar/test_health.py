"""A sidecar as a kubelet and gatekeeper see it: in the mesh, ready, gone, drained."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sidecar.health import serving_health
from tests.cli.command import Up, command, environment, until, up
from tests.injector.test_process import free_port
from tests.rpc.app import Echo
from tests.rpc.attack import hung_up_for_a_bomb

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVE = (
    "import asyncio, sys; from tests.sidecar.test_health import serve; asyncio.run(serve(int(sys.argv[1])))"
)


def asked(port: int, service: str) -> int | None:
    """Ask as a kubelet does; ``None`` if nobody answers."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            status: int = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=2).status
        except grpc.RpcError:
            return None
        return status


@contextmanager
def sidecar(mesh: Up, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    words = command("sidecar", "--data", mesh.data, *options)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def listed(mesh: Up, service: str) -> str | None:
    found = [node for node in mesh.json("status")["nodes"] if node["service"] == service]
    return found[0]["address"] if found else None


class App:
    """A plain gRPC application on a loop of its own thread's making: started, ended, and started again."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Serve, in a process of its own."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(self.port)], cwd=Path(__file__).parents[2]
        )

    def end(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


async def serve(port: int) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Echo(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


@pytest.fixture
def app() -> Iterator[App]:
    made = App()
    yield made
    made.end()


@pytest.mark.timeout(180)  # each look at the directory is a command of its own
def test_readiness_follows_the_app_and_the_directory_follows_readiness(tmp_path: Path, app: App) -> None:
    """In the mesh before the app is there; ready, gone and ready again with it; drained for good."""
    port = free_port()
    with up(tmp_path / "mesh") as mesh:
        options = ("--service", "callee", "--health", f"127.0.0.1:{port}", "--app-port", str(app.port))
        with sidecar(mesh, *options) as (process, _):
            assert (asked(port, ""), asked(port, "ready")) == (SERVING, NOT_SERVING)
            assert asked(port, "other") is None
            for _ in range(2):
                app.start()
                until(lambda: asked(port, "ready") == SERVING, "ready")
                until(lambda: listed(mesh, "callee") is not None, "listed")
                app.end()
                until(lambda: asked(port, "ready") == NOT_SERVING, "not ready")
                until(lambda: listed(mesh, "callee") is None, "not listed")
            app.start()
            until(lambda: listed(mesh, "callee") is not None, "listed")
            subprocess.run([sys.executable, "-m", "sidecar.drain", str(process.pid)], check=True)
            until(lambda: listed(mesh, "callee") is None, "drained")
            assert (asked(port, ""), asked(port, "ready")) == (SERVING, NOT_SERVING)
            assert process.poll() is None
            os.kill(process.pid, signal.SIGTERM)
            assert process.wait(20) == 0


def test_a_sidecar_that_only_calls_is_ready_at_once(tmp_path: Path) -> None:
    """There is no app to wait for."""
    port = free_port()
    with up(tmp_path / "mesh") as mesh:
        options = ("--service", "caller", "--health", f"127.0.0.1:{port}")
        with sidecar(mesh, *options):
            assert (asked(port, ""), asked(port, "ready")) == (SERVING, SERVING)


async def test_a_header_bomb() -> None:
    """Who sends one is hung up on; the kubelet is answered."""
    port = free_port()
    async with serving_health(f"127.0.0.1:{port}"):
        await hung_up_for_a_bomb(port, "/grpc.health.v1.Health/Check", None, "127.0.0.1")
        assert await asyncio.to_thread(asked, port, "") == SERVING


async def test_a_port_in_use_is_told() -> None:
    """With what to choose instead."""

    async def taken(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        pass

    server = await asyncio.start_server(taken, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(OSError, match="choose another with --health"):
        async with serving_health(f"127.0.0.1:{port}"):
            pass
    server.close()
