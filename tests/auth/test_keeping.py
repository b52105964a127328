"""What operators see and do of the mesh's own keys."""

import json
from pathlib import Path

import pytest

from mesh.core.join import JoinToken
from mesh.rpc.svid import new_key
from mesh.v1 import keys_pb2
from services.auth.credential import HALF_MS
from services.auth.errors import AuditError, ConflictError, RefusedError
from services.auth.tokens import OPERATOR_LIFE_MS
from tests.auth.test_rekey import _full
from tests.auth.world import HOUR_MS, World

KIND = keys_pb2.KeyKind
STATE = keys_pb2.KeyState


def listed(world: World) -> list[tuple[str, str, str]]:
    """Give kind, id and state of what is listed."""
    return [
        (KIND.Name(key.kind)[9:].lower(), key.id, STATE.Name(key.state)[10:].lower())
        for key in world.authority.keys.list().keys
    ]


def test_what_is_in_force_is_listed(world: World) -> None:
    """Of a new trust domain: one of each kind and the next epoch, with the times by which they will go."""
    assert [(kind, state) for kind, _, state in listed(world)] == [
        ("epoch", "next"),
        *((kind, "in_force") for kind in ("epoch", "ca", "kek", "operator")),
    ]
    ahead, epoch, ca, kek, operator = world.authority.keys.list().keys
    assert (epoch.next_ms, epoch.until_ms) == (
        epoch.since_ms + HOUR_MS,
        epoch.since_ms + HOUR_MS + 300_000,
    )
    assert ahead.since_ms == epoch.next_ms
    assert (ca.next_ms - ca.since_ms) * 6 == (ca.until_ms - ca.since_ms) * 5
    assert (kek.id, kek.keeper) == (world.directory.vault.kek_id.hex(), "")
    assert (operator.id, operator.next_ms) == (world.credential.id, operator.since_ms + HALF_MS)
    assert operator.until_ms == operator.since_ms + OPERATOR_LIFE_MS


def test_next_and_previous_are_listed(world: World) -> None:
    """Newest first, whatever brought them about."""
    by = world.operator()
    world.authority.keys.rotate_epoch(by)
    world.authority.keys.rotate_ca(by)
    world.time.pass_ms(HOUR_MS + 1000)
    found = listed(world)
    epochs = [(id_, state) for kind, id_, state in found if kind == "epoch"]
    assert epochs == [("4", "next"), ("3", "in_force"), ("2", "previous"), ("1", "previous")]
    assert [(id_, state) for kind, id_, state in found if kind == "ca"] == [
        ("2", "in_force"),
        ("1", "previous"),
    ]


def test_no_key_is_listed(world: World) -> None:
    """What is told of keys has no secret in it."""
    told = world.authority.keys.list().SerializeToString()
    roots = [root.reveal() for root in world.authority._roots._held.values()]
    for secret in (*roots, (world.path / "kek").read_bytes(), world.credential.secret.reveal()):
        assert secret not in told


def test_an_epoch_is_forced(world: World) -> None:
    """As the newest ends, or an SVID's life from now; it is logged, and outlives a restart."""
    by = world.operator()
    made = world.authority.keys.rotate_epoch(by)
    assert (made.id, made.begins_ms) == ("3", world.now_ms + HOUR_MS + 1000)
    world.time.pass_ms(1000)
    again = world.authority.keys.rotate_epoch(by)
    assert (again.id, again.begins_ms) == ("4", world.now_ms + HOUR_MS + 1000)
    [*_, entry] = [entry for entry in world.audit() if entry.event == "epoch made"]
    assert (entry.by, entry.detail) == (f"mesh.operator/{by.instance}", f"4, begins at {again.begins_ms}")
    before = world.authority._roots.epochs()
    world.restart()
    assert world.authority._roots.epochs() == before
    assert world.authority.keys.rotate_epoch(by).id == "5"  # in the place of 4, which has not begun
    world.time.pass_ms(1000)
    assert world.authority.keys.rotate_epoch(by).id == "6"
    with pytest.raises(ConflictError, match="turned already"):
        world.authority.keys.rotate_epoch(by)


