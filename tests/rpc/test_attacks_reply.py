"""Attacks on replies, by a man in the middle with the callee's own certificate, or in its place.

The application sees an error and never a message, a status, a text or metadata that was not verified.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest

from mesh.core.errors import Reason
from mesh.core.metadata import END, INITIAL, REFUSAL, application_entries
from mesh.core.names import InstanceId, KeyEpoch
from mesh.core.wire import Refusal
from mesh.rpc.channel import MeshChannel
from mesh.rpc.membership import Membership, Rejection
from mesh.rpc.server import MeshServer
from mesh.rpc.status import DETAILS, mesh_outcome
from tests.rpc.app import Echo, path
from tests.rpc.attack import Answer, Attacker, reason_of
from tests.rpc.pair import World

C = grpc.StatusCode
Tamper = Callable[[Answer], Answer]
LIE = "a lie"


class Man(grpc.GenericRpcHandler):
    """In the middle: passes calls on as they are, and replies as it likes."""

    def __init__(self, onward: Attacker) -> None:
        """Take the way to the true callee."""
        self._onward = onward
        self.tamper: Tamper = lambda answer: answer
        self.true: list[Answer] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Take any call."""

        async def forward(requests: AsyncIterator[bytes], context: Any) -> None:
            metadata = [(k, v) for k, v in context.invocation_metadata() if k != "user-agent"]
            frames = [frame async for frame in requests]
            self.true.append(
                await self._onward.send(details.method, metadata, frames, context.time_remaining())
            )
            answer = self.tamper(self.true[-1])
            await context.send_initial_metadata(answer.initial)
            for reply in answer.replies:
                await context.write(reply)
            if answer.code is not C.OK:
                await context.abort(answer.code, answer.details, answer.trailing)
            context.set_trailing_metadata(answer.trailing)

        return grpc.stream_stream_rpc_method_handler(forward)


@pytest.fixture
async def man(world: World, server: MeshServer, callee: Membership, caller: Membership) -> AsyncIterator[Man]:
    """Stand between ``caller`` and ``callee``, with the certificates of both."""
    onward = Attacker(caller.svid, server.port)
    man = Man(onward)
    false = grpc.aio.server()
    false.add_generic_rpc_handlers((man,))
    credentials = grpc.ssl_server_credentials([(callee.svid.key_pem, callee.svid.chain_pem)])
    port = false.add_secure_port("127.0.0.1:0", credentials)
    await false.start()
    world.directory.put(callee, f"127.0.0.1:{port}")
    yield man
    await false.stop(None)
    await onward.close()


@pytest.fixture
def disbelieved(caller: Membership) -> list[Rejection]:
    """Record what ``caller``'s operator is told."""
    told: list[Rejection] = []
    caller.on_rejected(told.append)
    return told


async def make(channel: MeshChannel, method: str, got: list[bytes], wait: float | None = 10) -> Any:
    """Make a call of the kind that the method is of; record each message that the application gets."""
    call: Any
    if method in ("Unary", "Abort", "Meta"):
        call = channel.unary_unary(path(method))(b"3", timeout=wait, metadata=(("x-a", "b"),))
        got.append(await call)
    elif method == "Up":
        call = channel.stream_unary(path(method))(iter([b"0", b"1"]), timeout=wait)
        got.append(await call)
    elif method in ("Down", "DownFail", "MetaDown"):
        call = channel.unary_stream(path(method))(b"3", timeout=wait)
        async for message in call:
            got.append(message)  # noqa: PERF401  what came before an error counts
    else:
        call = channel.stream_stream(path(method))(iter([b"0", b"1", b"2"]), timeout=wait)
        async for message in call:
            got.append(message)  # noqa: PERF401
    return call


TRUE = {
    "Unary": [b"3"],
    "Meta": [b"3"],
    "Up": [b"0,1"],
    "Down": [b"0", b"1", b"2"],
    "MetaDown": [b"3", b"3"],
    "Both": [b"0", b"1", b"2"],
    "DownFail": [b"0", b"1", b"2"],
    "Abort": [],
}


