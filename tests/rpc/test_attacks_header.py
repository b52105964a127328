"""Attacks on the seal that opens a call: forged, changed, replayed and misdirected headers and metadata.

The attacker holds a real certificate of the trust domain; nothing but the seal stands in its way.
"""

from __future__ import annotations

import os

import grpc
import pytest

from mesh.core.errors import Cause
from mesh.core.keys import destination_key, pair_key
from mesh.core.metadata import CALL, PEER, REFUSAL, Entries
from mesh.core.names import FullMethod, InstanceId, KeyEpoch, ServiceName
from mesh.core.wire import MAX_HEADER, CallHeader, decode_call, encode_call
from mesh.rpc.membership import Membership, Rejection
from mesh.rpc.server import MeshServer
from mesh.v1 import wire_pb2
from tests.core.world import state
from tests.rpc.app import Echo, path
from tests.rpc.attack import Answer, Attacker, Captured, capture, forge
from tests.rpc.pair import DOMAIN, World

C = grpc.StatusCode


@pytest.fixture
def to(callee: Membership) -> tuple[ServiceName, InstanceId]:
    """Say for whom calls are sealed."""
    return callee.name, callee.instance


@pytest.fixture
def captured(caller: Membership, to: tuple[ServiceName, InstanceId]) -> Captured:
    """Record a good call of ``caller``'s."""
    return capture(caller, path("Unary"), to=to)


def assert_rejected(answer: Answer, app: Echo, rejected: list[Rejection], *causes: Cause) -> None:
    """Nothing was dispatched; the caller learns no more than that, the operator learns which check failed."""
    assert app.calls == []
    assert (answer.code, answer.reason) == (C.UNAUTHENTICATED, "SEAL_REJECTED")
    assert answer.replies == []
    assert rejected[-1].cause in causes
    assert rejected[-1].id == answer.call_id
    assert str(rejected[-1].cause) not in answer.details


def mended(captured: Captured, **fields: object) -> Captured:
    """Change fields of the header and seal it again, as only its own source could."""
    assert captured.seal is not None
    header = wire_pb2.CallHeader.FromString(decode_call(captured.sealed)[1])
    for name, value in fields.items():
        setattr(header, name, value)
    return captured.but(sealed=forge(captured.seal, header.SerializeToString(deterministic=True)))


@pytest.mark.parametrize("method", ["Unary", "Both", "Nothing"])
@pytest.mark.parametrize("frames", [(), (b"",), (b"plain message",)])
async def test_no_seal_at_all(
    attacker: Attacker, app: Echo, rejected: list[Rejection], method: str, frames: tuple[bytes, ...]
) -> None:
    """A plain gRPC call is refused, whatever it asks for, and cannot tell what is served."""
    answer = await attacker.send(path(method), (("x-any", "thing"),), frames)
    assert_rejected(answer, app, rejected, Cause.MALFORMED)
    assert not answer.sealed


async def test_a_good_call_passes(attacker: Attacker, app: Echo, captured: Captured) -> None:
    """What the attacker sends is taken where it is whole: the attacks below fail by what they change."""
    answer = await attacker.replay(captured)
    assert (answer.code, answer.sealed, len(answer.replies)) == (C.OK, True, 1)
    assert app.seen == [b"message"]


async def test_replay(
    attacker: Attacker, app: Echo, callee: Membership, captured: Captured, rejected: list[Rejection]
) -> None:
    """A call passes once, however often it is sent, and its true reply stays the only one."""
    await attacker.replay(captured)
    before = state(callee.receiver)
    app.calls.clear()
    for _ in range(3):
        answer = await attacker.replay(captured)
        assert_rejected(answer, app, rejected, Cause.REPLAYED)
        assert not answer.sealed
    assert app.seen == [b"message"]
    assert state(callee.receiver) == before


@pytest.mark.usefixtures("patient")
async def test_every_byte_of_the_seal_changed(
    attacker: Attacker, app: Echo, callee: Membership, captured: Captured, rejected: list[Rejection]
) -> None:
    """No byte of header or mac can be changed, and no attempt leaves a trace in the replay windows."""
    before = state(callee.receiver)
    for at in range(len(captured.sealed)):
        changed = bytearray(captured.sealed)
        changed[at] ^= 1 << (at % 8)
        answer = await attacker.replay(captured.but(sealed=bytes(changed)))
        assert app.calls == []
        assert answer.reason in ("SEAL_REJECTED", "STALE_PEER")
        assert not answer.sealed
    assert len(rejected) == len(captured.sealed)
    assert state(callee.receiver) == before
    assert (await attacker.replay(captured)).code is C.OK


