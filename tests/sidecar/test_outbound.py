"""The application's way into the mesh: sockets that follow the policy, and a loopback port."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from sidecar.outbound import MAX_SOCKET_PATH, Outbound
from tests.rpc.app import path
from tests.rpc.attack import eventually, hung_up_for_a_bomb
from tests.rpc.pair import World
from tests.sidecar.beside import MAX_MESSAGE, Beside, StubNode

C = grpc.StatusCode


async def test_sockets_follow_the_policy(beside: Beside) -> None:
    """A socket is there for each name that may be called, and goes with the permission."""

    def names() -> list[str]:
        return sorted(p.name for p in beside.run_dir.iterdir())

    assert names() == ["callee.sock"]
    beside.introduce("a.b", "zeta")
    await eventually(lambda: names() == ["a.b.sock", "callee.sock", "zeta.sock"])
    beside.caller.know({"zeta": []})
    await eventually(lambda: names() == ["zeta.sock"])
    beside.introduce()
    await eventually(lambda: names() == ["callee.sock"])
    assert await beside.channel("socket").unary_unary(path("Unary"))(b"m", wait_for_ready=True) == b"m"
    await beside.outbound.close()
    assert names() == []


async def test_sockets_are_private(beside: Beside) -> None:
    """Nobody but the owner gets at a socket, or at the directory that it is in."""
    beside.introduce("other")
    await eventually((beside.run_dir / "other.sock").exists)
    for socket in beside.run_dir.iterdir():
        assert socket.is_socket()
        assert socket.stat().st_mode & 0o777 == 0o600
    assert beside.run_dir.stat().st_mode & 0o777 == 0o700


async def test_a_socket_left_behind_is_replaced(tmp_path: Path) -> None:
    """What a killed sidecar left behind does not keep the next one from starting."""
    (tmp_path / "callee.sock").write_text("left")
    node: Any = StubNode(World(), "caller")
    node.know({"callee": []})
    outbound = Outbound(node, tmp_path, MAX_MESSAGE)
    following = asyncio.ensure_future(outbound.follow())
    await eventually((tmp_path / "callee.sock").is_socket)
    # The file is there before the server has started: what follows has to end before all is closed.
    following.cancel()
    await asyncio.wait((following,))
    await outbound.close()


async def test_a_name_that_is_taken_away_takes_its_calls_with_it(beside: Beside) -> None:
    """A call in progress ends when its destination is no longer to be called."""
    call = beside.channel("socket").stream_stream(path("Hold"))()
    await call.write(b"a")
    assert await call.read() == b"a"
    beside.caller.know({})
    await eventually(lambda: not beside.socket.exists())
    with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
        await asyncio.wait_for(call.read(), 10)
    await eventually(lambda: not beside.callee.server().open_calls)


async def test_new_names_do_not_wait_for_old_ones(beside: Beside) -> None:
    """A socket appears at once, even while calls of one that goes are still ending."""
    call = beside.channel("socket").stream_stream(path("Hold"))()
    await call.write(b"a")
    assert await call.read() == b"a"
    loop = asyncio.get_running_loop()
    began = loop.time()
    beside.caller.know({"zeta": []})
    await eventually((beside.run_dir / "zeta.sock").exists)
    assert loop.time() - began < 1
    call.cancel()


async def test_a_run_directory_that_is_too_long(tmp_path: Path) -> None:
    """A directory too deep for a socket's path is refused by name, with what to do about it."""
    node: Any = StubNode(World(), "caller")
    node.know({"callee": []})
    outbound = Outbound(node, tmp_path / ("x" * MAX_SOCKET_PATH), MAX_MESSAGE)
    with pytest.raises(OSError, match="too long for a socket: choose a shorter --run-dir"):
        await asyncio.wait_for(outbound.follow(), 10)
    await outbound.close()


async def test_a_port_in_use(beside: Beside, tmp_path: Path) -> None:
    """A port that somebody else listens on is refused in one line that says what to do."""
    node: Any = beside.caller
    second = Outbound(node, tmp_path, MAX_MESSAGE)
    with pytest.raises(OSError, match=f"127.0.0.1:{beside.port}.*in use.*--outbound-port"):
        await second.open_port(beside.port)
    await second.close()


async def test_a_header_bomb_at_the_port(beside: Beside) -> None:
    """Who sends one is hung up on."""
    await hung_up_for_a_bomb(beside.port, "/test.v1.Echo/Unary", None, "127.0.0.1")


async def test_a_stale_slice(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a slice in force nothing is called and nothing is taken, and callers are told to wait."""
    monkeypatch.setattr(beside.caller.slice, "_good_until", 0.0)
    call = beside.channel("socket").unary_unary(path("Unary"))(b"m", timeout=0.3)
    assert await call.code() in (C.UNAVAILABLE, C.DEADLINE_EXCEEDED)
    assert beside.echo.calls == []
