"""Decisions on their way: counted by nodes, taken by gatekeeper, listed for operators."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

import services.gatekeeper.decisions as module
from mesh.core.errors import Cause, Denied, PeerError
from mesh.core.latency import Latency, bucket
from mesh.core.matcher import Matcher, Permit
from mesh.core.metadata import Entries
from mesh.core.names import FullMethod
from mesh.core.observed import MAX_COUNT, Gap, Observation, Seen
from mesh.core.policy import Section
from mesh.core.receiver import Admitted
from mesh.decisions import (
    BATCH,
    BYTES,
    DecisionRecorder,
    decision,
    latency,
    read_decision,
    read_latency,
    read_unrecorded,
)
from mesh.rpc.membership import nobody_counts, nobody_times
from mesh.rpc.status import Outcome
from mesh.slices import Slice
from mesh.v1 import decisions_pb2, gatekeeper_pb2
from services.gatekeeper.decision_store import DecisionStore, StoreError
from services.gatekeeper.decisions import DAY_MS, Ledger
from services.gatekeeper.service import MAX_REQUEST
from tests.core.world import header
from tests.gatekeeper.house import House, Node, policy, serving, until
from tests.gatekeeper.test_decision_store import spoil

M = "/p.S/M"


def now() -> int:
    return int(time.time() * 1000)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the ledger wait for less company than it does."""
    monkeypatch.setattr(module, "PAUSE", 0.0)


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    async with serving() as served:
        served.watchers.take(policy(3))
        yield served


def call(count: int = 1, **more: Any) -> Observation:
    return Observation("frontend", "orders", M, now(), now(), count, "allow", "yes", policy=3, **more)


async def listed(house: House, **request: Any) -> list[Seen]:
    """Give what the operator is told."""
    stub = house.node("mesh.operator").decisions
    found: list[Seen] = []
    async for part in stub.ListDecisions(decisions_pb2.ListDecisionsRequest(**request)):
        for one in part.decisions:
            if one.HasField("unrecorded"):
                found.append(read_unrecorded(one.unrecorded, one.destination))
            else:
                found.append(read_decision(one.decision, one.destination))
    return found


async def record(node: Node, *seen: Observation, **more: Any) -> None:
    request = decisions_pb2.RecordDecisionsRequest(decisions=map(decision, seen), **more)
    await node.decisions.RecordDecisions(request)


async def test_what_is_recorded_is_listed(house: House) -> None:
    """All of it comes back, under the name of the node that recorded it."""
    one, other = call(3, metadata=(("x-a", ("1", "2")), ("x-b", ()))), call(by=None)
    gap = decisions_pb2.UnrecordedDecisions(count=4, first_ms=one.first_ms, last_ms=one.last_ms)
    await record(house.node("orders"), one, other, unrecorded=gap)
    assert await listed(house) == [one, other, Gap("orders", one.first_ms, one.last_ms, 4)]
    assert await listed(house, destinations=["frontend"]) == []
    assert await listed(house, since_ms=now() + 1) == []
    await record(house.node("frontend"), one)
    assert [seen.destination for seen in await listed(house, destinations=["frontend"])] == ["frontend"]


async def test_long_lists(house: House) -> None:
    """What does not fit into one part comes in several."""
    sent = [call(metadata=(("x-a", (str(number),)),)) for number in range(2 * BATCH)]
    await record(house.node("orders"), *sent[:BATCH])
    await record(house.node("orders"), *sent[BATCH:])
    assert await listed(house) == sent


