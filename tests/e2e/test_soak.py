"""Everything turns every two seconds, at 200 calls per second, while auths and gatekeepers are killed."""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest

from bench.figures import percentile
from mesh.core.errors import Cause
from tests.e2e.halves import in_halves, started
from tests.e2e.soaking import Killer, Pairs, Steady, Turning
from tests.e2e.world import Mesh, Timers, policy
from tests.postgres import Server

SECONDS: Final = float(os.environ.get("MESH_SOAK_SECONDS", "180"))
SEED: Final = int(os.environ.get("MESH_SOAK_SEED", str(random.randrange(10**6))))
PER_SECOND: Final = 200.0
PAIRS: Final = (("caller", "callee"), ("caller", "back"), ("front", "back"), ("front", "callee"))
#: A certificate of four seconds is renewed every two. Where one auth is all there is, nothing can be renewed
#: while it is down: half a certificate has to be enough for a restart, and for nodes to find it again.
TWO: Final = Timers(svid=4, epoch=2, grace=2)
ONE: Final = Timers(svid=32, epoch=32, grace=4)
#: Seconds for which all runs between two kills. With one auth: as long as nodes take to find it (outages.md).
WHOLE: Final = {"two": (0.0, 3.0), "one": (5.0, 8.0)}
#: Milliseconds by which a node's idea of the time is behind where the answer that told it took long.
CLOCKS_MS: Final = 1000
#: What a seal is rejected for that is none, or is no longer. Not among them: what says who is there
#: instead of an auth or gatekeeper that was killed.
SEAL_CAUSES: Final = frozenset(
    str(cause)
    for cause in Cause
    if cause not in (Cause.NOT_THIS_INSTANCE, Cause.CUT_SHORT, Cause.BAD_DEADLINE)
)


@pytest.fixture
def two(tmp_path: Path, postgres: Server) -> Iterator[Sequence[Mesh]]:
    """Give two auths and two gatekeepers on PostgreSQL."""
    with in_halves(tmp_path, postgres.url(postgres.database()), TWO) as both:
        yield both


@pytest.fixture
def one() -> Iterator[Sequence[Mesh]]:
    """Give one auth on SQLite, and one gatekeeper."""
    alone = Mesh(ONE)
    yield (alone,)
    alone.close()


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 300)
@pytest.mark.parametrize("several", ["two", "one"])
async def test_nobody_notices(
    several: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No call of established pairs fails, no seal is refused, no key is used after its end."""
    meshes: Sequence[Mesh] = request.getfixturevalue(several)
    await started(meshes)
    await meshes[0].apply(policy(*PAIRS))
    turning, pairs, killer = Turning(), Pairs(), Killer(meshes, WHOLE[several], SEED)
    async with AsyncExitStack() as stack:
        stack.enter_context(turning.watched(monkeypatch))
        await pairs.establish(meshes[0], stack)
        for node in pairs.nodes:
            turning.watch(node)
        steady = Steady(pairs.calls, PER_SECOND)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(killer.run())
            await steady.run(SECONDS)
            killer.done = True
        rejected = _rejected(meshes)
        with capsys.disabled():
            print(_figures(several, steady, turning, killer, rejected))  # noqa: T201  what a soak is for
        assert steady.failures == {}
        assert steady.left_out == 0
        assert not turning.refused
        assert not SEAL_CAUSES & rejected.keys()
        assert turning.sealed_late_ms() < CLOCKS_MS
        assert turning.admitted_late_ms() < CLOCKS_MS
        await pairs.end()


def _rejected(meshes: Sequence[Mesh]) -> Counter[str]:
    # What any process said that it rejects, by cause.
    logs = [process.log for mesh in meshes for process in mesh.processes]
    return Counter(cause for log in logs for cause in re.findall(r"call rejected: .*?cause='([^']*)'", log))


def _figures(several: str, steady: Steady, turning: Turning, killer: Killer, rejected: Counter[str]) -> str:
    took = sorted(1000 * seconds for seconds in steady.took)
    return f"""
soak of {several}: {SECONDS:g} s, seed {SEED}
  calls          {len(took)}, {len(took) / SECONDS:.0f} a second, {steady.left_out} left out
  took           p50 {percentile(took, 50):.1f} ms, p99 {percentile(took, 99):.1f} ms, most {took[-1]:.0f} ms
  failures       {dict(steady.failures) or "none"}
  turned         {len(turning.epochs)} epochs, {len(turning.certificates)} certificates of 2 nodes
  killed         {dict(killer.kills)}
  keys           sealed {turning.sealed_late_ms():.0f} ms after an epoch's end at most, admitted \
{turning.admitted_late_ms():.0f} ms after its last moment
  rejected       {dict(turning.refused) or "nothing"} here, {dict(rejected) or "nothing"} by all processes"""
