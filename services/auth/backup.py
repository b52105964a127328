"""A backup of auth's state: the database as of one moment, and the audit logs as far as it says they go.

Without the KEK, the audit key and the operator's credential: a backup gives nobody what he did not have. What
comes of it again is ``restoring``'s.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from mesh.core.audit import Entry, Kind
from services.auth import audit_log
from services.auth.archive import PIECE, Contents, seal
from services.auth.directory import DATABASE, DataDirectory
from services.auth.errors import MissingError

_TAKEN = "backup taken"


@dataclass(frozen=True, slots=True)
class _Segment:
    log: str
    number: int
    size: int


def take(directory: DataDirectory, by: str, now_ms: int) -> Iterator[bytes]:
    """Log that a backup is taken, and give its bytes, of the state as it is now.

    Raises ``AuditError``; while it is read, ``MissingError`` if the oldest part of a log went meanwhile.
    """
    directory.store.logs.log(audit_log.ACTIONS, [Entry(now_ms, Kind.KEY, _TAKEN, by=by)])
    database = directory.store.snapshot()
    logs = directory.store.logs.open
    segments = [
        _Segment(log, number, size if number < head.segment else head.size)
        for log, head in logs.heads().items()
        for number, size in logs.segments(log).items()
        if number < head.segment or (number == head.segment and head.size)  # one without entries has no file
    ]
    names = {
        f"{audit_log.DIRECTORY}/{logs.files[one.log].path(one.number).name}": one.size for one in segments
    }
    contents = Contents(directory.domain.text, now_ms, {DATABASE: len(database), **names})
    return seal(directory.kek, contents, _data(directory, database, segments))


def _data(directory: DataDirectory, database: bytes, segments: list[_Segment]) -> Iterator[bytes]:
    for at in range(0, len(database), PIECE):
        yield database[at : at + PIECE]
    for one in segments:
        at = 0
        while at < one.size:
            files = directory.store.logs.open.files[one.log]
            data = files.read(one.number, at, min(PIECE, one.size - at))
            if not data:
                raise MissingError("the audit log went on while it was read: take the backup again")
            at += len(data)
            yield data
