"""An application as a process of its own, that says how it is: ``python -m tests.sidecar.app PORT``.

SIGUSR1 makes it ill, SIGUSR2 well again. It answers ``test.v1.Echo`` all the same.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from tests.injector.test_process import free_port
from tests.rpc.app import Echo

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class App:
    """Started, ended, made ill, stopped and continued."""

    def __init__(self) -> None:
        """Choose its port."""
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Serve."""
        words = [sys.executable, "-m", "tests.sidecar.app", str(self.port)]
        self._process = subprocess.Popen(words, cwd=Path(__file__).parents[2])

    def tell(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def end(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


async def serve(port: int) -> None:
    """Serve until killed."""
    server, servicer = grpc.aio.server(), health.aio.HealthServicer()
    loop, asked = asyncio.get_running_loop(), set[asyncio.Task[None]]()

    def say(status: Any) -> None:
        asked.add(loop.create_task(servicer.set("", status)))

    for number, status in ((signal.SIGUSR1, NOT_SERVING), (signal.SIGUSR2, SERVING)):
        loop.add_signal_handler(number, say, status)
    server.add_generic_rpc_handlers((Echo(),))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
