"""Workers that are owned: whatever they say out of turn ends them, and them alone.

The worker is a program that speaks the frames as it likes (``impostor``). After each attack the host is well,
the caller has an error, and the next call, by a good worker, goes fine.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from mesh.core.names import FullMethod
from services.lua_host import service as services
from services.lua_host import worker as workers
from services.lua_host.rehearsal import Outcome, Stage, rehearse
from tests.lua_host.stage import Elsewhere, warm, write_service

ROOT = Path(__file__).parents[2]
DO, STREAM = FullMethod("/t.Own/Do"), FullMethod("/t.Own/Stream")
_C = grpc.StatusCode


class House:
    """A service whose workers follow the plans in turn, the last one for ever."""

    def __init__(self, stage: Stage, elsewhere: Elsewhere, plans: list[str]) -> None:
        self.stage, self.elsewhere, self.plans = stage, elsewhere, plans

    async def call(self, method: FullMethod = DO, patience: float | None = None) -> Outcome:
        """Call it, with so many seconds for a deadline."""
        return await asyncio.wait_for(self.stage.call(method, b"", timeout=patience), 20)


@pytest_asyncio.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Any]]:
    stack: list[Any] = []
    spawned: list[str] = []

    async def open_house(*plans: str, **limits: object) -> House:
        bundle = write_service(tmp_path, "", **limits)  # type: ignore[arg-type]
        left = list(plans)

        def command(memory: int, message: int, *, jailed: bool) -> list[str]:
            assert jailed
            assert memory > message
            plan = left.pop(0) if len(left) > 1 else left[0]
            spawned.append(plan)
            bootstrap = f"import sys, runpy; sys.path[:0] = {[str(ROOT), *sys.path]!r}; "
            bootstrap += (
                f"sys.argv = ['', {plan!r}]; runpy.run_module('tests.lua_host.impostor', run_name='__main__')"
            )
            return [sys.executable, "-c", bootstrap]

        monkeypatch.setattr(workers, "command", command)
        elsewhere = Elsewhere(lambda _call: [b""])
        manager = rehearse(bundle, elsewhere)
        stage = await manager.__aenter__()
        stack.append(manager)
        await warm(stage)
        return House(stage, elsewhere, spawned)

    yield open_house
    for manager in stack:
        await manager.__aexit__(None, None, None)


ENDED = {
    "half_frame": _C.DEADLINE_EXCEEDED,
    "giant_length": _C.INTERNAL,
    "garbage": _C.INTERNAL,
    "empty": _C.INTERNAL,
    "untyped": _C.INTERNAL,
    "smuggle": _C.INTERNAL,
    "invalid_text": _C.INTERNAL,
    "no_status": _C.INTERNAL,
    "ok_status": _C.INTERNAL,
    "forbidden_call": _C.INTERNAL,
    "untyped_call": _C.INTERNAL,
    "closed_stream": _C.INTERNAL,
    "item_in_unary": _C.INTERNAL,
    "ready_in_call": _C.INTERNAL,
    "two_calls": _C.INTERNAL,
    "spin": _C.DEADLINE_EXCEEDED,
    "die": _C.INTERNAL,
    "shut": _C.INTERNAL,
    "log_flood": _C.DEADLINE_EXCEEDED,
    "big_failure": _C.INTERNAL,
    "many_metadata": _C.INTERNAL,
}


@pytest.mark.parametrize("plan", ENDED)
async def test_what_is_out_of_turn_ends_the_worker_and_the_next_call_is_fine(
    house: Callable[..., Any], plan: str
) -> None:
    """The caller is told no more than that it failed; nothing is called on the worker's behalf."""
    own = await house(plan, "good", deadline="500ms", logs_per_second=5)
    outcome = await own.call()
    assert (outcome.code, outcome.messages) == (ENDED[plan], [])
    assert "loot" not in outcome.details
    if plan != "two_calls":
        assert own.elsewhere.calls == []
    after = await own.call()
    assert (after.code, after.messages) == (_C.OK, [b""])


@pytest.mark.parametrize("plan", ["reply_twice", "unasked", "never_ready", "burn_idle", "late_report"])
async def test_what_comes_after_a_good_answer_ends_the_worker(
    house: Callable[..., Any], plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller has its answer; the worker does not get another call."""
    monkeypatch.setattr("services.lua_host.pool.LOOK", 0.1)
    monkeypatch.setattr("services.lua_host.worker.IDLE_CPU", 0.02)
    monkeypatch.setattr("services.lua_host.turns.LOAD", 0.5)
    own = await house(plan, "good", workers=1)
    assert (await own.call()).code is _C.OK
    async with asyncio.timeout(10):
        # The bad one, the spare, and one in the place of the bad one; a list tells nobody that it grew.
        while len(own.plans) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    for _ in range(3):
        assert (await own.call()).code is _C.OK


async def test_what_a_worker_does_not_read_does_not_pile_up(house: Callable[..., Any]) -> None:
    """One that speaks on while answers wait for it is ended, long before its time is over."""
    own = await house("deaf", "good", deadline="20s", message="1MiB")
    blob = b"\x22" + b"\xfc\xff\x03" + bytes(65532)
    own.elsewhere.reply_with(lambda _call: [blob] * 1000)
    outcome = await own.call()
    assert outcome.code is _C.INTERNAL
    assert (await own.call()).code is _C.OK


async def test_a_stream_of_an_owned_worker_ends_with_an_error(house: Callable[..., Any]) -> None:
    """An answer with one reply does not pass for a stream."""
    own = await house("good", "good")
    outcome = await own.call(STREAM)
    assert (outcome.code, outcome.messages) == (_C.INTERNAL, [])


async def test_a_log_line_cannot_pass_for_another(house: Callable[..., Any]) -> None:
    """Control characters and reversals of direction are spelt out; one line stays one."""
    own = await house("log_forgery", "good")
    outcome = await own.call()
    assert outcome.logs == [r"fine\nERROR mesh.auth the key is \x1b[31mlost\u202e"]


async def test_log_lines_are_slowed_at_the_workers_expense(house: Callable[..., Any]) -> None:
    """A flood gets through the hole of so many lines a second, until the time of the call is over."""
    own = await house("log_flood", "good", deadline="1s", logs_per_second=10)
    outcome = await own.call()
    assert outcome.code is _C.DEADLINE_EXCEEDED
    assert 10 <= len(outcome.logs) <= 10 + 10 + 2


async def test_a_caller_with_little_patience_does_not_cost_a_kept_worker(house: Callable[..., Any]) -> None:
    """What a service keeps is lost at its own limit only, not at a caller's."""
    own = await house("good", "good", state="kept")
    for _ in range(3):
        await own.call(patience=0.0001)
    assert (await own.call()).code is _C.OK
    assert own.plans == ["good", "good"]


def test_the_list_of_levels_is_whole() -> None:
    """Every level of the proto has one of logging's."""
    from mesh.v1 import lua_pb2  # noqa: PLC0415

    assert set(lua_pb2.Log.Level.values()) - {0} == set(services._LEVELS)
