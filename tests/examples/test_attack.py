"""How an attack is judged: what counts as stopped, and what does not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import grpc
import pytest

from examples.shop.demo.attack import NOTHING, Attack, Reached, Seen, Stop, judge
from examples.shop.demo.attacks import ATTACKS
from examples.shop.demo.report import Report
from mesh.core.errors import Cause, Reason

REJECTED = Seen(grpc.StatusCode.UNAUTHENTICATED, "mesh/SEAL_REJECTED")
REPLAYED = Stop("payments", Cause.REPLAYED, "seen before")


@dataclass
class FakeStage:
    """A stage on which an attack has the effects that a test gives it."""

    rejections: list[tuple[str, Cause]] = field(default_factory=list)
    so_far: Reached = NOTHING

    def reached(self) -> Reached:
        """Give what came so far."""
        return self.so_far


def attack(
    seen: Seen,
    told: list[tuple[str, Cause]],
    came: Reached = NOTHING,
    stop: Stop = REPLAYED,
) -> Attack:
    async def run(stage: Any) -> Seen:
        stage.rejections.extend(told)
        stage.so_far = Reached(stage.so_far.calls + came.calls, stage.so_far.bookings + came.bookings)
        return seen

    return Attack("try", run, stop)


async def fault(tried: Attack, stage: FakeStage | None = None) -> str:
    return (await judge(cast("Any", stage or FakeStage()), tried)).fault


async def test_an_error_for_the_right_reason_and_no_effect_is_stopped() -> None:
    """All three together, and nothing less."""
    assert not await fault(attack(REJECTED, [("payments", Cause.REPLAYED)]))


@pytest.mark.parametrize(
    ("tried", "why"),
    [
        (attack(Seen(grpc.StatusCode.OK), [("payments", Cause.REPLAYED)]), "got through"),
        (attack(REJECTED, [("payments", Cause.REPLAYED)], Reached(1, 0)), "reached payments"),
        (attack(REJECTED, [("payments", Cause.REPLAYED)], Reached(0, 1)), "reached payments"),
        (attack(REJECTED, [("payments", Cause.BAD_MAC)]), "another reason"),
        (attack(REJECTED, [("orders", Cause.REPLAYED)]), "another reason"),
        (attack(REJECTED, []), "another reason"),
        (attack(REJECTED, [], stop=Stop("orders", Reason.UNSEALED, "")), "another reason"),
        (attack(REJECTED, [], stop=Stop("auth", grpc.StatusCode.NOT_FOUND, "")), "another reason"),
    ],
)
async def test_anything_else_is_not_stopped(tried: Attack, why: str) -> None:
    """A result, a call at the application, or another reason than the one claimed, each is a failure."""
    assert why in await fault(tried)


async def test_what_was_rejected_before_does_not_count() -> None:
    """The reason has to be given for this attack."""
    stage = FakeStage(rejections=[("payments", Cause.REPLAYED)])
    assert "another reason" in await fault(attack(REJECTED, []), stage)


async def test_an_attack_that_breaks_is_not_stopped() -> None:
    """An attack that was never carried out proves nothing."""

    async def run(_stage: Any) -> Seen:
        raise KeyError("mesh-call-bin")

    assert "broke" in await fault(Attack("try", run, REPLAYED))


async def test_one_failure_is_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    """The status is 0 only if something was tried, and nothing failed."""
    assert Report().summary() == 1
    report = Report()
    report.good = report.stopped = 1
    assert report.summary() == 0
    report.verdict(await judge(cast("Any", FakeStage()), attack(REJECTED, [])))
    assert report.summary() == 1
    assert "THROUGH" in capsys.readouterr().out


def test_every_attack_has_a_name_of_its_own() -> None:
    """The table names each attack once."""
    names = [attack.name for tried in ATTACKS.values() for attack in tried]
    assert len(names) == len(set(names))