def without(entries: Any, *keys: str) -> Any:
    """Drop entries."""
    return tuple(entry for entry in entries if entry[0] not in keys)


def flipped(data: bytes, at: int = -1) -> bytes:
    """Change a bit."""
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def altered(entries: Any, key: str) -> Any:
    """Change the value of a binary entry."""
    return tuple((k, flipped(v) if k == key else v) for k, v in entries)


ENDS: dict[str, Tamper] = {
    "seal of the end dropped": lambda a: replace(a, trailing=without(a.trailing, END)),
    "seal of the end changed": lambda a: replace(a, trailing=altered(a.trailing, END)),
    "seal of the end doubled": lambda a: replace(a, trailing=(*a.trailing, (END, b"x" * 32))),
    "seal of the end emptied": lambda a: replace(a, trailing=(*without(a.trailing, END), (END, b""))),
    "trailing metadata added": lambda a: replace(a, trailing=(*a.trailing, ("x-lie", LIE))),
    "initial metadata added": lambda a: replace(a, initial=(*a.initial, ("x-lie", LIE))),
    "seal of initial metadata forged": lambda a: replace(
        a, initial=(*without(a.initial, INITIAL), (INITIAL, bytes(32)))
    ),
    "seal of initial metadata doubled": lambda a: replace(
        a, initial=(*a.initial, (INITIAL, bytes(32)), (INITIAL, bytes(32)))
    ),
    "error instead": lambda a: replace(a, code=C.ABORTED if a.code is C.OK else C.OK),
    "another error": lambda a: replace(a, code=C.NOT_FOUND, details=LIE, trailing=a.trailing),
    "unsealed error": lambda a: replace(a, code=C.PERMISSION_DENIED, details=LIE, trailing=(), replies=[]),
    "nothing at all": lambda a: replace(a, initial=(), trailing=(), replies=[]),
}
MESSAGES: dict[str, Tamper] = {
    "changed": lambda a: replace(a, replies=[flipped(a.replies[0]), *a.replies[1:]]),
    "mac changed": lambda a: replace(a, replies=[flipped(a.replies[0], 5), *a.replies[1:]]),
    "first dropped": lambda a: replace(a, replies=a.replies[1:]),
    "last dropped": lambda a: replace(a, replies=a.replies[:-1]),
    "first doubled": lambda a: replace(a, replies=[a.replies[0], *a.replies]),
    "last doubled": lambda a: replace(a, replies=[*a.replies, a.replies[-1]]),
    "swapped": lambda a: replace(a, replies=list(reversed(a.replies))),
    "cut": lambda a: replace(a, replies=[*a.replies[:-1], a.replies[-1][:-1]]),
    "emptied": lambda a: replace(a, replies=[b"", *a.replies[1:]]),
    "plain": lambda a: replace(a, replies=[b"plain", *a.replies[1:]]),
    "appended": lambda a: replace(a, replies=[*a.replies, b"plain"]),
}
NEEDS_TWO = {"swapped"}
#: gRPC keeps back the status of a unary call while a message is unread, so these end with the deadline.
ENDLESS = {"first doubled", "last doubled", "appended"}


async def assert_disbelieved(
    channel: MeshChannel, method: str, disbelieved: list[Rejection]
) -> grpc.aio.AioRpcError:
    """See the application get a true prefix and the mesh's error, the operator the cause."""
    got: list[bytes] = []
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await make(channel, method, got)
    error = caught.value
    assert got == TRUE[method][: len(got)]
    assert error.code() is C.INTERNAL
    reason, call_id = reason_of(error.trailing_metadata())
    assert reason == "UNSEALED"
    assert [told.id for told in disbelieved] == [call_id]
    assert LIE not in (error.details() or "")
    assert all(key == DETAILS for key, _ in error.trailing_metadata())
    assert list(error.initial_metadata()) == []
    return error


@pytest.mark.parametrize("method", TRUE)
async def test_an_honest_man(channel: MeshChannel, man: Man, method: str) -> None:
    """What is passed on whole is believed: the attacks below fail by what they change."""
    got: list[bytes] = []
    try:
        await make(channel, method, got)
    except grpc.aio.AioRpcError as error:
        assert error.code() in (C.FAILED_PRECONDITION, C.ABORTED)  # noqa: PT017  an error is its true reply
    assert got == TRUE[method]
    assert len(man.true) == 1


