"""The feed: whoever watches gets the newest policy, at once, and an end when there is one."""

import asyncio

import pytest

from mesh.v1 import auth_pb2
from services.auth import policy_feed
from services.auth.policy_feed import PolicyFeed


def policy(version: int) -> auth_pb2.SignedPolicy:
    return auth_pb2.SignedPolicy(version=version)


def version_of(said: auth_pb2.SignedPolicy | None) -> int:
    assert said is not None
    return said.version


async def test_it_gives_what_is_there_and_what_comes() -> None:
    """A watcher gets the policy of record, then each that takes its place."""
    feed = PolicyFeed(policy(3))
    versions = feed.versions()
    assert version_of(await anext(versions)) == 3
    coming = asyncio.ensure_future(anext(versions))
    await asyncio.sleep(0)
    assert not coming.done()
    feed.publish(policy(4))
    assert version_of(await coming) == 4


async def test_a_slow_watcher_gets_the_newest() -> None:
    """What was overtaken while nobody looked is left out; an older one never comes after a newer."""
    feed = PolicyFeed(policy(1))
    versions = feed.versions()
    await anext(versions)
    for version in (2, 5, 4):
        feed.publish(policy(version))
    assert version_of(await anext(versions)) == 5


async def test_its_end_ends_everybody() -> None:
    """Closed, it ends those who wait, and those who come later."""
    feed = PolicyFeed(policy(1))
    versions = feed.versions()
    await anext(versions)
    waiting = asyncio.ensure_future(anext(versions))
    await asyncio.sleep(0)
    feed.close()
    with pytest.raises(StopAsyncIteration):
        await waiting
    with pytest.raises(StopAsyncIteration):
        await anext(feed.versions())


async def test_it_says_again_and_again_that_nothing_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever watches can tell that nothing has changed from that auth has gone; news still come at once."""
    monkeypatch.setattr(policy_feed, "BEAT", 0.01)
    feed = PolicyFeed(policy(1))
    versions = feed.versions()
    assert [version_of(await anext(versions)), await anext(versions), await anext(versions)] == [
        1,
        None,
        None,
    ]
    feed.publish(policy(2))
    assert version_of(await anext(versions)) == 2
