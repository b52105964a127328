"""Floods at a node's port, from this host's own address and another: hung up on, shut out, others served."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import grpc
import pytest

from bench.attacks import ATTACKS, PING, frame, opening
from mesh.core import conduct
from mesh.core.matcher import Matcher
from mesh.core.policy import Section
from mesh.core.revoked import Revoked
from mesh.rpc import lasting
from mesh.rpc.channel import MeshChannel
from mesh.rpc.lines import Lines, filtering, peer_of
from mesh.rpc.membership import Membership, Rejection
from mesh.rpc.server import MeshServer
from mesh.rpc.warden import OWN, Warden, address_of
from tests.rpc.app import Echo, path
from tests.rpc.attack import Attacker, capture, eventually, hung_up_for_a_bomb
from tests.rpc.http2 import tls
from tests.rpc.pair import World

NEAR, AWAY = "127.0.0.65", "127.0.0.66"
PATIENCE = 20.0
#: What a flood sends before this test gives up.
MOST = 64 * 1024 * 1024


Opened = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def opened(port: int, context: ssl.SSLContext | None, source: str) -> Opened:
    """Connect from an address of this host."""
    name = "callee.test.example" if context else None
    return await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=name, local_addr=(source, 0)
    )


async def connected(port: int, context: ssl.SSLContext | None, source: str) -> asyncio.StreamWriter:
    """Connect, to send only."""
    return (await opened(port, context, source))[1]


async def flood(attack: str, port: int, context: ssl.SSLContext, source: str) -> int:
    """Attack until hung up on; give what was sent, or fail."""
    writer, sent = await connected(port, context, source), 0
    with suppress(OSError):
        async with asyncio.timeout(PATIENCE):
            for piece in ATTACKS[attack].what(path("Unary")):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.001)  # the server has this very loop
                sent += len(piece)
                assert sent < MOST, "nobody hung up"
            await writer.wait_closed()
    writer.transport.abort()
    return sent


FRAMES = ("rapid reset", "endless header", "CONTINUATION", "header bomb", "SETTINGS", "PING", "empty calls")


@pytest.mark.parametrize("source", ["127.0.0.1", AWAY])
@pytest.mark.parametrize("attack", FRAMES)
async def test_a_flood(
    server: MeshServer, channel: MeshChannel, app: Echo, caller: Membership, attack: str, source: str
) -> None:
    """Who floods is hung up on; an address of its own cannot connect again; others' calls go on."""
    held = channel.stream_stream(path("Hold"))()
    await held.write(b"one")
    assert await held.read() == b"one"
    context = tls(caller.svid)
    sent = await flood(attack, server.port, context, source)
    assert sent < MOST
    if source == AWAY and attack not in BY_GRPC:
        await eventually(lambda: AWAY in server._listener.warden._out)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connected(server.port, None, AWAY), 0.3)
    assert await channel.unary_unary(path("Unary"))(b"m", timeout=50, wait_for_ready=True) == b"m"
    app.go_on.set()
    await held.write(b"two")
    assert await held.read() == b"two"
    await held.done_writing()


#: What gRPC may itself hang up on before we do.
BY_GRPC = ("CONTINUATION", "endless header")


async def test_a_header_bomb_is_hung_up_on_at_once(
    server: MeshServer, caller: Membership, rejected: list[Rejection]
) -> None:
    """It is seen before anything reads it: nothing of the second call it makes is refused, or looked at."""
    await hung_up_for_a_bomb(server.port, path("Unary"), tls(caller.svid), AWAY)
    assert server._listener.warden._out == {AWAY}
    assert len(rejected) <= 1  # the first call, which has gRPC remember the header


async def test_what_was_sent_before_is_dropped(
    server: MeshServer, caller: Membership, rejected: list[Rejection]
) -> None:
    """Of thousands of calls that were received before who sent them was hung up on, none more is refused."""
    await flood("empty calls", server.port, tls(caller.svid), AWAY)
    assert conduct.BURST < len(rejected) <= conduct.BURST + 5 * conduct.REFILL


@pytest.fixture
async def translated(world: World, server: MeshServer, callee: Membership) -> AsyncIterator[str]:
    """Stand before the server as a NAT does, and give the one address that all behind it come from."""
    writers: list[asyncio.StreamWriter] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(1 << 16):
                writer.write(piece)
                await writer.drain()
        writer.transport.abort()

    async def translate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with suppress(OSError):
            far = await asyncio.open_connection("127.0.0.1", server.port, local_addr=(NEAR, 0))
            writers.append(far[1])
            await asyncio.gather(carry(reader, far[1]), carry(far[0], writer))
        writer.transport.abort()

    async with await asyncio.start_server(translate, "127.0.0.1", 0) as nat:
        world.directory.put(callee, f"127.0.0.1:{nat.sockets[0].getsockname()[1]}")
        yield NEAR
        for writer in writers:
            writer.transport.abort()


