"""Raw HTTP/2, and worse, at a node's port: it stays up, dispatches nothing, and serves the next good call."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import AsyncIterator

import grpc
import pytest

from mesh.core.metadata import CALL
from mesh.rpc.channel import MeshChannel
from mesh.rpc.membership import Membership
from mesh.rpc.server import MeshServer
from tests.rpc.app import Echo, path
from tests.rpc.attack import capture
from tests.rpc.http2 import PREFACE, Http2, grpc_message, headers, http2_frame, tls
from tests.rpc.test_lasting import ENDS

UNARY = path("Unary").encode()
BAD_PATHS = [
    b"",
    b"/",
    b"*",
    UNARY[1:],
    b"/" + UNARY,
    UNARY.replace(b"/Unary", b"//Unary"),
    UNARY + b"/",
    UNARY + b" ",
    b" " + UNARY,
    UNARY + b"\t",
    UNARY + b"\0",
    UNARY[:5] + b"\0" + UNARY[5:],
    UNARY + b"\r\nx-injected: 1",
    UNARY + b"?query=1",
    UNARY + b"#fragment",
    UNARY + b";v=1",
    b"https://callee" + UNARY,
    b"/x/.." + UNARY,
    b"/." + UNARY,
    UNARY.replace(b"/Unary", b"/../test.v1.Echo/Unary"),
    UNARY.replace(b"/Unary", b"%2FUnary"),
    UNARY.replace(b"/Unary", b"/%55nary"),
    UNARY.replace(b"/", b"\\"),
    UNARY.upper(),
    UNARY.lower(),
    UNARY.replace(b"Unary", b"Un\xc3\xa4ry"),
    UNARY.replace(b"Unary", b"Unary\xff"),
    UNARY + b"x" * 600,
    b"/" + b"a" * 20_000 + b"/M",
    b"/mesh.v1.NodeService/hello",
    b"/mesh.v1.NodeService/Hello/",
]


@pytest.fixture
def context(caller: Membership) -> ssl.SSLContext:
    """Show ``caller``'s certificate."""
    return tls(caller.svid)


@pytest.fixture
async def line(server: MeshServer, context: ssl.SSLContext) -> AsyncIterator[Http2]:
    """Open a connection to the server."""
    line = await Http2.connect(server.port, context)
    yield line
    await line.close()


def sealed(
    caller: Membership, callee: Membership, message: bytes = b"m"
) -> tuple[tuple[bytes, bytes], bytes]:
    """Give the header and the body of a good call."""
    captured = capture(caller, UNARY.decode(), [message], to=(callee.name, callee.instance))
    return (CALL.encode(), base64.b64encode(captured.sealed)), grpc_message(captured.frames[0])


async def assert_serving(channel: MeshChannel, app: Echo, *, lost: int = 0) -> None:
    """Nothing was dispatched so far, and a good call passes, of which ``lost`` may be told to try again."""
    assert app.calls == []
    for chance in range(lost, -1, -1):
        call = channel.unary_unary(path("Unary"))(b"good", timeout=10, wait_for_ready=True)
        if chance and await call.code() is grpc.StatusCode.UNAVAILABLE:
            continue
        assert await call == b"good"
        return


async def test_a_good_call_by_hand(line: Http2, app: Echo, caller: Membership, callee: Membership) -> None:
    """What is sent here by hand is taken where it is whole."""
    seal, body = sealed(caller, callee)
    await line.start()
    answer = await line.response(await line.request(headers(UNARY, seal), body))
    assert answer is not None
    assert answer[b"grpc-status"] == b"0"
    assert app.seen == [b"m"]


async def test_bad_paths(
    server: MeshServer,
    context: ssl.SSLContext,
    channel: MeshChannel,
    app: Echo,
    caller: Membership,
    callee: Membership,
) -> None:
    """No spelling of a path but the sealed one gets anywhere, whatever HTTP would make of it."""
    for bad in BAD_PATHS:
        line = await Http2.connect(server.port, context)
        await line.start()
        seal, body = sealed(caller, callee)
        answer = await line.response(await line.request(headers(bad, seal), body))
        assert app.calls == [], bad
        assert answer is None or answer.get(b"grpc-status") != b"0", bad
        await line.close()
    await assert_serving(channel, app)


