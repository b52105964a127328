"""The audit log of a running mesh: complete before the reply, whole through kills, bounded under a flood."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import grpc
import pytest

import mesh as sealmesh
from mesh.cli import audit_source
from mesh.cli.audit_source import Place, Read
from mesh.cli.errors import CliError
from mesh.core.audit import Entry, Kind, Verdict
from mesh.core.chain import Limits
from mesh.core.errors import MeshError
from mesh.core.examine import Examination, examine
from mesh.core.keys import Key
from mesh.v1 import auth_pb2
from services.auth.directory import DataDirectory
from tests.cli.command import run
from tests.e2e.echo import SERVICE, Echo, Traffic, ask, works
from tests.e2e.process import until
from tests.e2e.world import TIMEOUT, Mesh

pytestmark = pytest.mark.timeout(120)

StartMesh = Callable[[], Awaitable[Mesh]]
#: What may reach no log: a payload, and a value of metadata.
PAYLOAD: Final = b"payload-4711"
METADATA: Final = "metadata-4711"
ONLY_UNARY: Final = {
    "services": {
        "caller": {},
        "evil": {},
        "callee": {
            "allow": [{"principals": ["caller", "evil"], "paths": [f"/{SERVICE}/Unary"]}],
            "deny": [{"name": "no-purge", "principals": ["*"], "paths": [f"/{SERVICE}/Purge"]}],
        },
    }
}


async def read(mesh: Mesh, log: str) -> Read:
    async with mesh.operator() as connected:
        return await audit_source.ask(connected, log, Place())


async def entries(mesh: Mesh, log: str) -> list[Entry]:
    return [entry for _, entry in (await read(mesh, log)).entries(Place())[0] if entry.kind != Kind.LOG]


async def examined(mesh: Mesh, log: str) -> Examination:
    root = Key((mesh.data / "audit.key").read_bytes())
    found = await read(mesh, log)
    return examine(found.head, root, found.segments)


def examined_offline(mesh: Mesh) -> dict[str, Examination]:
    root = Key((mesh.data / "audit.key").read_bytes())
    reads = audit_source.offline(mesh.data)
    return {log: examine(one.head, root, one.segments) for log, one in reads.items()}


@asynccontextmanager
async def callee(mesh: Mesh) -> AsyncIterator[sealmesh.Node]:
    """Serve an echo as ``callee``."""
    async with mesh.node("callee") as node:
        node.server().add_generic_rpc_handlers((Echo(),))
        await node.server().start()
        yield node


def purge(node: sealmesh.Node, method: str = "Purge") -> Callable[[], Awaitable[bytes]]:
    call = node.channel("callee").unary_unary(f"/{SERVICE}/{method}")
    return lambda: call(PAYLOAD, metadata=(("x-secret", METADATA),), timeout=TIMEOUT)


async def denied(call: Callable[[], Awaitable[bytes]]) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call()
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED, refused.value.details()
    return refused.value.details() or ""


async def test_it_is_in_the_log_when_the_caller_knows(start_mesh: StartMesh) -> None:
    """Denials, failed joins, policies: with who, what, which rule, call id; no payload, no metadata."""
    mesh = await start_mesh()
    await mesh.apply(ONLY_UNARY)
    async with callee(mesh) as served, mesh.node("caller") as caller:
        await works(ask(caller.channel("callee")))
        texts = [await denied(purge(caller)), await denied(purge(caller, "Other"))]
        first, second = await entries(mesh, "denials")
        assert (first.kind, first.event, first.verdict) == (Kind.DENIAL, "call denied", Verdict.DENIED)
        assert (first.service, first.instance) == ("caller", str(caller.instance))
        assert first.by == f"callee/{served.instance}"
        assert (first.method, first.rule) == (f"/{SERVICE}/Purge", "no-purge")
        assert (second.method, second.rule) == (f"/{SERVICE}/Other", "")
        assert first.call_id in texts[0]
        assert second.call_id in texts[1]
        with pytest.raises(sealmesh.JoinError):
            async with sealmesh.join("caller", token=mesh.tokens[-1], auth=mesh.join_address):
                pass
        assert [entry.event for entry in await entries(mesh, "denials")][2:] == ["token reused"]
        actions = await entries(mesh, "actions")
        assert "token reused" in [entry.event for entry in actions if entry.alarm]
        applied = next(entry for entry in actions if entry.event == "policy applied")
        assert applied.by.startswith("mesh.operator/")
        back = await mesh.sidecar("caller", "--app-port", "1")
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.channel("mesh.auth").unary_unary("/mesh.v1.OperatorService/CreateToken")(b"")
        refused = (await entries(mesh, "denials"))[-1]
        assert (refused.service, refused.method) == ("caller", "/mesh.v1.OperatorService/CreateToken")
        assert refused.by.startswith("mesh.auth/")
        await back.process.stop()
    for log in ("actions", "denials"):
        found = await examined(mesh, log)
        assert (found.bad, found.torn, found.ahead) == (None, 0, 0)
    everything = b"".join(path.read_bytes() for path in mesh.data.rglob("*") if path.is_file())
    assert b"no-purge" in everything
    assert PAYLOAD not in everything
    assert METADATA.encode() not in everything


async def test_a_flood_of_denials(start_mesh: StartMesh) -> None:
    """A hostile member's flood fills nothing and stalls nobody, and every denial of it is counted."""
    mesh = await start_mesh()
    await mesh.apply(ONLY_UNARY)
    calls = 1500
    async with callee(mesh), mesh.node("caller") as caller, mesh.node("evil") as evil:
        await works(ask(caller.channel("callee")))
        async with Traffic([ask(caller.channel("callee"))]) as traffic:
            for start in range(0, calls, 50):
                await asyncio.gather(*(denied(purge(evil, f"M{start + n}")) for n in range(50)))
            assert traffic.failures == []
            assert traffic.count

        async def counted() -> int:
            return sum(entry.count for entry in await entries(mesh, "denials") if entry.service == "evil")

        end = time.monotonic() + 30
        while await counted() < calls:
            assert time.monotonic() < end, await counted()
            await asyncio.sleep(0.2)
        assert await counted() == calls
        found = await entries(mesh, "denials")
        assert len(found) < 150
        assert {entry.event for entry in found} == {"call denied", "denials counted"}
    assert (await examined(mesh, "denials")).bad is None


