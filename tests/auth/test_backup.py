"""A backup, restored: all is there, nothing of the time since is used twice, and everybody is told."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.core.audit import Entry, Kind
from mesh.core.chain import RESTORED, Limits
from mesh.core.examine import Fault, Mark
from mesh.rpc.svid import new_key
from services.auth.archive import Archive, Contents, seal
from services.auth.audit_log import ACTIONS
from services.auth.backup import take
from services.auth.directory import DataDirectory
from services.auth.errors import RefusedError, StartError
from services.auth.restoring import restore
from services.auth.sequences import BLOCK
from tests.auth.test_rekey import rotate
from tests.auth.test_secrets import spellings
from tests.auth.test_signatory import POLICY, remote, sequence
from tests.auth.world import HOUR_MS, START_MS, Attempt, World


@pytest.fixture
def other(world: World, tmp_path: Path) -> Iterator[World]:
    """Be another machine, on which nothing is yet."""
    made = World.__new__(World)
    made.path, made.time, made.lives, made.running = tmp_path / "other", world.time, world.lives, False
    yield made
    made.stop()


def back_up(world: World, tmp_path: Path) -> Path:
    file = tmp_path / f"backup.{world.now_ms}"
    file.write_bytes(b"".join(take(world.directory, "", world.now_ms)))
    return file


def restored(world: World, other: World, backup: Path, policy_above: int = 0) -> World:
    """Restore a backup on the other machine, and start auth there; the first one ends."""
    world.stop()
    restore(backup, other.path, world.path / "kek", world.now_ms, policy_above)
    other.start()
    return other


def test_a_node_that_was_there_before_goes_on(world: World, other: World, tmp_path: Path) -> None:
    """It is known, its epoch is, the CA is the same; it renews, and has the keys that it had."""
    node = world.node()
    backup = back_up(world, tmp_path)
    world.time.pass_ms(60_000)
    after = restored(world, other, backup)
    renewed = after.authority.renew(node.peer, new_key()[1])
    assert list(renewed.trust_bundle) == list(node.credentials.trust_bundle)
    held = {(key.epoch.number, key.key) for key in node.credentials.destination_keys}
    assert held <= {(key.epoch.number, key.key) for key in renewed.destination_keys}
    assert after.operator().service.text == "mesh.operator"


def test_no_token_comes_back(world: World, other: World, tmp_path: Path) -> None:
    """Neither one that was used since, nor one still open, nor one used before; nor old credentials."""
    used, used_since, still_open = world.token(), world.token(), world.token()
    world.join(used)
    backup, credential = back_up(world, tmp_path), world.credential
    world.join(used_since)
    after = restored(world, other, backup)
    for token in (used, used_since, still_open, credential):
        with pytest.raises(RefusedError):
            after.join(token)
    assert after.credential.text != credential.text
    assert after.node().credentials.service == "orders"


def test_no_operator_comes_back(world: World, other: World, tmp_path: Path) -> None:
    """Who joined by a credential of then is no operator, for that may have been revoked since."""
    thief, node = world.operator(), world.node().peer
    backup = back_up(world, tmp_path)
    world.authority.keys.rotate_operator(world.operator())
    after = restored(world, other, backup)
    with pytest.raises(RefusedError):
        after.authority.create_token("orders", 60, thief)
    assert thief.instance.raw in {one.instance for one in after.authority.revoking.told().instances}
    after.authority.check_known(node)


def test_no_epoch_comes_back(world: World, other: World, tmp_path: Path) -> None:
    """The next has a number beyond all that were made since, however fast they were."""
    backup = back_up(world, tmp_path)
    for _ in range(5):
        world.time.pass_ms(HOUR_MS)
        world.authority.turn()
        world.authority.keys.rotate_epoch(world.operator())
    lost = max(world.authority._roots.epochs()).number.number
    after = restored(world, other, backup)
    current = after.authority._roots.current(after.now_ms)
    assert current.number.number > lost + 10_000
    after.restart()
    assert after.authority._roots.current(after.now_ms) == current


def test_a_number_is_kept_while_its_epoch_lives(world: World, other: World, tmp_path: Path) -> None:
    """What nodes hold now stays good until it ends, and the next follows without a gap."""
    backup = back_up(world, tmp_path)
    before = world.authority._roots.epochs()
    after = restored(world, other, backup)
    *kept, next_ = after.authority._roots.epochs()
    assert kept == before
    assert next_.begins_ms == kept[-1].ends_ms
    assert next_.ends_ms - next_.begins_ms == HOUR_MS


def test_no_sequence_number_comes_back(world: World, other: World, tmp_path: Path) -> None:
    """Those that auth hands out go on above all that it gave since, of which the backup does not know."""
    world.apply(POLICY)
    source, destination = remote(world, "frontend"), remote(world, "orders")
    sequence(world, source, destination)
    backup = back_up(world, tmp_path)
    given = [sequence(world, source, destination) for _ in range(3 * BLOCK)]
    world.time.pass_ms(1)
    after = restored(world, other, backup)
    assert after.count("SELECT count(*) FROM sequence") == 0
    assert sequence(after, source, destination) > max(given)


def test_the_policy_goes_forward(world: World, other: World, tmp_path: Path) -> None:
    """It is the one of the backup, newer than any that nodes can have seen; and so is the one after it."""
    world.apply({"services": {"orders": {}}})
    backup = back_up(world, tmp_path)
    for _ in range(3):
        world.apply({"services": {}})
    lost = world.authority.policy_of_record.version
    after = restored(world, other, backup)
    assert after.authority.policy_of_record.version > lost
    assert b"orders" in after.authority.policy_of_record.document
    assert after.apply({"services": {}}).version > after.authority.list_policies(after.operator())[1].version


def test_guards_of_policies_may_have_gone_far(world: World, other: World, tmp_path: Path) -> None:
    """An operator who numbers policies by himself says how far."""
    after = restored(world, other, back_up(world, tmp_path), policy_above=20_270_101)
    assert after.authority.policy_of_record.version == 20_270_102


def test_the_audit_logs_say_so(world: World, other: World, tmp_path: Path) -> None:
    """Both are whole, begin anew with what happened, and a verifier who saw more is not fooled."""
    backup = back_up(world, tmp_path)
    taken_ms = world.now_ms
    for _ in range(4):
        world.token()
    seen = world.store.logs.open.heads()["actions"]
    after = restored(world, other, backup)
    (tmp_path / "mesh" / "audit.key").rename(after.path / "audit.key")
    for log in ("actions", "denials"):
        [entry] = [entry for entry in after.audit(log) if entry.event == RESTORED]
        assert (entry.alarm, entry.detail) == (True, f"taken at {taken_ms}")
        found = after.examine(log)
        assert found.bad is None
        assert found.restored is not None
    found = after.examine(marks=[Mark(seen.sequence, seen.mac)])
    assert found.bad
    assert (found.bad.fault, found.restored is not None) == (Fault.OLDER, True)


def test_what_is_in_it_is_of_no_use_alone(world: World, tmp_path: Path) -> None:
    """Neither KEK nor audit key nor credential, nor anything in clear."""
    token = world.token()
    backup = back_up(world, tmp_path).read_bytes()
    secrets = [(world.path / name).read_bytes() for name in ("kek", "audit.key")]
    for secret in (*secrets, world.credential.secret.reveal(), token.secret.reveal()):
        assert not any(one in backup for one in spellings(secret))
    for word in (b"shop.example", b"orders", b"SQLite format", token.id.encode()):
        assert word not in backup
    names = Archive(io.BytesIO(backup), world.directory.kek).contents.files
    assert set(names) == {"auth.db", "audit/actions-00000000.log"}


def test_it_is_in_the_audit_log(world: World) -> None:
    """Who took one, and when."""
    operator = world.operator()
    b"".join(world.authority.keys.back_up(operator))
    [entry] = [entry for entry in world.audit() if entry.event == "backup taken"]
    assert entry.by == f"mesh.operator/{operator.instance}"


def test_what_happens_while_it_is_read_is_not_in_it(world: World, other: World, tmp_path: Path) -> None:
    """A backup is of one moment, whatever goes on."""
    pieces = take(world.directory, "", world.now_ms)
    first = next(pieces)
    token = world.token()
    (tmp_path / "backup").write_bytes(first + b"".join(pieces))
    after = restored(world, other, tmp_path / "backup")
    assert after.store.token(token.id) is None


def test_an_old_kek_does_not_restore_a_new_backup(world: World, other: World, tmp_path: Path) -> None:
    """It is the key file of the backup's time that is needed."""
    (tmp_path / "old").touch(0o600)
    (tmp_path / "old").write_bytes((world.path / "kek").read_bytes())
    before = back_up(world, tmp_path)
    rotate(world)
    world.time.pass_ms(1000)
    backup = back_up(world, tmp_path)
    for wrong, kek in ((backup, tmp_path / "old"), (before, world.path / "kek")):
        with pytest.raises(StartError, match="under another KEK"):
            restore(wrong, other.path, kek, world.now_ms)
    restore(before, other.path, tmp_path / "old", world.now_ms)


