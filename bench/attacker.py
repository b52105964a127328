"""The attackers: a process of its own, at idle priority, that ends each attack by itself.

Reads attacks from standard input, one line of JSON each (``{"name", "address", "source", "tls", "path",
"seconds"}``; a ``tls`` of chain, key and bundle in files, or null), and writes two lines for each: ``{}``
when its connections are made, and at the end how many were made, how much was sent, how many the other side
hung up, and the ``share`` of a processor that all that took. A line of ``{"share", "seconds"}`` has it take
that share and attack nobody. Loopback and unix sockets only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import ssl
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from bench.attacks import ATTACKS, Attack

#: Connections that are being made at a time.
AT_ONCE: Final = 32
CONNECT_SECONDS: Final = 10.0
RAMP_SECONDS: Final = 60.0
LONGEST: Final = 60.0
NICEST: Final = 19
#: Errors of a connection that its other side ends; more than that is nothing to an attacker.
_HUNG_UP: Final = (OSError, ssl.SSLError, TimeoutError, asyncio.IncompleteReadError)


@dataclass(slots=True)
class Score:
    """What an attack has come to."""

    connected: int = 0
    refused: int = 0
    hung_up: int = 0
    sent: int = 0
    share: float = 0.0


@dataclass
class Assault:
    """One attack in progress."""

    attack: Attack
    address: str
    context: ssl.SSLContext | None
    path: str
    source: str
    score: Score = field(default_factory=Score)

    async def run(self, seconds: float) -> None:
        """Attack until the time is over; it begins when the connections that hold are made."""
        self._gate, self._ready, self._first = asyncio.Semaphore(AT_ONCE), asyncio.Event(), 0
        tasks = [asyncio.create_task(self._keep_at_it()) for _ in range(self.attack.connections)]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), RAMP_SECONDS)
        tell({})
        used = time.process_time()
        await asyncio.sleep(seconds)
        self.score.share = (time.process_time() - used) / seconds
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep_at_it(self) -> None:
        first = True
        while True:
            try:
                async with self._gate, asyncio.timeout(CONNECT_SECONDS):
                    reader, writer = await self._open()
                self.score.connected += 1
            except _HUNG_UP:
                self.score.refused += 1
                await asyncio.sleep(0.01)
                continue
            finally:
                if first:
                    first, self._first = False, self._first + 1
                    if self._first == self.attack.connections:
                        self._ready.set()
            await self._use(reader, writer)

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.address.startswith("unix:"):
            return await asyncio.open_unix_connection(self.address.removeprefix("unix:"))
        host, _, port = self.address.rpartition(":")
        if host != "127.0.0.1":
            raise ValueError("only loopback is attacked")
        return await asyncio.open_connection(host, int(port), ssl=self.context, local_addr=(self.source, 0))

    async def _use(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reading = None if self.attack.unread else asyncio.create_task(self._read(reader, writer))
        try:
            for piece in self.attack.what(self.path):
                if writer.is_closing() or (reading is not None and reading.done()):
                    break
                writer.write(piece)
                self.score.sent += len(piece)
                await writer.drain()
                await asyncio.sleep(self.attack.pause)
            if self.attack.hold and reading is not None:
                await asyncio.wait((reading,))
            self.score.hung_up += reading is not None and reading.done()
        except _HUNG_UP:
            self.score.hung_up += 1
        finally:
            if reading is not None:
                reading.cancel()
            writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # What comes back is dropped, but pings are answered as any peer would.
        with contextlib.suppress(*_HUNG_UP):
            while data := await reader.read(1 << 16):
                if b"\0\0\x08\x06\0\0\0\0\0" in data:
                    at = data.index(b"\0\0\x08\x06\0\0\0\0\0") + 9
                    writer.write(b"\0\0\x08\x06\1\0\0\0\0" + data[at : at + 8])


def idle_away(share: float, seconds: float) -> None:
    """Take a share of a processor for so long, and do nothing with it."""
    begun, used = time.monotonic(), time.process_time()
    while (passed := time.monotonic() - begun) < seconds:
        if time.process_time() - used > share * passed:
            time.sleep(0.001)


def context_of(tls: dict[str, str] | None) -> ssl.SSLContext | None:
    """Make a TLS context that shows a certificate, and does not care who answers."""
    if tls is None:
        return None
    context = ssl.create_default_context(cafile=tls["bundle"])
    context.check_hostname = False
    context.load_cert_chain(tls["chain"], tls["key"])
    context.set_alpn_protocols(["h2"])
    return context


def tell(line: dict[str, Any]) -> None:
    """Write one line of JSON."""
    print(json.dumps(line), flush=True)


async def main() -> None:
    """Attack as told until the end of standard input."""
    os.nice(NICEST)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    tell({"descriptors": most})
    while line := await asyncio.to_thread(sys.stdin.readline):
        told = json.loads(line)
        seconds = min(told["seconds"], LONGEST)
        if "share" in told:
            idle_away(told["share"], seconds)
            tell({})
            continue
        attack = ATTACKS[told["name"]]
        context = context_of(told["tls"]) if attack.member else None
        assault = Assault(attack, told["address"], context, told["path"], told["source"])
        await assault.run(seconds)
        tell(asdict(assault.score))


if __name__ == "__main__":
    asyncio.run(main())
