"""What nodes denied, as entries: nothing but names, known causes and bounded numbers gets in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mesh.core.audit import Entry, Kind, Verdict
from mesh.core.errors import Cause
from mesh.v1 import audit_pb2
from services.auth.audit_log import DENIALS
from services.auth.deferred import AUDITS, LIMITS, Deferred
from services.auth.errors import AuditError, InvalidError, RefusedError
from services.auth.reports import MAX_AGE_MS, entries
from tests.auth.world import HOUR_MS, START_MS, World

NOW = START_MS + MAX_AGE_MS
A, B = bytes(range(16)), bytes(range(16, 32))


def denial(**changes: object) -> audit_pb2.Denial:
    good = {
        "source": "evil",
        "source_instance": A,
        "method": "/shop.v1.Orders/Purge",
        "rule": "no-purge",
        "cause": "denied",
        "call_id": "0123456789abcdef",
        "count": 1,
        "first_ms": NOW - 5,
        "last_ms": NOW - 5,
    }
    return audit_pb2.Denial(**(good | changes))  # type: ignore[arg-type]


def report(*denials: audit_pb2.Denial, service: str = "orders", instance: bytes = B) -> audit_pb2.NodeDenials:
    return audit_pb2.NodeDenials(service=service, instance=instance, denials=denials)


def one(**changes: object) -> Entry:
    (entry,) = entries([report(denial(**changes))], NOW)
    return entry


def test_a_denial() -> None:
    """Who was denied what, by which rule and node, under which call id."""
    assert one() == Entry(
        NOW - 5,
        Kind.DENIAL,
        "call denied",
        Verdict.DENIED,
        service="evil",
        instance=A.hex(),
        by=f"orders/{B.hex()}",
        method="/shop.v1.Orders/Purge",
        rule="no-purge",
        call_id="0123456789abcdef",
    )


def test_other_events() -> None:
    """A broken seal, a refused name and mere counts are told apart; what is empty stays empty."""
    assert one(cause=str(Cause.BAD_MAC)).event == "call rejected"
    assert one(cause=str(Cause.BAD_MAC)).detail == "mac does not verify"
    assert one(cause="reply: mac does not verify").event == "call rejected"
    assert one(cause="name unavailable").event == "name refused"
    counts = one(cause="", source="", source_instance=b"", method="", rule="", call_id="", count=7)
    assert (counts.event, counts.service, counts.instance, counts.count) == ("denials counted", "", "", 7)
    assert counts.until_ms == NOW - 5


def test_times_are_bounded() -> None:
    """Nothing is dated to the future, or to before a day ago."""
    entry = one(first_ms=0, last_ms=2**62, count=2)
    assert (entry.at_ms, entry.until_ms) == (NOW - MAX_AGE_MS, NOW)
    assert one(count=2**64 - 1).count == 2**32


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "Not A Name"},
        {"source_instance": b"short"},
        {"method": "/secret payload"},
        {"rule": "\x1b[2J"},
        {"rule": "x" * 161},
        {"cause": "because"},
        {"call_id": "0123456789abcdef" * 3},
        {"call_id": "payload"},
        {"count": 0},
    ],
    ids=str,
)
def test_what_no_node_says(changes: dict[str, object]) -> None:
    """Whatever is no name, cause or id of the mesh is told of its sender, and keeps no other's word out."""
    good, bad = report(denial()), report(denial(), denial(**changes), service="evil")
    told = list(entries([bad, good], NOW))
    assert [entry.event for entry in told] == ["bad report", "call denied"]
    assert (told[0].alarm, told[0].by.partition("/")[0], told[0].rule, told[0].detail) == (
        True,
        "evil",
        "",
        "",
    )
    assert told[1] == one()


def test_too_many() -> None:
    """A call is bounded in reports, a report in denials."""
    with pytest.raises(InvalidError, match="over 64 reports"):
        list(entries([report()] * 65, NOW))
    with pytest.raises(InvalidError, match="over 64 reports"):
        list(entries([report(*[denial()] * 65)], NOW))
    for bad in (report(service=""), report(instance=b"")):
        with pytest.raises(InvalidError, match="bad report"):
            list(entries([bad], NOW))


