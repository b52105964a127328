"""What is checked before a call is dispatched: in which order, and that a refused call leaves no trace."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest

from mesh.core.epochs import SKEW_MS
from mesh.core.errors import REVOKED, Cause, Denied, PeerError, Reason
from mesh.core.matcher import Permit
from mesh.core.metadata import CALL, EMPTY_DIGEST, Entries, digest
from mesh.core.names import FullMethod, InstanceId, KeyEpoch, ServiceName
from mesh.core.receiver import Admitted, Incoming, Peer, Receiver, StalePeerError
from mesh.core.replay import MAX_SEQUENCE, WINDOW
from mesh.core.revoked import Revoked
from mesh.core.seal import Session
from mesh.core.wire import CallHeader, decode_call, encode_call
from tests.core import world
from tests.core.world import ENTRIES, NOW, header, receiver, session, state

PERMIT = Permit("frontend", world.METHOD.text, "allow/0")
STALE = {Cause.NOT_THIS_INSTANCE, Cause.UNKNOWN_EPOCH}


def admit(of: Receiver, incoming: Incoming, now: int = NOW) -> Admitted:
    return of.admit(incoming, world.authorize, now)


def sealed(of: CallHeader, by: Session | None = None) -> bytes:
    return (by or session()).seal(of)[0]


def cause_of(of: Receiver, incoming: Incoming, now: int = NOW) -> Cause:
    with pytest.raises(PeerError) as caught:
        admit(of, incoming, now)
    return caught.value.cause


# The order of checks. Each fault is put into a call by a change of its header, its seal or its transport.


@dataclass(frozen=True)
class Sent:
    """A call on its way, before it is sealed."""

    header: CallHeader
    key: Session
    path: str = world.METHOD.text
    entries: Entries = ENTRIES
    peer: Peer = Peer(world.FRONTEND, world.A)  # noqa: RUF009  frozen
    deadline_ms: int | None = None
    with_seal: bool = True

    def incoming(self) -> Incoming:
        """Seal it, and let it arrive."""
        seal = ((CALL, sealed(self.header, self.key)),) if self.with_seal else ()
        return Incoming(self.path, (*seal, *self.entries), self.peer, self.deadline_ms)


def with_header(**changes: object) -> Callable[[Sent], Sent]:
    return lambda sent: replace(sent, header=replace(sent.header, **changes))  # type: ignore[arg-type]


FAULTS: list[tuple[Cause, Callable[[Sent], Sent]]] = [
    (Cause.MALFORMED, lambda sent: replace(sent, with_seal=False)),
    (Cause.BAD_METHOD, lambda sent: replace(sent, path=world.OTHER_METHOD.text)),
    (Cause.NOT_ME, with_header(destination=world.EVIL)),
    (Cause.NOT_THIS_INSTANCE, with_header(destination_instance=world.C)),
    (Cause.UNKNOWN_EPOCH, with_header(epoch=KeyEpoch(99))),
    (Cause.BAD_MAC, lambda sent: replace(sent, key=session(source=world.EVIL))),
    (Cause.WRONG_PEER, lambda sent: replace(sent, peer=Peer(world.EVIL, world.C))),
    (Cause.REPLAYED, with_header(sequence=1)),
]
GOOD = Sent(header(sequence=2), session())


@pytest.mark.parametrize("first", range(len(FAULTS)), ids=[cause.name for cause, _ in FAULTS])
def test_order_of_checks(first: int) -> None:
    """Of several faults the first in the order is found, and none of them leaves a trace."""
    of = receiver()
    admit(of, Sent(header(sequence=1), session()).incoming())
    before = state(of)
    sent = GOOD
    for _, fault in FAULTS[first:]:
        sent = fault(sent)
    assert cause_of(of, sent.incoming()) is FAULTS[first][0]
    assert state(of) == before
    assert isinstance(admit(of, GOOD.incoming()).verdict, Permit)


@pytest.mark.parametrize(("cause", "fault"), FAULTS[:-1], ids=[cause.name for cause, _ in FAULTS[:-1]])
def test_stranger_leaves_no_trace(cause: Cause, fault: Callable[[Sent], Sent]) -> None:
    """A forged call makes a receiver remember nobody, and tells its sender no more than it must."""
    of = receiver()
    with pytest.raises(PeerError) as caught:
        admit(of, fault(GOOD).incoming())
    assert caught.value.cause is cause
    assert caught.value.reason is (Reason.STALE_PEER if cause in STALE else Reason.SEAL_REJECTED)
    assert of._inbound == {}


VERDICTS: list[tuple[Cause | None, Callable[[Sent], Sent]]] = [
    (None, lambda sent: replace(with_header(method=world.OTHER_METHOD)(sent), path=world.OTHER_METHOD.text)),
    (Cause.BAD_METADATA, lambda sent: replace(sent, entries=())),
    (Cause.BAD_DEADLINE, with_header(deadline_ms=1)),
]


@pytest.mark.parametrize("first", range(3), ids=["policy", "metadata", "deadline"])
def test_order_of_verdicts(first: int) -> None:
    """A call that its source did make gets a verdict: policy first, then metadata, then deadline."""
    sent = GOOD
    for _, fault in VERDICTS[first:]:
        sent = fault(sent)
    admitted = admit(receiver(), sent.incoming())
    cause = VERDICTS[first][0]
    if cause is None:
        assert isinstance(admitted.verdict, Denied)
    else:
        assert isinstance(admitted.verdict, PeerError)
        assert admitted.verdict.cause is cause
        assert admitted.verdict.reason is Reason.SEAL_REJECTED


def test_verdict_uses_the_number_up() -> None:
    """Denied or not, the same call does not come again: there is one sealed reply to it."""
    of = receiver()
    for sequence, (_, fault) in enumerate(VERDICTS, 1):
        sent = fault(replace(GOOD, header=header(sequence=sequence)))
        assert not isinstance(admit(of, sent.incoming()).verdict, Permit)
        assert cause_of(of, sent.incoming()) is Cause.REPLAYED


# What passes


def test_admitted() -> None:
    """A good call is admitted with its permit, its seal, and the application's metadata alone."""
    admitted = admit(receiver(), GOOD.incoming())
    assert admitted.verdict == PERMIT
    assert admitted.header == GOOD.header
    assert admitted.metadata == ENTRIES
    assert admitted.seal.mac == session().seal(GOOD.header)[1].mac