@pytest.mark.usefixtures("patient")
async def test_cut_and_padded_seals(
    attacker: Attacker, app: Echo, captured: Captured, rejected: list[Rejection]
) -> None:
    """A seal that is cut anywhere, or has anything after it, is no seal."""
    for length in range(0, len(captured.sealed), 3):
        answer = await attacker.replay(captured.but(sealed=captured.sealed[:length]))
        assert_rejected(answer, app, rejected, *Cause)
    for padding in (b"\0", b"\x1a\0", b"\x12\0", captured.sealed):
        answer = await attacker.replay(captured.but(sealed=captured.sealed + padding))
        assert_rejected(answer, app, rejected, Cause.MALFORMED)


@pytest.mark.parametrize("size", [MAX_HEADER + 1, 3000, 20_000])
async def test_oversized_header(
    attacker: Attacker, app: Echo, captured: Captured, rejected: list[Rejection], size: int
) -> None:
    """A header past its bound is refused for its size, though its mac were right."""
    assert captured.seal is not None
    answer = await attacker.replay(captured.but(sealed=forge(captured.seal, bytes(size))))
    assert_rejected(answer, app, rejected, Cause.TOO_LARGE)


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"version": 0}, Cause.BAD_VERSION),
        ({"version": 2}, Cause.BAD_VERSION),
        ({"version": 2**32 - 1}, Cause.BAD_VERSION),
        ({"sequence": 0}, Cause.MALFORMED),
        ({"sequence": 2**63}, Cause.MALFORMED),
        ({"key_epoch": 0}, Cause.MALFORMED),
        ({"deadline_ms": 2**53 + 1}, Cause.MALFORMED),
        ({"metadata_digest": b"short"}, Cause.MALFORMED),
        ({"source_instance": b"short"}, Cause.MALFORMED),
        ({"source": "Caller"}, Cause.MALFORMED),
        ({"destination": "callee."}, Cause.MALFORMED),
        ({"method": "test.v1.Echo/Unary"}, Cause.BAD_METHOD),
        ({"destination": "other"}, Cause.NOT_ME),
        ({"source": "other"}, Cause.BAD_MAC),
        ({"source_instance": b"i" * 16}, Cause.BAD_MAC),
    ],
)
async def test_headers_outside_the_grammar(
    attacker: Attacker,
    app: Echo,
    captured: Captured,
    rejected: list[Rejection],
    fields: dict[str, object],
    cause: Cause,
) -> None:
    """A header is judged by its grammar and its addressee, even from a source that seals it rightly."""
    answer = await attacker.replay(mended(captured, **fields))
    assert_rejected(answer, app, rejected, cause)
    assert app.seen == []


async def test_sealed_for_another_instance(
    attacker: Attacker, app: Echo, captured: Captured, rejected: list[Rejection]
) -> None:
    """The mac of a call for this instance under a header for another: refused, and nothing proved."""
    answer = await attacker.replay(mended(captured, destination_instance=os.urandom(16)))
    assert (answer.code, answer.reason) == (C.UNAVAILABLE, "STALE_PEER")
    assert app.calls == []
    assert rejected[-1].cause == Cause.NOT_THIS_INSTANCE
    assert not any(key == REFUSAL for key, _ in answer.trailing)


async def test_unknown_epoch(
    attacker: Attacker, app: Echo, captured: Captured, rejected: list[Rejection]
) -> None:
    """A call under an epoch whose key is not held is refused before dispatch, without a proof of that."""
    answer = await attacker.replay(mended(captured, key_epoch=77))
    assert (answer.code, answer.reason) == (C.UNAVAILABLE, "STALE_PEER")
    assert app.calls == []
    assert rejected[-1].cause == Cause.UNKNOWN_EPOCH
    assert not any(key == REFUSAL for key, _ in answer.trailing)


async def test_nobody_else_gets_the_proof_of_a_refusal(
    world: World, server: MeshServer, app: Echo, captured: Captured
) -> None:
    """Who sends another's call cannot have it proven undispatched, and so not repeated either."""
    thief = Attacker(world.member("other").svid, server.port)
    for fields in ({"destination_instance": os.urandom(16)}, {"key_epoch": 77}):
        answer = await thief.replay(mended(captured, **fields))
        assert answer.reason == "STALE_PEER"
        assert all(key != REFUSAL for key, _ in answer.trailing)
    assert app.calls == []
    await thief.close()