def test_what_cannot_be_logged_is_not_rotated(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an epoch nor a credential."""
    by, before, credential = world.operator(), listed(world), world.credential
    with monkeypatch.context() as patched:
        patched.setattr("os.fdatasync", _full)
        for rotate in (world.authority.keys.rotate_epoch, world.authority.keys.rotate_operator):
            with pytest.raises(AuditError):
                rotate(by)
    assert listed(world) == before
    assert world.credential.text == credential.text
    world.restart()
    assert listed(world) == before


def test_a_new_credential_revokes_the_old(world: World) -> None:
    """At once, and every copy of it; the new one is where the old one was."""
    old = world.credential
    made = world.authority.keys.rotate_operator(world.operator())
    assert world.credential.text == made.credential
    assert world.credential.text != old.text
    with pytest.raises(RefusedError):
        world.join(old)
    assert world.operator().service.text == "mesh.operator"
    assert [entry.event for entry in world.audit()].count("operator credential made") == 1
    assert (world.path / "operator.json").stat().st_mode & 0o777 == 0o600


def test_a_new_credential_ends_what_joined_by_the_old(world: World) -> None:
    """Whoever had a copy of the old one is no operator any more, here or at nodes; who asked still is."""
    thief, by, node = world.operator(), world.operator(), world.node().peer
    revision = world.authority.revoking.revision
    world.authority.keys.rotate_operator(by)
    for refused in (
        lambda: world.authority.renew(thief, new_key()[1]),
        lambda: world.authority.create_token("orders", 60, thief),
        lambda: world.authority.check_known(thief),
    ):
        with pytest.raises(RefusedError):
            refused()
    told = {one.instance for one in world.authority.revoking.told().instances}
    assert thief.instance.raw in told
    assert not {by.instance.raw, node.instance.raw} & told
    assert world.authority.revoking.revision > revision
    world.authority.check_known(by)
    world.authority.check_known(node)


def test_a_credential_is_renewed_at_half_of_its_life(world: World) -> None:
    """By itself; the one before stays good to its end, for the copies of it."""
    old = world.credential
    world.time.pass_ms(HALF_MS - 1000)
    world.authority.turn()
    assert world.credential.text == old.text
    world.time.pass_ms(60_001)
    world.authority.turn()
    assert world.credential.text != old.text
    assert world.join(old).peer.service == world.operator().service
    assert [state for kind, _, state in listed(world) if kind == "operator"] == ["in_force", "previous"]


def test_a_credential_that_expired_while_nobody_was_there(world: World) -> None:
    """auth that slept for years has one that is good when it has started."""
    old = world.credential
    world.stop()
    world.time.pass_ms(3 * OPERATOR_LIFE_MS)
    world.start()
    assert world.credential.text != old.text
    assert world.operator().service.text == "mesh.operator"
    with pytest.raises(RefusedError):
        world.join(old)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"token": "mesh1.0000000000000000.AAAA"}', "revoked"])
def test_a_credential_that_is_none_is_replaced(world: World, content: str) -> None:
    """As after a crash between revoking the old one and writing the new one."""
    if content == "revoked":
        content = (world.path / "operator.json").read_text()
        world.authority.keys.rotate_operator(world.operator())
    (world.path / "operator.json").write_text(content)
    world.restart()
    assert world.operator().service.text == "mesh.operator"


def test_a_credential_that_was_taken_elsewhere_stays_there(world: World, tmp_path: Path) -> None:
    """auth puts none in its directory where there is none."""
    kept = JoinToken.parse(json.loads((world.path / "operator.json").read_text())["token"])
    (world.path / "operator.json").rename(tmp_path / "operator.json")
    world.restart()
    world.time.pass_ms(HALF_MS + 60_000)
    world.authority.turn()
    assert not (world.path / "operator.json").exists()
    assert world.join(kept).peer.service.text == "mesh.operator"
