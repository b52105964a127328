"""A node that auth was away from for longer than its keys last is heard while its certificate lives."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Final

import grpc
import pytest
import pytest_asyncio

from mesh.core.metadata import EMPTY_DIGEST
from mesh.core.names import AUTH, GATEKEEPER, FullMethod, InstanceId, ServiceName
from mesh.core.sender import NoKeyError
from mesh.core.wire import CallHeader, decode_call
from mesh.enrol import Enrolment
from mesh.pauses import RETRY_FIRST, RETRY_MOST, SPREAD
from mesh.rpc.svid import new_key
from mesh.v1 import auth_pb2, revocation_pb2
from services.auth.authority import Lives
from services.auth.epochs import Schedule
from tests.auth.served import Live, nodes
from tests.auth.world import Time, World
from tests.e2e.process import until

#: Certificates of ten minutes over epochs of two seconds.
SVID_MS: Final = 600_000
LIVES: Final = Lives(SVID_MS, Schedule(epoch_ms=2000, grace_ms=2000))
#: What auth is away for: many epochs. TLS goes by the real time, to which a certificate is younger.
AWAY_MS: Final = 240_000
RENEW: Final = FullMethod("/mesh.v1.AuthService/Renew")


@pytest_asyncio.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    """Serve a world in which time stands still until it is moved."""
    world = World(tmp_path / "mesh", Time(float(int(time.time()))), LIVES)
    async with Live.serving(world) as made:
        yield made


async def joined(live: Live) -> Enrolment:
    """Join, and go by the world's clock."""
    node = await live.node("orders")
    node.membership.clock = live.world.clock
    return node


def sealed_under(node: Enrolment, to: ServiceName) -> int:
    """Give the epoch that a call would be sealed under now."""
    now = node.membership.clock.now_ms()
    data, _ = node.membership.sender.seal(to, InstanceId(bytes(16)), RENEW, EMPTY_DIGEST, 0, now)
    return CallHeader.decode(decode_call(data)[1]).epoch.number


async def test_a_node_is_not_stranded(live: Live) -> None:
    """All its keys have ended, and those for others are of no use; it renews by itself, and has new ones."""
    node = await joined(live)
    live.world.time.pass_ms(AWAY_MS)
    with pytest.raises(NoKeyError):
        sealed_under(node, GATEKEEPER)
    before, certificate = sealed_under(node, AUTH), node.membership.svid
    await asyncio.wait_for(node._renew_at_last(), 20)
    assert node.membership.svid is not certificate
    assert sealed_under(node, GATEKEEPER) == sealed_under(node, AUTH) > before


async def test_one_that_was_revoked_is_not_heard(live: Live) -> None:
    """A key that is accepted for long is worth nothing to an instance that is revoked."""
    node = await joined(live)
    live.world.time.pass_ms(AWAY_MS)
    by = await live.worker.do(live.world.operator)
    request = revocation_pb2.RevokeRequest(service="orders", instance=node.membership.instance.raw)
    await live.worker.do(live.world.authority.revoking.revoke, request, by)
    for call in (
        nodes(node).Renew(auth_pb2.RenewRequest(csr=new_key()[1]), timeout=10),
        nodes(node).GetPairKeys(auth_pb2.GetPairKeysRequest(destinations=[AUTH.text]), timeout=10),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_it_ends_with_the_certificate(live: Live) -> None:
    """What came with a certificate is of use for as long as that lives, and an epoch longer at most."""
    node = await joined(live)
    live.world.time.pass_ms(SVID_MS)
    assert sealed_under(node, AUTH)
    live.world.time.pass_ms(LIVES.schedule.epoch_ms + 1000)
    with pytest.raises(NoKeyError):
        sealed_under(node, AUTH)


async def test_one_that_slept_too_long_says_what_to_do(live: Live, caplog: pytest.LogCaptureFixture) -> None:
    """Once, when its certificate ends: until then it tries on, and after that only a new token helps."""
    node = await joined(live)
    ended = "this node's certificate has ended: start it again with a new token"
    live.world.time.pass_ms(SVID_MS - 1000)
    by = await live.worker.do(live.world.operator)
    request = revocation_pb2.RevokeRequest(service="orders", instance=node.membership.instance.raw)
    await live.worker.do(live.world.authority.revoking.revoke, request, by)
    renewing = asyncio.create_task(node._renew_at_last())
    await until(lambda: "renewal failed, trying on" in caplog.text, "a failure to renew")
    assert ended not in caplog.text
    live.world.time.pass_ms(LIVES.schedule.epoch_ms + 2000)
    await until(lambda: ended in caplog.text, "the end of the certificate")
    renewing.cancel()
    assert [record.getMessage() for record in caplog.records if record.name == "mesh"][-1] == ended


async def test_many_who_lost_auth_come_back_spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is time: anywhere in five seconds, so about 100 of 500 a second, and they stay apart."""
    monkeypatch.setattr("random.uniform", Random(5).uniform)
    async with Live.serving(World(tmp_path / "mesh", Time(float(int(time.time()))))) as live:
        node = await joined(live)
        pauses = [node.pauses() for _ in range(500)]
        firsts = Counter(int(next(each)) for each in pauses)
        assert set(firsts) == set(range(5))
        assert max(firsts.values()) < 140
        later = [next(each) for each in pauses for _ in range(5)]
        assert min(later) >= 0.8 * SPREAD
        assert max(later) <= SPREAD


async def test_who_has_little_time_does_not_wait(live: Live) -> None:
    """A node whose keys end in a second or have ended tries again at once, and then as often as ever."""
    node = await joined(live)
    for ms in (3000, 2000):
        live.world.time.pass_ms(ms)
        pauses = node.pauses()
        assert next(pauses) <= RETRY_FIRST
        assert max(next(pauses) for _ in range(20)) <= RETRY_MOST
