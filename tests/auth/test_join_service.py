"""The join port: refusals take equally long, and guessing is slowed down without locking the owner out."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import grpc
import pytest
import pytest_asyncio

from mesh.core.audit import Kind, Verdict
from mesh.core.conduct import STRANGE
from mesh.core.join import JoinToken
from mesh.core.keys import KEY_BYTES, Key
from mesh.rpc.warden import Warden
from services.auth import join_service
from services.auth.admission import REFUSED
from services.auth.audit_log import DENIALS
from services.auth.deferred import UNHEARD
from services.auth.guesses import PAIR, SOURCE
from services.auth.join_service import LIMITED, JoinServicer
from services.auth.worker import Worker
from tests.auth.world import Attempt, World
from tests.timing import BOUND, spin, told_apart

C = grpc.StatusCode
WRONG = Key(bytes(KEY_BYTES))


class RefusalError(Exception):
    """What ends a call."""


class Caller:
    """Somebody who calls from an address."""

    def __init__(self, address: str) -> None:
        self._peer = f"ipv4:{address}:4711"

    def peer(self) -> str:
        """Say where from."""
        return self._peer

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        """End the call."""
        raise RefusalError(code, details)


class Door:
    """A join port, without its socket."""

    def __init__(self, world: World, worker: Worker) -> None:
        self.world, self.worker = world, worker
        self.servicer = JoinServicer(world.authority, worker)

    async def send(self, attempt: Attempt, address: str) -> object:
        """Send a request from an address; give the instance that it gets, or the refusal."""
        try:
            answer = await self.servicer.Join(attempt.request, Caller(address))
        except RefusalError as refused:
            return refused.args
        return attempt.requester.open(answer).credentials.instance

    async def flood(self, attempts: Sequence[Attempt], address: str) -> list[object]:
        """Send many at once, as many as may wait."""
        found: list[object] = []
        for at in range(0, len(attempts), 500):
            found += await asyncio.gather(*(self.send(one, address) for one in attempts[at : at + 500]))
        return found


@pytest_asyncio.fixture
async def door(world: World) -> AsyncIterator[Door]:
    """Open a door of a world."""
    with Worker() as worker:
        yield Door(world, worker)


REFUSAL = (C.PERMISSION_DENIED, REFUSED)
LIMIT = (C.RESOURCE_EXHAUSTED, LIMITED)


async def test_ten_thousand_guesses(door: Door) -> None:
    """From one address they are soon not heard any more; the owner of the token joins from another."""
    token = await door.worker.do(door.world.token)
    guess = Attempt(JoinToken(token.id, WRONG))
    told = await door.flood([guess] * 10_000, "192.0.2.1")
    assert set(told) == {REFUSAL, LIMIT}
    # Those of one batch are counted when they are answered.
    assert PAIR.burst <= told.count(REFUSAL) < 2 * PAIR.burst
    owner = Attempt(token)
    assert await door.send(owner, "192.0.2.1") == LIMIT
    assert isinstance(await door.send(owner, "192.0.2.2"), bytes)
    await door.worker.do(door.world.authority.auditor.close)
    logged = door.world.audit(DENIALS)
    assert sum(entry.count for entry in logged) == len(told) + 1
    unheard = [entry for entry in logged if entry.event == "joins not heard" or entry.by == UNHEARD]
    assert sum(entry.count for entry in unheard) == told.count(LIMIT) + 1
    assert (unheard[0].kind, unheard[0].verdict) == (Kind.JOIN, Verdict.DENIED)


async def test_guesses_at_many_tokens(door: Door) -> None:
    """A source is limited in all, and tokens that do not exist count as those that do."""
    token = await door.worker.do(door.world.token)
    guesses = [Attempt(JoinToken(f"{number:016x}", WRONG)) for number in range(40)]
    told = await door.flood(guesses * 50, "192.0.2.1")
    assert SOURCE.burst <= told.count(REFUSAL) < 1.5 * SOURCE.burst
    assert isinstance(await door.send(Attempt(token), "192.0.2.2"), bytes)


async def test_who_joins_is_not_counted(door: Door) -> None:
    """Two hundred repeats of a good request from one address, and nobody is limited."""
    attempt = Attempt(await door.worker.do(door.world.token))
    told = await door.flood([attempt] * 2000, "192.0.2.1")
    assert len(set(told)) == 1
    assert isinstance(told[0], bytes)


async def test_only_who_was_let_in_vouches_for_an_address(door: Door) -> None:
    """A guess excuses what came with it; that a member stands at its address, only a join says."""
    door.servicer.warden = warden = Warden(1)
    line = warden.line(Caller("192.0.2.1").peer())
    assert await door.send(Attempt(JoinToken("0" * 16, WRONG)), "192.0.2.1") == REFUSAL
    assert not line.vouches()
    assert not any(line.look(size * STRANGE) for size in (9, 9, 9))
    assert isinstance(await door.send(Attempt(await door.worker.do(door.world.token)), "192.0.2.1"), bytes)
    assert line.vouches()


async def test_refusals_wait_for_their_moment(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """No refusal is told before its moment, whatever it took to find; who is let in does not wait for one."""
    monkeypatch.setattr(join_service, "EVEN_SECONDS", 0.2)
    now = asyncio.get_running_loop().time
    known = await door.worker.do(_refused, door.world)
    for attempt in (*known, Attempt(JoinToken("0" * 16, WRONG))):
        began = now()
        assert await door.send(attempt, "192.0.2.1") == REFUSAL
        assert now() - began >= 0.2
    monkeypatch.setattr(join_service, "EVEN_SECONDS", 1e6)
    token = await door.worker.do(door.world.token)
    assert isinstance(await door.send(Attempt(token), "192.0.2.1"), bytes)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_refusals_take_equally_long(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong, expired, used and revoked take as long as unknown, where fifty microseconds more are seen."""
    monkeypatch.setattr(join_service, "EVEN_SECONDS", 0.005)
    addresses = itertools.count()

    def asking(attempts: Sequence[Attempt], planted: Callable[[], None]) -> Callable[[], Awaitable[None]]:
        async def ask() -> None:
            number = next(addresses)
            address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            assert await door.send(random.choice(attempts), address) == REFUSAL
            planted()

        return ask

    known = await door.worker.do(_refused, door.world)
    unknown = [Attempt(JoinToken(f"{number:016x}", WRONG)) for number in range(4)]
    calls = {
        "forbidden": asking(known, _nothing),
        "nowhere": asking(unknown, _nothing),
        "planted": asking(unknown, spin),
    }
    assert abs(await told_apart(calls)) < BOUND


def _nothing() -> None:
    pass


def _refused(world: World) -> list[Attempt]:
    expired, operator = world.token(ttl_seconds=1), world.operator()
    world.time.pass_ms(2000)
    wrong, used, revoked = (world.token(ttl_seconds=86_400) for _ in range(3))
    world.join(used)
    world.authority.revoke_token(revoked.id, operator)
    return [Attempt(JoinToken(wrong.id, WRONG)), *(Attempt(token) for token in (expired, used, revoked))]