@pytest.mark.parametrize(
    ("method", "tampering"),
    [
        (method, tampering)
        for method in TRUE
        for tampering in ENDS
        # With an error the seal of its end covers initial metadata, and no other is looked at.
        if method != "Abort" or not tampering.startswith("seal of initial")
    ],
)
async def test_ends_tampered_with(
    channel: MeshChannel, man: Man, disbelieved: list[Rejection], method: str, tampering: str
) -> None:
    """Status, text, metadata and number of messages are what the callee sealed, or the call failed."""
    man.tamper = ENDS[tampering]
    await assert_disbelieved(channel, method, disbelieved)


@pytest.mark.parametrize(
    ("method", "tampering"),
    [
        (method, tampering)
        for method, true in TRUE.items()
        for tampering in MESSAGES
        if true and (len(true) > 1 or tampering not in NEEDS_TWO)
        if method not in ("Unary", "Meta") or tampering not in ENDLESS
    ],
)
async def test_messages_tampered_with(
    channel: MeshChannel, man: Man, disbelieved: list[Rejection], method: str, tampering: str
) -> None:
    """No message gets to the application but those that were sealed, in their order, up to the attack."""
    man.tamper = MESSAGES[tampering]
    await assert_disbelieved(channel, method, disbelieved)


async def test_initial_metadata_stripped(
    channel: MeshChannel, man: Man, disbelieved: list[Rejection]
) -> None:
    """Metadata that the callee sent does not get lost unnoticed, with or without its seal."""
    man.tamper = lambda a: replace(a, initial=())
    await assert_disbelieved(channel, "MetaDown", disbelieved)
    disbelieved.clear()
    await assert_disbelieved(channel, "Meta", disbelieved)
    disbelieved.clear()
    man.tamper = lambda a: replace(a, initial=without(a.initial, "x-a", "x-initial"))
    await assert_disbelieved(channel, "MetaDown", disbelieved)


async def test_a_seal_stripped_where_the_end_covers_it_too(
    channel: MeshChannel, man: Man, disbelieved: list[Rejection]
) -> None:
    """The seal of initial metadata may be missing where the end seals the same: nothing true is lost."""
    man.tamper = lambda a: replace(a, initial=without(a.initial, INITIAL))
    call = channel.unary_unary(path("Meta"))(b"3", metadata=(("x-a", "b"),))
    assert await call == b"3"
    assert list(await call.initial_metadata()) == [("x-a", "b")]
    await assert_disbelieved(channel, "MetaDown", disbelieved)


async def test_trailing_metadata_of_an_error_stripped_and_changed(
    channel: MeshChannel, man: Man, disbelieved: list[Rejection]
) -> None:
    """What an application says with its error is covered like the error itself."""
    for tamper in (
        lambda a: replace(a, trailing=without(a.trailing, "x-why")),
        lambda a: replace(a, trailing=altered(a.trailing, "x-bin")),
        lambda a: replace(a, details=LIE),
        lambda a: replace(a, details=a.details + "!"),
        lambda a: replace(a, details=""),
        lambda a: replace(a, trailing=(*a.trailing, *mesh_outcome(Reason.POLICY_DENIED).trailing)),
    ):
        man.tamper = tamper
        disbelieved.clear()
        await assert_disbelieved(channel, "Abort", disbelieved)


@pytest.mark.parametrize("method", ["Unary", "Up", "Down", "Both"])
async def test_replies_of_other_calls(
    channel: MeshChannel, man: Man, disbelieved: list[Rejection], method: str
) -> None:
    """A recorded reply, whole and sealed, answers its own call and no other, not even the same question."""
    got: list[bytes] = []
    await make(channel, method, got)
    old = man.true[0]
    for spliced in (
        lambda _: old,
        lambda a: replace(a, replies=old.replies),
        lambda a: replace(a, trailing=old.trailing),
        lambda a: replace(a, initial=old.initial, trailing=old.trailing),
        lambda a: replace(a, replies=[*a.replies[:-1], old.replies[-1]]),
    ):
        man.tamper = spliced
        disbelieved.clear()
        await assert_disbelieved(channel, method, disbelieved)


