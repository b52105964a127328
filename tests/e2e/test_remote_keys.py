"""Nodes whose keys auth keeps, among real processes: nodes like any other, with no key to steal."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc

import mesh as library
from mesh.core.keys import Key, destination_key, pair_key
from mesh.core.names import AUTH, ServiceName, TrustDomain
from services.auth.directory import DataDirectory
from services.auth.records import root_place
from tests.e2e.echo import Dialogue, Echo, ask, fails, served, works
from tests.e2e.process import until
from tests.e2e.world import DOMAIN, Mesh, appears, policy
from tests.rpc.attack import reason_of

Start = Callable[..., Awaitable[Mesh]]
FRONT, BACK = ServiceName("front"), ServiceName("back")


async def joined(mesh: Mesh, stack: AsyncExitStack, service: str, *, remote: bool = True) -> library.Node:
    """Be an embedded node that serves."""
    keys = "remote" if remote else "local"
    node = await stack.enter_async_context(mesh.node(service, keys=keys))
    node.server().add_generic_rpc_handlers((Echo(service),))
    await node.server().start()
    return node


async def test_remote_and_local_nodes_call_each_other(start_mesh: Start) -> None:
    """Messages and streams, whichever end has its keys; and those whose keys auth keeps hold none."""
    mesh = await start_mesh()
    services = ("near", "far", "other")
    await mesh.apply(policy(*((a, b) for a in services for b in services if a != b)))
    async with AsyncExitStack() as stack:
        nodes = {name: await joined(mesh, stack, name, remote=name != "near") for name in services}
        assert [node.membership.signer is None for node in nodes.values()] == [True, False, False]
        for source, destination in (("near", "far"), ("far", "near"), ("far", "other"), ("other", "far")):
            channel = nodes[source].channel(destination)
            assert await works(ask(channel, "Name")) == destination.encode()
            dialogue = Dialogue(channel)
            for _ in range(3):
                await dialogue.turn()
        kept = nodes["far"].membership.sender._rings
        assert {name.text for name in kept} == {"mesh.auth", "mesh.gatekeeper"}
        error = await fails(ask(nodes["far"].channel("nobody")), why="NAME_UNAVAILABLE")
        assert isinstance(error, grpc.aio.AioRpcError)


async def test_a_call_waits_for_no_auth_and_goes_on_with_it(start_mesh: Start) -> None:
    """While auth is away calls fail and say so; when it is back they go on, under unused numbers."""
    mesh = await start_mesh()
    await mesh.apply(policy(("front", "back")))
    async with AsyncExitStack() as stack:
        front = await joined(mesh, stack, "front")
        await joined(mesh, stack, "back")
        channel = front.channel("back")
        await works(ask(channel))
        mesh.auth.kill()
        error = await fails(ask(channel))
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert reason_of(error.trailing_metadata())[0] == "NOT_READY"
        await mesh.start_auth()
        assert await works(ask(channel)) == await works(ask(channel))


async def test_a_revoked_node_can_seal_nothing_more(start_mesh: Start) -> None:
    """There is nothing that it could go on with: auth is asked for each call, and refuses."""
    mesh = await start_mesh()
    await mesh.apply(policy(("front", "back")))
    async with AsyncExitStack() as stack:
        front = await joined(mesh, stack, "front")
        await joined(mesh, stack, "back")
        await works(ask(front.channel("back")))
        await mesh.revoke("front")
        await until(lambda: front.slice.withdrawn, "the revoked node to know")
        await fails(ask(front.channel("back")))


def memory(pid: int) -> Iterator[bytes]:
    """Give what a process can write of its memory."""
    with Path(f"/proc/{pid}/mem").open("rb", 0) as held:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            start, end = (int(at, 16) for at in span.split("-"))
            if not rights.startswith("rw") or line.endswith(("[vvar]", "[vsyscall]")):
                continue
            try:
                held.seek(start)
                yield held.read(end - start)
            except OSError:
                continue


def contents(directory: Path) -> list[bytes]:
    """Give what the files of a directory hold."""
    return [path.read_bytes() for path in directory.rglob("*") if path.is_file()]


def keys_of(data: Path) -> tuple[dict[str, Key], Key]:
    """Give the keys that ``front`` and ``back`` would have, and the one of ``front`` for calling auth."""
    with DataDirectory(data) as opened:
        (row, *_) = opened.store.keys.roots()
        root = Key(opened.vault.open(row.sealed, root_place(row.epoch)))
    own = {name: destination_key(root, TrustDomain(DOMAIN), name) for name in (FRONT, BACK, AUTH)}
    secret = {f"D({name})": own[name] for name in (FRONT, BACK)}
    secret["P(front, back)"], secret["P(back, front)"] = (
        pair_key(own[BACK], FRONT),
        pair_key(own[FRONT], BACK),
    )
    return secret, pair_key(own[AUTH], FRONT)


async def test_a_sidecar_without_keys_has_none_in_its_memory(start_mesh: Start) -> None:
    """It calls and is called, and neither its memory nor its files hold a key but that to ask auth with."""
    mesh = await start_mesh()
    await mesh.apply(policy(("front", "back"), ("back", "front")))
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(served(Echo("front")))
        token = await mesh.token("front", remote=True)
        process = await mesh.begin_sidecar("front", "--app-port", str(app), token=token)
        run_dir = Path(json.loads(await process.prints())["run_dir"])
        back = await joined(mesh, stack, "back")
        await appears(run_dir / "back.sock")
        to_back = await stack.enter_async_context(grpc.aio.insecure_channel(f"unix:{run_dir}/back.sock"))
        assert await works(ask(to_back, "Name")) == b"back"
        assert await works(ask(back.channel("front"), "Name")) == b"front"
        found = list(memory(process.process.pid))
        files = contents(run_dir)
    await mesh.auth.stop()
    secret, to_auth = keys_of(mesh.data)
    assert any(to_auth.reveal() in piece for piece in found)  # so what is there is found
    for name, key in secret.items():
        for form in (key.reveal(), key.reveal().hex().encode()):
            assert not any(form in piece for piece in (*found, *files)), name
