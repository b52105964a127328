"""The calling side: numbers that are never reused, keys that roll, refusals that must prove themselves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.epochs import SKEW_MS
from mesh.core.metadata import EMPTY_DIGEST
from mesh.core.names import AUTH, InstanceId, KeyEpoch, ServiceName
from mesh.core.receiver import Peer
from mesh.core.replay import MAX_SEQUENCE
from mesh.core.seal import CallSeal
from mesh.core.sender import NoKeyError, Sender
from mesh.core.wire import MAX_DEADLINE_MS, CallHeader, Refusal, decode_call
from tests.core import world

D = InstanceId(b"d" * 16)


def seal(
    sender: Sender, to: InstanceId = world.B, now: int = world.NOW, deadline: int = 0
) -> tuple[CallHeader, CallSeal]:
    data, sealed = sender.seal(world.ORDERS, to, world.METHOD, EMPTY_DIGEST, deadline, now)
    mac, encoded = decode_call(data)
    assert mac == sealed.mac
    return CallHeader.decode(encoded), sealed


def test_header_says_what_the_call_is() -> None:
    """A sealed call names both ends, the method, the deadline and the epoch in force."""
    header, _ = seal(world.sender(), deadline=5)
    assert header == world.header(metadata_digest=EMPTY_DIGEST, deadline_ms=5)


def test_callee_can_open_it() -> None:
    """The callee's own session opens it."""
    header, sealed = seal(world.sender())
    assert world.session().open(sealed.mac, header.encode()).mac == sealed.mac


@given(st.lists(st.sampled_from([world.B, world.C, D]), max_size=30))
def test_sequence_per_instance(targets: list[InstanceId]) -> None:
    """Numbers to each instance count from 1 without a gap or a repeat, whatever goes to the others."""
    sender = world.sender()
    sent: dict[InstanceId, list[int]] = {}
    for target in targets:
        sent.setdefault(target, []).append(seal(sender, target)[0].sequence)
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in sent.values())


def test_a_call_to_auth_is_sealed_for_as_long_as_auth_accepts_it() -> None:
    """A node whose epochs have ended can still ask for new keys; to nobody else, and not past the grace."""
    sender = world.sender()
    for epoch in (world.EPOCH, world.NEXT):
        sender.learn(AUTH, epoch, world.pair_of(destination=AUTH, epoch=epoch))
    last = world.NEXT.accepted_until_ms - 1

    def ask(to: ServiceName, now: int) -> CallHeader:
        data, _ = sender.seal(to, world.B, world.METHOD, EMPTY_DIGEST, 0, now)
        return CallHeader.decode(decode_call(data)[1])

    assert ask(AUTH, world.NOW).epoch == world.EPOCH.number
    assert ask(AUTH, last).epoch == world.NEXT.number
    with pytest.raises(NoKeyError):
        ask(world.ORDERS, last)
    with pytest.raises(NoKeyError):
        ask(AUTH, last + 1)


def test_sequence_survives_everything() -> None:
    """No roll of keys, expiry, forgetting or failure ever gives a number back."""
    sender = world.sender()
    assert seal(sender)[0].sequence == 1
    assert seal(sender, now=world.NEXT.begins_ms)[0].sequence == 2
    sender.expire(world.EPOCH.accepted_until_ms)
    sender.forget(world.ORDERS)
    with pytest.raises(NoKeyError):
        seal(sender)
    sender.learn(world.ORDERS, world.EPOCH, world.pair_of())
    assert seal(sender)[0].sequence == 3


def test_sequence_runs_out() -> None:
    """After the last number nothing is sealed any more, and no number comes twice."""
    sender = world.sender()
    sender._sequences[world.B] = MAX_SEQUENCE - 1
    assert seal(sender)[0].sequence == MAX_SEQUENCE
    for _ in range(2):
        with pytest.raises(RuntimeError, match="used up"):
            seal(sender)
    assert seal(sender, world.C)[0].sequence == 1


@pytest.mark.parametrize("deadline", [-1, MAX_DEADLINE_MS + 1, 2**64, 10**400])
def test_deadline_out_of_range(deadline: int) -> None:
    """A deadline that no header can carry is the caller's mistake, and uses up no number."""
    sender = world.sender()
    with pytest.raises(ValueError, match="bad deadline"):
        seal(sender, deadline=deadline)
    assert seal(sender, deadline=MAX_DEADLINE_MS)[0].sequence == 1


@pytest.mark.parametrize(
    ("now", "epoch"),
    [
        (world.EPOCH.begins_ms, 7),
        (world.EPOCH.ends_ms - 1, 7),
        (world.NEXT.begins_ms, 8),
        (world.NEXT.ends_ms - 1, 8),
    ],
)
def test_epochs_roll(now: int, epoch: int) -> None:
    """A call is sealed under the newest epoch that has begun, from its first millisecond on."""
    sender = world.sender()
    seal(sender)
    header, sealed = seal(sender, now=now)
    assert header.epoch == KeyEpoch(epoch)
    rolled = world.EPOCH if epoch == 7 else world.NEXT
    assert world.session(epoch=rolled).open(sealed.mac, header.encode()).id == sealed.id


@pytest.mark.parametrize("now", [world.EPOCH.begins_ms - 1, world.NEXT.ends_ms])
def test_no_key_in_force(now: int) -> None:
    """Before the first epoch and after the last nothing is sealed, and it is said for whom."""
    sender = world.sender()
    assert not sender.has_key(world.ORDERS, now)
    with pytest.raises(NoKeyError, match="orders"):
        seal(sender, now=now)