async def test_own_request_sent_back(channel: MeshChannel, man: Man, disbelieved: list[Rejection]) -> None:
    """What the caller sealed is no reply to it."""

    def echo(_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        async def reflect(requests: AsyncIterator[bytes], context: Any) -> None:
            async for frame in requests:
                await context.write(frame)

        return grpc.stream_stream_rpc_method_handler(reflect)

    man.service = echo  # type: ignore[method-assign,assignment]
    for method in ("Unary", "Both"):
        disbelieved.clear()
        await assert_disbelieved(channel, method, disbelieved)


@pytest.mark.parametrize("method", ["Unary", "Down", "Both", "Up"])
@pytest.mark.parametrize("reason", [Reason.POLICY_DENIED, Reason.NAME_UNAVAILABLE, Reason.BAD_REQUEST])
async def test_a_forged_denial(
    channel: MeshChannel, man: Man, disbelieved: list[Rejection], method: str, reason: Reason
) -> None:
    """What the mesh says under seal only is not believed without one."""
    forged = mesh_outcome(reason, LIE, "0123456789abcdef")
    man.tamper = lambda a: replace(
        a, code=forged.code, details=forged.details, initial=(), trailing=forged.trailing, replies=[]
    )
    await assert_disbelieved(channel, method, disbelieved)


@pytest.mark.parametrize("method", ["Unary", "Down", "Both", "Up"])
@pytest.mark.parametrize("reason", [Reason.STALE_PEER, Reason.SEAL_REJECTED, Reason.NOT_READY])
async def test_a_forged_refusal_is_not_repeated(
    channel: MeshChannel, man: Man, app: Echo, method: str, reason: Reason
) -> None:
    """A refusal without proof is an error in the mesh's own words, and the call is made once."""
    forged = mesh_outcome(reason, LIE, "0123456789abcdef")
    man.tamper = lambda a: replace(
        a,
        code=forged.code,
        details=LIE,
        initial=(),
        trailing=(*forged.trailing, ("x-lie", LIE)),
        replies=[],
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await make(channel, method, [])
    assert caught.value.details() == mesh_outcome(reason, call_id="0123456789abcdef").details
    assert reason_of(caught.value.trailing_metadata()) == (reason, "0123456789abcdef")
    assert len(caught.value.trailing_metadata()) == 1
    assert len(man.true) == len(app.calls) == 1


@pytest.mark.parametrize("method", ["Unary", "Down", "Both", "Up"])
async def test_a_forged_proof_of_refusal(
    channel: MeshChannel, man: Man, app: Echo, caller: Membership, callee: Membership, method: str
) -> None:
    """A proof that does not verify, of whatever form, makes no call repeat."""
    stale = mesh_outcome(Reason.STALE_PEER)
    other = InstanceId(b"o" * 16)
    for proof in (
        b"",
        b"junk",
        Refusal(bytes(32), callee.instance, KeyEpoch(1)).encode(),
        Refusal(bytes(32), other, KeyEpoch(1)).encode(),
        Refusal(bytes(32), other, KeyEpoch(9)).encode(),
        Refusal(bytes(32), caller.instance, KeyEpoch(1)).encode(),
    ):
        man.true.clear()
        app.calls.clear()
        trailing = (*stale.trailing, (REFUSAL, proof))
        man.tamper = lambda a, trailing=trailing: replace(  # type: ignore[misc]
            a, code=C.UNAVAILABLE, initial=(), trailing=trailing, replies=[]
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await make(channel, method, [])
        assert reason_of(caught.value.trailing_metadata())[0] == "STALE_PEER"
        assert len(man.true) == len(app.calls) == 1


async def test_a_refusal_put_on_a_sealed_reply(channel: MeshChannel, man: Man, app: Echo) -> None:
    """A call that was answered is not made again for what somebody adds to its answer."""
    proof = Refusal(bytes(32), InstanceId(b"o" * 16), KeyEpoch(1)).encode()
    man.tamper = lambda a: replace(a, trailing=(*a.trailing, (REFUSAL, proof)))
    got: list[bytes] = []
    await make(channel, "Unary", got)
    assert (got, app.calls) == ([b"3"], ["Unary"])


@pytest.mark.parametrize("method", ["Unary", "Down", "Both", "Up"])
async def test_unsealed_errors_of_the_transport(
    channel: MeshChannel, man: Man, disbelieved: list[Rejection], method: str
) -> None:
    """What a transport may say is passed on by its code alone: no text or metadata of a stranger's."""
    told = (*mesh_outcome(Reason.POLICY_DENIED, LIE).trailing, ("x-lie", LIE))
    for code in (C.UNAVAILABLE, C.RESOURCE_EXHAUSTED, C.CANCELLED):
        man.tamper = lambda a, code=code: replace(  # type: ignore[misc]
            a, code=code, details=LIE, initial=(), trailing=told, replies=[]
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await make(channel, method, [])
        assert caught.value.code() in (C.UNAVAILABLE, C.RESOURCE_EXHAUSTED)
        assert LIE not in (caught.value.details() or "")
        assert list(caught.value.trailing_metadata()) == []
    assert disbelieved == []


@pytest.mark.parametrize("method", ["Unary", "Down", "Both", "Up"])
async def test_a_deadline_exceeded_before_its_time(
    channel: MeshChannel, man: Man, disbelieved: list[Rejection], method: str
) -> None:
    """Only the caller's own clock says that its deadline has passed."""
    man.tamper = lambda a: replace(a, code=C.DEADLINE_EXCEEDED, details=LIE, trailing=(), replies=[])
    await assert_disbelieved(channel, method, disbelieved)


@pytest.mark.parametrize("tampering", sorted(ENDLESS))
async def test_a_message_more_in_a_unary_reply(channel: MeshChannel, man: Man, tampering: str) -> None:
    """A unary call takes nothing from a reply of two messages, and waits no longer than its deadline."""
    man.tamper = MESSAGES[tampering]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await make(channel, "Unary", [], wait=0.3)
    assert caught.value.code() is C.DEADLINE_EXCEEDED


@pytest.mark.parametrize("kind", ["Unary", "Up"])
async def test_two_replies_to_a_call_that_takes_one(channel: MeshChannel, man: Man, kind: str) -> None:
    """A second message, even a sealed one, makes the reply an error: at once, or when time is up."""
    make_call: Any = channel.unary_unary if kind == "Unary" else channel.stream_unary
    request: Any = b"3" if kind == "Unary" else iter([b"3"])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await make_call(path("Down"))(request, timeout=0.5)
    # gRPC keeps back the status of a unary call while a message is unread.
    assert caught.value.code() is (C.DEADLINE_EXCEEDED if kind == "Unary" else C.INTERNAL)
    assert man.true[0].code is C.OK
    assert len(man.true[0].replies) == 3


async def test_no_reply_to_a_call_that_takes_one(channel: MeshChannel) -> None:
    """A sealed OK without its message is an error, never an empty message."""
    for make_call, request in ((channel.unary_unary, b"0"), (channel.stream_unary, iter([b"0"]))):
        call: Any = make_call(path("Down"))(request)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is C.INTERNAL


async def test_a_reply_that_never_comes(channel: MeshChannel, man: Man) -> None:
    """Whoever swallows a reply gains no more than the caller's deadline."""
    hold = asyncio.Event()

    def swallow(_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        async def wait(_requests: AsyncIterator[bytes], _context: Any) -> None:
            await hold.wait()

        return grpc.stream_stream_rpc_method_handler(wait)

    man.service = swallow  # type: ignore[method-assign,assignment]
    for method in ("Unary", "Down", "Both", "Up"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await make(channel, method, [], wait=0.1)
        assert caught.value.code() is C.DEADLINE_EXCEEDED


def test_what_is_here_called_the_applications() -> None:
    """The seals are the mesh's, and all else in these replies the application's."""
    assert application_entries(((END, b""), (INITIAL, b""), ("x-lie", LIE))) == (("x-lie", LIE),)
