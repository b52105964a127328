"""Auth seals for those whose keys it keeps: members alone, as policy says now, with numbers given once."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh.core.join import JoinRequester
from mesh.core.keys import Key
from mesh.core.names import GATEKEEPER, InstanceId, ServiceName
from mesh.core.receiver import Peer
from mesh.core.signing import read_call
from mesh.v1 import auth_pb2, signer_pb2
from services.auth.errors import ConflictError, InvalidError, MissingError, RefusedError
from services.auth.sequences import BLOCK, KEEP_MS
from tests.auth.world import HOUR_MS, Attempt, Joined, World, on_sqlite

POLICY: dict[str, object] = {
    "services": {"frontend": {}, "orders": {"allow": [{"principals": ["frontend"], "paths": ["*"]}]}}
}


def remote(world: World, service: str) -> Joined:
    """Join with a token that leaves the keys with auth."""
    token, _ = world.authority.create_token(service, 60, world.operator(), remote_keys=True)
    return world.join(token)


def new(to: Joined, **changes: object) -> signer_pb2.SignRequest:
    fields = {
        "destination": to.credentials.service,
        "destination_instance": to.credentials.instance,
        "method": "/shop.v1.Orders/Get",
        "metadata_digest": bytes(32),
    }
    return signer_pb2.SignRequest(new_call=signer_pb2.NewCall(**(fields | changes)))  # type: ignore[arg-type]


def sequence(world: World, source: Joined, destination: Joined) -> int:
    sealed = world.authority.signatory.sign(source.peer, new(destination)).sealed_call
    return read_call(sealed).header.sequence


def test_who_leaves_keys_with_auth_gets_none(world: World) -> None:
    """Neither at joining nor at renewing nor by asking: but those to the mesh's own services."""
    world.apply(POLICY)
    node = remote(world, "frontend")
    renewed = world.authority.renew(node.peer, Attempt(world.token("frontend")).asked.csr)
    for credentials in (node.credentials, renewed):
        assert credentials.remote_keys
        assert credentials.destination_keys
        assert all(held.epoch.number and not held.key for held in credentials.destination_keys)
    assert {key.destination for key in node.bundle.pair_keys} == {"mesh.auth", "mesh.gatekeeper"}
    given = world.authority.pair_keys(node.peer, ["orders", "mesh.auth", "mesh.gatekeeper"])
    assert {key.destination for key in given.keys} == {"mesh.auth", "mesh.gatekeeper"}
    local = world.node("frontend")
    assert {key.destination for key in world.authority.pair_keys(local.peer, ["orders"]).keys} == {"orders"}


def test_a_node_may_want_no_keys_whatever_its_token_says(world: World) -> None:
    """What it asks for is in its proven request."""
    attempt = Attempt(world.token("frontend"))
    assert not attempt.send(world).credentials.remote_keys
    token, csr = world.token("frontend"), attempt.asked.csr
    attempt = Attempt(token, csr)
    attempt.requester = JoinRequester(token, csr, bytes(16), remote_keys=True)
    attempt.request = attempt.requester.request()
    assert attempt.send(world).credentials.remote_keys


def test_the_mesh_itself_has_its_keys(world: World) -> None:
    """No token leaves gatekeeper's keys with auth."""
    with pytest.raises(InvalidError, match="cannot leave its keys"):
        world.authority.create_token(GATEKEEPER.text, 60, world.operator(), remote_keys=True)


def test_a_list_of_tokens_says_which_leave_keys(world: World) -> None:
    """An operator sees what a token is for, and a used one is used."""
    remote(world, "frontend")
    found = {info.service: info for info in world.authority.list_tokens(world.operator())}
    assert found["frontend"].remote_keys
    assert found["frontend"].state == auth_pb2.TOKEN_STATE_USED


def test_a_call_of_a_node_without_keys(world: World) -> None:
    """Sealed for its source, it is verified by a destination that has no keys either."""
    world.apply(POLICY)
    source, destination = remote(world, "frontend"), remote(world, "orders")
    signatory, parts = (
        world.authority.signatory,
        signer_pb2.CallParts(frame=signer_pb2.FramePart(payload=b"m")),
    )
    request = new(destination)
    request.parts.CopyFrom(parts)
    made = signatory.sign(source.peer, request)
    seen = signer_pb2.VerifyRequest(sealed_call=made.sealed_call, parts=parts, macs=made.macs)
    found = signatory.verify(destination.peer, seen)
    assert (found.call, found.frame) == (True, True)
    more = signer_pb2.SignRequest(
        sealed_call=made.sealed_call, parts=signer_pb2.CallParts(frame=signer_pb2.FramePart(index=1))
    )
    assert len(signatory.sign(source.peer, more).macs.frame) == 32
    with pytest.raises(RefusedError):
        signatory.verify(source.peer, seen)
    with pytest.raises(InvalidError):
        signatory.verify(destination.peer, signer_pb2.VerifyRequest(sealed_call=b"nothing"))