def test_judge_sees_what_was_verified() -> None:
    """Policy judges the sealed source and method and the application's metadata, and nothing else."""
    seen: list[object] = []

    def judge(source: str, method: str, entries: Entries) -> Permit:
        seen.extend((source, method, entries))
        return PERMIT

    incoming = GOOD.incoming()
    hop = (("user-agent", "evil"), ("mesh-peer", "spiffe://shop.example/admin"))
    receiver().admit(replace(incoming, metadata=(*incoming.metadata, *hop)), judge, NOW)
    assert seen == ["frontend", world.METHOD.text, ENTRIES]


def test_two_callers_do_not_meet() -> None:
    """Each instance of each service has a window of its own."""
    of = receiver()
    callers = [(world.FRONTEND, world.A), (world.FRONTEND, world.C), (world.EVIL, world.A)]
    for service, instance in callers:
        call = sealed(header(source=service, source_instance=instance), session(service, instance))
        peer = Peer(service, instance)
        admit(of, world.incoming(call, peer=peer))
        assert cause_of(of, world.incoming(call, peer=peer)) is Cause.REPLAYED
    assert len(of._inbound[world.EPOCH.number]) == len(callers)


# Replay


def test_replay() -> None:
    """A captured call is refused at once, a thousand calls later, and once it fell out of the window."""
    of = receiver()
    captured = world.incoming(sealed(header(sequence=1)))
    admit(of, captured)
    for sequence in (2, 1000, WINDOW, WINDOW + 1, 2 * WINDOW):
        assert cause_of(of, captured) is Cause.REPLAYED
        admit(of, world.incoming(sealed(header(sequence=sequence))))
    assert cause_of(of, captured) is Cause.REPLAYED


