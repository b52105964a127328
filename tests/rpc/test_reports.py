"""What a node denies is told before the caller is, if it can be; bounded, and with exact counts, if not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
import pytest_asyncio

from mesh.core.errors import Cause
from mesh.core.matcher import Audited, Permit
from mesh.core.names import ServiceName
from mesh.core.receiver import Peer
from mesh.core.tally import Told
from mesh.reports import AUDITED, BATCH, PATIENCE, Denial, Reporter, messages
from mesh.rpc.channel import MeshChannel
from mesh.rpc.membership import Membership, deny_all
from tests.rpc.app import path
from tests.rpc.attack import eventually

C = grpc.StatusCode


class Log:
    """Where reports go: open, closed or slow."""

    def __init__(self) -> None:
        self.told: list[Told[Denial]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.away = False

    async def send(self, told: Sequence[Told[Denial]]) -> None:
        """Take a report."""
        await self.open.wait()
        if self.away:
            raise OSError("away")
        assert len(told) <= BATCH
        self.told.extend(told)

    @property
    def count(self) -> int:
        """How many denials were told of."""
        return sum(one.count for one in self.told)


@pytest_asyncio.fixture
async def log(callee: Membership) -> AsyncIterator[Log]:
    """Let ``callee``, which denies everything, report."""
    callee.authorize = deny_all
    log = Log()
    reporter = Reporter(callee, log.send)
    keeping = asyncio.create_task(reporter.keep())
    yield log
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def denied(channel: MeshChannel, method: str = "Unary") -> str:
    call = channel.unary_unary(path(method))(b"payload")
    assert await asyncio.wait_for(call.code(), 10) is C.PERMISSION_DENIED
    return str(await call.details())


async def test_the_log_has_it_before_the_caller_does(
    channel: MeshChannel, callee: Membership, caller: Membership, log: Log
) -> None:
    """Caller, method, rule, cause and call id stand in the log when the caller is told; nothing else does."""
    text = await denied(channel)
    (told,) = log.told
    assert told.what == Denial(
        Peer(ServiceName("callee"), callee.instance),
        "caller",
        str(caller.instance),
        path("Unary"),
        "",
        "denied",
    )
    assert told.id in text
    assert b"payload" not in b"".join(one.SerializeToString() for one in messages(log.told))


async def test_a_slow_log_delays_a_denial_by_its_patience_once(channel: MeshChannel, log: Log) -> None:
    """While the log does not answer, one denial waits, and those after it do not."""
    log.open.clear()
    began = time.monotonic()
    await denied(channel)
    assert PATIENCE * 0.9 < time.monotonic() - began < PATIENCE + 2
    began = time.monotonic()
    for _ in range(5):
        await denied(channel)
    assert time.monotonic() - began < 5 * PATIENCE
    log.open.set()
    await eventually(lambda: log.count == 6)
    await denied(channel)
    assert log.count == 7


async def test_an_outage_loses_nothing(channel: MeshChannel, log: Log) -> None:
    """What was denied while the log was away is told when it is back, alike ones as one."""
    log.away = True
    for _ in range(20):
        await denied(channel)
    log.away = False
    await eventually(lambda: log.count == 20)
    assert len(log.told) <= 3


async def test_a_flood_is_bounded_and_counted(callee: Membership, log: Log) -> None:
    """A hundred thousand different denials of one caller are some dozens that are told, and a count."""
    reporter = Reporter(callee, log.send)
    own = Peer(callee.name, callee.instance)
    for number in range(100_000):
        reporter.note(Denial(own, "evil", "", f"/a.B/M{number}", "", "denied"))
    keeping = asyncio.create_task(reporter.keep())
    await eventually(lambda: log.count == 100_000)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    assert len(log.told) < 100
    (counted,) = [one for one in log.told if one.what is None]
    assert counted.source == "evil"
    assert messages([counted])[0].cause == ""


def passed(method: str, rule: str | None = None) -> Permit:
    return Permit("evil", method, "", Audited(rule))


async def test_what_audit_lets_pass_is_told_once_and_counted(callee: Membership, log: Log) -> None:
    """The first call is told within a look, alike ones later as one with their count; the rule is named."""
    reporter = Reporter(callee, log.send)
    reporter.audited(Permit("good", "/a.B/C", "rule"))
    keeping = asyncio.create_task(reporter.keep())
    reporter.audited(passed("/a.B/C", "no-purge"))
    await eventually(lambda: log.count == 1)
    for _ in range(500):
        reporter.audited(passed("/a.B/C", "no-purge"))
    reporter.audited(passed("/a.B/Other"))
    await eventually(lambda: log.count == 2)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)
    await reporter.close()
    own = Peer(callee.name, callee.instance)
    purge = Denial(own, "evil", "", "/a.B/C", "no-purge", AUDITED)
    other = Denial(own, "evil", "", "/a.B/Other", "", AUDITED)
    assert [(one.what, one.count) for one in log.told] == [(purge, 1), (other, 1), (purge, 500)]


@pytest.mark.parametrize("loud", ["audits", "denials"])
async def test_audits_and_denials_take_no_room_from_each_other(
    callee: Membership, log: Log, loud: str
) -> None:
    """However many there are of one from a caller, the other is told by itself, and counts say of what."""
    reporter = Reporter(callee, log.send)
    own = Peer(callee.name, callee.instance)
    for number in range(5000):
        if loud == "audits":
            reporter.audited(passed(f"/a.B/M{number}"))
        else:
            reporter.note(Denial(own, "evil", "", f"/a.B/M{number}", "", "denied"))
    reporter.audited(passed("/a.B/Audited"))
    reporter.note(Denial(own, "evil", "", "/a.B/Denied", "", "denied"))
    await reporter.close()
    told = messages(log.told)
    alone = "/a.B/Denied" if loud == "audits" else "/a.B/Audited"
    assert [one.count for one in told if one.method == alone] == [1]
    assert sum(one.count for one in told if one.cause == AUDITED) == (5001 if loud == "audits" else 1)
    assert sum(one.count for one in told) == 5002
    (counted,) = [one for one in told if not one.method]
    assert (counted.source, counted.cause) == ("evil", AUDITED if loud == "audits" else "")


async def test_what_is_left_is_told_at_the_end(callee: Membership, log: Log) -> None:
    """A node that leaves tells what it has not told, counts before their time included."""
    reporter = Reporter(callee, log.send)
    own = Peer(callee.name, callee.instance)
    for number in range(500):
        reporter.note(Denial(own, "evil", "", f"/a.B/M{number}", "", "denied"))
    await reporter.close()
    assert log.count == 500
    log.open.clear()
    reporter.note(Denial(own, "late", "", "", "", "denied"))
    await reporter.close()
    assert log.count == 500


async def test_only_names_are_told(callee: Membership, log: Log) -> None:
    """What a stranger sent in the place of names goes nowhere; a moved instance's calls are no denials."""
    callee.rejected(Cause.BAD_METHOD, "", "/secret payload", "unknown")
    callee.rejected(Cause.NOT_THIS_INSTANCE, "", path("Unary"), "caller/" + "00" * 16)
    callee.rejected(Cause.BAD_MAC, "reply: forged", path("Unary"), "caller")
    await callee.written()
    own = Peer(callee.name, callee.instance)
    assert [one.what for one in log.told] == [
        Denial(own, "", "", "", "", str(Cause.BAD_METHOD)),
        Denial(own, "caller", "", path("Unary"), "", f"reply: {Cause.BAD_MAC}"),
    ]


@pytest.mark.usefixtures("server")
async def test_a_fault_of_the_reporter_is_not_hidden(callee: Membership) -> None:
    """Only what the way to the log fails with is taken for its being away."""

    async def fail(_told: object) -> None:
        raise ZeroDivisionError

    reporter = Reporter(callee, fail)
    reporter.note(Denial(Peer(callee.name, callee.instance), "evil", "", "", "", "denied"))
    with pytest.raises(ZeroDivisionError):
        await reporter.keep()
