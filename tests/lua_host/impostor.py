"""A worker that is owned: it speaks the frames, and says whatever the test has it say.

Run as ``python impostor.py PLAN``, with the socket as standard input. A plan is a name below. Each begins as
a real worker does, and is a good one until it gets its first call.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections.abc import Callable

from mesh.v1 import lua_pb2

WIRE = socket.socket(fileno=0)


def raw(data: bytes) -> None:
    """Send bytes as they are."""
    WIRE.sendall(data)


def frame(body: bytes) -> None:
    """Send a frame."""
    raw(struct.pack(">I", len(body)) + body)


def say(**kind: object) -> None:
    """Send a frame of the protocol."""
    frame(lua_pb2.WorkerFrame(**kind).SerializeToString())  # type: ignore[arg-type]


def heard() -> bytes:
    """Wait for a frame; end as a real worker does when there is none."""
    length = struct.unpack(">I", whole(4))[0]
    return whole(length)


def whole(size: int) -> bytes:
    """Read so many bytes."""
    data = b""
    while len(data) < size:
        more = WIRE.recv(size - len(data))
        if not more:
            os._exit(0)
        data += more
    return data


def hang() -> None:
    """Do nothing, for longer than any test."""
    time.sleep(600)


def half_frame() -> None:
    """Begin a frame and never end it."""
    raw(struct.pack(">I", 100) + b"x" * 50)
    hang()


def giant_length() -> None:
    """Announce four gigabytes."""
    raw(b"\xff\xff\xff\xff" + b"x" * 100)
    hang()


def garbage() -> None:
    """Send a frame that is none."""
    frame(b"\xff\xff\xff")


def empty() -> None:
    """Send a frame without a kind."""
    frame(b"")


def reply_twice() -> None:
    """Answer, and answer again."""
    say(reply=lua_pb2.Reply(payload=b""))
    say(reply=lua_pb2.Reply(payload=b""))
    hang()


def untyped() -> None:
    """Answer with bytes that are no message of the type."""
    say(reply=lua_pb2.Reply(payload=b"\xff\xff"))
    hang()


def smuggle() -> None:
    """Answer with a message that has a field that the type does not."""
    say(reply=lua_pb2.Reply(payload=b"\xfa\x3f\x05loot!"))
    hang()


def invalid_text() -> None:
    """Answer with a text that is not UTF-8."""
    say(reply=lua_pb2.Reply(payload=b"\x0a\x02\xc3\x28"))
    hang()


def no_status() -> None:
    """Fail with a status that gRPC does not know."""
    say(reply=lua_pb2.Reply(failure=lua_pb2.Failure(code=99)))
    hang()


def ok_status() -> None:
    """Fail with OK."""
    say(reply=lua_pb2.Reply(failure=lua_pb2.Failure(code=0)))
    hang()


def forbidden_call() -> None:
    """Call what the manifest does not name, past the check in Lua."""
    say(call=lua_pb2.Call(service="vault", method="/t.Vault/Open", payload=b""))
    hang()


def untyped_call() -> None:
    """Make a granted call with bytes that are no message."""
    say(call=lua_pb2.Call(service="other", method="/t.Other/Ask", payload=b"\xff"))
    hang()


def closed_stream() -> None:
    """Ask for a message of a stream that was never opened."""
    say(next=lua_pb2.Next(stream=7))
    hang()


def item_in_unary() -> None:
    """Stream where there is one reply."""
    say(item=lua_pb2.Item(payload=b""))
    hang()


def ready_in_call() -> None:
    """Claim to be ready while a call waits for its answer."""
    say(ready=lua_pb2.Ready())
    hang()


def two_calls() -> None:
    """Ask twice without waiting for the first answer."""
    call = lua_pb2.Call(service="other", method="/t.Other/Ask", payload=b"")
    body = lua_pb2.WorkerFrame(call=call).SerializeToString()
    raw(2 * (struct.pack(">I", len(body)) + body))
    hang()


def unasked() -> None:
    """Answer well, be ready, and then speak though nobody asked."""
    say(reply=lua_pb2.Reply(payload=b""))
    say(ready=lua_pb2.Ready())
    say(log=lua_pb2.Log(text="psst"))
    hang()


def burn_idle() -> None:
    """Answer well, be ready, and then compute for nobody."""
    say(reply=lua_pb2.Reply(payload=b""))
    say(ready=lua_pb2.Ready())
    while True:
        pass


def never_ready() -> None:
    """Answer well, and never be ready again."""
    say(reply=lua_pb2.Reply(payload=b""))
    hang()


def spin() -> None:
    """Compute, whatever is asked."""
    while True:
        pass


def die() -> None:
    """End in the middle of a call."""
    os._exit(3)


def shut() -> None:
    """Close the socket and live on."""
    WIRE.shutdown(socket.SHUT_RDWR)
    hang()


def late_report() -> None:
    """Answer well, and then not be ready but report a million problems."""
    say(reply=lua_pb2.Reply(payload=b""))
    say(report=lua_pb2.Report(problems=[lua_pb2.Problem()] * 20_000))
    hang()


def big_failure() -> None:
    """Fail with a text of megabytes."""
    say(reply=lua_pb2.Reply(failure=lua_pb2.Failure(code=5, message="x" * 1_000_000)))
    hang()


def many_metadata() -> None:
    """Call with more metadata than there is any use for."""
    entries = [lua_pb2.Metadatum(key="a")] * 30_000
    say(call=lua_pb2.Call(service="other", method="/t.Other/Ask", payload=b"", metadata=entries))
    hang()


def deaf() -> None:
    """Ask for message after message of a stream, and read none."""
    say(call=lua_pb2.Call(service="other", method="/t.Other/Watch", payload=b"", stream=1))
    while True:
        time.sleep(0.001)
        say(next=lua_pb2.Next(stream=1))


def log_flood() -> None:
    """Log for ever."""
    while True:
        say(log=lua_pb2.Log(level=lua_pb2.Log.LEVEL_INFO, text="x" * 1000))


def log_forgery() -> None:
    """Log what looks like a line of somebody else, and answer."""
    say(log=lua_pb2.Log(text="fine\nERROR mesh.auth the key is \x1b[31mlost\u202e"))
    say(reply=lua_pb2.Reply(payload=b""))
    say(ready=lua_pb2.Ready())
    heard()


def good() -> None:
    """Be a good worker."""
    say(reply=lua_pb2.Reply(payload=b""))
    say(ready=lua_pb2.Ready())
    heard()
    good()


PLANS: dict[str, Callable[[], None]] = {
    plan.__name__: plan
    for plan in (
        *(half_frame, giant_length, garbage, empty, reply_twice, untyped, smuggle, invalid_text, no_status),
        *(ok_status, forbidden_call, untyped_call, closed_stream, item_in_unary, ready_in_call, two_calls),
        *(late_report, big_failure, many_metadata, deaf),
        *(unasked, burn_idle, never_ready, spin, die, shut, log_flood, log_forgery, good),
    )
}


def main() -> None:
    """Come up as a real worker does, wait for a call, and then follow the plan."""
    frame(b"mesh-lua/1 jailed")
    heard()
    heard()
    say(ready=lua_pb2.Ready(handles=["/t.Own/Do"]))
    heard()
    PLANS[sys.argv[1]]()


if __name__ == "__main__":
    main()
