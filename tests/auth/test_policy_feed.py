"""The feed: whoever watches gets the newest policy, at once, and an end when there is one."""

import asyncio

import pytest

from mesh.v1 import auth_pb2
from services.auth.policy_feed import PolicyFeed


def policy(version: int) -> auth_pb2.SignedPolicy:
    return auth_pb2.SignedPolicy(version=version)


async def test_it_gives_what_is_there_and_what_comes() -> None:
    """A watcher gets the policy of record, then each that takes its place."""
    feed = PolicyFeed(policy(3))
    versions = feed.versions()
    assert (await anext(versions)).version == 3
    coming = asyncio.ensure_future(anext(versions))
    await asyncio.sleep(0)
    assert not coming.done()
    feed.publish(policy(4))
    assert (await coming).version == 4


async def test_a_slow_watcher_gets_the_newest() -> None:
    """What was overtaken while nobody looked is left out; an older one never comes after a newer."""
    feed = PolicyFeed(policy(1))
    versions = feed.versions()
    await anext(versions)
    for version in (2, 5, 4):
        feed.publish(policy(version))
    assert (await anext(versions)).version == 5


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