def test_replay_by_another() -> None:
    """A call captured from one service is worth nothing to another, nor under another connection."""
    of = receiver()
    captured = sealed(header())
    for peer in (Peer(world.EVIL, world.C), Peer(world.EVIL, world.A), Peer(world.FRONTEND, world.C)):
        assert cause_of(of, world.incoming(captured, peer=peer)) is Cause.WRONG_PEER
    assert of._inbound == {}
    assert admit(of, world.incoming(captured)).verdict == PERMIT


def test_replay_after_restart() -> None:
    """A callee that restarted has another instance id, and takes nothing that was sealed before."""
    captured = world.incoming(sealed(header()))
    admit(receiver(), captured)
    assert cause_of(receiver(world.C), captured) is Cause.NOT_THIS_INSTANCE


def test_replay_after_the_epoch() -> None:
    """A call of an epoch that is over is refused, before and after its windows are gone."""
    of = receiver()
    captured = world.incoming(sealed(header()))
    admit(of, captured)
    late = world.EPOCH.accepted_until_ms
    assert cause_of(of, captured, late - 1) is Cause.REPLAYED
    assert cause_of(of, captured, late) is Cause.UNKNOWN_EPOCH
    of.expire(late)
    assert of._inbound == {}
    assert cause_of(of, captured, late) is Cause.UNKNOWN_EPOCH


def test_replay_after_the_clock_went_back() -> None:
    """An expired key that is handed out again, with a clock set back, opens nothing: its windows are gone."""
    of = receiver()
    captured = world.incoming(sealed(header()))
    admit(of, captured)
    of.expire(world.EPOCH.accepted_until_ms)
    of.learn(world.EPOCH, world.key_of())
    assert cause_of(of, captured) is Cause.UNKNOWN_EPOCH
    of.learn(world.NEXT, world.key_of(epoch=world.NEXT))
    call = sealed(header(epoch=world.NEXT.number), session(epoch=world.NEXT))
    assert admit(of, world.incoming(call), world.NEXT.begins_ms).verdict == PERMIT


def test_same_number_in_another_epoch() -> None:
    """Windows belong to their epoch: the keys differ, so a number may recur, and only once in each."""
    of = receiver()
    for epoch in (world.EPOCH, world.NEXT):
        call = world.incoming(sealed(header(epoch=epoch.number), session(epoch=epoch)))
        admit(of, call, world.NEXT.begins_ms)
        assert cause_of(of, call, world.NEXT.begins_ms) is Cause.REPLAYED
    of.expire(world.EPOCH.accepted_until_ms)
    assert list(of._inbound) == [world.NEXT.number]


def test_forged_calls_move_no_window() -> None:
    """A forger who knows everything but the key can push no number out of the window, far ahead or near."""
    of = receiver()
    admit(of, world.incoming(sealed(header(sequence=1))))
    before = state(of)
    for sequence in (2, WINDOW + 2, MAX_SEQUENCE):
        forged = encode_call(b"\0" * 32, header(sequence=sequence).encode())
        assert cause_of(of, world.incoming(forged)) is Cause.BAD_MAC
    assert state(of) == before
    assert admit(of, world.incoming(sealed(header(sequence=2)))).verdict == PERMIT


def test_hostile_caller_takes_no_memory() -> None:
    """A service that has keys of its own gets one window, however many instances and numbers it makes up."""
    of = receiver()
    own = Peer(world.EVIL, world.C)
    call = header(source=own.service, source_instance=own.instance)
    admit(of, world.incoming(sealed(call, session(own.service, own.instance)), peer=own))
    before = state(of)
    for number in range(200):
        made_up = InstanceId(number.to_bytes(16, "big"))
        call = header(source=own.service, source_instance=made_up)
        forged = sealed(call, session(own.service, made_up))
        assert cause_of(of, world.incoming(forged, peer=own)) is Cause.WRONG_PEER
    assert state(of) == before


# The seal itself


