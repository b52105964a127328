"""Sealing for others: the macs are those of the seal, each end gets its own and nobody anybody else's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mesh.core.errors import Cause, PeerError
from mesh.core.keys import Key, Withheld
from mesh.core.metadata import digest
from mesh.core.names import InstanceId, KeyEpoch, ServiceName
from mesh.core.receiver import Answer, Incoming, Peer, Receiver, StalePeerError
from mesh.core.seal import CallSeal, End, Session, call_covers
from mesh.core.signing import (
    PARTS,
    Answers,
    MadeCall,
    Signing,
    end_part,
    header_of,
    learn,
    macs_of,
    read_call,
)
from mesh.core.wire import END, Frame, Refusal, decode_frame, encode_call
from mesh.v1 import signer_pb2
from tests.core.world import (
    ENTRIES,
    EPOCH,
    EVIL,
    FRONTEND,
    METHOD,
    NEXT,
    NOW,
    ORDERS,
    A,
    B,
    C,
    authorize,
    header,
    incoming,
    key_of,
    session,
)

SOURCE, DESTINATION = Peer(FRONTEND, A), Peer(ORDERS, B)
FINISH = End(2, 5, "half a pair: \ud800", digest(()), digest(ENTRIES))


def keys(destination: ServiceName, epoch: KeyEpoch) -> Key | None:
    return key_of(destination, EPOCH) if epoch == EPOCH.number else None


@pytest.fixture
def signing() -> Signing:
    """Give auth's half, which has the keys of one epoch."""
    return Signing(keys)


@pytest.fixture
def sealed() -> bytes:
    """Give a call of the frontend's, sealed with keys."""
    return session().seal(header())[0]


def frame(index: int = 0, flags: int = 0, payload: bytes = b"m") -> signer_pb2.FramePart:
    return signer_pb2.FramePart(index=index, flags=flags, payload=payload)


def of_request(flags: int = 0) -> signer_pb2.CallParts:
    return signer_pb2.CallParts(frame=frame(flags=flags))


def of_reply() -> signer_pb2.CallParts:
    return signer_pb2.CallParts(reply=True, frame=frame(3), initial_digest=digest(()), end=end_part(FINISH))


def opened(sealed: bytes) -> CallSeal:
    call = read_call(sealed)
    return session().open(call.mac, call.encoded)


def test_a_call_sealed_for_its_source_is_one_that_its_source_would_seal(signing: Signing) -> None:
    """The header says what was asked and who asks; the mac is that of the session's own key."""
    new = signer_pb2.NewCall(
        destination="orders",
        destination_instance=B.raw,
        method=METHOD.text,
        metadata_digest=digest(ENTRIES),
        deadline_ms=NOW,
    )
    made = header_of(SOURCE, new, EPOCH.number, 9)
    assert made == header(sequence=9, deadline_ms=NOW)
    assert signing.seal(made)[0] == session().seal(made)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"destination": "Orders"},
        {"destination_instance": b"short"},
        {"method": "/nothing"},
        {"metadata_digest": b"short"},
        {"deadline_ms": 2**53 + 1},
    ],
)
def test_what_no_call_has_is_not_sealed(changes: dict[str, object]) -> None:
    """A header is within its grammar, whoever asks for it."""
    fields = {
        "destination": "orders",
        "destination_instance": B.raw,
        "method": METHOD.text,
        "metadata_digest": bytes(32),
    }
    new = signer_pb2.NewCall(**(fields | changes))  # type: ignore[arg-type]
    with pytest.raises(PeerError):
        header_of(SOURCE, new, EPOCH.number, 1)


def test_macs_are_those_of_the_seal(signing: Signing, sealed: bytes) -> None:
    """What auth makes, a node with keys opens; and what such a node made, auth verifies."""
    seal, call = opened(sealed), read_call(sealed)
    macs = signing.sign(SOURCE, call, of_request(flags=END))
    assert macs.frame == decode_frame(seal.request_sealer().seal(b"m", end=True)).mac
    macs = signing.sign(DESTINATION, call, of_reply())
    sealer = seal.reply_sealer()
    for _ in range(3):
        sealer.seal(b"x")
    assert macs.frame == decode_frame(sealer.seal(b"m")).mac
    assert (macs.initial, macs.end) == (seal.seal_initial(digest(())), seal.seal_end(FINISH))
    request = signer_pb2.VerifyRequest(sealed_call=sealed, parts=of_reply(), macs=macs)
    found = signing.verify(SOURCE, request, EPOCH.number)
    assert (found.call, found.frame, found.initial, found.end) == (True, True, True, True)


