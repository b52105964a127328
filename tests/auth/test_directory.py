"""The data directory: made at once or not at all, opened with everything in place or not at all."""

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from mesh.core.join import JoinToken, read_request
from mesh.core.names import OPERATOR, InstanceId, TrustDomain
from mesh.core.receiver import Peer
from mesh.rpc.svid import new_key
from services.auth import directory, founding
from services.auth.authority import Authority, Lives
from services.auth.clock import Clock
from services.auth.directory import DataDirectory
from services.auth.errors import AuthError, StartError
from services.auth.founding import found
from services.auth.schema import METADATA
from tests.auth.world import DOMAIN, START_MS, Attempt, World, on_sqlite


@on_sqlite
def test_what_is_made(world: World) -> None:
    """The directory and the secret files in it are for their owner alone."""
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in world.path.iterdir()}
    assert {name: mode for name, mode in modes.items() if mode & 0o077} == {}
    assert {"auth.db", "kek", "operator.json", "auth.lock", "audit", "audit.key"} <= modes.keys()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (world.path / "audit").iterdir()} == {0o600}
    assert stat.S_IMODE(world.path.stat().st_mode) == 0o700
    assert len((world.path / "kek").read_bytes()) == 32


def test_parents_are_made_and_an_empty_directory_is_taken(tmp_path: Path) -> None:
    """A directory may be there already if nothing is in it; its parents need not be."""
    found(tmp_path / "a" / "b", DOMAIN, START_MS)
    (tmp_path / "empty").mkdir()
    found(tmp_path / "empty", DOMAIN, START_MS)
    (tmp_path / "link").symlink_to(tmp_path / "new")
    found(tmp_path / "link", DOMAIN, START_MS)
    for made in ("a/b", "empty", "new"):
        DataDirectory(tmp_path / made).close()


def test_what_is_there_is_left_alone(world: World, tmp_path: Path) -> None:
    """A trust domain is never made over anything that is there."""
    before = world.ca.certificate
    (tmp_path / "file").write_text("precious")
    for path in (world.path, tmp_path / "file", tmp_path):
        with pytest.raises(StartError, match="not empty: choose another"):
            found(path, TrustDomain("other.example"), START_MS)
    world.restart()
    assert world.ca.certificate == before
    assert (tmp_path / "file").read_text() == "precious"


def test_the_directory_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Moving a new directory over the one that a shell stands in would leave it nowhere."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StartError, match="that you are in"):
        found(Path(), DOMAIN, START_MS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["/proc/mesh", "/dev/null/mesh"])
def test_an_unwritable_place(place: str) -> None:
    """Where nothing can be written, one line says so."""
    with pytest.raises(StartError, match=f"cannot make {place}: .*choose a directory") as refused:
        found(Path(place), DOMAIN, START_MS)
    assert "\n" not in str(refused.value)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where making it fails half way, neither the directory nor a part of it stays."""

    def fail(_path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(founding, "_write_through", fail)
    with pytest.raises(StartError, match="No space left on device"):
        found(tmp_path / "mesh", DOMAIN, START_MS)
    assert list(tmp_path.iterdir()) == []


def test_the_slower_of_two_gets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another makes the same directory meanwhile, the other's stays and this one is refused."""
    write_through = founding._write_through

    def overtaken(path: Path) -> None:
        monkeypatch.setattr(founding, "_write_through", write_through)
        found(tmp_path / "mesh", TrustDomain("faster.example"), START_MS)
        write_through(path)

    monkeypatch.setattr(founding, "_write_through", overtaken)
    with pytest.raises(StartError, match="cannot make"):
        found(tmp_path / "mesh", DOMAIN, START_MS)
    with DataDirectory(tmp_path / "mesh") as opened:
        assert opened.domain.text == "faster.example"
    assert [path.name for path in tmp_path.iterdir()] == ["mesh"]


def test_it_survives_a_restart(world: World) -> None:
    """CA, policy key and trust domain are the same after a restart."""
    ca, key = world.ca.certificate, world.directory.signer.public_key
    world.restart()
    assert (world.ca.certificate, world.directory.signer.public_key) == (ca, key)
    assert world.authority.domain == DOMAIN


