"""A join outlives auth: killed at each step, and two of them at once, there is one identity for one token."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import signal
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing

import grpc
import pytest

from mesh.cli.ports import Ports
from mesh.core.join import JoinRequester, JoinToken
from mesh.rpc.svid import new_key
from mesh.v1 import auth_pb2, auth_pb2_grpc
from services.auth.failpoints import STEPS, VARIABLE
from tests.e2e.world import HOST, TIMEOUT, Mesh, Timers

#: As many as auth answers in one go, and more.
BATCH = 24

NewMesh = Callable[[Timers | None], Mesh]


@asynccontextmanager
async def door(address: str) -> AsyncIterator[auth_pb2_grpc.JoinServiceAsyncStub]:
    """Give a join port over a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options) as channel:
        yield auth_pb2_grpc.JoinServiceStub(channel)


async def ask(stub: auth_pb2_grpc.JoinServiceAsyncStub, requester: JoinRequester) -> bytes | grpc.StatusCode:
    """Send a request; give the instance that it gets, or the status of the failure."""
    try:
        answer = await stub.Join(requester.request(), timeout=TIMEOUT)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return requester.open(answer).credentials.instance


def requester(token: str) -> JoinRequester:
    return JoinRequester(JoinToken.parse(token), new_key()[1], secrets.token_bytes(16))


def instances(mesh: Mesh) -> Counter[str]:
    """Give how many instances each token of the mesh has become, by the database."""
    with closing(sqlite3.connect(f"file:{mesh.data / 'auth.db'}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT token_id FROM instance WHERE service = 'orders'").fetchall()
    return Counter(row[0] for row in rows)


async def tokens(mesh: Mesh, count: int) -> list[str]:
    async with mesh.operator() as operator:
        request = auth_pb2.CreateTokenRequest(service="orders", ttl_seconds=600)
        return [(await operator.auth.CreateToken(request, timeout=TIMEOUT)).token for _ in range(count)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [1, BATCH])
async def test_killed_at_each_step_of_a_join(
    new_mesh: NewMesh, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Each node sends its request again, to the auth that comes after, and is one instance ever after."""
    mesh = new_mesh(None)
    # In the middle of a batch, too: several joins are one transaction.
    steps = [(step, 1) for step in STEPS] + ([("used", 2), ("used", 5)] if count > 1 else [])
    for step, times in steps:
        await mesh.start_auth()
        asking = [requester(token) for token in await tokens(mesh, count)]
        await mesh.auth.stop()
        monkeypatch.setenv(VARIABLE, f"{step}*{times}:{mesh.data}")
        await mesh.start_auth()
        async with door(mesh.join_address) as stub:
            lost = await asyncio.gather(*(ask(stub, one) for one in asking))
        assert await mesh.auth.ended() == -signal.SIGKILL, step
        assert "UNDER TEST" in mesh.auth.log
        assert grpc.StatusCode.UNAVAILABLE in lost
        monkeypatch.delenv(VARIABLE)
        await mesh.start_auth()
        await _all_joined(mesh, asking)
        await mesh.auth.stop()


async def _all_joined(mesh: Mesh, asking: Sequence[JoinRequester]) -> None:
    async with door(mesh.join_address) as stub:
        first = await asyncio.gather(*(ask(stub, one) for one in asking))
        again = await asyncio.gather(*(ask(stub, one) for one in asking))
    assert first == again
    assert len(set(first)) == len(asking)
    assert all(isinstance(one, bytes) for one in first)
    assert set(instances(mesh).values()) == {1}


async def test_a_failpoint_of_another_directory_is_refused(
    new_mesh: NewMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left on by accident, it keeps auth from starting, and says what to unset."""
    mesh = new_mesh(None)
    for value in (
        "",
        "used",
        "used*1",
        f"used*1:{mesh.root}",
        f"nowhere*1:{mesh.data}",
        f"used*x:{mesh.data}",
    ):
        monkeypatch.setenv(VARIABLE, value)
        assert await mesh.begin_auth().ended() == 5, value
        assert f"{VARIABLE} is set" in mesh.auth.log


@pytest.mark.timeout(180)
async def test_two_auths_on_one_database(new_mesh: NewMesh) -> None:
    """Two processes, past the lock that keeps them apart, race for tokens: one instance for each of them."""
    mesh = new_mesh(None)
    await mesh.start_auth()
    other = mesh.root / "other"
    shutil.copytree(mesh.data, other, ignore=shutil.ignore_patterns("auth.db*", "auth.lock"))
    (other / "auth.db").symlink_to(mesh.data / "auth.db")
    ports = Ports(0, 0, 0).chosen(HOST)
    arguments = mesh.auth_arguments(other)
    arguments[arguments.index("--join-listen") + 1] = f"{HOST}:{ports.join}"
    arguments[arguments.index("--listen") + 1] = f"{HOST}:{ports.auth}"
    await mesh.python("other", "services.auth", *arguments).says("is ready")
    async with door(mesh.join_address) as one, door(f"{HOST}:{ports.join}") as two:
        for token in await tokens(mesh, 5):
            rivals = [requester(token) for _ in range(200)]
            told = await asyncio.gather(
                *(ask((one, two)[number % 2], rival) for number, rival in enumerate(rivals))
            )
            [winner] = [index for index, got in enumerate(told) if isinstance(got, bytes)]
            assert set(told) == {told[winner], grpc.StatusCode.PERMISSION_DENIED}
            # Whichever of the two is asked again, and both at once.
            assert set(await asyncio.gather(*(ask(stub, rivals[winner]) for stub in (one, two) * 5))) == {
                told[winner]
            }
        same = [requester(token) for token in await tokens(mesh, 20)]
        at_both = await asyncio.gather(*(ask(stub, one_) for one_ in same for stub in (one, two)))
    assert at_both[::2] == at_both[1::2]
    assert set(instances(mesh).values()) == {1}
    assert len(instances(mesh)) == 25