def test_call_with_any_bit_changed() -> None:
    """A call with any bit of its seal changed is refused, and the true one still passes."""
    of = receiver()
    good = sealed(header())
    for bit in range(len(good) * 8):
        changed = bytearray(good)
        changed[bit // 8] ^= 1 << bit % 8
        cause_of(of, world.incoming(bytes(changed)))
    assert of._inbound == {}
    assert admit(of, world.incoming(good)).verdict == PERMIT


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        ((CALL, sealed(header())), (CALL, sealed(header()))),
        ((CALL, sealed(header())), (CALL, sealed(header(sequence=2)))),
        ((CALL, "text"),),
        ((CALL, b""),),
        ((CALL, sealed(header()) + b"," + sealed(header())),),
        (("Mesh-Call-Bin", sealed(header())),),
    ],
    ids=["none", "twice", "two", "text", "empty", "joined", "wrong case"],
)
def test_seal_that_is_not_one(metadata: Entries) -> None:
    """A call with no seal, or with more than one, is refused, and none is chosen."""
    of = receiver()
    assert cause_of(of, Incoming(world.METHOD.text, metadata, Peer(world.FRONTEND, world.A), None)) in {
        Cause.MALFORMED,
        Cause.TOO_LARGE,
    }
    assert of._inbound == {}


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        world.METHOD.text + "/",
        world.METHOD.text + " ",
        world.METHOD.text.lower(),
        "/" + world.METHOD.text,
    ],
)
def test_path_is_the_sealed_method(path: str) -> None:
    """The path is compared to the sealed method as it is, without any tidying."""
    assert cause_of(receiver(), world.incoming(sealed(header()), path=path)) is Cause.BAD_METHOD


def test_next_epoch_before_it_begins() -> None:
    """A key handed out ahead is of no use before its time but to a sender whose clock is a little ahead."""
    of, early = receiver(), world.NEXT.begins_ms - SKEW_MS
    call = world.incoming(sealed(header(epoch=world.NEXT.number), session(epoch=world.NEXT)))
    for now in (world.EPOCH.begins_ms, early - 1):
        assert cause_of(of, call, now) is Cause.UNKNOWN_EPOCH
    assert of._inbound == {}
    assert admit(of, call, early).verdict == PERMIT
    assert cause_of(of, call, world.NEXT.begins_ms) is Cause.REPLAYED


# Stale calls and their refusals


def stale(of: Receiver, sent: Sent, now: int = NOW) -> StalePeerError:
    with pytest.raises(StalePeerError) as caught:
        admit(of, sent.incoming(), now)
    assert caught.value.reason is Reason.STALE_PEER
    return caught.value


FOR_ANOTHER = Sent(header(destination_instance=world.C), session(to=world.C))


def test_refusal_proves_itself() -> None:
    """The source of a call for another instance gets a proof that this one did not dispatch it."""
    refusal = stale(receiver(), FOR_ANOTHER).refusal
    assert refusal is not None
    assert (refusal.instance, refusal.epoch) == (world.B, world.EPOCH.number)
    call = FOR_ANOTHER.key.seal(FOR_ANOTHER.header)[1]
    assert world.sender().is_refused(world.ORDERS, call, refusal, NOW)


def test_no_refusal_with_the_mac_of_a_call_that_was_dispatched() -> None:
    """Under a header for another instance, the mac of a call for this one proves nothing but a forgery."""
    of = receiver()
    admit(of, GOOD.incoming())
    mac, _ = decode_call(sealed(GOOD.header))
    for forged in (with_header(destination_instance=world.C), with_header(epoch=KeyEpoch(99))):
        call = encode_call(mac, forged(GOOD).header.encode())
        with pytest.raises(StalePeerError) as caught:
            admit(of, Incoming(world.METHOD.text, ((CALL, call), *ENTRIES), GOOD.peer, None))
        assert caught.value.refusal is None


def test_no_refusal_under_an_epoch_to_come() -> None:
    """A key that was handed out ahead proves nothing before its time."""
    ahead = header(destination_instance=world.C, epoch=world.NEXT.number)
    sent = Sent(ahead, session(to=world.C, epoch=world.NEXT))
    assert stale(receiver(), sent).refusal is None
    assert stale(receiver(), sent, world.NEXT.begins_ms - SKEW_MS).refusal is not None