async def pinged(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """See that a connection is there: a ping on it is answered."""
    writer.write(opening() + frame(PING, 0, 0, b"pingpong"))
    async with asyncio.timeout(PATIENCE):
        await reader.readuntil(frame(PING, 1, 0, b"pingpong"))


@pytest.mark.parametrize("attack", ["empty calls", "SETTINGS"])
async def test_a_member_behind_the_same_address(
    server: MeshServer, channel: MeshChannel, app: Echo, caller: Membership, translated: str, attack: str
) -> None:
    """Who floods behind a member's address is hung up on, nobody else there; a stranger is shut out."""
    context, warden = tls(caller.svid), server._listener.warden
    assert await channel.unary_unary(path("Unary"))(b"m", timeout=50) == b"m"
    held = channel.stream_stream(path("Hold"))()
    await held.write(b"one")
    assert await held.read() == b"one"
    quiet = await opened(server.port, context, translated)
    for _ in range(2):
        assert await flood(attack, server.port, context, translated) < MOST
    assert warden._hung_up == 2
    assert translated not in warden._out
    await pinged(*quiet)
    quiet[1].transport.abort()
    app.go_on.set()
    await held.write(b"two")
    assert await held.read() == b"two"
    await held.done_writing()
    again = await connected(server.port, context, translated)
    again.transport.abort()
    assert await flood(attack, server.port, context, AWAY) < MOST
    await eventually(lambda: warden._out == {AWAY})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(connected(server.port, None, AWAY), 0.3)
    assert await channel.unary_unary(path("Unary"))(b"m", timeout=50, wait_for_ready=True) == b"m"


async def test_an_address_where_no_member_has_called_yet(
    server: MeshServer,
    channel: MeshChannel,
    caller: Membership,
    translated: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A flood shuts it out; a member there is let in when that ends, and from then on is safe."""
    monkeypatch.setattr(conduct, "FIRST_OUT", 0.3)
    context, warden = tls(caller.svid), server._listener.warden
    await flood("SETTINGS", server.port, context, translated)
    await eventually(lambda: translated in warden._out)
    assert await channel.unary_unary(path("Unary"))(b"m", timeout=50, wait_for_ready=True) == b"m"
    await eventually(lambda: not warden._out)
    await flood("SETTINGS", server.port, context, translated)
    assert await channel.unary_unary(path("Unary"))(b"m", timeout=50) == b"m"
    assert not warden._out


@pytest.mark.parametrize("revoked", [False, True])
async def test_denied_calls(
    server: MeshServer, channel: MeshChannel, caller: Membership, callee: Membership, revoked: bool
) -> None:
    """They excuse what came with them, but not a revoked caller's; and they vouch for nobody."""
    callee.authorize, warden = Matcher(Section.parse(b"{}")).permit, server._listener.warden
    vars(warden)["_look"] = lambda *_: None
    if revoked:
        callee.receiver.revoke(Revoked({caller.instance: caller.clock.now_ms() + 60_000}))
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await channel.unary_unary(path("Unary"))(b"m", timeout=50)
    assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
    heard = [] if revoked else [(False, False)]
    assert [(one.vouches(), one.look(9 * conduct.STRANGE)) for one in warden._kept.values()] == heard


async def test_half_open_streams(server: MeshServer, channel: MeshChannel, caller: Membership) -> None:
    """Streams that are opened without a seal are refused, and who opens hundreds is hung up on."""
    await flood("half-open streams", server.port, tls(caller.svid), AWAY)
    await eventually(lambda: AWAY in server._listener.warden._out)
    assert await channel.unary_unary(path("Unary"))(b"m", timeout=50, wait_for_ready=True) == b"m"
    assert server.open_calls == set()


async def test_an_address_comes_back(
    server: MeshServer, caller: Membership, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was shut out connects again when its time is over."""
    monkeypatch.setattr(conduct, "FIRST_OUT", 0.3)
    await flood("SETTINGS", server.port, tls(caller.svid), AWAY)
    writer = await asyncio.wait_for(connected(server.port, tls(caller.svid), AWAY), PATIENCE)
    writer.transport.abort()


async def test_a_large_upload_is_no_flood(server: MeshServer, channel: MeshChannel, app: Echo) -> None:
    """A call has all the bytes it likes, also while its handler reads none of them."""
    call = channel.stream_stream(path("Hold"))()
    await call.write(b"one")
    assert await call.read() == b"one"
    looks = server._listener.warden
    seen: list[float] = []
    look = looks._look

    def counted(lines: Lines, now: float) -> None:
        seen.append(now)
        look(lines, now)

    vars(looks)["_look"] = counted
    sending = asyncio.ensure_future(call.write(bytes(3_000_000)))
    await eventually(lambda: len(seen) > 2 * conduct.LOOKS)
    app.go_on.set()
    await sending
    assert await call.read() == bytes(3_000_000)
    await call.done_writing()
    assert not looks._hung_up


async def test_calls_that_come_too_late_are_no_nuisance(
    world: World, server: MeshServer, attacker: Attacker, caller: Membership, callee: Membership
) -> None:
    """A caller of ours whose calls are sealed as they should be may be late however often."""
    to = (callee.name, callee.instance)
    captured = [capture(caller, path("Unary"), to=to, wait=2.0) for _ in range(int(conduct.BURST) * 2)]
    world.clock.set(world.clock.now_ms() + 10_000)
    for one in captured:
        assert (await attacker.replay(one)).code is grpc.StatusCode.UNAUTHENTICATED
    assert not server._listener.warden._hung_up


@pytest.fixture
async def listening() -> AsyncIterator[tuple[socket.socket, int]]:
    """Listen on a port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener, listener.getsockname()[1]


def _connect(port: int, source: str) -> socket.socket:
    found = socket.socket()
    found.settimeout(0.3)
    try:
        found.bind((source, 0))
        found.connect(("127.0.0.1", port))
    except OSError:
        found.close()
        raise
    return found


async def test_lines_of_a_port(listening: tuple[socket.socket, int]) -> None:
    """Accepted connections are known by their peers, with what they have received; others are not ours."""
    listener, port = listening
    lines = Lines(port)
    assert lines.received() == {}
    with _connect(port, AWAY) as near, listener.accept()[0] as far:
        near.sendall(b"x" * 1000)
        far.recv(1)
        peer = peer_of(near.getsockname())
        assert peer == f"ipv4:{AWAY}:{near.getsockname()[1]}"
        assert lines.received() == {peer: 1000}
        assert lines.hang_up(peer)
        assert not lines.hang_up(peer)
        with pytest.raises(ConnectionResetError):
            far.recv(1)
        with pytest.raises(ConnectionResetError):
            near.recv(1)


async def test_only_those_named_are_shut_out(listening: tuple[socket.socket, int]) -> None:
    """An address is kept from connecting, and those beside it are not; then it is let in again."""
    _, port = listening
    lines = Lines(port)
    lines.shut_out({AWAY, "127.0.0.68", "2001:db8::/64"})
    for refused in (AWAY, "127.0.0.68"):
        with pytest.raises(TimeoutError):
            _connect(port, refused)
    for taken in ("127.0.0.1", NEAR, "127.0.0.67"):
        _connect(port, taken).close()
    lines.shut_out(())
    _connect(port, AWAY).close()


def test_a_program_is_within_the_kernels_bounds() -> None:
    """However many are shut out, the filter has fewer than 4096 instructions."""
    many = [f"10.0.{one // 256}.{one % 256}" for one in range(2000)]
    assert len(filtering([*many, *(f"2001:db8:0:{one:x}::/64" for one in range(2000))])) < 4096 * 8


@pytest.mark.parametrize(
    ("name", "peer", "address"),
    [
        (("192.0.2.1", 5), "ipv4:192.0.2.1:5", "192.0.2.1"),
        (("::ffff:192.0.2.1", 5), "ipv4:192.0.2.1:5", "192.0.2.1"),
        (("2001:db8::1", 5), "ipv6:%5B2001:db8::1%5D:5", "2001:db8::1/64"),
        (("::1", 5), "ipv6:%5B::1%5D:5", "::1/64"),
    ],
)
def test_names_of_peers(name: tuple[str, int], peer: str, address: str) -> None:
    """Peers are written as gRPC writes them, and held to account by address or network."""
    assert peer_of(name) == peer
    assert address_of(peer) == address
    assert (address in OWN) == (name[0] == "::1")


async def test_sockets_are_not_watched() -> None:
    """What comes by a unix socket is of one user, and neither counted nor hung up on."""
    warden = Warden()
    for _ in range(1000):
        warden.refused("unix:")
        warden.took("unix:")
    await warden.keep()
    assert not warden._hung_up


def test_unused_connections_do_not_stay() -> None:
    """A server hangs up on handshakes that do not end, peers that do not answer, and connections unused."""
    options: Callable[[str], int] = dict(lasting.OPTIONS).__getitem__
    assert options("grpc.server_handshake_timeout_ms") <= 10_000
    assert options("grpc.keepalive_time_ms") + options("grpc.keepalive_timeout_ms") <= 80_000
    assert options("grpc.max_connection_idle_ms") <= 900_000
