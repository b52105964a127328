"""An application that is not well has no calls until it is, and its sidecar is well meanwhile."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from sidecar import app_health
from sidecar.app_health import AppHealth
from tests.cli.command import until, up
from tests.injector.test_process import free_port
from tests.rpc.app import Echo
from tests.sidecar.app import NOT_SERVING, SERVING, App
from tests.sidecar.test_health import asked, listed, sidecar


@pytest.fixture
def app() -> Iterator[App]:
    """Give an application."""
    made = App()
    yield made
    made.end()


def test_an_app_that_says_so_or_says_nothing_has_no_calls(tmp_path: Path, app: App) -> None:
    """By its own word, and by none: it leaves the directory, and comes back."""
    port = free_port()
    with up(tmp_path / "mesh") as mesh:
        options = ("--service", "callee", "--health", f"127.0.0.1:{port}", "--app-port", str(app.port))
        with sidecar(mesh, *options):
            assert (asked(port, ""), asked(port, "app")) == (SERVING, NOT_SERVING)
            app.start()
            for ill, well in ((signal.SIGUSR1, signal.SIGUSR2), (signal.SIGSTOP, signal.SIGCONT)):
                until(lambda: listed(mesh, "callee") is not None, "listed")
                until(lambda: asked(port, "app") == SERVING, "well")
                assert asked(port, "ready") == SERVING
                app.tell(ill)
                until(lambda: listed(mesh, "callee") is None, "not listed")
                assert [asked(port, name) for name in ("", "app", "ready")] == [
                    SERVING,
                    NOT_SERVING,
                    NOT_SERVING,
                ]
                app.tell(well)
            until(lambda: listed(mesh, "callee") is not None, "listed again")


def test_an_app_that_is_not_to_be_asked_is_not(tmp_path: Path, app: App) -> None:
    """What it says of itself then is for others."""
    with up(tmp_path / "mesh") as mesh:
        app.start()
        with sidecar(mesh, "--service", "callee", "--app-port", str(app.port), "--no-app-health"):
            until(lambda: listed(mesh, "callee") is not None, "listed")
            app.tell(signal.SIGUSR1)
            with grpc.insecure_channel(f"127.0.0.1:{app.port}") as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                ill = lambda: stub.Check(health_pb2.HealthCheckRequest()).status == NOT_SERVING  # noqa: E731
                until(ill, "ill")
                until(lambda: stub.Check(health_pb2.HealthCheckRequest()).status == NOT_SERVING, "still ill")
            assert listed(mesh, "callee") is not None


@asynccontextmanager
async def answering(handler: grpc.GenericRpcHandler | None) -> AsyncIterator[AppHealth]:
    server = grpc.aio.server()
    if handler is not None:
        server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield AppHealth(channel)
    await server.stop(None)


class Strict(grpc.GenericRpcHandler):
    """Answers nobody whom it does not know."""

    def service(self, _details: Any) -> grpc.RpcMethodHandler[Any, Any]:
        """Take every method."""

        async def refuse(_request: bytes, context: Any) -> bytes:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")
            return b""

        return grpc.unary_unary_rpc_method_handler(refuse)


class Careless(grpc.GenericRpcHandler):
    """Answers all questions alike, with what is no answer to this one."""

    def service(self, _details: Any) -> grpc.RpcMethodHandler[Any, Any]:
        """Take every method."""

        async def answer(_request: bytes, _context: Any) -> bytes:
            return b"0"

        return grpc.unary_unary_rpc_method_handler(answer)


class Silent(grpc.GenericRpcHandler):
    """Answers nothing."""

    def service(self, _details: Any) -> grpc.RpcMethodHandler[Any, Any]:
        """Take every method."""

        async def wait(_request: bytes, _context: Any) -> bytes:
            await asyncio.get_running_loop().create_future()
            return b""

        return grpc.unary_unary_rpc_method_handler(wait)


@pytest.mark.parametrize("handler", [None, Echo, Strict, Careless])
async def test_any_answer_is_a_good_one(handler: type[grpc.GenericRpcHandler] | None) -> None:
    """Of an application without that service, or with its own mind about who may ask."""
    async with answering(handler() if handler else None) as asking:
        assert await asking.ask() == ""


async def test_no_answer_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for a while."""
    monkeypatch.setattr(app_health, "PATIENCE", 0.1)
    async with answering(Silent()) as asking:
        assert await asking.ask() == "no answer in 1.5 s"
    assert await asking_nobody() == "the connection failed"


async def asking_nobody() -> str:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{free_port()}") as channel:
        return await AppHealth(channel).ask()


async def test_its_own_word_counts() -> None:
    """As it changes."""
    servicer, told = health.aio.HealthServicer(), asyncio.Queue[str]()
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        following = asyncio.ensure_future(AppHealth(channel).follow(told.put_nowait))
        assert await told.get() == ""
        await servicer.set("", NOT_SERVING)
        said = [await told.get() for _ in range(2)]
        assert said[-1] == "it says NOT_SERVING"
        following.cancel()
    await server.stop(None)