def test_no_refusal_of_an_unknown_epoch() -> None:
    """A call whose epoch is not known, or no longer, may have been dispatched: no proof that it was not."""
    assert stale(receiver(), with_header(epoch=KeyEpoch(99))(GOOD)).refusal is None
    assert stale(receiver(), GOOD, world.EPOCH.accepted_until_ms).refusal is None


@pytest.mark.parametrize(
    "peer",
    [Peer(world.EVIL, world.C), Peer(world.EVIL, world.A), Peer(world.FRONTEND, world.C)],
)
def test_refusal_only_for_the_source(peer: Peer) -> None:
    """Nobody else gets such a proof: with it, he could have a call made twice."""
    assert stale(receiver(), replace(FOR_ANOTHER, peer=peer)).refusal is None


def test_refusal_needs_a_key() -> None:
    """A receiver without a key in force cannot prove anything, and says so without a proof."""
    assert stale(receiver(), FOR_ANOTHER, world.NEXT.accepted_until_ms).refusal is None
    assert stale(Receiver(world.ORDERS, world.B), FOR_ANOTHER).refusal is None


def test_refusal_uses_the_epoch_in_force() -> None:
    """A call of the epoch before is refused under the one that is in force."""
    now = world.EPOCH.accepted_until_ms - 1
    refusal = stale(receiver(), FOR_ANOTHER, now).refusal
    assert refusal is not None
    assert refusal.epoch == world.NEXT.number
    call = FOR_ANOTHER.key.seal(FOR_ANOTHER.header)[1]
    assert world.sender().is_refused(world.ORDERS, call, refusal, now)


def test_refusals_take_no_memory() -> None:
    """Stale calls leave nothing behind, whoever they claim to be from."""
    of = receiver()
    for number in range(50):
        instance = InstanceId(number.to_bytes(16, "big"))
        sent = with_header(source_instance=instance, destination_instance=world.C)(GOOD)
        stale(of, replace(sent, peer=Peer(world.FRONTEND, instance)))
    assert of._inbound == {}


# Verdicts


@pytest.mark.parametrize(
    ("service", "method"),
    [(world.EVIL, world.METHOD), (world.FRONTEND, world.OTHER_METHOD), (world.EVIL, FullMethod("/p.S/M"))],
)
def test_policy_denies(service: ServiceName, method: FullMethod) -> None:
    """A caller that proves who it is, and may not make the call, is denied and not disbelieved."""
    of = header(source=service, method=method)
    incoming = world.incoming(sealed(of, session(service)), path=method.text, peer=Peer(service, world.A))
    verdict = admit(receiver(), incoming).verdict
    assert isinstance(verdict, Denied)
    assert (verdict.source, verdict.method, verdict.rule) == (service.text, method.text, None)


TAMPERED: dict[str, Entries] = {
    "removed": (),
    "first removed": ENTRIES[1:],
    "value": (("x-tenant", "other"), ENTRIES[1]),
    "key": (("x-tenants", "acme"), ENTRIES[1]),
    "added": (*ENTRIES, ("x-admin", "1")),
    "doubled": (*ENTRIES, ENTRIES[0]),
    "bytes": (ENTRIES[0], ("x-trace-bin", b"\0\2")),
}


@pytest.mark.parametrize("entries", TAMPERED.values(), ids=TAMPERED)
def test_metadata_tampered(entries: Entries) -> None:
    """Metadata that is not what was sealed gives no permit."""
    verdict = admit(receiver(), world.incoming(sealed(header()), entries=entries)).verdict
    assert isinstance(verdict, PeerError)
    assert verdict.cause is Cause.BAD_METADATA


def test_metadata_added_to_none() -> None:
    """A call sealed without metadata takes none."""
    call = sealed(header(metadata_digest=EMPTY_DIGEST))
    verdict = admit(receiver(), world.incoming(call, entries=(("x-admin", "1"),))).verdict
    assert isinstance(verdict, PeerError)


