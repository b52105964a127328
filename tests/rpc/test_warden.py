"""Floods at a node's port, from this host's own address and another: hung up on, shut out, others served."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import grpc
import pytest

from bench.attacks import ATTACKS
from mesh.core import conduct
from mesh.rpc import lasting
from mesh.rpc.channel import MeshChannel
from mesh.rpc.lines import Lines, filtering, peer_of
from mesh.rpc.membership import Membership
from mesh.rpc.server import MeshServer
from mesh.rpc.warden import OWN, Warden, address_of
from tests.rpc.app import Echo, path
from tests.rpc.attack import Attacker, capture, eventually
from tests.rpc.http2 import tls
from tests.rpc.pair import World

AWAY = "127.0.0.66"
PATIENCE = 20.0
#: What a flood sends before this test gives up.
MOST = 64 * 1024 * 1024


async def connected(port: int, context: ssl.SSLContext | None, source: str) -> asyncio.StreamWriter:
    """Connect from an address of this host."""
    name = "callee.test.example" if context else None
    _, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname=name, local_addr=(source, 0)
    )
    return writer


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
BY_GRPC = ("CONTINUATION", "PING", "endless header", "header bomb")


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
    for taken in ("127.0.0.1", "127.0.0.65", "127.0.0.67"):
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