async def refused(house: House, *seen: Observation, **more: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await record(house.node("orders"), *seen, **more)
    assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await listed(house) == []
    return failed.value.details() or ""


async def test_what_is_refused(house: House) -> None:
    """Nothing of a report is taken if something in it is none."""
    future = now() + 2 * DAY_MS
    assert "in the future" in await refused(
        house, call(), Observation("a", "b", M, future, future, 1, "allow")
    )
    assert "bad method" in await refused(house, call(), Observation("a", "b", "/p.S/*", 1, 1, 1, "allow"))
    assert "bad service name" in await refused(house, Observation("*", "b", M, 1, 1, 1, "allow"))
    assert "out of range" in await refused(house, Observation("a", "b", M, 1, 1, 0, "allow"))
    assert "out of range" in await refused(house, unrecorded=decisions_pb2.UnrecordedDecisions(first_ms=1))
    assert "at most 256" in await refused(house, *[call()] * (BATCH + 1))
    said = decisions_pb2.Decision(source="a", method=M, count=1)
    with pytest.raises(grpc.aio.AioRpcError, match="bad verdict"):
        await house.node("orders").decisions.RecordDecisions(
            decisions_pb2.RecordDecisionsRequest(decisions=[said])
        )


async def test_nobody_but_the_operator_lists(house: House) -> None:
    """Who calls whom is not for services to know."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        async for _ in house.node("orders").decisions.ListDecisions(decisions_pb2.ListDecisionsRequest()):
            pass
    assert failed.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_answers_to_questions_are_recorded(house: House) -> None:
    """What gatekeeper judges for others counts as theirs; what is no name or method does not count."""
    stub = house.node("inventory").stub
    tenant = gatekeeper_pb2.Header(key="x-tenant", value=b"acme")
    for source, headers in (("orders", [tenant]), ("orders", []), ("frontend", []), ("no name", [])):
        await stub.Authorize(gatekeeper_pb2.AuthorizeRequest(source=source, method=M, headers=headers))
    found = [one for one in await listed(house) if isinstance(one, Observation)]
    assert {one.destination for one in found} == {"inventory"}
    assert [(one.source, one.verdict, one.policy, one.metadata) for one in found] == [
        ("orders", "allow", 3, (("x-tenant", ("acme",)),)),
        ("orders", "deny", 3, (("x-tenant", ()),)),
        ("frontend", "deny", 3, (("x-tenant", ()),)),
    ]


async def test_too_much_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is bounded: past that, nodes come again."""
    monkeypatch.setattr(module, "WAITING", 1)
    house.ledger._wake.clear()
    house.ledger._waiting = {("full",): call()}
    with pytest.raises(grpc.aio.AioRpcError, match="record them again") as failed:
        await record(house.node("orders"), call())
    assert failed.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_store_that_fails(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written waits, is told once, and is written when that is over."""
    ledger = Ledger(now)
    failing = True
    add = DecisionStore.add

    def fails(self: DecisionStore, *given: Any) -> None:
        if failing:
            raise StoreError("disk full")
        add(self, *given)

    monkeypatch.setattr(DecisionStore, "add", fails)
    ledger.take([call(2)])
    running = asyncio.create_task(ledger.run())
    await until(lambda: "disk full: waiting until that is over" in caplog.text)
    ledger.take([call(3)])
    await until(lambda: ledger._failing)
    failing = False
    await until(lambda: not ledger._waiting and not ledger._failing)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    found = [seen async for page in ledger.pages(decisions_pb2.ListDecisionsRequest()) for seen in page]
    assert sum(seen.count for seen in found) == 5
    assert caplog.text.count("disk full") == 1
    await ledger.close()


async def test_what_comes_while_a_store_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written is counted with what has come meanwhile and is like it."""
    ledger = Ledger(now)
    late = Latency("a", "b", M, now(), now(), ((1, 3),))
    ledger.take([call(2)])
    ledger.take_latencies([late])

    def fails(*_given: Any) -> None:
        ledger.take([call(3)])
        ledger.take_latencies([late])
        raise StoreError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(DecisionStore, "add", fails)
        await ledger.flush()
    found = [seen async for page in ledger.pages(decisions_pb2.ListDecisionsRequest()) for seen in page]
    assert sum(seen.count for seen in found) == 5
    asking = decisions_pb2.ListLatenciesRequest()
    assert sum([one.count async for page in ledger.latencies(asking) for one in page]) == 6
    await ledger.close()


async def test_damage_while_it_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that turns out to be damaged is moved aside, and what came since is kept."""
    path = tmp_path / "decisions.db"
    ledger = Ledger(now, path)
    ledger.take([call()])
    await ledger.flush()
    ledger._thread.submit(lambda: spoil(ledger._opened(), path)).result()
    ledger.take([call(7)])
    await ledger.flush()
    await ledger.flush()
    assert "moved to decisions.db.damaged" in caplog.text
    found = [seen async for page in ledger.pages(decisions_pb2.ListDecisionsRequest()) for seen in page]
    assert [seen.count for seen in found] == [7]
    await ledger.close()


@pytest.mark.parametrize("failing", [False, True])
async def test_nobody_takes_the_room_of_all(failing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that tells of ever more different calls is told to come again, and others are heard."""
    monkeypatch.setattr(module, "OF_ONE", 4)
    ledger, at = Ledger(now), now()
    ledger.take([Observation(source, "evil", M, at, at) for source in "abcd"])
    if failing:
        monkeypatch.setattr(DecisionStore, "add", _full)
        await ledger.flush()
    with pytest.raises(OSError, match="too many decisions"):
        ledger.take([Observation("e", "evil", M, at, at)])
    with pytest.raises(OSError, match="too many latencies"):
        ledger.take_latencies([Latency("e", "evil", M, at, at, ((1, 1),))])
    ledger.take([call()])
    ledger.take_latencies([Latency("e", "orders", M, at, at, ((1, 1),))])
    monkeypatch.undo()
    await ledger.flush()
    ledger.take([Observation("e", "evil", M, at, at)])
    await ledger.close()


def _full(*_: object) -> None:
    raise StoreError("disk full")


async def test_a_node_that_counts_too_much() -> None:
    """A hostile node's counts add up to no more than can be written and told; the ledger goes on."""
    ledger = Ledger(now)
    at = now()
    running = asyncio.create_task(ledger.run())
    for _ in range(5):
        ledger.take([Observation("a", "orders", M, at, at, MAX_COUNT, "allow", "r")] * BATCH)
        ledger.take_latencies([Latency("a", "orders", M, at, at, ((3, MAX_COUNT),), MAX_COUNT)] * BATCH)
    pages = [page async for page in ledger.pages(decisions_pb2.ListDecisionsRequest())]
    assert [decision(one).count for page in pages for one in page if isinstance(one, Observation)] == [
        MAX_COUNT
    ]
    timed = [page async for page in ledger.latencies(decisions_pb2.ListLatenciesRequest())]
    assert [dict(latency(one).buckets) for page in timed for one in page] == [{3: MAX_COUNT}]
    assert not running.done()
    running.cancel()
    await ledger.close()


async def test_what_is_too_old_to_be_kept() -> None:
    """It is not even written, so nothing is pushed out for it."""
    ledger = Ledger(now, days=1)
    at = now() - 2 * DAY_MS
    ledger.take([Gap("orders", at - hour, at, 1) for hour in range(9)])
    assert [page async for page in ledger.pages(decisions_pb2.ListDecisionsRequest())] == []
    await ledger.close()


async def test_days() -> None:
    """What is older than wanted is let go."""
    ledger = Ledger(now, days=1)
    old = now() - 2 * DAY_MS
    ledger.take([Observation("a", "b", M, old, old, 1, "allow"), call()])
    await ledger.flush()
    found = [seen async for page in ledger.pages(decisions_pb2.ListDecisionsRequest()) for seen in page]
    assert len(found) == 1
    await ledger.close()


# The node's side.

PERMIT = Permit("frontend", M, "yes")


class Counting:
    """A node of ``orders`` that counts."""

    def __init__(self, house: House, *keys: str) -> None:
        """Let it in, with a slice that looks at some keys."""
        self.node = house.node("orders")
        self.slice = Slice(time.monotonic)
        headers = [{"key": key, "values": ["*"]} for key in keys]
        rules = [{"principals": ["*"], "paths": ["*"], "headers": headers}] if keys else []
        text = json.dumps({"allow": rules}).encode()
        self.slice.apply(gatekeeper_pb2.Slice(policy_version=3, rules=text, max_stale_ms=60_000))
        self.recorder = DecisionRecorder(self.node.membership, self.slice, self.node.decisions)

    def note(self, verdict: Permit | Denied | PeerError, metadata: Entries = (), method: str = M) -> None:
        """Count a call."""
        made = header(method=FullMethod(method))
        self.node.membership.decided(Admitted(made, None, verdict, metadata), now())  # type: ignore[arg-type]

    def ended(
        self, verdict: Permit | Denied, seconds: float, code: grpc.StatusCode = grpc.StatusCode.OK
    ) -> None:
        """Count the end of a call."""
        admitted = Admitted(header(method=FullMethod(M)), None, verdict, ())  # type: ignore[arg-type]
        self.node.membership.ended(admitted, Outcome(code, ""), seconds)


async def timed(house: House, **request: Any) -> list[Latency]:
    """Give how long calls took, by what the operator is told."""
    stub = house.node("mesh.operator").decisions
    return [
        read_latency(one.latency, one.destination)
        async for part in stub.ListLatencies(decisions_pb2.ListLatenciesRequest(**request))
        for one in part.latencies
    ]


async def test_a_node_tells_how_long_calls_took(house: House) -> None:
    """Of those that were permitted; what failed by the callee's fault, and methods that are none, apart."""
    counting = Counting(house)
    counting.ended(PERMIT, 0.001)
    counting.ended(PERMIT, 2.0, grpc.StatusCode.DEADLINE_EXCEEDED)
    counting.ended(PERMIT, 2.0, grpc.StatusCode.NOT_FOUND)
    counting.ended(PERMIT, 0.001, grpc.StatusCode.UNIMPLEMENTED)
    counting.ended(Denied("frontend", M, None), 9.0)
    await counting.recorder.tell(5)
    named, other = sorted(await timed(house), key=lambda one: one.method, reverse=True)
    assert (named.source, named.destination, named.method, named.failed) == ("frontend", "orders", M, 1)
    assert named.buckets == ((bucket(0.001), 1), (bucket(2.0), 2))
    assert (other.method, other.count, other.failed) == ("", 1, 1)
    counting.ended(PERMIT, 0.001)
    await counting.recorder.tell(5)
    assert sum(one.count for one in await timed(house)) == 5
    assert await timed(house, since_ms=now() + 1) == []


async def test_times_while_gatekeeper_is_away(house: House) -> None:
    """They are kept and told later, once."""
    counting = Counting(house)
    counting.ended(PERMIT, 0.001)
    house.ledger._timed = dict.fromkeys(
        ((number,) for number in range(module.WAITING)), Latency("a", "b", M, now(), now(), ((1, 1),))
    )
    with pytest.raises(grpc.aio.AioRpcError):
        await counting.recorder.tell(5)
    house.ledger._timed = {}
    await counting.recorder.tell(5)
    await counting.recorder.tell(5)
    assert [(one.source, one.count) for one in await timed(house)] == [("frontend", 1)]


async def test_histograms_that_are_none(house: House) -> None:
    """They are refused, with all that came with them; so is what lies in the future, and too much at once."""
    good = latency(Latency("a", "orders", M, now(), now(), ((1, 1),)))
    for changed, said in (
        ({"buckets": {200: 1}}, "histogram is none"),
        ({"last_ms": now() + 2 * DAY_MS}, "in the future"),
    ):
        bad = decisions_pb2.Latency()
        bad.CopyFrom(good)
        bad.MergeFrom(decisions_pb2.Latency(**changed))
        assert said in await refused(house, call(), latencies=[bad])
    assert "at most 256" in await refused(house, latencies=[good] * (BATCH + 1))
    assert await timed(house) == []


async def test_a_store_that_fails_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decisions that were written are not written again with the latencies that were not."""
    ledger = Ledger(now)
    ledger.take([call(2)])
    ledger.take_latencies([Latency("a", "b", M, now(), now(), ((1, 3),))])

    def fails(*_given: Any) -> None:
        raise StoreError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(DecisionStore, "add_latencies", fails)
        await ledger.flush()
    asking = decisions_pb2.ListLatenciesRequest()
    assert [one.count async for page in ledger.latencies(asking) for one in page] == [3]
    found = [seen async for page in ledger.pages(decisions_pb2.ListDecisionsRequest()) for seen in page]
    assert [seen.count for seen in found] == [2]
    await ledger.close()


async def test_a_node_tells(house: House) -> None:
    """What a node decided arrives with the metadata that its rules look at, once."""
    counting = Counting(house, "x-tenant", "authorization")
    sent = (("x-tenant", "acme"), ("authorization", "hush"), ("x-other", "1"))
    for verdict in (PERMIT, PERMIT, Denied("frontend", M, "no"), PeerError(Cause.BAD_METADATA)):
        counting.note(verdict, sent)
    await counting.recorder.tell(5)
    await counting.recorder.tell(5)
    found = [one for one in await listed(house) if isinstance(one, Observation)]
    assert [(one.verdict, one.rule, one.count, one.policy, one.metadata) for one in found] == [
        ("allow", "yes", 2, 3, (("x-tenant", ("acme",)),)),
        ("deny", "no", 1, 3, (("x-tenant", ("acme",)),)),
    ]


async def test_without_a_slice_nothing_was_decided(house: House) -> None:
    """A denial for want of a policy in force is none of the policy's."""
    counting = Counting(house)
    counting.slice._good_until = 0
    counting.note(Denied("frontend", M, None))
    await counting.recorder.tell(5)
    assert await listed(house) == []


async def test_many_are_told_in_parts(house: House) -> None:
    """However much there is to tell, each report is one that gatekeeper takes."""
    counting = Counting(house, "x-a", "x-b")
    value = "v" * 120
    for number in range(200):
        counting.note(PERMIT, (("x-a", value), ("x-a", value), ("x-b", value)), f"/p.{'S' * 400}/M{number}")
    await counting.recorder.tell(5)
    assert len(await listed(house)) == 200
    assert BYTES < MAX_REQUEST


def full() -> dict[tuple[object, ...], Seen]:
    return dict.fromkeys(((number,) for number in range(module.WAITING)), call())


async def test_while_gatekeeper_is_away(house: House) -> None:
    """What could not be told is counted with what comes, and told later."""
    counting = Counting(house)
    counting.note(PERMIT)
    house.ledger._waiting = full()
    with pytest.raises(grpc.aio.AioRpcError):
        await counting.recorder.tell(5)
    await counting.recorder.close()
    counting.note(PERMIT)
    house.ledger._waiting = {}
    await counting.recorder.close()
    assert [one.count for one in await listed(house)] == [2]


async def test_keeping_at_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node goes on telling, also after gatekeeper was away."""
    monkeypatch.setattr("mesh.decisions.EVERY", 0.001)
    counting = Counting(house)
    house.ledger._waiting = full()
    counting.note(PERMIT)
    keeping = asyncio.create_task(counting.recorder.keep())
    house.ledger._waiting = {}
    async with asyncio.timeout(10):
        while not await listed(house):
            pass
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_an_older_gatekeeper(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where gatekeeper takes no decisions, a node stops to count them."""
    monkeypatch.setattr("mesh.decisions.EVERY", 0.001)
    counting = Counting(house)
    counting.note(PERMIT)
    rows = Matcher(Section.parse('{"allow": [{"principals": ["*"], "paths": ["*/Watch"]}]}'))
    house.member.authorize = rows.permit
    async with asyncio.timeout(10):
        await counting.recorder.keep()
    assert counting.node.membership.decided is nobody_counts
    assert counting.node.membership.ended is nobody_times
    await counting.recorder.tell(5)