def test_metadata_of_the_transport_does_not_count() -> None:
    """What transports add on the way, and moving keys about, breaks nothing."""
    moved = (("user-agent", "x"), *reversed(ENTRIES), ("te", "trailers"))
    assert digest(ENTRIES) != EMPTY_DIGEST
    assert admit(receiver(), world.incoming(sealed(header()), entries=moved)).verdict == PERMIT


LATEST = NOW + 1000 + SKEW_MS


@pytest.mark.parametrize(
    ("deadline", "transport", "now", "kept"),
    [
        (0, None, NOW, True),
        (0, NOW + 1, NOW, True),
        (NOW + 1000, NOW + 1000, NOW, True),
        (NOW + 1000, NOW + 500, NOW, True),
        (NOW + 1000, LATEST, NOW, True),
        (NOW + 1000, LATEST + 1, NOW, False),
        (NOW + 1_000_000, NOW + 1_020_000, NOW, True),  # gRPC says 1,000.5 s as 1,010
        (NOW + 1_000_000, NOW + 1_020_001, NOW, False),
        (NOW + 1000, None, NOW, False),
        (NOW + 1000, NOW + 1000, LATEST, True),
        (NOW + 1000, NOW + 1000, LATEST + 1, False),
    ],
)
def test_deadline(deadline: int, transport: int | None, now: int, kept: bool) -> None:
    """A sealed deadline can be neither removed nor lengthened beyond the clocks' skew, nor outlived."""
    call = world.incoming(sealed(header(deadline_ms=deadline)), deadline_ms=transport)
    verdict = admit(receiver(), call, now).verdict
    assert (verdict == PERMIT) is kept
    if not kept:
        assert isinstance(verdict, PeerError)
        assert verdict.cause is Cause.BAD_DEADLINE


def test_sequence_of_calls() -> None:
    """Calls that arrive out of order within the window all pass, each with a seal of its own."""
    of = receiver()
    macs = [admit(of, world.incoming(sealed(header(sequence=n)))).seal.mac for n in (3, 1, 2, 5, 4)]
    assert all(left != right for left, right in pairwise(macs))


@pytest.mark.parametrize("value", [" admin", "admin ", "ad\tmin", "admin\xe9"])
def test_metadata_that_transports_change(value: str) -> None:
    """A value that some transport trims or drops is refused though sealed: policy would judge another."""
    entries = (("x-role", value),)
    sent = replace(GOOD, header=header(metadata_digest=digest(entries)), entries=entries)
    verdict = admit(receiver(), sent.incoming()).verdict
    assert isinstance(verdict, PeerError)
    assert verdict.cause is Cause.BAD_METADATA


def test_epoch_in_use() -> None:
    """The epoch is the newest that has begun, and none where no key is held."""
    found = receiver().epoch(NOW)
    assert found is not None
    assert found.begins_ms <= NOW < found.ends_ms
    assert Receiver(ServiceName("callee"), InstanceId(bytes(15) + b"1")).epoch(NOW) is None


def test_a_revoked_caller_is_denied_under_seal() -> None:
    """Its verdict is a denial before policy is asked, sealed; its number is used up; others go on."""
    of = receiver()
    of.revoke(Revoked({world.A: NOW + 1}))
    sent = world.incoming(sealed(header()))
    verdict = of.admit(sent, lambda *_: pytest.fail("policy was asked"), NOW).verdict
    assert isinstance(verdict, Denied)
    assert (verdict.rule, verdict.reason) == (REVOKED, Reason.REVOKED)
    assert "revoked" in str(verdict)
    assert cause_of(of, sent) is Cause.REPLAYED


def test_keys_made_for_a_revoked_caller_are_dropped() -> None:
    """What it was given is forgotten when it is revoked, and nobody else's."""
    of = receiver()
    admit(of, world.incoming(sealed(header())))
    of.revoke(Revoked({world.B: NOW + 1}))
    assert [len(inbound) for inbound in of._inbound.values()] == [1]
    of.revoke(Revoked({world.A: NOW + 1}))
    assert [len(inbound) for inbound in of._inbound.values()] == [0]