def test_a_lying_node_is_bounded_and_counted(world: World) -> None:
    """A node that makes denials up gets its budget, in its own name, and a count of the rest."""
    told = [report(*(denial(method=f"/a.B/M{n}x{m}") for m in range(64))) for n in range(50)]
    world.authority.auditor.record(told)
    world.authority.auditor.record([report(denial(), service="honest")])
    world.authority.close()
    found = world.audit(DENIALS)
    assert sum(entry.count for entry in found if entry.by.startswith("orders")) == 50 * 64
    assert 190 <= len(found) <= 210
    assert [entry.count for entry in found if entry.by.startswith("honest/")] == [1]
    assert world.examine(DENIALS).bad is None


@pytest.mark.parametrize("back_ms", [0, 60_000, MAX_AGE_MS])
def test_dating_back_gives_no_budget(world: World, back_ms: int) -> None:
    """Whenever a node says that it denied, it gets what auth's own clock gives it."""
    at = world.now_ms - back_ms
    for turn in range(20):
        many = (denial(method=f"/a.B/C{turn}x{n}", first_ms=at, last_ms=at) for n in range(64))
        world.authority.auditor.record([report(*many)])
    world.authority.close()
    found = world.audit(DENIALS)
    assert sum(entry.count for entry in found) == 20 * 64
    assert len(world.log_of(DENIALS)[0]) < LIMITS.burst + 2000


def test_a_source_writes_at_its_pace(world: World) -> None:
    """However long what a node reports: its burst, then so many bytes a second, and counts of the rest."""
    for minute in range(60):
        many = (denial(method=f"/a.B/C{minute}x{n}{'m' * 400}", rule="r" * 160) for n in range(64))
        world.authority.auditor.record([report(*many)])
        world.time.pass_ms(60_000)
    world.authority.close()
    found = world.audit(DENIALS)
    assert sum(entry.count for entry in found) == 60 * 64
    counts = [entry for entry in found if entry.event == "denials counted"]
    assert len(counts) <= 61
    written = sum(map(len, world.log_of(DENIALS).values()))
    assert LIMITS.per_second * 3600 < written < LIMITS.burst + LIMITS.per_second * 3600 + 300 * 62


def test_joins_refused_for_a_service_cost_it_nothing(world: World) -> None:
    """Who has an old token of a service cannot use up what that service may report, nor speak in its name."""
    token = world.token("orders")
    world.join(token)
    for number in range(400):
        with pytest.raises(RefusedError):
            world.join(token)
        world.time.pass_ms(1)
        if number % 100 == 99:
            world.node("strangers")
    world.authority.auditor.record([report(denial(source="frontend"))])
    world.authority.close()
    found = world.audit(DENIALS)
    counted = [entry for entry in found if entry.event == "denials counted"]
    assert {(entry.service, entry.by) for entry in counted} == {("orders", "")}
    assert [entry.service for entry in found if entry.by] == ["frontend"]