@pytest.mark.parametrize("what", ["file", "directory", "damaged", "none"])
def test_what_is_refused_leaves_nothing(world: World, tmp_path: Path, what: str) -> None:
    """A directory that is not empty, a backup that is damaged or none."""
    backup, target = back_up(world, tmp_path), tmp_path / "target"
    words = {"file": "not empty", "directory": "not empty", "damaged": "damaged", "none": "cannot read"}
    if what == "file":
        target.write_text("precious")
    elif what == "directory":
        target.mkdir()
        (target / "precious").touch()
    elif what == "damaged":
        backup.write_bytes(backup.read_bytes()[:-100])
    else:
        backup.unlink()
    there = sorted(tmp_path.iterdir())
    with pytest.raises(StartError, match=words[what]):
        restore(backup, target, world.path / "kek", world.now_ms)
    assert sorted(tmp_path.iterdir()) == there


def test_names_that_lead_elsewhere_are_refused(world: World, tmp_path: Path) -> None:
    """Who has the KEK still writes nowhere but into the new directory."""
    for name in ("../evil", "/tmp/evil", "audit/../../evil", "kek2"):
        contents = Contents("shop.example", START_MS, {name: 1})
        (tmp_path / "backup").write_bytes(b"".join(seal(world.directory.kek, contents, [b"x"])))
        with pytest.raises(StartError, match="no part of one"):
            restore(tmp_path / "backup", tmp_path / "target", world.path / "kek", world.now_ms)
        assert not (tmp_path / "target").exists()


