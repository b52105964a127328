"""The feed: whoever watches gets the newest policy, at once, and an end when there is one."""

import asyncio

import pytest

from mesh.core.names import InstanceId
from mesh.v1 import auth_pb2, revocation_pb2
from services.auth import policy_feed
from services.auth.policy_feed import PolicyFeed


def policy(version: int) -> auth_pb2.SignedPolicy:
    return auth_pb2.SignedPolicy(version=version)


def version_of(said: auth_pb2.WatchPolicyResponse) -> int | None:
    return said.policy.version if said.HasField("policy") else None


async def test_it_gives_what_is_there_and_what_comes() -> None:
    """A watcher gets the policy of record, then each that takes its place."""
    feed = PolicyFeed(policy(3))
    words = feed.words()
    assert version_of(await anext(words)) == 3
    coming = asyncio.ensure_future(anext(words))
    await asyncio.sleep(0)
    assert not coming.done()
    feed.publish(policy(4))
    assert version_of(await coming) == 4


async def test_a_slow_watcher_gets_the_newest() -> None:
    """What was overtaken while nobody looked is left out; an older one never comes after a newer."""
    feed = PolicyFeed(policy(1))
    words = feed.words()
    await anext(words)
    for version in (2, 5, 4):
        feed.publish(policy(version))
    assert version_of(await anext(words)) == 5


async def test_its_end_ends_everybody() -> None:
    """Closed, it ends those who wait, and those who come later."""
    feed = PolicyFeed(policy(1))
    words = feed.words()
    await anext(words)
    waiting = asyncio.ensure_future(anext(words))
    await asyncio.sleep(0)
    feed.close()
    with pytest.raises(StopAsyncIteration):
        await waiting
    with pytest.raises(StopAsyncIteration):
        await anext(feed.words())


async def test_it_says_again_and_again_that_nothing_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever watches can tell that nothing has changed from that auth has gone; news still come at once."""
    monkeypatch.setattr(policy_feed, "BEAT", 0.01)
    feed = PolicyFeed(policy(1))
    words = feed.words()
    assert [version_of(await anext(words)) for _ in range(3)] == [
        1,
        None,
        None,
    ]
    feed.publish(policy(2))
    assert version_of(await anext(words)) == 2


def revocations(*instances: int) -> revocation_pb2.Revocations:
    ids = [revocation_pb2.RevokedInstance(instance=InstanceId(bytes([one] * 16)).raw) for one in instances]
    return revocation_pb2.Revocations(instances=ids)


async def test_it_gives_who_is_revoked_once_and_whenever_that_changes() -> None:
    """The first word has all of it; a later one has it only if it is another, and no policy then."""
    feed = PolicyFeed(policy(1), revocations(1))
    words = feed.words()
    first = await anext(words)
    assert (first.revocations, version_of(first)) == (revocations(1), 1)
    feed.revoke(revocations(1, 2), 1)
    second = await anext(words)
    assert (second.revocations, version_of(second)) == (revocations(1, 2), None)
    feed.publish(policy(2))
    third = await anext(words)
    assert (third.HasField("revocations"), version_of(third)) == (False, 2)


async def test_an_older_list_changes_nothing() -> None:
    """Of two operators' changes the later one's list stands, in whatever order they come to be told."""
    feed = PolicyFeed(policy(1))
    feed.revoke(revocations(1, 2), 2)
    feed.revoke(revocations(1), 1)
    assert (await anext(feed.words())).revocations == revocations(1, 2)
