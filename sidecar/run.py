"""A sidecar and its application in one go: ``mesh run --service NAME --app-port PORT -- CMD…``.

The application starts once the sidecar is in the mesh. It finds the way out in its environment:

    MESH_RUN_DIR    where the sockets of the permitted destinations are
    MESH_OUTBOUND   host:port of the loopback port that takes ``mesh-to``

Signals that this process gets go to the application, SIGTERM once the sidecar has drained (a second one at
once); when it ends, so does the sidecar, and its exit code is ours. When the sidecar fails, the application
is ended: it never runs on without the mesh.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Final

from mesh.descriptors import allow_many
from sidecar.sidecar import Settings, Sidecar, sidecar

#: Passed on to the application.
SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
#: Seconds from SIGTERM to SIGKILL for an application whose sidecar has failed.
KILL_AFTER: Final = 5.0
_SECRETS: Final = ("MESH_TOKEN", "MESH_TOKEN_FILE")


async def run(settings: Settings, command: Sequence[str]) -> int:
    """Run a command beside a sidecar; give its exit code, 128 + n if signal n ended it.

    Raises what ``sidecar`` raises, and ``OSError`` if the command cannot be started.
    """
    async with sidecar(settings) as running:
        app = await asyncio.create_subprocess_exec(*command, env=_environment(running))
        allow_many()  # only now: the application has its own reasons for its limit, and inherits ours
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, _pass_on, app, number)
        ending = _Ending(running, app)
        loop.add_signal_handler(signal.SIGTERM, ending.tell)
        exited = asyncio.ensure_future(app.wait())
        failed = asyncio.ensure_future(running.failed())
        try:
            await asyncio.wait((exited, failed), return_when=asyncio.FIRST_COMPLETED)
            if failed.done() and failed.exception() is not None:
                await _end(app)
                failed.result()
            code = await exited
        finally:
            failed.cancel()
            for number in SIGNALS:
                loop.remove_signal_handler(number)
            await ending.close()
            if app.returncode is None:
                await _end(app)
    return code if code >= 0 else 128 - code


class _Ending:
    """SIGTERM: calls to the application are let end before it is told. Told twice, it is told at once."""

    def __init__(self, running: Sidecar, app: asyncio.subprocess.Process) -> None:
        self._running, self._app = running, app
        self._draining: asyncio.Task[None] | None = None

    def tell(self) -> None:
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        else:
            self._draining.cancel()
            _pass_on(self._app, signal.SIGTERM)

    async def close(self) -> None:
        if self._draining is not None:
            self._draining.cancel()
            await asyncio.wait((self._draining,))

    async def _drain(self) -> None:
        self._running.drain()
        await self._running.node.drain()
        _pass_on(self._app, signal.SIGTERM)


def _environment(running: Sidecar) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in _SECRETS}
    outbound = f"127.0.0.1:{running.outbound_port}"
    return {**kept, "MESH_RUN_DIR": str(running.run_dir), "MESH_OUTBOUND": outbound}


def _pass_on(app: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if app.returncode is None:
        app.send_signal(number)


async def _end(app: asyncio.subprocess.Process) -> None:
    app.terminate()
    try:
        await asyncio.wait_for(app.wait(), KILL_AFTER)
    except TimeoutError:
        app.kill()
        await app.wait()