def test_no_key_at_all() -> None:
    """A destination that no key was given for cannot be called, nor be refused by."""
    sender = Sender(world.FRONTEND, world.A)
    assert not sender.has_key(world.ORDERS, world.NOW)
    with pytest.raises(NoKeyError):
        seal(sender)
    call = world.call()
    refusal = Refusal(world.session().refuse(call.mac), world.B, world.EPOCH.number)
    assert not sender.is_refused(world.ORDERS, call, refusal, world.NOW)


def test_forgetting_one_destination() -> None:
    """Forgetting a destination drops its keys and sessions and no others."""
    sender = world.sender()
    sender.learn(world.EVIL, world.EPOCH, world.pair_of(destination=world.EVIL))
    sender.seal(world.EVIL, world.C, world.METHOD, EMPTY_DIGEST, 0, world.NOW)
    seal(sender)
    sender.forget(world.ORDERS)
    sender.forget(world.ORDERS)
    assert not sender.has_key(world.ORDERS, world.NOW)
    assert sender.has_key(world.EVIL, world.NOW)
    assert [known[0] for known in sender._sessions] == [world.EVIL]


def test_revocation_drops_sessions() -> None:
    """What was made for calling a revoked instance is forgotten; numbers to it never begin anew."""
    sender = world.sender()
    seal(sender)
    seal(sender, D)
    sender.revoke({world.B})
    assert [known[1] for known in sender._sessions] == [D]
    assert seal(sender)[0].sequence == 2


def test_expiry_drops_sessions() -> None:
    """Sessions of an epoch go with it; those of the others stay."""
    sender = world.sender()
    seal(sender)
    seal(sender, now=world.NEXT.begins_ms)
    sender.expire(world.EPOCH.accepted_until_ms - 1)
    assert len(sender._sessions) == 2
    sender.expire(world.EPOCH.accepted_until_ms)
    assert [known[2] for known in sender._sessions] == [world.NEXT.number]


# Refusals


def refusal_by(instance: InstanceId, call: CallSeal, epoch: KeyEpoch = world.EPOCH.number) -> Refusal:
    of = world.EPOCH if epoch == world.EPOCH.number else world.NEXT
    return Refusal(world.session(to=instance, epoch=of).refuse(call.mac), instance, epoch)


def test_refusal_is_believed() -> None:
    """A refusal by any instance of the destination, under any epoch now accepted, proves itself."""
    sender, now = world.sender(), world.NEXT.begins_ms
    _, call = seal(sender)
    for instance in (world.B, world.C):
        for epoch in (world.EPOCH.number, world.NEXT.number):
            refusal = refusal_by(instance, call, epoch)
            assert sender.is_refused(world.ORDERS, call, Refusal.decode(refusal.encode()), now)


def test_a_refusal_under_an_epoch_to_come_is_not_believed() -> None:
    """A key that was handed out ahead proves nothing before its time, give or take what clocks do."""
    sender, early = world.sender(), world.NEXT.begins_ms - SKEW_MS
    _, call = seal(sender)
    refusal = refusal_by(world.C, call, world.NEXT.number)
    assert not sender.is_refused(world.ORDERS, call, refusal, early - 1)
    assert sender.is_refused(world.ORDERS, call, refusal, early)


def test_refusal_tampered() -> None:
    """A refusal of another call, instance, epoch, source or destination, or with any bit changed, is not."""
    sender = world.sender()
    (_, call), (_, later) = seal(sender), seal(sender)
    good = refusal_by(world.C, call)
    bad = [
        refusal_by(world.C, later),
        Refusal(good.mac, world.B, good.epoch),
        Refusal(good.mac, good.instance, world.NEXT.number),
        Refusal(good.mac, good.instance, KeyEpoch(9)),
        Refusal(world.session(source=world.EVIL, to=world.C).refuse(call.mac), world.C, good.epoch),
        Refusal(world.session(by=world.C, to=world.C).refuse(call.mac), world.C, good.epoch),
        Refusal(call.mac, world.C, good.epoch),
    ]
    for bit in range(256):
        mac = bytearray(good.mac)
        mac[bit // 8] ^= 1 << bit % 8
        bad.append(Refusal(bytes(mac), good.instance, good.epoch))
    assert not any(sender.is_refused(world.ORDERS, call, refusal, world.NOW) for refusal in bad)
    assert not sender.is_refused(world.EVIL, call, good, world.NOW)
    assert not sender.is_refused(world.ORDERS, call, good, world.EPOCH.accepted_until_ms)
    assert sender.is_refused(world.ORDERS, call, good, world.NOW)


def test_refusals_take_no_memory() -> None:
    """A peer that invents instances in refusals, forged or proven, fills nothing."""
    sender = world.sender()
    _, call = seal(sender)
    before = dict(sender._sessions)
    for number in range(100):
        instance = InstanceId(number.to_bytes(16, "big"))
        assert not sender.is_refused(
            world.ORDERS, call, Refusal(b"m" * 32, instance, world.EPOCH.number), world.NOW
        )
        assert sender.is_refused(world.ORDERS, call, refusal_by(instance, call), world.NOW)
    assert sender._sessions == before


def test_from_sender_to_receiver() -> None:
    """What a sender seals, the receiver it was sealed for admits, through a roll of keys."""
    sender, receiver = world.sender(), world.receiver()
    for now in (world.NOW, world.NEXT.begins_ms):
        data, call = sender.seal(world.ORDERS, world.B, world.METHOD, EMPTY_DIGEST, 0, now)
        incoming = world.incoming(data, entries=(), peer=Peer(world.FRONTEND, world.A))
        admitted = receiver.admit(incoming, world.authorize, now)
        assert admitted.seal.mac == call.mac
        assert admitted.verdict == world.authorize("frontend", world.METHOD.text, ())