async def test_denials_while_gatekeeper_and_auth_are_away(start_mesh: StartMesh) -> None:
    """A node goes on denying without delay, and tells all of it when they are back."""
    mesh = await start_mesh()
    await mesh.apply(ONLY_UNARY)
    async with callee(mesh), mesh.node("caller") as caller:
        await denied(purge(caller))
        mesh.gatekeeper.kill()
        mesh.auth.kill()
        await denied(purge(caller))
        began = time.monotonic()
        for _ in range(20):
            await denied(purge(caller))
        assert time.monotonic() - began < 4
        await mesh.start()

        async def counted() -> int:
            return sum(entry.count for entry in await entries(mesh, "denials"))

        end = time.monotonic() + 30
        while await counted() < 22:
            assert time.monotonic() < end
            await asyncio.sleep(0.1)
        assert await counted() == 22


async def test_auth_is_killed_again_and_again(start_mesh: StartMesh) -> None:
    """Whatever it was writing: what was answered is in the log, and the log is whole."""
    mesh = await start_mesh()
    await mesh.apply(ONLY_UNARY)
    made: list[str] = []
    async with callee(mesh), mesh.node("caller") as caller:
        for round_ in range(4):

            async def act() -> None:
                with suppress(CliError, MeshError, grpc.aio.AioRpcError):
                    async with mesh.operator() as connected:
                        while True:
                            request = auth_pb2.CreateTokenRequest(service="caller")
                            token = (await connected.auth.CreateToken(request, timeout=1)).token
                            made.append(token.split(".")[1])

            acting = asyncio.create_task(act())
            count = len(made) + 10 + 3 * round_
            await until(lambda count=count: len(made) >= count, "some tokens")  # type: ignore[misc]
            mesh.auth.kill()
            acting.cancel()
            await asyncio.wait((acting,))
            for found in examined_offline(mesh).values():
                assert found.bad is None, found
            await mesh.start_auth()
            await denied(purge(caller))
    logged = [entry.token_id for entry in await entries(mesh, "actions") if entry.event == "token created"]
    assert set(made) <= set(logged)
    for log in ("actions", "denials"):
        found = await examined(mesh, log)
        assert (found.bad, found.torn) == (None, 0)