@pytest.mark.parametrize("name", PARTS)
def test_a_wrong_mac_is_wrong_by_itself(signing: Signing, sealed: bytes, name: str) -> None:
    """Each part is judged alone."""
    macs = macs_of(opened(sealed), of_reply())
    setattr(macs, name, bytes(32))
    request = signer_pb2.VerifyRequest(sealed_call=sealed, parts=of_reply(), macs=macs)
    found = signing.verify(SOURCE, request, EPOCH.number)
    assert {part for part in PARTS if not getattr(found, part)} == {name}


def test_each_end_gets_what_is_its_own(signing: Signing, sealed: bytes) -> None:
    """No other service or instance gets anything, and no end the other end's part."""
    call = read_call(sealed)
    strangers = [Peer(EVIL, C), Peer(FRONTEND, C), Peer(EVIL, A)]
    for peer in (*strangers, Peer(ORDERS, C), DESTINATION):
        with pytest.raises(PeerError) as caught:
            signing.sign(peer, call, of_request())
        assert caught.value.cause is Cause.WRONG_PEER
    for peer in (*strangers, Peer(ORDERS, C), SOURCE):
        with pytest.raises(PeerError):
            signing.sign(peer, call, of_reply())
    for peer in (*strangers, SOURCE):
        with pytest.raises(PeerError):
            signing.verify(peer, signer_pb2.VerifyRequest(sealed_call=sealed), EPOCH.number)
    for peer in (*strangers, DESTINATION):
        request = signer_pb2.VerifyRequest(sealed_call=sealed, parts=of_reply())
        with pytest.raises(PeerError):
            signing.verify(peer, request, EPOCH.number)


def test_nothing_is_true_of_a_call_that_was_not_sealed(signing: Signing, sealed: bytes) -> None:
    """Nothing is sealed for a forged call, nor verified; nor for one of an epoch that is over."""
    call = read_call(sealed)
    forged = encode_call(bytes(32), call.encoded)
    macs = macs_of(opened(sealed), of_request())
    request = signer_pb2.VerifyRequest(sealed_call=forged, parts=of_request(), macs=macs)
    assert signing.verify(DESTINATION, request, EPOCH.number) == signer_pb2.VerifyResponse()
    with pytest.raises(PeerError):
        signing.sign(SOURCE, read_call(forged), of_request())
    late = session(epoch=NEXT).seal(header(epoch=NEXT.number))[0]
    request = signer_pb2.VerifyRequest(sealed_call=late)
    assert signing.verify(DESTINATION, request, EPOCH.number) == signer_pb2.VerifyResponse()
    with pytest.raises(PeerError) as caught:
        signing.sign(SOURCE, read_call(late), of_request())
    assert caught.value.cause is Cause.UNKNOWN_EPOCH


@pytest.mark.parametrize(
    "parts",
    [
        of_request(flags=4),
        signer_pb2.CallParts(frame=frame(flags=3, payload=b"in an empty frame")),
        signer_pb2.CallParts(initial_digest=bytes(32)),
        signer_pb2.CallParts(end=end_part(FINISH)),
        signer_pb2.CallParts(reply=True, initial_digest=b"short"),
        signer_pb2.CallParts(reply=True, end=signer_pb2.EndPart()),
        signer_pb2.CallParts(reply=True, end=signer_pb2.EndPart(message=b"\xff")),
    ],
)
def test_what_no_call_is_made_of_gets_no_mac(sealed: bytes, parts: signer_pb2.CallParts) -> None:
    """Whatever is asked for, macs are made of the parts of calls alone."""
    with pytest.raises(PeerError):
        macs_of(opened(sealed), parts)


