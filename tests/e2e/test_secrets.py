"""No secret is anywhere but where it has to be: not in a log, the database, an argument or an environment."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

import mesh as sealmesh
from mesh.core.join import JoinToken
from mesh.rpc.membership import Membership
from services.auth import directory
from services.auth.audit_log import AUDIT_KEY
from services.auth.directory import DataDirectory
from services.auth.kek import KEK
from services.auth.records import CA, POLICY, log_place, root_place
from tests.e2e.echo import Echo, ask, fails, works
from tests.e2e.world import Mesh, appears, policy


def forms(secret: bytes) -> Iterator[bytes]:
    """Give the ways in which a secret may be written down."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    yield base64.b64encode(secret).rstrip(b"=")
    yield base64.urlsafe_b64encode(secret).rstrip(b"=")
    yield repr(secret).encode()


def of_member(membership: Membership) -> Iterator[bytes]:
    """Give the keys that a member holds."""
    for _, key in membership.receiver._ring._keys.values():
        yield key.reveal()
    for ring in membership.sender._rings.values():
        for _, key in ring._keys.values():
            yield key.reveal()
    private = load_pem_private_key(membership.svid.key_pem, None)
    yield private.private_numbers().private_value.to_bytes(32, "big")  # type: ignore[union-attr]
    yield membership.svid.key_pem.splitlines()[1]


def of_auth(data: Path) -> Iterator[bytes]:
    """Give what is sealed in the database of an auth that has ended."""
    with DataDirectory(data) as opened:
        for name in (CA, POLICY):
            yield from (private for _, private in opened._open(name, "no such secret").values())
        for row in opened.store.keys.roots():
            yield opened.vault.open(row.sealed, root_place(row.epoch))
        for token in opened.store.tokens():
            yield opened.vault.open(token.sealed, token.place)
        for log in opened.store.logs.rows():
            keys = opened.vault.open(log.sealed, log_place(opened.domain, log.head))
            yield from (keys[:32], keys[32:])


def written(mesh: Mesh, run_dir: Path, *processes: int) -> dict[str, bytes]:
    """Give all that is written anywhere, without the three files that are there to hold a secret."""
    secret = {mesh.data / name for name in (KEK, directory.OPERATOR, AUDIT_KEY)}
    files = [path for path in (*mesh.root.rglob("*"), *run_dir.rglob("*")) if path.is_file()]
    files += [Path(f"/proc/{process}/{name}") for process in processes for name in ("cmdline", "environ")]
    return {str(path): path.read_bytes() for path in files if path not in secret}


async def test_no_secret_is_written_anywhere(start_mesh: Callable[[], Awaitable[Mesh]]) -> None:
    """After joins good and bad, calls, denials and a new policy, nothing holds a key or a token's secret."""
    mesh = await start_mesh()
    await mesh.apply(policy(("caller", "callee"), ("front", "callee")))
    secrets = {mesh.data.joinpath(name).read_bytes() for name in (KEK, AUDIT_KEY)}
    async with mesh.node("caller") as caller, mesh.node("callee") as callee:
        callee.server().add_generic_rpc_handlers((Echo(),))
        await callee.server().start()
        front = await mesh.sidecar("front")
        await appears(front.socket("callee"))
        async with front.channel("callee") as socket:
            await works(ask(socket))
            await works(ask(caller.channel("callee")))
            await fails(ask(caller.channel("front")))
            with pytest.raises(sealmesh.JoinError):
                async with sealmesh.join("caller", token=mesh.tokens[-1], auth=mesh.join_address):
                    pass
            await mesh.token("unused")
            await mesh.apply(policy(("caller", "callee")))
            assert isinstance(await fails(ask(socket)), grpc.aio.AioRpcError)
        secrets.update(of_member(caller.membership), of_member(callee.membership))
        processes = [process.process.pid for process in (mesh.auth, mesh.gatekeeper, front.process)]
        found = written(mesh, front.run_dir, *processes)
        for process in (front.process, mesh.gatekeeper, mesh.auth):
            await process.stop()
    secrets.update(of_auth(mesh.data), (JoinToken.parse(token).secret.reveal() for token in mesh.tokens))
    found |= {f"{path}, at the end": content for path, content in written(mesh, front.run_dir).items()}
    assert len(secrets) > 10
    assert any(path.endswith("auth.db-wal") for path in found)
    for secret in secrets:
        for form in forms(secret):
            assert [path for path, content in found.items() if form in content] == []