def test_time_does_not_go_back(world: World, other: World, tmp_path: Path) -> None:
    """On a machine whose clock is behind, the restored auth goes on from the time of the backup."""
    backup, then = back_up(world, tmp_path), world.now_ms
    world.stop()
    world.time.wall -= 3600
    restore(backup, other.path, world.path / "kek", world.now_ms)
    other.start()
    assert other.authority._now() >= then


def test_a_spoilt_log_does_not_blow_it_up(world: World) -> None:
    """Whatever size somebody gives to a segment, a backup takes what may be in it."""
    world.stop()
    world.directory, world.running = DataDirectory(world.path, Limits(3000, 9)), True
    for number in range(40):
        world.store.logs.log(ACTIONS, [Entry(START_MS + number, Kind.TOKEN, "token created")])
    os.truncate(world.path / "audit" / "actions-00000000.log", 2**40)
    assert sum(map(len, take(world.directory, "", world.now_ms))) < 2**21


def test_a_recorded_request_gets_nobody_in(world: World, other: World, tmp_path: Path) -> None:
    """One of a token used since the backup gets nothing; one used before gets what it got, and no more."""
    before, since = Attempt(world.token(ttl_seconds=3600)), Attempt(world.token(ttl_seconds=3600))
    joined = before.send(world)
    backup = back_up(world, tmp_path)
    since.send(world)
    after = restored(world, other, backup)
    with pytest.raises(RefusedError):
        since.send(after)
    assert before.send(after).peer == joined.peer


def test_time_does_not_go_back_behind_the_mark(world: World, other: World, tmp_path: Path) -> None:
    """Nor behind what auth told when nothing was logged."""
    world.time.pass_ms(60_000)
    told = world.authority.turn()
    backup = back_up(world, tmp_path)
    world.stop()
    world.time.wall -= 3600
    restore(backup, other.path, world.path / "kek", world.now_ms)
    other.start()
    assert other.authority._now() >= told
    [entry] = [entry for entry in other.audit() if entry.event == RESTORED]
    assert entry.at_ms >= told
