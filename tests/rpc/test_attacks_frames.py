"""Attacks on the messages of a request: changed, dropped, doubled, swapped, moved, cut, with forged ends.

Whatever was verified before the attack may have reached the handler; nothing after it does, and no tampered
stream ever looks whole.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from mesh.core.errors import Cause
from mesh.core.names import InstanceId, ServiceName
from mesh.core.wire import EMPTY, END, encode_frame
from mesh.rpc.membership import Membership, Rejection
from mesh.rpc.server import MeshServer
from tests.rpc.app import Echo, path
from tests.rpc.attack import Attacker, Captured, capture, eventually, finish

C = grpc.StatusCode
MESSAGES = [b"zero", b"one", b"", b"three"]

Tamper = Callable[[tuple[bytes, ...]], tuple[bytes, ...]]


@pytest.fixture
def to(callee: Membership) -> tuple[ServiceName, InstanceId]:
    """Say for whom calls are sealed."""
    return callee.name, callee.instance


def flipped(frame: bytes, at: int) -> bytes:
    """Change one bit of one byte."""
    changed = bytearray(frame)
    changed[at] ^= 1 << (at % 8)
    return bytes(changed)


TAMPERINGS: dict[str, Tamper] = {
    "first dropped": lambda f: f[1:],
    "middle dropped": lambda f: (*f[:1], *f[2:]),
    "end dropped": lambda f: f[:-1],
    "all dropped": lambda _: (),
    "all but the end dropped": lambda f: f[-1:],
    "first doubled": lambda f: (f[0], *f),
    "last but one doubled": lambda f: (*f[:-1], f[-2], f[-1]),
    "swapped": lambda f: (f[1], f[0], *f[2:]),
    "reversed": lambda f: tuple(reversed(f)),
    "emptied": lambda f: (b"", *f[1:]),
    "plain message put in": lambda f: (f[0], b"plain", *f[1:]),
    "cut in the middle": lambda f: (f[0], f[1][: len(f[1]) // 2]),
    "byte appended": lambda f: (f[0] + b"\0", *f[1:]),
    "bare end forged": lambda f: (f[0], encode_frame(bytes(32), END | EMPTY, b"")),
    "end put on a message": lambda f: (f[0], encode_frame(f[1][2:34], END, b"one")),
    "end taken off": lambda f: (*f[:-1], encode_frame(f[-1][2:34], 0, b"three")),
    "message emptied into an end": lambda f: (f[0], encode_frame(f[1][2:34], END | EMPTY, b"")),
    "unknown flag": lambda f: (f[0], f[1][:35] + b"\x04" + f[1][36:], *f[2:]),
    "length made longer than it has to be": lambda f: (f[0][:37] + b"\x84\x00" + f[0][38:], *f[1:]),
}


@pytest.mark.parametrize("method", ["Up", "Both"])
@pytest.mark.parametrize("bare_end", [False, True])
@pytest.mark.parametrize("tampering", TAMPERINGS)
async def test_streams_tampered_with(
    attacker: Attacker,
    app: Echo,
    caller: Membership,
    to: tuple[ServiceName, InstanceId],
    rejected: list[Rejection],
    method: str,
    bare_end: bool,
    tampering: str,
) -> None:
    """A handler reads a true prefix, then an error, never an end; the error is sealed and says no cause."""
    captured = capture(caller, path(method), MESSAGES, to=to, bare_end=bare_end)
    frames = TAMPERINGS[tampering](captured.frames)
    answer = await attacker.replay(captured.but(frames=frames))
    assert app.ends == 0
    assert app.seen == MESSAGES[: len(app.seen)]
    assert (answer.code, answer.reason) == (C.UNAUTHENTICATED, "SEAL_REJECTED")
    assert answer.sealed
    assert [r.cause for r in rejected] in ([Cause.BAD_FRAME], [Cause.CUT_SHORT], [Cause.MALFORMED])
    assert captured.seal is not None
    assert rejected[0].id == answer.call_id == captured.seal.id


async def test_every_byte_of_a_frame_changed(
    attacker: Attacker, app: Echo, caller: Membership, to: tuple[ServiceName, InstanceId]
) -> None:
    """No byte of a frame can be changed: a message gets to its handler as it was sent, or not at all."""
    size = len(capture(caller, path("Unary"), to=to).frames[0])
    for at in range(size):
        captured = capture(caller, path("Unary"), to=to)
        answer = await attacker.replay(captured.but(frames=(flipped(captured.frames[0], at),)))
        assert answer.reason == "SEAL_REJECTED"
    assert app.calls == []


@pytest.mark.parametrize(
    "tampering",
    ["end dropped", "all dropped", "emptied", "byte appended", "length made longer than it has to be"],
)
async def test_unary_requests_tampered_with(
    attacker: Attacker,
    app: Echo,
    caller: Membership,
    to: tuple[ServiceName, InstanceId],
    rejected: list[Rejection],
    tampering: str,
) -> None:
    """A handler of single messages is not even called."""
    for method in ("Unary", "Down"):
        captured = capture(caller, path(method), [b"3"], to=to)
        answer = await attacker.replay(captured.but(frames=TAMPERINGS[tampering](captured.frames)))
        assert (answer.reason, answer.sealed) == ("SEAL_REJECTED", True)
    assert app.calls == []
    assert len(rejected) == 2


async def test_two_messages_in_a_unary_call(
    attacker: Attacker, app: Echo, caller: Membership, to: tuple[ServiceName, InstanceId]
) -> None:
    """A call of one message that has two, or none, is its source's mistake, and is told so under seal."""
    for method in ("Unary", "Down"):
        for messages in ([b"1", b"2"], [b"1", b"2", b"3"], []):
            answer = await attacker.replay(capture(caller, path(method), messages, to=to))
            assert (answer.code, answer.sealed) == (C.INVALID_ARGUMENT, True)
            assert answer.details == "this method takes exactly one message"
    assert app.calls == []


