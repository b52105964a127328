"""The service's side of a probe, in its event loop, so that one whose loop hangs says nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

#: What is said where nothing is missing.
READY = "ready"


class Probe:
    """How a service is. It begins as starting."""

    def __init__(self) -> None:
        """Be not ready."""
        self.missing: Callable[[], str] = lambda: "it is starting"
        """Gives what it waits for, and ``""`` once it is ready."""

    @property
    def line(self) -> str:
        """What is said to whoever asks."""
        missing = self.missing()
        return f"not ready: {missing}" if missing else READY


@asynccontextmanager
async def answering(path: Path | None) -> AsyncIterator[Probe]:
    """Answer at a socket for the length of the block, if there is one; raise ``OSError`` if it cannot be."""
    probe = Probe()
    if path is None:
        yield probe
        return

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{probe.line}\n".encode())
        writer.close()

    # One that a process left behind which was killed is replaced.
    before = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(answer, path)
    except OSError as error:
        msg = f"cannot listen on {path}: {error.strerror}: name another with --probe"
        raise OSError(msg) from None
    finally:
        os.umask(before)
    async with server:
        yield probe