async def test_a_path_that_ends_grpcs_own_loop(
    server: MeshServer, context: ssl.SSLContext, channel: MeshChannel, app: Echo
) -> None:
    """A path that is not UTF-8 stops grpc.aio's server for good, but not ours: nor the calls in progress.

    A call that was on its way to gRPC's loop as it ended is lost, with a status that says to try again.
    """
    call = channel.stream_stream(path("Hold"))()
    await call.write(b"one")
    assert await call.read() == b"one"
    for _ in range(3):
        app.calls.clear()
        line = await Http2.connect(server.port, context)
        await line.start()
        stream = await line.request(headers(b"/test.v1.Echo/\xff"))
        await (line.until_goaway() if ENDS else line.response(stream))
        await line.close()
        await assert_serving(channel, app, lost=1)
        with pytest.raises(OSError, match="cannot listen"):
            MeshServer(server._membership, f"127.0.0.1:{server.port}")
    app.go_on.set()
    await call.write(b"two")
    assert await call.read() == b"two"
    await call.done_writing()
    assert await call.read() == grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize(
    "join",
    [
        lambda a, b: [a + b"," + b],
        lambda a, b: [a + b", " + b],
        lambda a, _: [a + b","],
        lambda a, _: [b"," + a],
        lambda a, b: [a, b],
        lambda a, _: [a, a],
        lambda a, _: [a + a],
        lambda a, _: [a[:-8] + b"!!!!" + a[-4:]],
        lambda a, _: [b"\0" + base64.b64decode(a) + b","],
        lambda _, __: [b""],
    ],
)
async def test_seals_joined_as_http_allows(
    line: Http2, channel: MeshChannel, app: Echo, caller: Membership, callee: Membership, join: object
) -> None:
    """Two values of the seal's key, as two headers or as one with a comma, are no seal."""
    (key, first), body = sealed(caller, callee)
    (_, second), _ = sealed(caller, callee)
    assert callable(join)
    seals = [(key, value) for value in join(first, second)]
    await line.start()
    answer = await line.response(await line.request(headers(UNARY, *seals), body))
    assert answer is None or answer.get(b"grpc-status") not in (None, b"0")
    await assert_serving(channel, app)


@pytest.mark.parametrize("change", [{b":method": b"GET"}, {b"content-type": b"text/html"}, {b"te": b"gzip"}])
async def test_what_is_not_grpc(
    line: Http2,
    channel: MeshChannel,
    app: Echo,
    caller: Membership,
    callee: Membership,
    change: dict[bytes, bytes],
) -> None:
    """A request that is no gRPC call leaves the server as it was."""
    seal, body = sealed(caller, callee)
    await line.start()
    altered = [(key, change.get(key, value)) for key, value in headers(UNARY, seal)]
    if (await line.response(await line.request(altered, body))) == {}:
        pytest.fail("no answer at all")
    app.calls.clear()  # gRPC forgives an unusual TE or content type: the seal was good
    await assert_serving(channel, app)


@pytest.mark.parametrize(
    "cut",
    [
        lambda body: body[:3],
        lambda body: body[:-1],
        lambda body: b"\0\xff\xff\xff\xff" + body[5:],
        lambda body: b"\1" + body[1:],
        lambda body: b"\2" + body[1:],
        lambda body: body + b"\0",
        lambda body: body + b"\0\0\0\0\5ab",
    ],
)
async def test_grpc_frames_broken(
    line: Http2, channel: MeshChannel, app: Echo, caller: Membership, callee: Membership, cut: object
) -> None:
    """Messages whose gRPC framing is broken are never handed on."""
    seal, body = sealed(caller, callee)
    await line.start()
    assert callable(cut)
    await line.response(await line.request(headers(UNARY, seal), cut(body)))
    assert set(app.seen) <= {b"m"}  # what follows a whole, sealed message is nothing
    app.calls.clear()
    await assert_serving(channel, app)


async def test_garbage_without_tls(server: MeshServer, channel: MeshChannel, app: Echo) -> None:
    """What does not speak TLS is hung up on."""
    for data in (b"GET / HTTP/1.1\r\n\r\n", PREFACE, os.urandom(4096), b"\x16\x03\x01\xff\xff" + bytes(2000)):
        line = await Http2.connect(server.port, None)
        await line.raw(data)
        await line.close()
    await assert_serving(channel, app)


async def test_no_certificate(
    server: MeshServer, channel: MeshChannel, app: Echo, caller: Membership
) -> None:
    """Without a certificate there is no connection, so not even an answer to Hello."""
    context = ssl.create_default_context(cadata=caller.svid.bundle_pem.decode())
    context.set_alpn_protocols(["h2"])
    line = await Http2.connect(server.port, context)
    await line.start()
    assert await line.response(await line.request(headers(b"/mesh.v1.NodeService/Hello"))) is None
    await line.close()
    await assert_serving(channel, app)


