"""Processes that cannot start say why in a line and change nothing; those that are told to end, do."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Final

import pytest

from mesh.core.names import GATEKEEPER, TrustDomain
from services.auth.errors import StartError
from services.auth.founding import found
from tests.e2e.echo import Dialogue, Echo, ask, fails, reason, served, works
from tests.e2e.process import Process
from tests.e2e.world import HOST, Mesh, Timers, appears, policy

#: Within how many seconds a process ends that is told to.
SECONDS: Final = 5.0

NewMesh = Callable[[], Mesh]
StartMesh = Callable[[Timers | None], Awaitable[Mesh]]


@contextmanager
def taken() -> Iterator[str]:
    """Give an address at which somebody else listens."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        yield f"{HOST}:{listener.getsockname()[1]}"


async def complaint(process: Process) -> str:
    """Wait until a process has failed, and give the one line that it said about it."""
    assert await process.ended() != 0
    lines = [line for line in process.log.splitlines() if '"level": "info"' not in line]
    assert len(lines) == 1, process.log
    assert lines[0].lower().startswith("error: ")
    return lines[0]


async def test_a_port_in_use(shared: Mesh, new_mesh: NewMesh) -> None:
    """Every process that finds a port of its own in use says which, and fails."""
    mesh, another = new_mesh(), new_mesh()
    with taken() as address:
        port = address.rpartition(":")[2]
        gatekeeper = ("--auth", shared.join_address, "--token-file", "-", "--listen", address)
        token = await shared.token(GATEKEEPER.text)
        for process in (
            mesh.python("auth", "services.auth", *mesh.auth_arguments(), "--join-listen", address),
            another.python("auth", "services.auth", *another.auth_arguments(), "--listen", address),
            mesh.python("gatekeeper", "services.gatekeeper", *gatekeeper, secret=f"{token}\n"),
            await shared.begin_sidecar("front", "--app-port", "1", "--listen", address),
            await shared.begin_sidecar("front", "--outbound-port", port),
        ):
            assert f"cannot listen on {address}: the port is in use" in await complaint(process)


def _foreign(data: Path) -> None:
    other = data.parent / "other"
    found(other, TrustDomain("other.example"), int(time.time() * 1000))
    shutil.copy(other / "kek", data / "kek")


