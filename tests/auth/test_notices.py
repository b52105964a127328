"""Notices between auths on one PostgreSQL: they come at once, and again after the connection was cut."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Connection

from mesh.v1 import revocation_pb2
from services.auth import notices
from services.auth.database import StoreError
from services.auth.notices import CHANNEL, conninfo
from services.auth.worker import Worker
from tests.auth.world import World
from tests.e2e.process import until
from tests.postgres import Server, server

#: Seconds within which anything comes on a busy machine.
SOON: Final = 20.0


@asynccontextmanager
async def listening(world: World) -> AsyncIterator[asyncio.Event]:
    """Give what is set by each notice, once there was the first, which says that it is connected."""
    told = asyncio.Event()
    task = asyncio.create_task(world.store.listen(told.set))
    try:
        await heard(told)
        yield told
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def heard(told: asyncio.Event) -> None:
    async with asyncio.timeout(SOON):
        await told.wait()
    told.clear()


async def test_a_change_is_told_of(tmp_path: Path, postgres: Server) -> None:
    """To every auth, once it is committed: a policy, and who is revoked."""
    with Worker() as worker:
        first, second = await worker.do(_two, tmp_path, postgres.url(postgres.database()))
        async with listening(second) as told:
            for version in (1, 2):
                assert (await worker.do(first.apply, {"services": {}})).version == version
                await heard(told)
            request = revocation_pb2.RevokeRequest(service="orders")
            by = await worker.do(first.operator)
            await worker.do(first.authority.revoking.revoke, request, by)
            await heard(told)
        await worker.do(_stop, first, second)


async def test_what_is_not_committed_is_told_to_nobody(tmp_path: Path, postgres: Server) -> None:
    """The notice of a change that was taken back is not sent."""
    with Worker() as worker:
        first, second = await worker.do(_two, tmp_path, postgres.url(postgres.database()))
        database = first.store._database

        def undone(connection: Connection) -> None:
            database.changed(connection)
            raise StoreError("not this time")

        async with await psycopg.AsyncConnection.connect(first.database, autocommit=True) as connection:
            await connection.execute(f"LISTEN {CHANNEL}")
            with pytest.raises(StoreError, match="not this time"):
                await worker.do(database.transact, undone)
            await worker.do(postgres.run, f"NOTIFY {CHANNEL}, 'later'", _name(first))
            told = [notice.payload async for notice in connection.notifies(timeout=SOON, stop_after=1)]
        assert told == ["later"]
        await worker.do(_stop, first, second)


async def test_a_cut_connection_is_made_anew(
    tmp_path: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once that there are no notices, then that there are again, and they are."""
    monkeypatch.setattr(notices, "AGAIN_SECONDS", 0.05)
    caplog.set_level(logging.INFO, "mesh.auth")
    with Worker() as worker:
        first, second = await worker.do(_two, tmp_path, postgres.url(postgres.database()))
        async with listening(second) as told:
            await asyncio.to_thread(postgres.cut, _name(first))
            await heard(told)
            await worker.do(first.apply, {"services": {}})
            await heard(told)
        await worker.do(_stop, first, second)
    said = [record.getMessage() for record in caplog.records if "notices" in record.getMessage()]
    assert len(said) == 2
    assert said[0].startswith("no notices of other auths' changes, looking twice a second: ")
    assert said[1] == "notices of other auths' changes come again"


@pytest.mark.newest  # an older psycopg waits on; auth looks twice a second meanwhile
async def test_a_server_that_stands_still_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection on which nothing is answered is none: once the server goes on, another one has notices."""
    for name, seconds in (("SILENCE_SECONDS", 0.1), ("ANSWER_SECONDS", 0.2), ("AGAIN_SECONDS", 0.05)):
        monkeypatch.setattr(notices, name, seconds)
    with Worker() as worker, server() as own:
        first, second = await worker.do(_two, tmp_path, own.url(own.database()))
        async with listening(second) as told:
            with standing_still(own, _name(first)):
                await until(lambda: "no notices" in caplog.text, "the connection to be given up")
                told.clear()
            await heard(told)
            await worker.do(first.apply, {"services": {}})
            await heard(told)
        await worker.do(_stop, first, second)


def test_a_connection_to_a_machine_that_is_gone_ends(tmp_path: Path, postgres: Server) -> None:
    """In seconds, not when TCP gives up: unless the URL has another opinion, which counts."""
    url = postgres.url(postgres.database())
    assert conninfo_to_dict(conninfo(f"{url}&tcp_user_timeout=1&application_name=a")) == {
        **conninfo_to_dict(url),
        **{name: str(value) for name, value in notices.CONNECTION.items()},
        "application_name": "a",
        "tcp_user_timeout": "1",
    }
    world = World(tmp_path / "first", database=url)
    has: dict[str, str] = world.store._database.read(
        lambda connection: connection.connection.driver_connection.info.get_parameters()  # type: ignore[union-attr]
    )
    world.stop()
    assert {name: has[name] for name in ("tcp_user_timeout", "keepalives_idle", "connect_timeout")} == {
        "tcp_user_timeout": "15000",
        "keepalives_idle": "5",
        "connect_timeout": "5",
    }


@contextmanager
def standing_still(server: Server, database: str) -> Iterator[None]:
    """Stop every process of the server that serves a database, for the length of the block."""
    query = f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}'"
    pids = [int(str(pid)) for (pid,) in server.run(query)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _two(where: Path, url: str) -> tuple[World, World]:
    first = World(where / "first", database=url)
    return first, first.beside(where / "second")


def _stop(*worlds: World) -> None:
    for world in worlds:
        world.stop()


def _name(world: World) -> str:
    return world.database.partition("@/")[2].partition("?")[0]