def test_a_source_has_no_reply_sealed(world: World) -> None:
    """Neither with the call as it is made nor afterwards: no node can forge a reply to itself."""
    world.apply(POLICY)
    source, destination = remote(world, "frontend"), remote(world, "orders")
    signatory = world.authority.signatory
    end = signer_pb2.EndPart(count=1, initial_digest=bytes(32), trailing_digest=bytes(32))
    for part in ({"frame": signer_pb2.FramePart(payload=b"m")}, {"initial_digest": bytes(32)}, {"end": end}):
        parts = signer_pb2.CallParts(reply=True, **part)
        request = new(destination)
        request.parts.CopyFrom(parts)
        with pytest.raises(InvalidError, match="its destination's"):
            signatory.sign(source.peer, request)
        made = signatory.sign(source.peer, new(destination)).sealed_call
        with pytest.raises(RefusedError):
            signatory.sign(source.peer, signer_pb2.SignRequest(sealed_call=made, parts=parts))


def test_policy_says_what_is_sealed_at_every_moment(world: World) -> None:
    """A name that may not be called is refused as one that is none; so is, from then on, one withdrawn."""
    world.apply(POLICY)
    source, destination = remote(world, "frontend"), remote(world, "orders")
    signatory = world.authority.signatory
    made = signatory.sign(source.peer, new(destination))
    texts = set()
    for request in (
        new(source),
        new(destination, destination="nobody"),
        new(destination, destination="mesh.auth"),
    ):
        with pytest.raises(RefusedError) as caught:
            signatory.sign(source.peer, request)
        texts.add(str(caught.value))
    assert len(texts) == 1
    world.apply({"services": {"frontend": {}, "orders": {}}})
    more = signer_pb2.SignRequest(
        sealed_call=made.sealed_call, parts=signer_pb2.CallParts(frame=signer_pb2.FramePart(index=1))
    )
    for request in (new(destination), more):
        with pytest.raises(RefusedError):
            signatory.sign(source.peer, request)
    refused = [entry for entry in world.audit("denials") if entry.event == "names refused"]
    assert refused
    assert {entry.method for entry in refused} == {"/mesh.v1.SignerService/Sign"}


def test_who_is_not_answered(world: World) -> None:
    """One with keys of its own, a stranger, one whose certificate has ended; and no call to such a one."""
    world.apply(POLICY)
    source, destination, local = remote(world, "frontend"), remote(world, "orders"), world.node("frontend")
    signatory = world.authority.signatory
    made = signatory.sign(source.peer, new(destination)).sealed_call
    with pytest.raises(ConflictError):
        signatory.sign(local.peer, new(destination))
    with pytest.raises(MissingError):
        signatory.sign(source.peer, new(destination, destination_instance=bytes(16)))
    with pytest.raises(InvalidError):
        signatory.sign(source.peer, new(destination, destination_instance=b"short"))
    for peer in (
        Peer(ServiceName("orders"), InstanceId(bytes(16))),
        Peer(ServiceName("x"), source.peer.instance),
    ):
        with pytest.raises(RefusedError):
            signatory.verify(peer, signer_pb2.VerifyRequest(sealed_call=made))
    world.time.pass_ms(2 * HOUR_MS)
    with pytest.raises(RefusedError):
        signatory.sign(source.peer, new(destination))


def test_numbers_are_given_once(world: World) -> None:
    """They go up for each pair of instances, past the end of a block, its time, and auth itself."""
    world.apply(POLICY)
    source, destination, other = remote(world, "frontend"), remote(world, "orders"), remote(world, "orders")
    given = [sequence(world, source, destination) for _ in range(BLOCK + 2)]
    assert sequence(world, source, other)
    world.time.pass_ms(KEEP_MS)
    given.append(sequence(world, source, destination))
    world.restart()
    given.append(sequence(world, source, destination))
    assert given == sorted(set(given))
    assert world.count("SELECT count(*) FROM sequence") == 2


@pytest.mark.parametrize("engine", ["postgres"])
def test_two_auths_give_no_number_twice(world: World, tmp_path: Path) -> None:
    """Each has blocks of its own, so that a receiver's window takes what either gives."""
    world.apply(POLICY)
    source, destination = remote(world, "frontend"), remote(world, "orders")
    beside = world.beside(tmp_path / "other")
    given = [sequence(one, source, destination) for _ in range(BLOCK + 1) for one in (world, beside)]
    assert len(set(given)) == len(given)
    assert max(given) - min(given) < 8192 - BLOCK
    beside.stop()


def test_pairs_are_forgotten_with_their_ends(world: World) -> None:
    """Nobody can call with, or be called by, an instance that is gone: its numbers are needed no more."""
    world.apply(POLICY)
    source, destination = remote(world, "frontend"), remote(world, "orders")
    sequence(world, source, destination)
    world.time.pass_ms(3 * HOUR_MS)
    world.authority.turn()
    assert world.count("SELECT count(*) FROM sequence") == 0


@on_sqlite
def test_keys_of_remote_nodes_are_in_no_row(world: World) -> None:
    """What auth seals with is derived and nowhere kept."""
    world.apply(POLICY)
    source, destination = remote(world, "frontend"), remote(world, "orders")
    sequence(world, source, destination)
    keys: list[Key] = [
        key for _, key in world.authority._roots.destination_keys(destination.peer.service, world.now_ms)
    ]
    assert keys
    content = b"".join(path.read_bytes() for path in world.path.rglob("*") if path.is_file())
    assert not any(key.reveal() in content for key in keys)