def _damaged(data: Path) -> None:
    content = bytearray((data / "auth.db").read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    (data / "auth.db").write_bytes(content)


SPOILED: Final[dict[str, Callable[[Path], object]]] = {
    "foreign": _foreign,
    "damaged": _damaged,
    "no database": lambda data: (data / "auth.db").unlink(),
    "empty database": lambda data: (data / "auth.db").write_bytes(b""),
    "no kek": lambda data: (data / "kek").unlink(),
    "missing": shutil.rmtree,
}


def contents(data: Path) -> dict[str, str]:
    """Give the files of a directory and what is in them; the lock is auth's to make."""
    files = sorted(path for path in data.rglob("*") if path.is_file() and path.name != "auth.lock")
    return {str(path.relative_to(data)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


async def test_a_data_directory_that_is_not_whole(new_mesh: NewMesh) -> None:
    """Auth refuses to start on one that is damaged, incomplete or another's, and leaves it as it is."""
    mesh = new_mesh()
    began = []
    for what, spoil in SPOILED.items():
        data = mesh.root / what / "mesh"
        shutil.copytree(mesh.data, data)
        spoil(data)
        before = contents(data)
        began.append((data, before, mesh.python("auth", "services.auth", *mesh.auth_arguments(data))))
        if len(began) % 2 == 0:
            await began[-1][2].ended()
    for data, before, process in began:
        assert str(data) in await complaint(process)
        assert contents(data) == before
        assert data.exists() or not before


async def test_a_data_directory_that_may_not_be_written(new_mesh: NewMesh) -> None:
    """Auth says that it may not write there, and makes nothing anywhere."""
    mesh = new_mesh()
    before = contents(mesh.data)
    mesh.data.chmod(0o500)
    for file in mesh.data.iterdir():
        file.chmod(0o500 if file.is_dir() else 0o400)
    # Root is above permissions by two capabilities (capabilities(7)).
    bound = ("setpriv", "--bounding-set=-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
    process = mesh.python("auth", "services.auth", *mesh.auth_arguments(), under=bound)
    assert str(mesh.data) in await complaint(process)
    assert contents(mesh.data) == before
    assert not (mesh.data / "auth.lock").exists()


async def test_no_trust_domain_is_made_over_another(new_mesh: NewMesh) -> None:
    """What ``mesh init`` does refuses a directory that holds anything, and leaves it as it is."""
    mesh = new_mesh()
    before = contents(mesh.data)
    with pytest.raises(StartError, match="is not empty"):
        found(mesh.data, TrustDomain("new.example"), int(time.time() * 1000))
    assert contents(mesh.data) == before


async def test_two_auths_on_one_directory(shared: Mesh) -> None:
    """The second one says that the directory is in use, and the first one goes on."""
    second = shared.python(
        "second",
        "services.auth",
        "--data",
        str(shared.data),
        *("--join-listen", f"{HOST}:0"),
        "--listen",
        f"{HOST}:0",
    )
    assert "is in use by another auth" in await complaint(second)
    assert (await shared.status()).policy_version


async def test_sigterm_ends_each_process(start_mesh: StartMesh) -> None:
    """Sidecar, gatekeeper and auth, with calls in progress, end within seconds and with status 0.

    A sidecar waits for those to its application, until it is told twice.
    """
    mesh = await start_mesh(None)
    await mesh.apply(policy(("front", "callee")))
    async with AsyncExitStack() as stack:
        app = str(await stack.enter_async_context(served(Echo())))
        callee = await mesh.sidecar("callee", "--app-port", app)
        front = await mesh.sidecar("front")
        await appears(front.socket("callee"))
        socket = await stack.enter_async_context(front.channel("callee"))
        await works(ask(socket))
        dialogue = Dialogue(socket)
        await dialogue.turn()
        callee.process.process.send_signal(signal.SIGTERM)
        await _takes_no_more(mesh, callee.instance)
        await dialogue.turn()
        for process in (callee.process, front.process, mesh.gatekeeper, mesh.auth):
            assert await process.stop(SECONDS) == 0, process.log
            assert "Traceback" not in process.log
        assert not front.run_dir.exists()
        assert not (mesh.data / "addresses.json").exists()


async def test_sigterm_ends_what_waits_for_auth(new_mesh: NewMesh) -> None:
    """A gatekeeper and a sidecar that are not in the mesh yet end at once and with status 0, too."""
    mesh = new_mesh()
    await mesh.start_auth()
    tokens = await mesh.token(GATEKEEPER.text), await mesh.token("front")
    await mesh.auth.stop()
    waiting = mesh.begin_gatekeeper(tokens[0]), await mesh.begin_sidecar("front", token=tokens[1])
    for process in waiting:
        await process.says("waiting for auth")
        assert await process.stop(SECONDS) == 0, process.log
        assert "Traceback" not in process.log


async def test_a_slice_goes_stale(start_mesh: StartMesh) -> None:
    """Without gatekeeper calls go on for ``max_stale`` and no longer, streams included, until it is back."""
    mesh = await start_mesh(Timers(max_stale=4))
    await mesh.apply(policy(("caller", "callee")))
    async with mesh.node("caller") as caller, mesh.node("callee") as callee:
        callee.server().add_generic_rpc_handlers((Echo(),))
        await callee.server().start()
        channel = caller.channel("callee")
        await works(ask(channel))
        dialogue = Dialogue(channel)
        await dialogue.turn()
        mesh.gatekeeper.kill()
        killed = time.monotonic()
        error = await fails(lambda: channel.unary_unary("/test.v1.Echo/Unary")(b"", timeout=1))
        assert time.monotonic() - killed > mesh.timers.max_stale / 2
        assert reason(error) in {"NOT_READY", "POLICY_DENIED"}
        assert reason(await fails(dialogue.turn)) == "POLICY_DENIED"
        await mesh.start_gatekeeper()
        await works(ask(channel))


async def _takes_no_more(mesh: Mesh, instance: str) -> None:
    async with asyncio.timeout(SECONDS):
        while instance in [node.instance.hex() for node in (await mesh.nodes()).nodes if node.address]:
            pass
