"""Policy on calls: what it forbids is never dispatched, and ends when it becomes forbidden."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from mesh.core.errors import Cause
from mesh.core.matcher import Matcher
from mesh.core.policy import Section
from mesh.rpc.channel import MeshChannel
from mesh.rpc.membership import Membership, Rejection, deny_all
from mesh.rpc.server import MeshServer
from tests.rpc.app import Echo, path
from tests.rpc.attack import Attacker, capture, eventually, reason_of

C = grpc.StatusCode
ONLY_UNARY = Section.parse(
    b'{"allow":[{"principals":["caller"],"paths":["/test.v1.Echo/Unary"],'
    b'"headers":[{"key":"x-tenant","values":["acme"]}]}],'
    b'"deny":[{"name":"not-evil","principals":["*"],"paths":["*"],"headers":[{"key":"x-evil","values":["*"]}]}]}'
)


@pytest.mark.parametrize("method", ["Unary", "Up", "Down", "Both", "Nothing"])
async def test_denied(
    channel: MeshChannel, callee: Membership, app: Echo, rejected: list[Rejection], method: str
) -> None:
    """A denied call is not dispatched; both sides know it by one id, only the operator knows the rule."""
    callee.authorize = Matcher(ONLY_UNARY).permit
    make: Any = {"Up": channel.stream_unary, "Down": channel.unary_stream, "Both": channel.stream_stream}.get(
        method, channel.unary_unary
    )
    call = make(path(method))(b"1" if method in ("Unary", "Down", "Nothing") else iter([b"1"]))
    assert await asyncio.wait_for(call.code(), 5) is C.PERMISSION_DENIED
    reason, call_id = reason_of(await call.trailing_metadata())
    assert reason == "POLICY_DENIED"
    assert (await call.details()).startswith("policy does not let this service make this call")
    (told,) = rejected
    assert (told.id, told.cause, told.method) == (call_id, "denied", path(method))
    assert told.peer.startswith("caller/")
    assert "no rule allows it" in told.detail
    assert app.calls == []


async def test_headers_decide(
    channel: MeshChannel, callee: Membership, app: Echo, rejected: list[Rejection]
) -> None:
    """Rules see the metadata that was sealed; the caller is not told which rule it was."""
    callee.authorize = Matcher(ONLY_UNARY).permit
    unary = channel.unary_unary(path("Unary"))
    assert await unary(b"a", metadata=(("x-tenant", "acme"),)) == b"a"
    for metadata in (
        (),
        (("x-tenant", "other"),),
        (("x-tenant", "acme"), ("x-tenant", "other")),
        (("x-tenant", "acme"), ("x-evil", "")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await unary(b"b", metadata=metadata)
        assert "not-evil" not in (caught.value.details() or "")
    assert app.calls == ["Unary"]
    assert "not-evil" in rejected[-1].detail


async def test_denial_is_sealed(
    attacker: Attacker, callee: Membership, caller: Membership, app: Echo
) -> None:
    """A denial carries the seal of the call that it answers."""
    callee.authorize = deny_all
    answer = await attacker.replay(capture(caller, path("Unary"), to=(callee.name, callee.instance)))
    assert (answer.code, answer.sealed, answer.reason) == (C.PERMISSION_DENIED, True, "POLICY_DENIED")
    assert app.calls == []


async def test_metadata_is_judged_only_if_it_was_sealed(
    attacker: Attacker, callee: Membership, caller: Membership, app: Echo, rejected: list[Rejection]
) -> None:
    """Metadata put in on the way buys no permit."""
    callee.authorize = Matcher(ONLY_UNARY).permit
    captured = capture(caller, path("Unary"), to=(callee.name, callee.instance))
    answer = await attacker.replay(captured.but(entries=(("x-tenant", "acme"),)))
    assert answer.reason == "SEAL_REJECTED"
    assert rejected[-1].cause == Cause.BAD_METADATA
    assert app.calls == []


@pytest.mark.parametrize("method", ["Hold", "Wait", "Up", "Both"])
async def test_a_change_of_policy_ends_open_calls(
    server: MeshServer,
    channel: MeshChannel,
    callee: Membership,
    app: Echo,
    rejected: list[Rejection],
    method: str,
) -> None:
    """What becomes forbidden ends at once on both sides, under seal, whatever it is waiting for."""
    call: Any
    if method == "Wait":
        call = channel.unary_unary(path(method))(b"")
        await app.waiting.wait()
    else:
        make: Any = channel.stream_unary if method == "Up" else channel.stream_stream
        call = make(path(method))()
        await call.write(b"one")
        if method != "Up":
            assert await call.read() == b"one"
        await eventually(lambda: bool(app.seen))
    assert len(server.open_calls) == 1
    callee.authorize = deny_all
    server.recheck()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call.read() if hasattr(call, "read") else call, 5)
    assert caught.value.code() is C.PERMISSION_DENIED
    reason, call_id = reason_of(caught.value.trailing_metadata())
    assert (reason, [told.id for told in rejected]) == ("POLICY_DENIED", [call_id])
    await eventually(lambda: not server.open_calls)
    assert app.ends == 0


async def test_what_stays_permitted_stays(
    server: MeshServer, channel: MeshChannel, callee: Membership, app: Echo
) -> None:
    """A change of policy leaves alone what it still permits."""
    call = channel.stream_stream(path("Hold"))()
    await call.write(b"one")
    assert await call.read() == b"one"
    hold_only = Section.parse(b'{"allow":[{"principals":["caller"],"paths":["*/Hold"]}]}')
    callee.authorize = Matcher(hold_only).permit
    server.recheck()
    app.go_on.set()
    await call.write(b"two")
    assert await call.read() == b"two"
    await call.done_writing()
    assert await call.read() == grpc.aio.EOF
    assert app.ends == 1


async def test_a_stream_that_nobody_reads_is_ended_too(
    server: MeshServer, channel: MeshChannel, callee: Membership, app: Echo
) -> None:
    """A handler that is stuck in sending, because its caller does not read, is ended like any other."""
    call = channel.unary_stream(path("Down"))(b"1000000")
    assert await call.read() == b"0"
    callee.authorize = deny_all
    server.recheck()
    await eventually(lambda: not server.open_calls)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [message async for message in call]
    assert caught.value.code() is C.PERMISSION_DENIED
    assert app.calls == ["Down"]