async def test_another_certificate_with_a_captured_call(
    world: World,
    server: MeshServer,
    app: Echo,
    callee: Membership,
    captured: Captured,
    rejected: list[Rejection],
) -> None:
    """A call is its source's alone: no other member can send it, and the source still can afterwards."""
    before = state(callee.receiver)
    for service in ("other", "caller"):  # another service; another instance of the same service
        thief = Attacker(world.member(service).svid, server.port)
        assert_rejected(await thief.replay(captured), app, rejected, Cause.WRONG_PEER)
        await thief.close()
    assert state(callee.receiver) == before
    owner = Attacker(world.members[1].svid, server.port)
    assert world.members[1].name.text == "caller"
    assert (await owner.replay(captured)).code is C.OK
    await owner.close()


async def test_a_call_under_anothers_name(
    world: World,
    server: MeshServer,
    app: Echo,
    callee: Membership,
    caller: Membership,
    rejected: list[Rejection],
) -> None:
    """Own keys seal for no other name, nor for the own name with another's instance."""
    other = world.member("other")
    attacker = Attacker(other.svid, server.port)
    own = capture(other, path("Unary"), to=(callee.name, callee.instance))
    for fields in (
        {"source": "caller", "source_instance": caller.instance.raw},
        {"source": "caller"},
        {"source_instance": caller.instance.raw},
    ):
        assert_rejected(await attacker.replay(mended(own, **fields)), app, rejected, Cause.BAD_MAC)
    await attacker.close()


async def test_keys_of_one_destination_open_no_other(
    world: World, server: MeshServer, app: Echo, caller: Membership, rejected: list[Rejection]
) -> None:
    """What a compromised destination holds of its callers does not seal their calls elsewhere."""
    other = world.member("other")
    # "other" derives the key under which "caller" calls it, and tries it on "callee".
    stolen = pair_key(destination_key(world.root, DOMAIN, other.name), caller.name)
    caller.sender.learn(ServiceName("callee"), world.epoch, stolen)
    callee = world.members[0]
    attacker = Attacker(caller.svid, server.port)
    forged = capture(caller, path("Unary"), to=(callee.name, callee.instance))
    assert_rejected(await attacker.replay(forged), app, rejected, Cause.BAD_MAC)
    await attacker.close()


async def test_two_seals(
    attacker: Attacker,
    app: Echo,
    caller: Membership,
    to: tuple[ServiceName, InstanceId],
    rejected: list[Rejection],
) -> None:
    """A call has one seal: two, equal or not, are none."""
    first, second = (capture(caller, path("Unary"), to=to) for _ in range(2))
    for pair in ((first, first), (first, second), (second, first)):
        metadata = tuple((CALL, one.sealed) for one in pair)
        answer = await attacker.send(first.path, metadata, first.frames)
        assert_rejected(answer, app, rejected, Cause.MALFORMED)
    joined = first.but(sealed=first.sealed + b"," + second.sealed)
    assert_rejected(await attacker.replay(joined), app, rejected, Cause.MALFORMED)


ENTRIES: Entries = (("x-tenant", "acme"), ("x-list", "one"), ("x-list", "two"), ("x-raw-bin", b"\0\xff"))


@pytest.mark.parametrize(
    "entries",
    [
        (),
        ENTRIES[1:],
        ENTRIES[:-1],
        (*ENTRIES, ("x-admin", "true")),
        (*ENTRIES, ("x-tenant", "acme")),
        (("x-tenant", "evil"), *ENTRIES[1:]),
        (("x-tenant", ""), *ENTRIES[1:]),
        (ENTRIES[0], ENTRIES[2], ENTRIES[1], ENTRIES[3]),
        (ENTRIES[0], ("x-list", "one,two"), ENTRIES[3]),
        (*ENTRIES[:3], ("x-raw-bin", b"\0\xfe")),
        (*ENTRIES[:3], ("y-raw-bin", b"\0\xff")),
        (*ENTRIES, ("grpc-status-details-bin", b"tags")),
        (*ENTRIES, ("authorization", "bearer stolen")),
    ],
)
async def test_metadata_tampered_with(
    attacker: Attacker,
    app: Echo,
    caller: Membership,
    to: tuple[ServiceName, InstanceId],
    rejected: list[Rejection],
    entries: Entries,
) -> None:
    """Metadata that is not what was sealed ends the call before dispatch, and the end is sealed."""
    captured = capture(caller, path("Unary"), to=to, entries=ENTRIES)
    answer = await attacker.replay(captured.but(entries=entries))
    assert_rejected(answer, app, rejected, Cause.BAD_METADATA)
    assert answer.sealed


async def test_the_order_of_different_keys_is_the_transports(
    attacker: Attacker, app: Echo, caller: Membership, to: tuple[ServiceName, InstanceId]
) -> None:
    """Between different keys there is no order to keep, as gRPC promises none."""
    captured = capture(caller, path("Unary"), to=to, entries=ENTRIES)
    turned = (ENTRIES[3], ENTRIES[1], ENTRIES[2], ENTRIES[0])
    assert (await attacker.replay(captured.but(entries=turned))).code is C.OK
    assert app.calls == ["Unary"]


