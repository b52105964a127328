"""Another KEK in the place of the old: all or nothing, whatever happens, and the old one then useless."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from mesh.core.keys import Key
from services.auth import rekey
from services.auth.admission import REFUSED
from services.auth.errors import AuditError, ConflictError, RefusedError, StartError
from services.auth.records import CHECK
from services.auth.rekey import rotate_kek
from services.auth.schema import METADATA
from services.auth.vault import TamperedError, Vault, kek_id
from tests.auth.aged import SEALED, before_keys
from tests.auth.test_secrets import everything, spellings
from tests.auth.world import Attempt, World, on_sqlite

ROOT = Path(__file__).parents[2]


def kek(world: World) -> Key:
    return Key((world.path / "kek").read_bytes())


def rotate(world: World) -> str:
    return rotate_kek(world.directory, None, "", world.now_ms)


def under(world: World, key: Key) -> int:
    """Count the secrets that are under a KEK."""
    tables = [table for table in METADATA.sorted_tables if "sealed" in table.c]
    where = f"WHERE substr(sealed, 1, 8) = x'{kek_id(key).hex()}'"
    return sum(world.count(f"SELECT count(*) FROM {table.name} {where}") for table in tables)


def test_everything_is_sealed_anew(world: World) -> None:
    """Before and after a restart, all goes on; nothing is under the old KEK, which is nowhere any more."""
    token, joined, old = world.token(), world.node(), kek(world)
    before = under(world, old)
    made = rotate(world)
    assert made == kek_id(kek(world)).hex() != kek_id(old).hex()
    assert (under(world, old), under(world, kek(world))) == (0, before)
    assert before > 5
    for _ in range(2):
        world.authority.pair_keys(joined.peer, ["mesh.auth"])
        world.restart()
    assert world.join(token).credentials.service == "orders"
    assert not any(one in everything(world.path, ()) for one in spellings(old.reveal()))
    assert (world.path / "kek").stat().st_mode & 0o777 == 0o600


def test_it_is_in_the_audit_log(world: World) -> None:
    """Who, when, and the id of the new one; the chain goes on unbroken under it."""
    operator = world.operator()
    made = world.authority.keys.rotate_kek(None, operator).id
    [entry] = [entry for entry in world.audit() if entry.event == "KEK rotated"]
    assert (entry.by, entry.detail) == (f"mesh.operator/{operator.instance}", made)
    world.token()
    assert world.examine().bad is None


def test_the_old_kek_is_useless(world: World) -> None:
    """It opens no row, and a directory with it in place of the new one does not start."""
    old = kek(world)
    rotate(world)
    [secret] = world.store.keys.secrets(CHECK)
    with pytest.raises(TamperedError):
        world.directory._opened(Vault(old), secret)
    world.stop()
    (world.path / "kek").write_bytes(old.reveal())
    with pytest.raises(StartError, match="kek is not the key of this database"):
        world.start()


def test_what_was_sealed_before_does_not_come_back(world: World) -> None:
    """A row put back as it was under the old KEK is found when it is used."""
    token = world.token()
    [before] = [row.sealed for row in world.store.tokens() if row.id == token.id]
    rotate(world)
    world.sql("UPDATE token SET sealed = ? WHERE id = ?", before, token.id)
    with pytest.raises(RefusedError):
        world.join(token)
    assert "token tampered with" in [entry.event for entry in world.audit("denials")]


def test_a_stranger_is_still_a_stranger(world: World) -> None:
    """An unknown token is refused as ever after a rotation, without a word about tampering."""
    token = world.token()
    rotate(world)
    unknown = type(token)("0" * 16, token.secret)
    with pytest.raises(RefusedError, match=REFUSED.split(":", maxsplit=1)[0]):
        Attempt(unknown).send(world)
    assert "token tampered with" not in [entry.event for entry in world.audit("denials")]


def test_a_log_that_cannot_be_written_stops_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing has changed, the next try works, and no file is left."""
    old = kek(world)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", _full)
        with pytest.raises(AuditError, match="nothing was done"):
            rotate(world)
    assert kek(world) == old
    assert [file.name for file in world.path.glob("kek*")] == ["kek"]
    world.token()
    rotate(world)
    world.restart()


def test_a_row_that_does_not_open_stops_it(world: World) -> None:
    """What was changed is not sealed anew as if it were good."""
    token, old = world.token(), kek(world)
    world.sql("UPDATE token SET service = 'payments' WHERE id = ?", token.id)
    with pytest.raises(TamperedError):
        rotate(world)
    assert kek(world) == old
    world.restart()


def test_a_directory_that_cannot_be_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the database: refused. After it: the new KEK is in force, and takes its place when it can."""
    old = kek(world)
    with monkeypatch.context() as patched:
        patched.setattr("services.auth.kek.write_secret", _full)
        with pytest.raises(ConflictError, match="No space left"):
            rotate(world)
    assert kek(world) == old
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", _full)
        with pytest.raises(ConflictError, match="new KEK is in force, but"):
            rotate(world)
    assert {file.name for file in world.path.glob("kek*")} == {"kek", "kek.next"}
    world.token()
    world.restart()
    assert kek(world) != old
    assert {file.name for file in world.path.glob("kek*")} == {"kek"}


@pytest.mark.parametrize("left", [b"", b"half", bytes(32)])
def test_what_a_crash_left_of_a_new_kek_goes(world: World, left: bytes) -> None:
    """A file that nothing refers to is removed, whole or not."""
    world.stop()
    (world.path / "kek.next").touch(0o600)
    (world.path / "kek.next").write_bytes(left)
    world.start()
    assert [file.name for file in world.path.glob("kek*")] == ["kek"]


def test_every_sealed_column_is_known() -> None:
    """A table that is added later cannot be forgotten here."""
    assert set(rekey._SEALED) == {table for table in METADATA.sorted_tables if "sealed" in table.c}


@on_sqlite
@pytest.mark.timeout(300)
def test_killed_at_every_step(world: World) -> None:
    """A process killed at each step it takes leaves one KEK in force, and work that can be done again."""
    world.stop()
    script = Path(__file__).with_name("kill_rekey.py")
    done = subprocess.run(
        [sys.executable, str(script), str(world.path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 60


@on_sqlite
def test_an_old_database_is_taken_over(world: World) -> None:
    """What was sealed before secrets named their KEK opens, and is named when it is sealed anew."""
    token = world.token()
    world.stop()
    with closing(sqlite3.connect(world.path / "auth.db")) as database, database:
        before_keys(database)
    world.start()
    assert world.join(token).credentials.service == "orders"
    rotate(world)
    assert sum(world.count(f"SELECT count(*) FROM {one} WHERE sealed < x'01'") for one in SEALED) == 0


def _full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")