def test_a_refusal_is_made_and_verified(signing: Signing, sealed: bytes) -> None:
    """Another instance of the destination can refuse a call that was truly sealed; its source knows it."""
    answer = signing.verify(Peer(ORDERS, C), signer_pb2.VerifyRequest(sealed_call=sealed), EPOCH.number)
    assert not answer.call
    assert Refusal.decode(answer.refusal).instance == C
    asked = signer_pb2.VerifyRequest(sealed_call=sealed, refusal=answer.refusal)
    assert signing.verify(SOURCE, asked, EPOCH.number).refused
    refusal = Refusal.decode(answer.refusal)
    for wrong in (replace(refusal, mac=bytes(32)), replace(refusal, epoch=NEXT.number)):
        asked.refusal = wrong.encode()
        assert not signing.verify(SOURCE, asked, EPOCH.number).refused
    forged = signer_pb2.VerifyRequest(sealed_call=encode_call(bytes(32), read_call(sealed).encoded))
    assert not signing.verify(Peer(ORDERS, C), forged, EPOCH.number).refusal


def asked(sealed: bytes) -> tuple[CallSeal, MadeCall]:
    call = read_call(sealed)
    return CallSeal(Session(Answers(), Answers()), call.mac), call


def test_a_node_knows_what_auth_has_said_and_no_more(sealed: bytes) -> None:
    """Over answers the seal's own code runs: it gives what was asked for, once, and fails for all else."""
    seal, _ = asked(sealed)
    sealer = seal.request_sealer()
    with pytest.raises(RuntimeError, match="was not asked"):
        sealer.seal(b"m")
    learn(seal, of_request(), macs_of(opened(sealed), of_request()))
    assert sealer.seal(b"m") == opened(sealed).request_sealer().seal(b"m")
    with pytest.raises(RuntimeError):
        seal.request_sealer().seal(b"m")
    data = opened(sealed).request_sealer().seal(b"m")
    found: Frame = decode_frame(data)
    for right, is_open in ((PARTS, True), ((), False)):
        opener = seal.request_opener()
        learn(seal, of_request(), signer_pb2.PartMacs(frame=found.mac), right)
        if is_open:
            assert opener.open(data) == b"m"
        else:
            with pytest.raises(PeerError):
                opener.open(data)


def test_what_auth_has_said_is_learned_by_who_has_no_keys_alone(sealed: bytes) -> None:
    """A seal with keys makes its own macs, whatever it is told."""
    seal = opened(sealed)
    learn(seal, of_request(), signer_pb2.PartMacs(frame=bytes(32)))
    assert decode_frame(seal.request_sealer().seal(b"m")).mac != bytes(32)


def test_a_receiver_without_keys_admits_what_auth_has_verified(sealed: bytes) -> None:
    """All checks but the mac are its own: an epoch that it knows of, the TLS peer, the window."""
    receiver = Receiver(ORDERS, B)
    receiver.learn(EPOCH, Withheld())
    seal, call = asked(sealed)
    answers = seal.session.request_key
    assert isinstance(answers, Answers)
    arrived: Incoming = incoming(sealed)
    assert receiver.accepts(EPOCH.number, NOW)
    assert not receiver.accepts(NEXT.number, NOW)
    with pytest.raises(PeerError) as caught:
        receiver.admit(arrived, authorize, NOW, Answer(seal.session))
    assert caught.value.cause is Cause.BAD_MAC
    for replayed in (False, True):
        answers.learn(call.mac, call_covers(call.encoded))
        if replayed:
            with pytest.raises(PeerError) as caught:
                receiver.admit(arrived, authorize, NOW, Answer(seal.session))
            assert caught.value.cause is Cause.REPLAYED
        else:
            assert receiver.admit(arrived, authorize, NOW, Answer(seal.session)).header == call.header


def test_a_receiver_without_keys_refuses_with_auths_proof(sealed: bytes) -> None:
    """The proof goes to the source, if auth has given one."""
    receiver = Receiver(ORDERS, C)
    receiver.learn(EPOCH, Withheld())
    refusal = Refusal(bytes(32), InstanceId(C.raw), EPOCH.number)
    with pytest.raises(StalePeerError) as caught:
        receiver.admit(incoming(sealed), authorize, NOW, Answer(asked(sealed)[0].session, refusal))
    assert caught.value.refusal == refusal


def test_a_withheld_key_makes_nothing() -> None:
    """In the place of a key that auth keeps stands nothing that a key could come from."""
    withheld = Withheld()
    for use in (lambda: withheld.mac(b""), withheld.reveal, lambda: withheld.verify(b"", b"")):
        with pytest.raises(RuntimeError):
            use()
    assert withheld == withheld  # noqa: PLR0124
    assert withheld != Withheld()