GARBAGE = {
    "nothing": b"",
    "half a preface": PREFACE[:10],
    "preface only": PREFACE,
    "http/1.1": b"POST /test.v1.Echo/Unary HTTP/1.1\r\nhost: callee\r\n\r\n",
    "random": os.urandom(8192),
    "zeros": bytes(65536),
    "preface, then random": PREFACE + http2_frame(4, 0, 0) + os.urandom(8192),
    "data on stream 0": PREFACE + http2_frame(4, 0, 0) + http2_frame(0, 0, 0, b"x" * 100),
    "headers on an even stream": PREFACE + http2_frame(4, 0, 0) + http2_frame(1, 5, 2, b"\x82"),
    "bad hpack": PREFACE + http2_frame(4, 0, 0) + http2_frame(1, 5, 1, b"\xff\xff\xff\xff\xff\xff"),
    "a frame of 16 MiB": PREFACE + http2_frame(4, 0, 0) + b"\xff\xff\xff\0\0\0\0\0\1" + bytes(100_000),
    "settings of odd length": PREFACE + http2_frame(4, 0, 0, b"\0" * 5),
    "window update of 0": PREFACE + http2_frame(4, 0, 0) + http2_frame(8, 0, 0, bytes(4)),
    "window overflow": PREFACE + http2_frame(4, 0, 0) + http2_frame(8, 0, 0, b"\x7f\xff\xff\xff") * 3,
    "reset of an idle stream": PREFACE + http2_frame(4, 0, 0) + http2_frame(3, 0, 99, bytes(4)),
    "continuation of nothing": PREFACE + http2_frame(4, 0, 0) + http2_frame(9, 4, 1, b"\x82"),
    "push promise": PREFACE + http2_frame(4, 0, 0) + http2_frame(5, 4, 1, b"\0\0\0\2\x82"),
    "unknown frames": PREFACE + http2_frame(4, 0, 0) + http2_frame(0xEE, 0xFF, 7, b"?" * 500) * 50,
}


@pytest.mark.parametrize("kind", GARBAGE)
async def test_garbage_inside_tls(line: Http2, channel: MeshChannel, app: Echo, kind: str) -> None:
    """A member that speaks nonsense harms only its own connection, and gets no call out of it."""
    await line.raw(GARBAGE[kind])
    await assert_serving(channel, app)


@pytest.mark.parametrize("size", [50_000, 1_000_000])
async def test_huge_headers(line: Http2, channel: MeshChannel, app: Echo, size: int) -> None:
    """Headers past the limit end their call, not the server."""
    await line.start()
    chunk = (b"x-big", b"v" * 8000)
    answer = await line.response(await line.request(headers(UNARY, *[chunk] * (size // 8000))))
    assert answer is None or answer.get(b"grpc-status") != b"0"
    await assert_serving(channel, app)


async def test_endless_continuation(line: Http2, channel: MeshChannel, app: Echo) -> None:
    """A header block that never ends (CVE-2024-27316 and kin) is cut off."""
    await line.start()
    await line.raw(http2_frame(1, 0, 1, b"\x83\x86\x84\x41"))
    block = b"\x00\x05x-big\x7f\xa1\x1e" + b"v" * 4000
    for _ in range(500):
        await line.raw(http2_frame(9, 0, 1, block))
    await line.until_closed()
    await assert_serving(channel, app)


async def test_rapid_reset(line: Http2, channel: MeshChannel, server: MeshServer, app: Echo) -> None:
    """Thousands of calls opened and reset at once (CVE-2023-44487) leave nothing behind."""
    await line.start()
    for _ in range(20):
        for _ in range(100):
            stream = line.h2.get_next_available_stream_id()
            line.h2.send_headers(stream, headers(UNARY))
            line.h2.reset_stream(stream)
        await line.flush()
    # gRPC sheds load while too many calls wait to be looked at: a good one may be told to try again.
    async with asyncio.timeout(20):
        while (
            await channel.unary_unary(path("Unary"))(b"", wait_for_ready=True).code()
            is not grpc.StatusCode.OK
        ):
            pass
    assert set(app.calls) == {"Unary"}
    assert app.seen == [b""]
    assert server.open_calls == set()


async def test_pings_and_settings_without_end(line: Http2, channel: MeshChannel, app: Echo) -> None:
    """Floods of control frames cost their own connection, no other."""
    await line.start()
    await line.raw(http2_frame(6, 0, 0, bytes(8)) * 5000)
    await line.raw(http2_frame(4, 0, 0, b"\0\4\0\0\xff\xff") * 2000)
    await assert_serving(channel, app)


async def test_many_connections_that_say_nothing(
    server: MeshServer, context: ssl.SSLContext, channel: MeshChannel, app: Echo
) -> None:
    """Idle connections, with and without TLS, keep nobody out."""
    plain = await asyncio.gather(*(Http2.connect(server.port, None) for _ in range(50)))
    idle = await asyncio.gather(*(Http2.connect(server.port, context) for _ in range(10)))
    await assert_serving(channel, app)
    for line in (*plain, *idle):
        await line.close()


async def test_a_call_that_never_sends_its_message(
    line: Http2, channel: MeshChannel, server: MeshServer, app: Echo, caller: Membership, callee: Membership
) -> None:
    """A call held open without its message is not dispatched, and goes with its connection."""
    seal, _ = sealed(caller, callee)
    await line.start()
    await line.request(headers(UNARY, seal), end=False)
    await assert_serving(channel, app)
    await line.close()
    app.calls.clear()
    await assert_serving(channel, app)
    assert server.open_calls == set() or app.calls == ["Unary"]