async def test_a_log_that_cannot_be_written(start_mesh: StartMesh) -> None:
    """Operators are refused and told why; calls, denials and renewals go on; nothing is lost by it."""
    mesh = await start_mesh()
    await mesh.apply(ONLY_UNARY)
    async with callee(mesh), mesh.node("caller") as caller:
        await works(ask(caller.channel("callee")))
        token = await mesh.token("caller", 600)
        await mesh.auth.stop()
        size = 1_000_000
        with DataDirectory(mesh.data, Limits()) as opened:
            for log in ("actions", "denials"):
                entry = Entry(0, Kind.TOKEN, "token created", detail="x" * 180)
                while opened.store.logs.open.heads()[log].size < size:
                    opened.store.logs.log(log, [entry] * 200)
        limited = mesh.python(
            "auth",
            "services.auth",
            *mesh.auth_arguments(),
            under=("prlimit", f"--fsize={size}"),
        )
        await limited.says("is ready")
        file = mesh.root / "policy.json"
        file.write_text('{"services": {}}')
        refused = run("policy", "apply", file, "--data", mesh.data)
        assert refused.returncode == 3, refused.stderr
        assert "the audit log cannot be written: file too large: nothing was done" in refused.stderr
        assert refused.stderr.count("\n") == 1
        await works(ask(caller.channel("callee")))
        began = time.monotonic()
        for _ in range(10):
            await denied(purge(caller))
        assert time.monotonic() - began < 3
        with pytest.raises(sealmesh.JoinError, match="audit log cannot be written"):
            async with sealmesh.join("caller", token=token, auth=mesh.join_address):
                pass
        await limited.stop()
        await mesh.start_auth()
        assert (await mesh.policy()).version == 1

        async def counted() -> int:
            return sum(entry.count for entry in await entries(mesh, "denials") if entry.kind == Kind.DENIAL)

        end = time.monotonic() + 30
        while await counted() < 10:
            assert time.monotonic() < end, await counted()
            await asyncio.sleep(0.1)
        assert await counted() == 10
    for found in [await examined(mesh, log) for log in ("actions", "denials")]:
        assert found.bad is None


def edit(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b'"service":"mesh.operator"', b'"service":"mesh.nobodies"', 1))


def delete(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))


def swap(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[2], lines[3] = lines[3], lines[2]
    path.write_bytes(b"".join(lines))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 30)


@pytest.mark.parametrize("attack", [edit, delete, swap, cut])
async def test_verify_names_the_first_bad_entry(
    start_mesh: StartMesh, attack: Callable[[Path], None]
) -> None:
    """An edit, a deletion, a swap, a cut end: status 6 and the entry, from a running auth or without one."""
    mesh = await start_mesh()
    good = run("audit", "verify", "--data", mesh.data)
    assert good.returncode == 0, good.stderr
    assert "actions: whole" in good.stdout
    (path,) = (mesh.data / "audit").glob("actions-*.log")
    last = (await read(mesh, "actions")).head.sequence - 1
    attack(path)
    bad = run("audit", "verify", "--data", mesh.data)
    assert bad.returncode == 6, bad.stdout
    named = {"edit": "is changed", "cut": f"entry {last} "}.get(attack.__name__, "entry 2 ")
    assert "audit log actions is not whole: entry " in bad.stderr
    assert named in bad.stderr
    await mesh.auth.stop()
    offline = run("audit", "verify", "--offline", "--data", mesh.data)
    assert (offline.returncode, offline.stderr) == (6, bad.stderr)


async def test_an_older_copy_of_everything(start_mesh: StartMesh) -> None:
    """Log and database put back together are found by what the verifier saw before."""
    mesh = await start_mesh()
    await mesh.auth.stop()
    files = [path for path in mesh.data.rglob("*") if path.is_file() and "audit.key" not in path.name]
    old = {path: path.read_bytes() for path in files}
    await mesh.start_auth()
    await mesh.token("caller")
    assert run("audit", "verify", "--data", mesh.data).returncode == 0
    await mesh.auth.stop()
    for path, content in old.items():
        path.write_bytes(content)
    found = run("audit", "verify", "--offline", "--data", mesh.data)
    assert found.returncode == 6
    assert "is of another past" in found.stderr
