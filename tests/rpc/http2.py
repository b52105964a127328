"""HTTP/2 as gRPC's own clients would never send it: a connection of raw bytes and of unchecked headers."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
from pathlib import Path
from typing import Any, Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from mesh.rpc.svid import Svid

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATIENCE = 10.0


def tls(svid: Svid) -> ssl.SSLContext:
    """Make a TLS context that shows a certificate."""
    context = ssl.create_default_context(cadata=svid.bundle_pem.decode())
    with tempfile.TemporaryDirectory() as directory:
        chain, key = Path(directory, "chain"), Path(directory, "key")
        chain.write_bytes(svid.chain_pem)
        key.write_bytes(svid.key_pem)
        context.load_cert_chain(chain, key)
    context.set_alpn_protocols(["h2"])
    return context


class Http2:
    """One connection. Nothing that is sent is checked, and whatever comes back is recorded."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take an open connection."""
        self._reader, self._writer = reader, writer
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(
                client_side=True,
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
            )
        )
        self.closed = False
        self.ended: dict[int, dict[bytes, bytes] | None] = {}

    @classmethod
    async def connect(
        cls, port: int, context: ssl.SSLContext | None, name: str = "callee.test.example"
    ) -> Self:
        """Connect to a port of this host, with TLS if there is a context."""
        hostname = name if context else None
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=hostname))

    @classmethod
    async def unix(cls, path: Path) -> Self:
        """Connect to a unix socket."""
        return cls(*await asyncio.open_unix_connection(path))

    async def raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        with contextlib.suppress(OSError):
            self._writer.write(data)
            await self._writer.drain()

    async def flush(self) -> None:
        """Send what ``h2`` has prepared."""
        await self.raw(self.h2.data_to_send())

    async def start(self) -> None:
        """Send the preface and settings."""
        self.h2.initiate_connection()
        await self.flush()

    async def request(
        self, headers: list[tuple[bytes, bytes]], body: bytes = b"", *, end: bool = True
    ) -> int:
        """Open a stream with these very headers."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, headers)
        if body or end:
            self.h2.send_data(stream, body, end_stream=end)
        await self.flush()
        return stream

    async def response(self, stream: int) -> dict[bytes, bytes] | None:
        """Give all headers and trailers of a reply; ``None`` if stream or connection was reset."""
        found: dict[bytes, bytes] = {}
        async with asyncio.timeout(PATIENCE):
            while not self.closed:
                for event in await self._events():
                    if getattr(event, "stream_id", stream) != stream:
                        continue
                    if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                        found.update(dict(event.headers or ()))
                    if isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
                        return None
                    if isinstance(event, h2.events.StreamEnded):
                        return found
        return None

    async def until_closed(self) -> None:
        """Wait until the other side closes the connection."""
        async with asyncio.timeout(PATIENCE):
            while not self.closed:
                await self._events()

    async def until_goaway(self) -> None:
        """Wait until the other side says that it takes no more here (RFC 9113 section 6.8), or closes."""
        async with asyncio.timeout(PATIENCE):
            while not self.closed:
                if any(isinstance(event, h2.events.ConnectionTerminated) for event in await self._events()):
                    return

    async def _events(self) -> list[Any]:
        try:
            data = await self._reader.read(65536)
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return []
        try:
            events: list[Any] = self.h2.receive_data(data)
        except h2.exceptions.ProtocolError:
            self.closed = True
            return []
        await self.flush()
        return events

    async def close(self) -> None:
        """Close the connection, however the other side takes it."""
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def headers(
    path: bytes, *more: tuple[bytes, bytes], authority: bytes = b"callee"
) -> list[tuple[bytes, bytes]]:
    """Give the headers of a gRPC request."""
    return [
        (b":method", b"POST"),
        (b":scheme", b"https"),
        (b":path", path),
        (b":authority", authority),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *more,
    ]


def grpc_message(data: bytes) -> bytes:
    """Put a message into gRPC's own frame of five bytes."""
    return b"\0" + len(data).to_bytes(4, "big") + data


def http2_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Give an HTTP/2 frame (RFC 9113 section 4.1)."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
