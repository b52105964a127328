"""A data directory from a backup, such that nothing of the time since is used twice.

    join tokens         those that were open are revoked: some were used since, nobody knows which
    credentials         revoked as well, for one may have been by its owner, with what joined by them; there
                        is a new one
    epochs              the next has a number that none since the backup can have had
    sequence numbers    that auth handed out begin anew, with the time, above all that there were
    policy              the one of the backup gets a version that none since can have had, so that nodes and
                        gatekeeper, who never go back, take it
    audit logs          both say that they were restored, of when: what was written since is gone

What joined since is not known and has to join again. Nodes that joined before go on, as long as no epoch was
made since the backup was taken.
"""

import os
from contextlib import closing
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, delete, update

from mesh.core.audit import Entry, Kind
from mesh.core.chain import RESTORED
from mesh.core.epochs import Epoch
from mesh.core.keys import KEY_BYTES
from mesh.core.names import INSTANCE_BYTES, InstanceId, KeyEpoch
from services.auth import audit_log, rows
from services.auth.archive import Archive
from services.auth.credential import end_sessions, make_credential
from services.auth.database import StoreError
from services.auth.directory import DataDirectory
from services.auth.durable import write_secret
from services.auth.errors import AuthError, StartError
from services.auth.founding import build
from services.auth.kek import KEK, read_kek
from services.auth.location import SQLITE, Location
from services.auth.policies import Policies
from services.auth.portable import copy_rows
from services.auth.records import Kind as TokenKind
from services.auth.records import RootRow, root_place
from services.auth.schema import SEQUENCE, TOKEN

#: Beyond what policies can have been applied since, unless their guards say so.
POLICIES: Final = 2**20
#: Beyond what operators can have forced; and one for each second since, for epochs are longer than that.
EPOCHS: Final = 2**16
#: What an epoch lasts where the backup has none to go by.
HOUR_MS: Final = 3_600_000
GRACE_MS: Final = 300_000
NOBODY: Final = InstanceId(bytes(INSTANCE_BYTES))


def restore(
    backup: Path, path: Path, kek_file: Path, now_ms: int, policy_above: int = 0, database: str = ""
) -> int:
    """Make a data directory from a backup, and give when that was taken; raise ``StartError``.

    ``policy_above``: a version of the policy that nodes may have seen; 0 if none out of the ordinary.
    ``database``: the URL of an empty PostgreSQL database for the state; a file in the directory without.
    """
    kek, content = read_kek(kek_file), kek_file.read_bytes()
    try:
        with backup.open("rb") as file:
            archive = Archive(file, kek)

            def restored(scratch: Path) -> None:
                write_secret(scratch / KEK, content)
                _extract(archive, scratch)
                _move(scratch, Location.new(database))
                _take_up(scratch, archive.contents.at_ms, now_ms, policy_above)

            build(path, restored)
    except OSError as error:
        raise StartError(f"cannot read {backup}: {error.strerror}") from None
    return archive.contents.at_ms


def _extract(archive: Archive, scratch: Path) -> None:
    (scratch / audit_log.DIRECTORY).mkdir(mode=0o700)
    for name, data in archive.files():
        if name != SQLITE and Path(name) != Path(audit_log.DIRECTORY) / Path(name).name:
            raise StartError(f"the backup holds {name!r:.100}, which is no part of one")
        file = os.open(scratch / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "wb") as out:
            for piece in data:
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())


def _move(scratch: Path, location: Location) -> None:
    if not location.url:
        return
    try:
        source, target = Location().open(scratch), location.open(scratch, new=True)
        with closing(source), closing(target):
            source.read(
                lambda read: target.transact(lambda write: copy_rows(read, write, "", location.replica))
            )
    except StoreError as error:
        raise StartError(str(error)) from None
    (scratch / SQLITE).unlink()
    location.write(scratch)


def _take_up(scratch: Path, taken_ms: int, now_ms: int, policy_above: int) -> None:
    with DataDirectory(scratch) as directory:
        now_ms = max(now_ms, taken_ms, directory.store.logs.newest_ms(), directory.store.marked_ms())
        entry = Entry(now_ms, Kind.LOG, RESTORED, alarm=True, detail=f"taken at {taken_ms}")
        policies, root = Policies(directory.store, directory.signer), _next_root(directory, taken_ms, now_ms)

        def work(connection: Connection) -> bool:
            good = TOKEN.c.used_ms.is_(None) | (TOKEN.c.kind == TokenKind.OPERATOR.value)
            connection.execute(update(TOKEN).where(good).values(revoked_ms=now_ms))
            connection.execute(delete(SEQUENCE))
            rows.put_root(connection, root)
            version = max(policies.version + POLICIES, policy_above + 1)
            rows.put_policy(connection, policies.again(version, now_ms))
            rows.put_applied(connection, version, NOBODY)
            return True

        try:
            directory.store.logs.logged(work, entry)
            directory.store.logs.log(audit_log.DENIALS, [entry])
            make_credential(directory, "", now_ms, revoke=False)
            end_sessions(directory, "", now_ms)
        except AuthError as error:
            raise StartError(str(error)) from None


def _hour_before(now_ms: int) -> Epoch:
    return Epoch(KeyEpoch(1), now_ms - HOUR_MS, now_ms, now_ms + GRACE_MS)


def _next_root(directory: DataDirectory, taken_ms: int, now_ms: int) -> RootRow:
    newest = max((row.epoch for row in directory.store.keys.roots()), default=_hour_before(now_ms))
    number = newest.number.number + EPOCHS + (now_ms - taken_ms) // 1000
    begins_ms = max(newest.ends_ms, now_ms)
    ends_ms = begins_ms + newest.ends_ms - newest.begins_ms
    grace_ms = newest.accepted_until_ms - newest.ends_ms
    epoch = Epoch(KeyEpoch(number), begins_ms, ends_ms, ends_ms + grace_ms)
    return RootRow(epoch, directory.vault.seal(os.urandom(KEY_BYTES), root_place(epoch)))