async def test_one_message_and_a_bare_end_are_a_unary_call(
    attacker: Attacker, app: Echo, caller: Membership, to: tuple[ServiceName, InstanceId]
) -> None:
    """How the end of a request travels is the sender's choice."""
    answer = await attacker.replay(capture(caller, path("Unary"), [b"m"], to=to, bare_end=True))
    assert (answer.code, app.seen) == (C.OK, [b"m"])


@pytest.mark.parametrize("method", ["Unary", "Up", "Both"])
async def test_frames_appended_after_the_end(
    attacker: Attacker, app: Echo, caller: Membership, to: tuple[ServiceName, InstanceId], method: str
) -> None:
    """What follows the sealed end is not read: the call is what its source made of it."""
    captured = capture(caller, path(method), [b"m"], to=to)
    second = capture(caller, path(method), [b"x"], to=to)
    for extra in (captured.frames, second.frames, (b"junk",)):
        one = capture(caller, path(method), [b"m"], to=to)
        answer = await attacker.replay(one.but(frames=(*one.frames, *extra)))
        assert (answer.code, answer.sealed) == (C.OK, True)
    assert app.seen == [b"m"] * 3


async def test_frames_of_other_calls(
    attacker: Attacker, app: Echo, caller: Membership, to: tuple[ServiceName, InstanceId]
) -> None:
    """A frame belongs to one call, one direction and one place."""
    first = capture(caller, path("Both"), [b"first", b"second"], to=to)
    second = capture(caller, path("Both"), [b"other", b"stolen"], to=to)
    assert first.seal is not None
    reflected = first.seal.reply_sealer()
    reflected.seal(b"")
    for frames in (
        second.frames,
        (first.frames[0], second.frames[1]),
        (first.frames[0], reflected.seal(b"reply")),
    ):
        app.seen.clear()
        captured = capture(caller, path("Both"), [b"first", b"second"], to=to)
        answer = await attacker.replay(captured.but(frames=frames))
        assert answer.reason == "SEAL_REJECTED"
    assert app.seen == []
    answer = await attacker.replay(first.but(frames=(first.frames[0], second.frames[1])))
    assert (answer.reason, app.seen, app.ends) == ("SEAL_REJECTED", [b"first"], 0)


async def test_a_replies_frame_sent_back_as_a_request(
    attacker: Attacker, app: Echo, caller: Membership, to: tuple[ServiceName, InstanceId]
) -> None:
    """What the callee seals in reply is no request, within the very same call."""
    captured = capture(caller, path("Both"), [b"a", b"b"], to=to)
    call = attacker.open(captured)
    await call.write(captured.frames[0])
    reply = await call.read()
    answer = await finish(call, (reply,))
    assert answer.reason == "SEAL_REJECTED"
    assert (app.seen, app.ends) == ([b"a"], 0)


async def test_a_stream_cut_by_half_closing(
    attacker: Attacker, app: Echo, caller: Membership, to: tuple[ServiceName, InstanceId]
) -> None:
    """The transport's half-close is not the end: a stream without its sealed end failed."""
    captured = capture(caller, path("Up"), [b"a", b"b", b"c"], to=to, bare_end=True)
    answer = await attacker.replay(captured.but(frames=captured.frames[:3]))
    assert (answer.reason, app.seen, app.ends) == ("SEAL_REJECTED", [b"a", b"b", b"c"], 0)


async def test_a_stream_cut_by_cancelling(
    attacker: Attacker, server: MeshServer, app: Echo, caller: Membership, to: tuple[ServiceName, InstanceId]
) -> None:
    """A reset in mid-stream ends the handler, and not well."""
    captured = capture(caller, path("Hold"), [b"a", b"b"], to=to)
    call = attacker.open(captured)
    await call.write(captured.frames[0])
    await app.waiting.wait()
    call.cancel()
    await asyncio.wait_for(app.cancelled.wait(), 5)
    await eventually(lambda: not server.open_calls)
    assert (app.seen, app.ends) == ([b"a"], 0)


CLIENT = """
import asyncio, sys
import grpc
async def main(port, sealed, *frames):
    ca, key, chain = (open(name, "rb").read() for name in ("ca", "key", "chain"))
    credentials = grpc.ssl_channel_credentials(ca, key, chain)
    options = (("grpc.ssl_target_name_override", "callee.test.example"),)
    channel = grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options)
    call = channel.stream_stream("/test.v1.Echo/Hold")(metadata=(("mesh-call-bin", bytes.fromhex(sealed)),))
    for frame in frames:
        await call.write(bytes.fromhex(frame))
    await call.read()
    print("waiting", flush=True)
    await call.read()
asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_caller_killed_in_mid_stream(
    server: MeshServer,
    app: Echo,
    caller: Membership,
    to: tuple[ServiceName, InstanceId],
    tmp_path: Path,
) -> None:
    """When the caller's process is killed, the handler sees no normal end."""
    captured: Captured = capture(caller, path("Hold"), [b"a", b"b"], to=to)
    svid = caller.svid
    for name, data in (("ca", svid.bundle_pem), ("key", svid.key_pem), ("chain", svid.chain_pem)):
        (tmp_path / name).write_bytes(data)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(CLIENT),
        str(server.port),
        captured.sealed.hex(),
        captured.frames[0].hex(),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 20) == b"waiting\n"
    os.kill(process.pid, signal.SIGKILL)
    await process.wait()
    await asyncio.wait_for(app.cancelled.wait(), 5)
    await eventually(lambda: not server.open_calls)
    assert (app.seen, app.ends) == ([b"a"], 0)