@pytest.mark.parametrize("key", [PEER, "mesh-to", "mesh-anything"])
async def test_mesh_metadata_from_the_wire_reaches_no_application(
    attacker: Attacker, app: Echo, captured: Captured, key: str
) -> None:
    """Keys of the mesh that somebody on the way adds are dropped: the app hears of its caller from us."""
    metadata = (*captured.metadata, (key, "spiffe://test.example/boss"))
    assert (await attacker.send(captured.path, metadata, captured.frames)).code is C.OK
    (seen,) = app.metadata
    assert [entry for entry in seen if entry[0].startswith("mesh-")] == [
        (PEER, "spiffe://test.example/caller")
    ]


@pytest.mark.parametrize("called", ["Peer", "Both", "Nothing", "unary", "UNARY"])
async def test_path_is_not_the_sealed_method(
    attacker: Attacker, app: Echo, captured: Captured, rejected: list[Rejection], called: str
) -> None:
    """The method that is dispatched is the one that was sealed, to the byte."""
    answer = await attacker.replay(captured.but(path=path(called)))
    assert_rejected(answer, app, rejected, Cause.BAD_METHOD)


@pytest.mark.parametrize("wait", [None, 60.0])
async def test_deadline_removed_or_lengthened(
    attacker: Attacker,
    app: Echo,
    caller: Membership,
    to: tuple[ServiceName, InstanceId],
    rejected: list[Rejection],
    wait: float | None,
) -> None:
    """A call does not live longer than its source wanted."""
    captured = capture(caller, path("Unary"), to=to, wait=2.0)
    answer = await attacker.replay(captured.but(wait=wait))
    assert_rejected(answer, app, rejected, Cause.BAD_DEADLINE)
    assert answer.sealed


async def test_deadline_past(
    world: World,
    attacker: Attacker,
    app: Echo,
    caller: Membership,
    to: tuple[ServiceName, InstanceId],
    rejected: list[Rejection],
) -> None:
    """A call that was held back until nobody waits for it any more is not dispatched."""
    captured = capture(caller, path("Unary"), to=to, wait=2.0)
    world.clock.set(world.clock.now_ms() + 10_000)
    answer = await attacker.replay(captured)
    assert_rejected(answer, app, rejected, Cause.BAD_DEADLINE)


async def test_deadline_shortened(
    attacker: Attacker, app: Echo, caller: Membership, to: tuple[ServiceName, InstanceId]
) -> None:
    """Whoever can drop a call can also shorten it: that is taken, and the handler knows the shorter one."""
    captured = capture(caller, path("Unary"), to=to, wait=60.0)
    assert (await attacker.replay(captured.but(wait=3.0))).code is C.OK
    assert app.remaining is not None
    assert app.remaining <= 3.0


async def test_an_epoch_that_is_over(
    world: World, attacker: Attacker, app: Echo, caller: Membership, callee: Membership, captured: Captured
) -> None:
    """Once an epoch is accepted no more, what was recorded in it is refused like a stranger's."""
    world.clock.set(world.epoch.accepted_until_ms)
    callee.receiver.expire(world.clock.now_ms())
    answer = await attacker.replay(captured)
    assert answer.reason == "STALE_PEER"
    assert all(key != REFUSAL for key, _ in answer.trailing)  # no key is held to prove it with
    assert app.calls == []
    assert not caller.sender.has_key(callee.name, world.clock.now_ms())


async def test_a_hundred_old_calls_at_once(
    attacker: Attacker, app: Echo, caller: Membership, to: tuple[ServiceName, InstanceId]
) -> None:
    """Calls may overtake each other on the way; each passes once, none twice."""
    calls = [capture(caller, path("Unary"), [b"%d" % index], to=to) for index in range(100)]
    for _ in range(2):
        for call in reversed(calls):
            await attacker.replay(call)
    assert app.seen == [b"%d" % index for index in reversed(range(100))]


def test_headers_here_are_what_the_wire_makes_of_them(caller: Membership, captured: Captured) -> None:
    """The forged headers above differ from a good one by their fields alone."""
    mac, encoded = decode_call(captured.sealed)
    header = CallHeader.decode(encoded)
    assert encode_call(mac, header.encode()) == captured.sealed == mended(captured).sealed
    assert (header.source, header.epoch) == (caller.name, KeyEpoch(1))
    assert header.method == FullMethod(path("Unary"))
