"""The policy comes from auth, again and again, and stays in force whatever becomes of auth."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mesh.core.builtin import SECTIONS
from mesh.core.keys import destination_key, lp, pair_key
from mesh.core.matcher import Matcher
from mesh.core.names import AUTH, GATEKEEPER
from mesh.rpc.channel import MeshChannel
from mesh.rpc.server import MeshServer
from mesh.rpc.targets import FixedTarget
from mesh.v1 import auth_pb2, auth_pb2_grpc
from services.gatekeeper import policy_source
from services.gatekeeper.confirmed import Confirmed
from services.gatekeeper.policy_source import PolicySource
from services.gatekeeper.signed import VersionedPolicy
from tests.rpc.pair import DOMAIN, World

KEY = Ed25519PrivateKey.generate()


def sign(version: int, key: Ed25519PrivateKey = KEY) -> auth_pb2.SignedPolicy:
    document = json.dumps({"services": {f"service{version}": {}}}).encode()
    covered = b"mesh/v1/policy" + lp(DOMAIN.text.encode()) + version.to_bytes(8, "big") + lp(document)
    return auth_pb2.SignedPolicy(version=version, document=document, signature=key.sign(covered))


class _Auth(auth_pb2_grpc.AuthServiceServicer):
    """An auth that sends what the test puts into its queue; ``None`` ends the stream."""

    def __init__(self, world: World, address: str = "127.0.0.1:0") -> None:
        self.queue: asyncio.Queue[auth_pb2.SignedPolicy | None] = asyncio.Queue()
        member = world.member(AUTH.text)
        member.authorize = Matcher(SECTIONS[AUTH]).permit
        self.clock = world.clock
        self.server = MeshServer(member, address)
        auth_pb2_grpc.add_AuthServiceServicer_to_server(self, self.server)

    async def WatchPolicy(  # noqa: N802
        self, _request: auth_pb2.WatchPolicyRequest, _context: Any
    ) -> AsyncIterator[auth_pb2.WatchPolicyResponse]:
        while (signed := await self.queue.get()) is not None:
            yield auth_pb2.WatchPolicyResponse(policy=signed, now_ms=self.clock.now_ms())

    async def Renew(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        raise NotImplementedError

    async def GetPairKeys(self, _request: Any, _context: Any) -> Any:  # noqa: N802
        raise NotImplementedError


class _Scene:
    """An auth, and a source that follows it."""

    def __init__(self) -> None:
        self.world = World()
        self.auth = _Auth(self.world)
        self.member = self.world.member(GATEKEEPER.text)
        self.member.policy_key = KEY.public_key().public_bytes_raw()
        key = pair_key(destination_key(self.world.root, DOMAIN, AUTH), GATEKEEPER)
        self.member.sender.learn(AUTH, self.world.epoch, key)
        self.address = f"127.0.0.1:{self.auth.server.port}"
        self.target = FixedTarget(AUTH, self.address, self.member)
        self.taken: asyncio.Queue[VersionedPolicy] = asyncio.Queue()
        channel = MeshChannel(self.member, self.target)
        self.confirmed = Confirmed(self.world.clock.now_ms)
        self.source = PolicySource(self.member, channel, self.taken.put_nowait, self.confirmed)

    async def next_version(self) -> int:
        return (await asyncio.wait_for(self.taken.get(), 10)).version


@pytest.fixture
async def scene() -> AsyncIterator[_Scene]:
    """Run a source against an auth that is there."""
    made = _Scene()
    await made.auth.server.start()
    running = asyncio.create_task(made.source.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await made.target.close()
    await made.auth.server.stop(None)


async def test_each_newer_policy_is_taken_once(scene: _Scene) -> None:
    """What auth sends is in force as it comes; the same again changes nothing."""
    for version in (3, 3, 4):
        scene.auth.queue.put_nowait(sign(version))
    assert [await scene.next_version() for _ in range(2)] == [3, 4]
    assert scene.taken.empty()


async def test_older_and_forged_policies_change_nothing(
    scene: _Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """They are logged, and the stream goes on to the next good one."""
    with caplog.at_level(logging.ERROR, "mesh.gatekeeper"):
        for signed in (sign(3), sign(2), sign(9, Ed25519PrivateKey.generate()), sign(4)):
            scene.auth.queue.put_nowait(signed)
        assert [await scene.next_version() for _ in range(2)] == [3, 4]
    said = [r.message for r in caplog.records if r.name == "mesh.gatekeeper"]
    assert said == [
        "policy from mesh.auth not taken: policy 2 is not newer than 3, in force",
        "policy from mesh.auth not taken: signature of policy 9 does not verify",
    ]


async def test_the_policy_survives_the_absence_of_auth(
    scene: _Scene, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Auth goes, comes back as another instance, and is followed again; the wait is logged once."""
    monkeypatch.setattr(policy_source, "LONGEST_PAUSE_SECONDS", 0.2)
    with caplog.at_level(logging.INFO, "mesh.gatekeeper"):
        scene.auth.queue.put_nowait(sign(3))
        assert await scene.next_version() == 3
        await scene.auth.server.stop(None)
        while not any("waiting" in record.message for record in caplog.records):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert scene.source.in_force is not None
        assert scene.source.in_force.version == 3
        scene.auth = _Auth(scene.world, scene.address)
        await scene.auth.server.start()
        for version in (3, 5):
            scene.auth.queue.put_nowait(sign(version))
        assert await scene.next_version() == 5
    said = [r.message for r in caplog.records if r.name == "mesh.gatekeeper"]
    assert sum("waiting for mesh.auth" in line for line in said) == 1
    assert said.count("mesh.auth sends the policy again") == 1


async def test_a_stream_that_ends_is_opened_again(scene: _Scene) -> None:
    """Even an end in good order is no reason to stop following."""
    scene.auth.queue.put_nowait(sign(3))
    scene.auth.queue.put_nowait(None)
    scene.auth.queue.put_nowait(sign(4))
    assert [await scene.next_version() for _ in range(2)] == [3, 4]


async def test_streams_do_not_live_for_ever(
    scene: _Scene, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After its time a stream is replaced by a new one, without a word."""
    monkeypatch.setattr("services.gatekeeper.policy_source.STREAM_SECONDS", 0.05)
    scene.auth.queue.put_nowait(sign(3))
    assert await scene.next_version() == 3
    scene.auth.queue.put_nowait(None)
    opened = 0
    real = scene.auth.queue.get

    async def counted() -> auth_pb2.SignedPolicy | None:
        nonlocal opened
        opened += 1
        return await real()

    monkeypatch.setattr(scene.auth.queue, "get", counted)
    with caplog.at_level(logging.INFO, "mesh.gatekeeper"):
        while opened < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert [r.message for r in caplog.records if "deadline" in r.message.lower()] == []
    scene.auth.queue.put_nowait(sign(4))
    monkeypatch.undo()


def test_gatekeeper_alone_may_follow() -> None:
    """The built-in rules let nobody else watch the policy."""
    judge = Matcher(SECTIONS[AUTH])
    assert judge.permit(GATEKEEPER.text, "/mesh.v1.AuthService/WatchPolicy", ()).rule
    for other in ("frontend", "mesh.operator", "mesh.auth"):
        with pytest.raises(Exception, match="may not call"):
            judge.permit(other, "/mesh.v1.AuthService/WatchPolicy", ())
