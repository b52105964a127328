"""auth as a process: how it starts, what it says, how it ends, and that its timers turn under load."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sqlite3
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from cryptography import x509

from mesh.core.join import JoinToken
from mesh.enrol import Enrolment, join
from mesh.rpc.channel import MeshChannel
from mesh.v1 import auth_pb2, auth_pb2_grpc
from services.auth.founding import found
from tests.auth.world import DOMAIN

ROOT = Path(__file__).parent.parent.parent
ANY = ("--join-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0")

Start = Callable[..., Awaitable[Process]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Make a data directory."""
    found(tmp_path / "mesh", DOMAIN, int(time.time() * 1000))
    return tmp_path / "mesh"


@pytest_asyncio.fixture
async def start(data: Path) -> AsyncIterator[Start]:
    """Start auth on the data directory; what still runs at the end is killed."""
    started = list[Process]()

    async def run(*options: str) -> Process:
        command = (sys.executable, "-m", "services.auth", "--data", str(data), *options)
        started.append(await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=PIPE))
        return started[-1]

    yield run
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ready(data: Path, process: Process) -> dict[str, str]:
    """Wait until auth says where it is."""
    for _ in range(1000):
        assert process.returncode is None, (await process.communicate())[1].decode()
        if (data / "addresses.json").exists():
            found: dict[str, str] = json.loads((data / "addresses.json").read_text())
            return found
        await asyncio.sleep(0.02)
    raise AssertionError("auth did not become ready")


async def enrol(data: Path, addresses: dict[str, str]) -> Enrolment:
    """Join as an operator."""
    credential = JoinToken.parse(json.loads((data / "operator.json").read_text())["token"])
    return await asyncio.wait_for(join(credential, addresses["join"]), 10)


def operators(enrolment: Enrolment) -> auth_pb2_grpc.OperatorServiceAsyncStub:
    return auth_pb2_grpc.OperatorServiceStub(MeshChannel(enrolment.membership, enrolment.auth))


async def status(enrolment: Enrolment) -> auth_pb2.GetAuthStatusResponse:
    return await operators(enrolment).GetAuthStatus(auth_pb2.GetAuthStatusRequest(), timeout=5)


async def failed(process: Process, status: int) -> str:
    """Give the one line that auth says when it does not start, with that status."""
    _, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == status
    lines = err.decode().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


async def test_it_says_where_it_is_and_ends_when_told(data: Path, start: Start) -> None:
    """Ready is when the addresses are there; SIGTERM and SIGINT end it with 0 and take them back."""
    for number in (signal.SIGTERM, signal.SIGINT):
        process = await start(*ANY, "--gatekeeper", "10.0.0.1:7702")
        addresses = await ready(data, process)
        assert addresses.keys() == {"join", "auth", "gatekeeper"}
        assert addresses["gatekeeper"] == "10.0.0.1:7702"
        operator = await enrol(data, addresses)
        assert operator.gatekeeper_address == "10.0.0.1:7702"
        assert (await status(operator)).trust_domain == "shop.example"
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), 10) == 0
        assert not (data / "addresses.json").exists()
        await operator.close()


async def test_it_tells_nodes_the_advertised_host(data: Path, start: Start) -> None:
    """What nodes are told is the host advertised, with the port listened on."""
    process = await start("--join-listen", "0.0.0.0:0", "--listen", "0.0.0.0:0", "--advertise", "localhost")
    addresses = await ready(data, process)
    assert addresses["auth"].startswith("localhost:")
    assert not addresses["auth"].endswith(":0")
    operator = await enrol(data, addresses)
    assert (await status(operator)).trust_domain == "shop.example"
    await operator.close()


async def test_an_address_that_nobody_can_be_told(start: Start) -> None:
    """Listening everywhere needs a name to be told."""
    assert "--advertise" in await failed(await start("--listen", "0.0.0.0:0"), 1)


@pytest.mark.parametrize("option", ["--listen", "--join-listen"])
async def test_a_port_in_use(start: Start, option: str) -> None:
    """A port in use ends the start with one line that names it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = await failed(await start(*ANY, option, address), 1)
    assert f"cannot listen on {address}" in line


async def test_a_ca_too_short_for_its_certificates(start: Start) -> None:
    """Lives that would cut somebody off are bad arguments."""
    process = await start(*ANY, "--ca-seconds", "3600", "--svid-seconds", "601")
    _, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 2
    assert b"a CA of 3600 s is too short for certificates of 601 s" in err


async def test_what_is_wrong_is_one_line(data: Path, start: Start) -> None:
    """A second process, a damaged database, a missing key: one line, status 5, nothing changed."""
    process = await start(*ANY)
    await ready(data, process)
    assert "in use by another auth" in await failed(await start(*ANY), 5)
    assert (data / "addresses.json").exists()
    process.terminate()
    await process.wait()
    with sqlite3.connect(data / "auth.db") as database:
        database.execute("ALTER TABLE secret RENAME TO away")
    database.close()
    assert "no such table" in await failed(await start(*ANY), 5)
    (data / "kek").unlink()
    assert "no key file" in await failed(await start(*ANY), 5)


async def test_killed_and_started_again(data: Path, start: Start) -> None:
    """After a kill, the same CA vouches for the same epoch, and those who joined before are known."""
    process = await start(*ANY)
    addresses = await ready(data, process)
    operator = await enrol(data, addresses)
    before = await status(operator)
    process.kill()
    await process.wait()
    (data / "addresses.json").unlink()
    ports = ("--join-listen", addresses["join"], "--listen", addresses["auth"])
    await ready(data, await start(*ports))
    operator.auth.forget()
    after = await status(operator)
    assert (after.epoch, after.ca_expires_ms) == (before.epoch, before.ca_expires_ms)
    await operator.close()


async def test_everything_rolls_over_under_load(data: Path, start: Start) -> None:
    """With lives of four seconds, certificates and epochs change several times and no call fails."""
    process = await start(*ANY, "--svid-seconds", "4", "--epoch-seconds", "4", "--grace-seconds", "2")
    operator = await enrol(data, await ready(data, process))
    keeping = asyncio.create_task(operator.keep())
    served, epoch, svids = 0, 0, set[bytes]()
    while epoch < 3:
        answer = await status(operator)
        epoch, served = answer.epoch.number, served + 1
        svids.add(operator.membership.svid.chain_pem)
    assert served > 50
    assert len(svids) >= 3
    not_after = [x509.load_pem_x509_certificate(pem).not_valid_after_utc for pem in svids]
    assert len(set(not_after)) >= 3
    keeping.cancel()
    await operator.close()
    assert process.returncode is None


async def test_a_missing_directory(tmp_path: Path) -> None:
    """Without a data directory, the line says how to make one; nothing is made."""
    command = (sys.executable, "-m", "services.auth", "--data", str(tmp_path / "none"))
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=PIPE)
    assert "make one with mesh init" in await failed(process, 5)
    assert not (tmp_path / "none").exists()


async def test_a_node_waits_for_auth(data: Path, start: Start) -> None:
    """A node that is started first joins by itself once auth is there."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
    joining = asyncio.create_task(enrol(data, {"join": address}))
    with pytest.raises(grpc.aio.AioRpcError):
        async with grpc.aio.insecure_channel(address) as channel:
            await auth_pb2_grpc.JoinServiceStub(channel).Join(auth_pb2.JoinRequest())
    await start("--join-listen", address, "--listen", "127.0.0.1:0")
    operator = await joining
    assert (await status(operator)).trust_domain == "shop.example"
    await operator.close()