def test_one_process_at_a_time(world: World) -> None:
    """A second auth on the same directory is refused, and the first goes on."""
    with pytest.raises(StartError, match="in use by another auth"):
        DataDirectory(world.path)
    assert world.node().credentials.service == "orders"


def no_directory(path: Path) -> None:
    path.rename(path.with_name("away"))


def no_database(path: Path) -> None:
    (path / "auth.db").unlink()


def empty_database(path: Path) -> None:
    (path / "auth.db").write_bytes(b"")


def junk_database(path: Path) -> None:
    (path / "auth.db").write_bytes(os.urandom(8192))


def torn_database(path: Path) -> None:
    content = (path / "auth.db").read_bytes()
    (path / "auth.db").write_bytes(content[: len(content) // 2])


def damaged_database(path: Path) -> None:
    content = bytearray((path / "auth.db").read_bytes())
    content[4096 : len(content) : 512] = b"\xff" * len(content[4096 : len(content) : 512])
    (path / "auth.db").write_bytes(content)


def no_kek(path: Path) -> None:
    (path / "kek").unlink()


def other_kek(path: Path) -> None:
    (path / "kek").write_bytes(os.urandom(32))


def open_kek(path: Path) -> None:
    (path / "kek").chmod(0o644)


def _sql(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path / "auth.db")
    with connection:
        connection.execute(statement)
    connection.close()


def renamed_domain(path: Path) -> None:
    _sql(path, "UPDATE trust_domain SET name = 'evil.example'")


def no_domain(path: Path) -> None:
    _sql(path, "DELETE FROM trust_domain")


def other_ca(path: Path) -> None:
    found(path.with_name("other"), DOMAIN, START_MS)
    certificate = sqlite3.connect(path.with_name("other") / "auth.db")
    [(public,)] = certificate.execute("SELECT public FROM secret WHERE name = 'ca'")
    certificate.close()
    _sql(path, f"UPDATE secret SET public = x'{public.hex()}' WHERE name = 'ca'")


def swapped_secrets(path: Path) -> None:
    _sql(
        path, "UPDATE secret SET sealed = (SELECT sealed FROM secret WHERE name = 'check') WHERE name = 'ca'"
    )


def no_ca(path: Path) -> None:
    _sql(path, "DELETE FROM secret WHERE name = 'ca'")


def no_policy(path: Path) -> None:
    _sql(path, "DELETE FROM policy")


def longer_epoch(path: Path) -> None:
    _sql(path, "UPDATE epoch SET ends_ms = ends_ms + 1")


def newer_schema(path: Path) -> None:
    _sql(path, "UPDATE alembic_version SET version_num = '9999'")


def no_tables(path: Path) -> None:
    _sql(path, "DROP TABLE trust_domain")


def no_revision(path: Path) -> None:
    _sql(path, "DELETE FROM alembic_version")


def no_ends(path: Path) -> None:
    _sql(path, "DELETE FROM audit_log")


def one_end(path: Path) -> None:
    _sql(path, "DELETE FROM audit_log WHERE name = 'denials'")


def other_end(path: Path) -> None:
    _sql(path, "UPDATE audit_log SET size = size - 1, sequence = sequence - 1 WHERE name = 'actions'")


def bad_end(path: Path) -> None:
    _sql(path, "UPDATE audit_log SET sequence = -1")


@on_sqlite
@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (no_directory, "no data directory .*: make one with mesh init"),
        (no_database, "no database .*: restore it from a backup"),
        (empty_database, "no database .*: restore it from a backup"),
        (junk_database, "file is not a database: .* or restore it from a backup"),
        (torn_database, "restore it from a backup"),
        (damaged_database, "restore it from a backup"),
        (no_kek, "no key file .*: put back"),
        (other_kek, "kek is not the key of this database: put back"),
        (open_kek, "can be reached by others than its owner: run chmod 600"),
        (renamed_domain, "kek is not the key of this database"),
        (no_domain, "was changed: restore it from a backup"),
        (other_ca, "was changed: restore it from a backup"),
        (swapped_secrets, "was changed: restore it from a backup"),
        (no_ca, "was changed: restore it from a backup"),
        (no_policy, "no policy in the database: restore a backup"),
        (longer_epoch, "epoch.* does not open: the database was changed"),
        (newer_schema, "of a newer sealmesh .schema 9999.: start that version or newer"),
        (no_tables, "no such table"),
        (no_ends, "has lost the ends of the audit log: restore it from a backup"),
        (one_end, "has lost the ends of the audit log: restore it from a backup"),
        (other_end, "audit_log.* does not open: the database was changed: restore it from a backup"),
        (bad_end, "restore it from a backup"),
        (no_revision, "holds nothing of a mesh: restore it from a backup"),
    ],
)
def test_a_harmed_directory_is_refused(world: World, harm: Callable[[Path], None], words: str) -> None:
    """Whatever is missing, damaged or swapped: one line, and nothing is made anew or changed."""
    world.stop()
    harm(world.path)
    files = {path.name: path.read_bytes() for path in world.path.rglob("*") if path.is_file()}
    with pytest.raises(AuthError, match=words) as refused:
        world.start()
    assert "\n" not in str(refused.value)
    after = {path.name: path.read_bytes() for path in world.path.rglob("*") if path.is_file()}
    assert {name: after.get(name) for name in files} == files


