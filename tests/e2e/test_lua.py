"""Lua services in a real mesh, hosted by ``mesh lua run``: identities, policy, calls out, and their ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

import mesh as sealmesh
from services.lua_host.bundle import Bundle
from tests.e2e.echo import fails, works
from tests.e2e.process import Process, until
from tests.e2e.world import TIMEOUT, Mesh, policy
from tests.lua_host.stage import write_service

PAIRS = (("caller", "one"), ("caller", "two"), ("one", "two"), ("caller", "beside"))
#: Asks its neighbour, and tells whom it was asked by.
ONE = """
mesh.handle("Do", function(request, context)
  if request.text == "who" then return {text = context.identity} end
  if request.text == "trace" then return {text = context.metadata["traceparent"][1]} end
  if request.text == "spin" then while true do end end
  local method = request.text == "open" and "/t.Vault/Open" or "/t.Own/Do"
  return mesh.call(request.number == 0 and "two" or "three", method, {text = "who"})
end)
mesh.handle("Stream", function(request, context, send)
  local number = 0
  while true do number = number + 1; send {number = number} end
end)
"""
NOTE_WHO = b"\n\x03who"


def write(directory: Path, name: str, script: str, **settings: Any) -> Bundle:
    """Write a service that may, by its manifest, call two and three, and vault."""
    write_service(directory, script, **settings)
    manifest = directory / "service.toml"
    text = manifest.read_text().replace('name = "own"', f'name = "{name}"')
    calls = "\n".join(f'{other} = ["/t.Own/Do"]' for other in ("two", "three") if other != name)
    manifest.write_text(text.replace('other = ["/t.Other/Ask", "/t.Other/Watch"]', calls))
    return Bundle.load(directory)


class Hosted:
    """Two Lua services in one host, and a caller."""

    def __init__(self, mesh: Mesh, host: Process, caller: sealmesh.Node, note: Any) -> None:
        self.mesh, self.host, self.caller, self.note = mesh, host, caller, note

    async def do(self, service: str, metadata: Any = (), **fields: Any) -> str:
        """Call a service; give the text of its answer."""
        call: Any = self.caller.channel(service).unary_unary("/t.Own/Do")
        reply = await call(self.note(**fields).SerializeToString(), timeout=TIMEOUT, metadata=metadata)
        text: str = self.note.FromString(reply).text
        return text

    async def answers(self, service: str) -> bytes:
        """Call a service, to see that it can be called."""
        return (await self.do(service, text="who")).encode()

    def workers(self) -> list[int]:
        """Give the process ids of the workers."""
        children = Path(f"/proc/{self.host.process.pid}/task/{self.host.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]


def alive(pid: int) -> bool:
    """Whether a process runs, or is not yet fully gone."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def status_of(pid: int) -> dict[str, str]:
    """Give what the kernel tells of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def jailed(pid: int) -> bool:
    """Whether a process has got to the last layer, a filter of its syscalls."""
    return status_of(pid)["Seccomp"] == "2"


@pytest_asyncio.fixture
async def hosted(tmp_path: Path) -> AsyncIterator[Hosted]:
    mesh = Mesh()
    try:
        await mesh.start()
        await mesh.apply(policy(*PAIRS))
        async with AsyncExitStack() as stack:
            bundle = write(tmp_path / "one", "one", ONE, deadline="2s")
            write(tmp_path / "two", "two", ONE, deadline="2s")
            tokens = [await mesh.token(name) for name in ("one", "two")]
            host = mesh.python(
                "lua",
                "mesh.cli",
                *("lua", "run", str(tmp_path / "one"), str(tmp_path / "two")),
                *("--auth", mesh.join_address, "--token-file", "-"),
                secret="\n".join(tokens),
            )
            caller = await stack.enter_async_context(mesh.node("caller"))
            own = Hosted(mesh, host, caller, bundle.protos.message("t.Note"))
            for name in ("one", "two"):
                await works(partial(own.answers, name))
            yield own
    finally:
        mesh.close()


async def test_each_service_has_an_identity_of_its_own(hosted: Hosted) -> None:
    """One that calls another is known by its own name, and by no other."""
    domain = hosted.caller.identity.domain
    assert await hosted.do("one", text="who") == f"spiffe://{domain}/caller"
    assert await hosted.do("one") == f"spiffe://{domain}/one"
    lines = [json.loads(line) for line in hosted.host.out.splitlines()]
    assert {line["service"] for line in lines} == {"one", "two"}
    assert len({line["instance"] for line in lines}) == 2


async def test_the_policy_holds_beside_the_manifest(hosted: Hosted) -> None:
    """What only the manifest names does not exist, and what only the policy allows is not granted."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await hosted.do("one", number=1)
    assert raised.value.code() is grpc.StatusCode.UNKNOWN
    assert "no service of this name may be called from here" in hosted.host.log
    with pytest.raises(grpc.aio.AioRpcError):
        await hosted.do("one", text="open")
    assert "the manifest does not let this service call two /t.Vault/Open" in hosted.host.log
    with pytest.raises(grpc.aio.AioRpcError):
        await hosted.do("two")
    assert "NAME_UNAVAILABLE" in hosted.host.log or "may be called from here" in hosted.host.log


