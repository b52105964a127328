"""Revoking and banning: who is refused from when on, what is told, what is kept, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mesh.core.audit import Kind
from mesh.core.names import ServiceName
from mesh.core.receiver import Peer
from mesh.rpc.svid import new_key
from mesh.v1 import revocation_pb2
from services.auth import revoking
from services.auth.ca import ends_ms
from services.auth.errors import ConflictError, InvalidError, MissingError, RefusedError
from services.auth.revocation_store import Done
from tests.auth.world import HOUR_MS, Attempt, Joined, World

GRACE_MS = 300_000


def revoke(
    world: World, service: str, of: Joined | None = None, by: Peer | None = None, *, force: bool = False
) -> Done:
    instance = of.peer.instance.raw if of else b""
    request = revocation_pb2.RevokeRequest(service=service, instance=instance, reason="leaked", force=force)
    return world.authority.revoking.revoke(request, by or world.operator())


def ban(world: World, service: str, *, force: bool = False) -> Done:
    request = revocation_pb2.BanRequest(service=service, reason="gone", force=force)
    return world.authority.revoking.ban(request, world.operator())


def unban(world: World, service: str) -> None:
    world.authority.revoking.unban(revocation_pb2.UnbanRequest(service=service), world.operator())


def told(world: World) -> set[bytes]:
    return {one.instance for one in world.authority.revoking.told().instances}


def renew(world: World, node: Joined) -> None:
    world.authority.renew(node.peer, new_key()[1])


def test_whose_certificate_has_ended_is_no_member(world: World) -> None:
    """On a connection that it kept open it gets nothing, is revoked like any other, and stays out."""
    late = world.node()
    world.time.pass_ms(HOUR_MS)
    for _ in range(2):
        with pytest.raises(RefusedError):
            renew(world, late)
        with pytest.raises(RefusedError):
            world.authority.pair_keys(late.peer, ["stock"])
        assert late.peer.instance in ban(world, "orders").instances or told(world)
    assert told(world) == {late.peer.instance.raw}


def test_a_revoked_instance_gets_nothing_more(world: World) -> None:
    """No certificate, no keys; another instance of its service does, and the first stays out for ever."""
    bad, good = world.node(), world.node()
    done = revoke(world, "orders", bad)
    assert list(done.instances) == [bad.peer.instance]
    for _ in range(2):
        with pytest.raises(RefusedError):
            renew(world, bad)
        with pytest.raises(RefusedError):
            world.authority.pair_keys(bad.peer, ["stock"])
        renew(world, good)
        assert told(world) == {bad.peer.instance.raw}
        world.restart()


def test_the_same_request_gets_no_revoked_instance_again(world: World) -> None:
    """A join that is repeated after its instance was revoked is refused."""
    attempt = Attempt(world.token())
    attempt.send(world)
    revoke(world, "orders")
    with pytest.raises(RefusedError):
        attempt.send(world)


def test_revoking_a_service_takes_its_instances_and_tokens_of_now(world: World) -> None:
    """All that are there, and tokens nobody used; a new token is good; other services are left alone."""
    nodes, other = [world.node(), world.node()], world.node("stock")
    left, of_other = world.token(), world.token("stock")
    done = revoke(world, "orders")
    assert {*done.instances} == {node.peer.instance for node in nodes}
    assert done.tokens == 1
    with pytest.raises(RefusedError):
        world.join(left)
    world.join(of_other)
    world.node()
    renew(world, other)


def test_revoking_an_instance_leaves_tokens(world: World) -> None:
    """It is one machine that was lost, not the service."""
    bad, left = world.node(), world.token()
    assert revoke(world, "orders", bad).tokens == 0
    world.join(left)


def test_a_banned_service_is_out_until_it_is_unbanned(world: World) -> None:
    """No join, no token, no key for calling it; after that, new tokens are good, and nothing old is."""
    world.apply({"services": {"orders": {"allow": [{"principals": ["stock"], "paths": ["*"]}]}, "stock": {}}})
    caller, node, left = world.node("stock"), world.node(), world.token()
    assert world.authority.pair_keys(caller.peer, ["orders"]).keys
    ban(world, "orders")
    for _ in range(2):
        assert list(world.authority.revoking.told().banned) == ["orders"]
        assert not world.authority.pair_keys(caller.peer, ["orders"]).keys
        with pytest.raises(ConflictError):
            world.token()
        with pytest.raises(RefusedError):
            world.join(left)
        world.restart()
    unban(world, "orders")
    with pytest.raises(RefusedError):
        world.join(left)
    with pytest.raises(RefusedError):
        renew(world, node)
    world.node()
    assert world.authority.pair_keys(caller.peer, ["orders"]).keys


def test_a_token_made_beside_a_ban_is_of_no_use(world: World) -> None:
    """Whoever made the token did not see the ban: the statement that uses it up does."""
    token = world.token()
    ban(world, "orders")
    world.sql("UPDATE token SET revoked_ms = NULL WHERE id = ?", token.id)
    with pytest.raises(RefusedError):
        world.join(token)
    assert world.count("SELECT count(*) FROM instance WHERE service = 'orders'") == 0


def test_it_is_in_the_audit_log_with_operator_and_reason(world: World) -> None:
    """One entry for each instance and each ban, once, and none where nothing changed."""
    operator, node = world.operator(), world.node()
    revoke(world, "orders", node, operator)
    revoke(world, "orders", node, operator)
    ban(world, "orders")
    ban(world, "orders")
    unban(world, "orders")
    entries = [entry for entry in world.audit() if entry.kind is Kind.REVOCATION]
    assert [entry.event for entry in entries] == ["revoke", "ban", "unban"]
    first = entries[0]
    assert (first.service, first.instance) == ("orders", str(node.peer.instance))
    assert (first.by, first.detail) == (f"mesh.operator/{operator.instance}", "leaked")


def test_an_entry_is_kept_until_all_that_it_held_has_ended(world: World) -> None:
    """Until the last certificate and the last key have ended, two hours and five minutes at most."""
    node = world.node()
    revoke(world, "orders", node)
    (one,) = world.authority.revoking.told().instances
    held = [*node.credentials.destination_keys]
    last = max(ends_ms(node.credentials.certificate_chain[0]), *(key.epoch.accepted_until_ms for key in held))
    assert last <= one.until_ms <= world.now_ms + 2 * HOUR_MS + GRACE_MS
    world.time.pass_ms(one.until_ms - world.now_ms - 1)
    world.authority.turn()
    assert told(world) == {node.peer.instance.raw}
    world.time.pass_ms(60_001)
    world.authority.turn()
    assert told(world) == set()


def test_the_meshs_own_are_guarded(world: World) -> None:
    """Auth never; the others only by force; and an operator is never locked out by it."""
    for service in ("mesh.auth", "mesh.gatekeeper", "mesh.operator"):
        with pytest.raises(InvalidError):
            revoke(world, service)
        with pytest.raises(InvalidError):
            ban(world, service)
    for service in ("mesh.auth", "mesh.operator"):
        with pytest.raises(InvalidError):
            ban(world, service, force=True)
    with pytest.raises(InvalidError):
        revoke(world, "mesh.auth", force=True)
    assert revoke(world, "mesh.operator", force=True).instances
    world.operator()


def test_what_is_not_there_is_said(world: World) -> None:
    """An instance of another service, a name that is none, a reason of two lines, a ban that is not there."""
    node = world.node("stock")
    with pytest.raises(MissingError):
        revoke(world, "orders", node)
    with pytest.raises(MissingError):
        unban(world, "orders")
    with pytest.raises(InvalidError):
        revoke(world, "No Name")
    for reason in ("two\nlines", "x" * 201):
        request = revocation_pb2.RevokeRequest(service="stock", reason=reason)
        with pytest.raises(InvalidError):
            world.authority.revoking.revoke(request, world.operator())
    short = revocation_pb2.RevokeRequest(service="stock", instance=b"short")
    with pytest.raises(InvalidError):
        world.authority.revoking.revoke(short, world.operator())


@pytest.mark.parametrize("change", [revoke, ban])
def test_what_nodes_cannot_be_told_of_is_revoked_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch, change: Callable[[World, str], Done]
) -> None:
    """The newest are told as far as there is room; auth refuses all, and says how many are not told of."""
    monkeypatch.setattr(revoking, "MAX_REVOKED", 2)
    nodes = []
    for _ in range(4):
        nodes.append(world.node())
        world.time.pass_ms(1000)
    done = change(world, "orders")
    assert [*done.instances] == [nodes[3].peer.instance, nodes[2].peer.instance]
    assert done.untold == 2
    assert told(world) == {one.raw for one in done.instances}
    for node in nodes:
        with pytest.raises(RefusedError):
            renew(world, node)
        with pytest.raises(RefusedError):
            world.authority.pair_keys(node.peer, ["stock"])
    assert world.authority.revoking.is_banned(ServiceName("orders")) is (change is ban)
    last = [entry for entry in world.audit() if entry.kind is Kind.REVOCATION][-1]
    assert (last.event, last.service, last.count) == ("revoke untold", "orders", 2)


def test_an_instance_is_revoked_where_there_is_no_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a full list keeps no ban from being written."""
    monkeypatch.setattr(revoking, "MAX_REVOKED", 1)
    revoke(world, "stock", world.node("stock"))
    before, (bad, good) = told(world), (world.node(), world.node())
    assert revoke(world, "orders", bad).untold == 1
    last = world.audit()[-1]
    assert (last.event, last.instance, last.count) == ("revoke untold", str(bad.peer.instance), 1)
    with pytest.raises(RefusedError):
        renew(world, bad)
    renew(world, good)
    assert ban(world, "orders").untold == 1
    assert told(world) == before
    with pytest.raises(ConflictError):
        world.token()