def test_reporters_keep_what_the_log_cannot_take(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is taken while the log fails, so that nothing is counted twice when it is reported again."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    auditor = world.authority.auditor
    with monkeypatch.context() as broken:
        broken.setattr("services.auth.segments.os.pwrite", fail)
        for _ in range(300):
            with pytest.raises(AuditError, match="no space left"):
                auditor.record([report(denial())])
        world.authority.turn()
    auditor.record([report(denial())])
    assert [(entry.method, entry.count) for entry in world.audit(DENIALS)] == [("/shop.v1.Orders/Purge", 1)]


def test_no_rule_and_audit_are_told_apart() -> None:
    """A denial by no rule says so; what audit let pass is of its own kind, and is no denial."""
    assert one(rule="").detail == "no rule of orders allows it"
    passed = one(cause="audited")
    assert (passed.kind, passed.event, passed.verdict) == (Kind.AUDIT, "would be denied", Verdict.DONE)
    assert (passed.rule, passed.detail) == ("no-purge", "")
    assert one(cause="audited", rule="").detail == "no rule of orders allows it"
    counts = one(cause="audited", method="", rule="", call_id="", count=7)
    assert (counts.kind, counts.event, counts.verdict) == (Kind.AUDIT, "audits counted", Verdict.DONE)
    assert (counts.service, counts.detail, counts.count) == ("evil", "", 7)


def audits(count: int, **changes: object) -> audit_pb2.NodeDenials:
    return report(*(denial(cause="audited", method=f"/a.B/A{n}", **changes) for n in range(count)))


@pytest.mark.parametrize("loud", ["audited", "denied"])
def test_audits_and_denials_have_budgets_apart(world: World, loud: str) -> None:
    """A service that floods with one may still say the other, and counts say of what they are."""
    for turn in range(20):
        many = (denial(cause=loud, method=f"/a.B/C{turn}x{n}") for n in range(64))
        world.authority.auditor.record([report(*many)])
    quiet = "denied" if loud == "audited" else "audited"
    world.authority.auditor.record([report(denial(cause=quiet))])
    world.authority.close()
    found = world.audit(DENIALS)
    kind = Kind.AUDIT if loud == "audited" else Kind.DENIAL
    assert [(entry.method, entry.count) for entry in found if entry.kind is not kind] == [
        ("/shop.v1.Orders/Purge", 1)
    ]
    assert sum(entry.count for entry in found if entry.kind is kind) == 20 * 64
    counted = [entry for entry in found if entry.event.endswith("counted")]
    assert {(entry.event, entry.by, entry.kind) for entry in counted} == {
        ("audits counted" if loud == "audited" else "denials counted", "orders", kind)
    }


def test_what_audit_lets_pass_again_is_told_once_an_hour(world: World) -> None:
    """The first at once, then one an hour with how many there were, until the end."""
    for _ in range(150):
        world.authority.auditor.record([audits(1)])
        world.time.pass_ms(60_000)
        world.authority.turn()
    world.authority.close()
    counts = [entry.count for entry in world.audit(DENIALS) if entry.kind is Kind.AUDIT]
    assert sum(counts) == 150
    assert counts[0] == 1
    assert len(counts) <= 4
    assert world.examine(DENIALS).bad is None


def test_a_mesh_in_audit_pushes_no_denials_out(world: World) -> None:
    """What all services together write of it is bounded, whatever comes, and all of it is counted."""
    limits = replace(AUDITS, burst=4096, sources=4)
    deferred = Deferred(world.store, DENIALS, limits)
    for hour in range(24):
        for number in range(12):
            for method in range(20):
                entry = one(cause="audited", method=f"/a.B/H{hour}x{method}")
                deferred.note(replace(entry, by=f"service{number}/0"), f"service{number}", world.now_ms)
        deferred.flush(world.now_ms)
        world.time.pass_ms(HOUR_MS)
    deferred.flush(world.now_ms, everything=True)
    assert sum(entry.count for entry in world.audit(DENIALS)) == 24 * 12 * 20
    written = sum(map(len, world.log_of(DENIALS).values()))
    counts = 25 * (limits.sources + 1) * 300
    assert written < limits.sources * (limits.burst + 24 * 3600 * limits.per_second) + counts
    assert AUDITS.sources * AUDITS.per_second <= 2 * LIMITS.per_second


def test_audits_wait_for_the_log_at_auth(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the log cannot be written, what audit let pass is kept by auth, once, beside a refused denial."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    auditor = world.authority.auditor
    with monkeypatch.context() as broken:
        broken.setattr("services.auth.segments.os.pwrite", fail)
        auditor.record([audits(2)])
        with pytest.raises(AuditError, match="no space left"):
            auditor.record([report(denial(), denial(cause="audited", method="/a.B/A0"))])
    auditor.record([report(denial(), denial(cause="audited", method="/a.B/A0"))])
    world.authority.close()
    found = {(entry.event, entry.method): entry.count for entry in world.audit(DENIALS)}
    assert found == {
        ("call denied", "/shop.v1.Orders/Purge"): 1,
        ("would be denied", "/a.B/A0"): 2,
        ("would be denied", "/a.B/A1"): 1,
    }