def test_it_can_be_opened_again_once_mended(world: World) -> None:
    """A refusal leaves no lock behind."""
    world.stop()
    (world.path / "kek").rename(world.path / "kek.away")
    with pytest.raises(StartError):
        world.start()
    (world.path / "kek.away").rename(world.path / "kek")
    world.start()


def test_the_revisions_make_the_schema(world: World) -> None:
    """What the migrations made is what ``schema`` says, to the last column and index."""

    def differences(connection: Connection) -> list[object]:
        options = {"compare_type": True, "target_metadata": METADATA}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), METADATA))

    assert world.store._database.transact(differences) == []


@on_sqlite
def test_what_was_answered_is_durable(world: World) -> None:
    """The database syncs every commit to the disk, in WAL mode, and overwrites what is deleted."""

    def pragma(name: str) -> object:
        return world.store._database.transact(
            lambda connection: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
        )

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2
    assert pragma("secure_delete") == 1


CRASH = """
import os, signal, sys
from pathlib import Path
from services.auth.authority import Authority, Lives
from services.auth.clock import Clock
from services.auth.directory import DataDirectory
from tests.auth.world import Attempt, World

world = World.__new__(World)
world.path = Path(sys.argv[1])
world.authority = Authority.open(DataDirectory(world.path), Lives(), Clock())
joined = Attempt(world.credential).send(world)
token, _ = world.authority.create_token("orders", 60, joined.peer)
held, _ = joined.credentials.destination_keys
print(joined.credentials.instance.hex(), held.epoch.number, token.text, held.key.hex(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_loses_nothing(tmp_path: Path) -> None:
    """Killed without warning, auth has its CA, epochs, tokens and instances when it starts again."""
    path = tmp_path / "mesh"
    now = Clock().now_ms()
    found(path, DOMAIN, now)
    killed = subprocess.run(
        [sys.executable, "-c", CRASH, str(path)], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -9, killed.stderr
    instance, epoch, token, key = killed.stdout.split()
    with DataDirectory(path) as opened:
        authority = Authority.open(opened, Lives(), Clock())
        operator = Peer(OPERATOR, InstanceId.parse(instance))
        again = authority.renew(operator, new_key()[1])
        held, _ = again.destination_keys
        assert (held.epoch.number, held.key.hex()) == (int(epoch), key)
        attempt = Attempt(JoinToken.parse(token))
        (response,) = authority.join([read_request(attempt.request)])
        assert not isinstance(response, Exception)
        assert (
            attempt.requester.open(response).credentials.trust_bundle[0] == opened.authorities[1].certificate
        )


def test_addresses_are_told_and_taken_back(tmp_path: Path) -> None:
    """A running auth says where it is, and takes that back when it stops; twice is no error."""
    directory.publish_addresses(tmp_path, {"join": "127.0.0.1:7700"})
    assert (tmp_path / "addresses.json").read_text() == '{"join": "127.0.0.1:7700"}\n'
    directory.withdraw_addresses(tmp_path)
    directory.withdraw_addresses(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StartError, match="cannot write"):
        directory.publish_addresses(tmp_path / "none", {})
