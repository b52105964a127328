"""``mesh demo``: the shop on a mesh of its own, good calls, then attacks, and nothing left behind.

``setting``     sets all of it up and takes it down; ``processes`` are its processes
``stage``       what good calls and attacks have to work with
``traffic``     the good calls
``tap``         the attacker on the wire; ``tricks`` what it can do; ``victims`` whom it does it to
``forgery``     calls made by hand
``attack``      what an attack is, and how it is judged
``attacks``     all of them: ``on_the_wire``, by ``impostors``, by ``thieves`` and by ``scripts``
``report``      what is shown of it
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc

from examples.shop.demo.attack import Attack, judge
from examples.shop.demo.attacks import ATTACKS
from examples.shop.demo.processes import NotStartedError
from examples.shop.demo.report import Report
from examples.shop.demo.setting import stage, temporary_directory
from examples.shop.demo.stage import Stage
from examples.shop.demo.traffic import GOOD_CALLS, LAST_CALL, GoodCall
from mesh.core.errors import MeshError
from mesh.telemetry.backends import AMBIENT, Backend
from mesh.telemetry.sdk import ENDPOINT, configured

INTERRUPTED = 130


def main(*, keep: bool, otlp: str | None = None) -> int:
    """Run the demo; give the exit status: 0 only if all good calls succeeded and all attacks failed.

    ``otlp``: where all its parts send their traces and metrics.
    """
    if otlp is not None:
        os.environ[ENDPOINT] = otlp  # as a user would set it: it is inherited by every part
    with configured() as telemetry:
        return asyncio.run(run(keep=keep, telemetry=telemetry))


async def run(
    *, keep: bool, attacks: Mapping[str, Sequence[Attack]] = ATTACKS, telemetry: Backend = AMBIENT
) -> int:
    """Run the demo with these attacks; end early, but cleanly, at SIGINT and SIGTERM."""
    report = Report()
    interrupted = _cancel_at_signal()
    try:
        async with temporary_directory() as directory:
            with _stderr_to(directory / "demo.log"):
                return await _play(report, directory, attacks, telemetry, keep=keep)
    except asyncio.CancelledError:
        if not interrupted.is_set():
            raise
        report.note("interrupted; everything was taken down")
        return INTERRUPTED
    except (NotStartedError, MeshError, OSError, TimeoutError, grpc.aio.AioRpcError) as error:
        said = error.details() if isinstance(error, grpc.aio.AioRpcError) else error
        print(f"error: the demo could not be set up: {said or type(error).__name__}", file=sys.stderr)
        return 1


async def _play(
    report: Report,
    directory: Path,
    attacks: Mapping[str, Sequence[Attack]],
    telemetry: Backend,
    *,
    keep: bool,
) -> int:
    report.heading("Setting up, in a temporary directory and on free ports")
    async with stage(report, directory, telemetry) as shop:
        report.heading("Good calls; those to payments pass through the attacker's hands")
        for call in GOOD_CALLS:
            if shop.has_jail or not call.jailed:
                await _make(report, shop, call)
        for stand, tried in attacks.items():
            possible = [attack for attack in tried if shop.has_jail or not attack.jailed]
            if possible:
                report.attacks(stand)
            for attack in possible:
                report.verdict(await judge(shop, attack))
        report.heading("Afterwards")
        await _make(report, shop, LAST_CALL)
        status = report.summary()
        if keep:
            report.how_to_call(shop, directory)
            await _until_interrupted()
        return status


async def _make(report: Report, shop: Stage, call: GoodCall) -> None:
    try:
        report.good_call(call, await call.run(shop))
    except grpc.aio.AioRpcError as error:
        report.bad_call(call, f"{error.code().name}: {error.details()}")
    except Exception as error:  # noqa: BLE001  whatever went wrong, the demo goes on and says so
        report.bad_call(call, str(error) or repr(error))


async def _until_interrupted() -> None:
    try:
        await asyncio.get_running_loop().create_future()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()


def _cancel_at_signal() -> asyncio.Event:
    """End this task at the first signal; let what it then takes down be undisturbed by any further one."""
    task, interrupted = asyncio.current_task(), asyncio.Event()
    assert task is not None

    def interrupt() -> None:
        if not interrupted.is_set():
            interrupted.set()
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, interrupt)
    return interrupted


@contextmanager
def _stderr_to(path: Path) -> Iterator[None]:
    """Keep what nodes tell their operators, and gRPC of lost connections, out of the tables."""
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with path.open("wb") as log:
            os.dup2(log.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(stderr, 2)
        os.close(stderr)
