"""Attacks on a sidecar: on its mTLS port with tampered calls, on its plaintext ports with raw HTTP/2."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from mesh.core.errors import Cause
from sidecar.outbound import Outbound
from tests.rpc.app import Echo, path
from tests.rpc.attack import Attacker, capture, eventually
from tests.rpc.http2 import PREFACE, Http2, grpc_message, headers, http2_frame
from tests.rpc.pair import World
from tests.sidecar.beside import MAX_MESSAGE, Beside, StubNode, to

C = grpc.StatusCode
Connect = Callable[[Beside], Awaitable[Http2]]
CONNECT: dict[str, Connect] = {
    "socket": lambda beside: Http2.unix(beside.socket),
    "port": lambda beside: Http2.connect(beside.port, None),
}


@pytest.mark.parametrize("kind", ["changed", "swapped", "cut", "dropped"])
async def test_a_tampered_stream_does_not_look_whole_to_the_app(beside: Beside, kind: str) -> None:
    """The application behind a sidecar is cancelled; operator and caller learn why, the caller under seal."""
    caller, callee = beside.caller.membership, beside.callee.membership
    captured = capture(
        caller, path("Up"), [b"a", b"b", b"c"], to=(callee.name, callee.instance), bare_end=True
    )
    a, b, c, end = captured.frames
    frames = {
        "changed": (a, b[:-1] + b"x", c, end),
        "swapped": (a, c, b, end),
        "cut": (a, b, c),
        "dropped": (a, b, end),
    }[kind]
    attacker = Attacker(caller.svid, beside.inbound.port)
    answer = await attacker.replay(captured.but(frames=frames))
    assert (answer.code, answer.reason, answer.sealed) == (C.UNAUTHENTICATED, "SEAL_REJECTED", True)
    (told,) = beside.callee.rejected
    assert told.cause in (Cause.BAD_FRAME, Cause.CUT_SHORT)
    assert told.id == answer.call_id
    # What the handler saw is true; it is cancelled then, which no handler of grpc.aio sees before it waits.
    assert beside.echo.seen == [b"a", b"b", b"c"][: len(beside.echo.seen)]
    await attacker.close()


async def test_no_seal(beside: Beside) -> None:
    """A plain call at the mTLS port of a sidecar does not reach the application, whatever its method."""
    attacker = Attacker(beside.caller.membership.svid, beside.inbound.port)
    for method in (path("Unary"), "/any.Thing/Else", "/x/y"):
        answer = await attacker.send(method, (), (b"plain",))
        assert answer.reason == "SEAL_REJECTED"
    assert beside.echo.calls == []
    await attacker.close()


@pytest.mark.parametrize("where", CONNECT)
async def test_raw_http2_at_the_plaintext_ports(beside: Beside, where: str) -> None:
    """What an application's broken client sends harms its own connection only."""
    for garbage in (
        b"",
        PREFACE,
        b"GET / HTTP/1.1\r\n\r\n",
        os.urandom(4096),
        PREFACE + http2_frame(4, 0, 0) + http2_frame(1, 5, 1, b"\xff" * 20),
        PREFACE + http2_frame(4, 0, 0) + b"\xff\xff\xff\0\0\0\0\0\1" + bytes(50_000),
    ):
        line = await CONNECT[where](beside)
        await line.raw(garbage)
        await line.close()
    channel = beside.channel(where)
    assert await channel.unary_unary(path("Unary"))(b"m", metadata=to(where), wait_for_ready=True) == b"m"


@pytest.mark.parametrize("where", CONNECT)
@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"no.Slash/Unary",
        b"//test.v1.Echo/Unary",
        b"/test.v1.Echo/../Unary",
        b"/test.v1.Echo%2FUnary",
        b"/test.v1.Echo/Unary?x=1",
        b"/test.v1.Echo/Unary ",
        b"https://callee/test.v1.Echo/Unary",
        b"/test.v1.Echo/Unary\0",
        b"/test.v1.Echo/\xff",
    ],
)
async def test_bad_paths_at_the_plaintext_ports(beside: Beside, where: str, bad: bytes) -> None:
    """No path outside the grammar is passed on, and the next good call passes."""
    line = await CONNECT[where](beside)
    await line.start()
    more = ((b"mesh-to", b"callee"),) if where == "port" else ()
    answer = await line.response(await line.request(headers(bad, *more), bytes(5)))
    assert answer is None or answer.get(b"grpc-status") != b"0"
    await line.close()
    assert beside.echo.calls == []
    channel = beside.channel(where)
    assert await channel.unary_unary(path("Unary"))(b"m", metadata=to(where), wait_for_ready=True) == b"m"


@pytest.mark.parametrize("where", CONNECT)
async def test_a_listener_made_anew_beside_a_call_in_progress(beside: Beside, where: str) -> None:
    """What ends gRPC's own loop ends neither a call in progress nor the way for the next ones."""
    call = beside.channel(where).stream_stream(path("Hold"))(metadata=to(where))
    await call.write(b"a")
    assert await call.read() == b"a"
    for _ in range(3):
        line = await CONNECT[where](beside)
        await line.start()
        await line.response(await line.request(headers(b"/test.v1.Echo/\xff"), bytes(5)))
        await line.close()
        unary = beside.channel(where).unary_unary(path("Unary"))
        assert await unary(b"m", metadata=to(where), wait_for_ready=True, timeout=10) == b"m"
    beside.echo.go_on.set()
    await call.done_writing()
    assert await call.read() == grpc.aio.EOF
    assert await call.code() is C.OK


@pytest.mark.parametrize("count", [0, 1, 2])
async def test_a_stream_that_breaks_off_is_not_sealed_as_whole(tmp_path: Path, count: int) -> None:
    """When an application dies in mid-stream, its sidecar does not vouch for an end."""
    world, echo = World(), Echo()
    callee = world.member("callee")
    server = world.serve(callee)
    server.add_generic_rpc_handlers((echo,))
    await server.start()
    node: Any = StubNode(world, "caller")
    node.know({"callee": [(callee.instance.raw, f"127.0.0.1:{server.port}")]})
    outbound = Outbound(node, tmp_path, MAX_MESSAGE)
    following = asyncio.ensure_future(outbound.follow())
    socket = tmp_path / "callee.sock"
    await eventually(socket.exists)
    line = await Http2.unix(socket)
    await line.start()
    await line.request(headers(path("Up").encode()), grpc_message(b"a") * count, end=False)
    await eventually(lambda: bool(server.open_calls) and len(echo.seen) == count)
    loop = asyncio.get_running_loop()
    later = loop.time() + 0.05
    await eventually(lambda: loop.time() > later)  # else it might have been one message and its end
    await line.close()
    await eventually(lambda: not server.open_calls)
    assert echo.ends == 0
    following.cancel()
    await outbound.close()
    await node.close()
    await server.stop(None)