async def test_the_trace_goes_on(hosted: Hosted) -> None:
    """A call made for a call carries its trace context."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert await hosted.do("one", text="trace", metadata=(("traceparent", trace),)) == trace


async def test_one_that_spins_does_not_hold_up_the_other(hosted: Hosted) -> None:
    """Its caller has DEADLINE_EXCEEDED; its neighbour answers meanwhile."""
    spinning = asyncio.ensure_future(hosted.do("one", text="spin"))
    for _ in range(20):
        await hosted.do("two", text="who")
    assert not spinning.done()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await spinning
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await hosted.do("one", text="who")


async def test_a_stream_ends_with_its_permission(hosted: Hosted) -> None:
    """The policy takes it back while it runs; the worker is free again at once."""
    stream: Any = hosted.caller.channel("one").unary_stream("/t.Own/Stream")(b"")
    for _ in range(10):
        await stream.read()
    await hosted.mesh.apply(policy(("caller", "two"), ("one", "two")))

    async def read() -> None:
        while True:
            await stream.read()

    error = await fails(read)
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    await hosted.mesh.apply(policy(*PAIRS))
    await works(partial(hosted.answers, "one"))


async def test_a_cancelled_stream_frees_its_worker(hosted: Hosted) -> None:
    """However many are begun and left."""
    for _ in range(5):
        stream: Any = hosted.caller.channel("one").unary_stream("/t.Own/Stream")(b"")
        await stream.read()
        stream.cancel()
    assert await hosted.do("one", text="who")


async def test_no_worker_outlives_its_host(hosted: Hosted) -> None:
    """Killed without a chance to say so, the host takes its workers along, one that computes among them."""
    spinning = asyncio.ensure_future(hosted.do("one", text="spin"))
    workers = hosted.workers()
    assert len(workers) >= 4
    await asyncio.sleep(0)
    os.kill(hosted.host.process.pid, signal.SIGKILL)
    await until(lambda: not any(alive(pid) for pid in workers), "the workers to end")
    with pytest.raises(grpc.aio.AioRpcError):
        await spinning


async def test_sigterm_ends_it_in_order(hosted: Hosted) -> None:
    """Both leave the directory, all workers are gone, and the status is 0."""
    workers = hosted.workers()
    assert await hosted.host.stop() == 0
    assert not any(alive(pid) for pid in workers)
    assert {"one", "two"}.isdisjoint(node.service for node in (await hosted.mesh.nodes()).nodes)


async def test_a_worker_holds_nothing_of_its_host(hosted: Hosted) -> None:
    """One descriptor, no environment, another user, no privileges, a filter: as the kernel tells it."""
    workers = hosted.workers()
    assert len(workers) >= 2
    await until(lambda: all(map(jailed, workers)), "every worker to be jailed")
    for pid in workers:
        proc = Path(f"/proc/{pid}")
        assert [link.name for link in (proc / "fd").iterdir()] == ["0"]
        assert str((proc / "fd" / "0").readlink()).startswith("socket:")
        assert (proc / "environ").read_bytes() == b""
        assert str((proc / "cwd").readlink()) == "/"
        status = status_of(pid)
        assert status["NoNewPrivs"] == "1"
        assert int(status["CapEff"], 16) == 0
        if os.geteuid() == 0:
            assert "0" not in status["Uid"].split()
