"""The audit logs: files with what happened, and their ends in the database, moved in one transaction.

    actions   what was done: joins, tokens, policies, revocations, epochs, and alarms
    denials   what was refused: calls anywhere in the mesh, joins, unknown instances

Two, so that no flood of denials pushes out what operators did. An entry is written through to its file
inside the transaction of what it tells of, before that commits: a file that cannot be written undoes the
transaction, and after a crash between the two the file is ahead of its end in the database, never behind.

    crash                 the file holds more than its end says: whole genuine entries are taken over, a
                          line cut short is cut off, and an entry says what was found
    somebody else         the file holds less, or its last line is another: the segment stays as it is, for
                          ``mesh audit verify`` to name what is wrong, and the next one begins with an alarm

The keys of the chain are sealed in the database as its other secrets are. The audit key that they came from
is made once, written to ``audit.key`` and forgotten: auth cannot verify its own past, nor can its thief forge
it.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self, TypeVar

from sqlalchemy import Connection

from mesh.core.audit import Entry, Kind
from mesh.core.chain import DAMAGED, MAX_LINE, Chain, Head, Limits, Piece
from mesh.core.keys import KEY_BYTES, Key
from mesh.core.names import TrustDomain
from services.auth import rows
from services.auth.durable import write_secret
from services.auth.errors import AuditError, StartError
from services.auth.records import LogRow, log_place
from services.auth.segments import ChangedError, Segments
from services.auth.vault import TamperedError, Vault

ACTIONS: Final = "actions"
DENIALS: Final = "denials"
LOGS: Final = (ACTIONS, DENIALS)
DIRECTORY: Final = "audit"
AUDIT_KEY: Final = "audit.key"

_R = TypeVar("_R")


def begin(vault: Vault, domain: TrustDomain, path: Path) -> list[LogRow]:
    """Begin the logs of a trust domain: write a new audit key, and give the rows of their empty chains."""
    root = Key(os.urandom(KEY_BYTES))
    (path / DIRECTORY).mkdir(mode=0o700, exist_ok=True)
    write_secret(path / AUDIT_KEY, root.reveal())
    return [_row(vault, domain, Chain.start(log, root)) for log in LOGS]


class AuditLog:
    """The logs of one trust domain, open for writing."""

    def __init__(
        self, path: Path, vault: Vault, domain: TrustDomain, found: Iterable[LogRow], limits: Limits
    ) -> None:
        """Take up the logs of a data directory; raise ``TamperedError`` if an end does not open."""
        self._vault, self._domain, self._limits = vault, domain, limits
        self._chains = {row.head.log: _chain(vault, domain, row) for row in found}
        self.files = {log: Segments(path / DIRECTORY, log) for log in LOGS}
        self._moved: dict[str, Chain] = {}
        self._behind: set[str] = set()
        self.stale_keys = False

    @classmethod
    def open(
        cls, path: Path, vault: Vault, domain: TrustDomain, found: Iterable[LogRow], limits: Limits
    ) -> Self:
        """Take up the logs; raise ``StartError`` where that is not possible."""
        try:
            log = cls(path, vault, domain, found, limits)
        except TamperedError as error:
            raise StartError(f"{error}: restore it from a backup") from None
        except (TypeError, ValueError, OverflowError, AttributeError):
            raise StartError("the database was changed: restore it from a backup") from None
        if set(log._chains) != set(LOGS):
            raise StartError("the database has lost the ends of the audit log: restore it from a backup")
        if not (path / DIRECTORY).is_dir():
            with suppress(OSError):
                (path / DIRECTORY).mkdir(mode=0o700)
        return log

    def heads(self) -> dict[str, Head]:
        """Give the end of each log."""
        return {log: chain.head for log, chain in self._chains.items()}

    def segments(self, log: str) -> dict[int, int]:
        """Give the segments of a log and how much of each is worth reading: somebody may have blown one up.

        The one after the newest is among them, for it may have been begun when a crash came.
        """
        chain, files = self._chains[log], self.files[log]
        newest = max(self._limits.segment_bytes, chain.head.size)
        most = dict(enumerate((*chain.closed, newest, newest), chain.head.first_segment))
        return {number: min(files.size(number), size + MAX_LINE) for number, size in most.items()}

    def close(self) -> None:
        """Close the files."""
        for files in self.files.values():
            files.close()

    # Within a transaction

    def settle(self, transaction: Callable[[], _R]) -> _R:
        """Run a transaction that appends; what it wrote counts if that commits, and is taken back if not."""
        try:
            result = transaction()
        except BaseException:
            self._take_back()
            raise
        for log, chain in self._moved.items():
            if chain.head.segment != self._chains[log].head.segment:
                with suppress(AuditError):
                    self.files[log].remove_before(chain.head.first_segment)
        self._chains |= self._moved
        self.stale_keys = self.stale_keys or bool(self._moved)
        self._moved = {}
        return result

    def append(self, connection: Connection, log: str, entries: Sequence[Entry]) -> None:
        """Write entries to the disk, and the log's new end to the transaction; raise ``AuditError``."""
        chain = self._moved.get(log, self._chains[log])
        self._moved[log] = chain  # from here on there may be something to take back
        if log in self._behind:
            self._cut(log)
        pieces, after = chain.extend(entries, self._limits)
        try:
            self._write(log, pieces)
        except ChangedError as changed:
            if changed.segment != chain.head.segment:
                self.files[log].cut(chain.head.segment, chain.head.size)
            after = self._damaged(log, chain, str(changed), entries)
        self._put(connection, log, after)

    # When auth starts

    def recover(self, connection: Connection, now_ms: int) -> list[Entry]:
        """Make each log fit its end again, and give what was found; to be settled like any transaction."""
        return [entry for log in LOGS if (entry := self._recover(connection, log, now_ms))]

    def _recover(self, connection: Connection, log: str, now_ms: int) -> Entry | None:
        chain, files = self._chains[log], self.files[log]
        head = chain.head
        there = files.size(head.segment)
        if there < head.size or not self._ends_as_left(log):
            return self._left_damaged(connection, log, chain, now_ms)
        most = self._limits.segment_bytes + MAX_LINE
        behind = files.read(head.segment, head.size, most)
        adopted, torn = chain.adopt(behind)
        following = files.read(head.segment + 1, 0, most)
        if following and not torn:
            behind, chain = following, adopted.rotated(self._limits)
            begun, torn = chain.adopt(following)
            adopted = begun if begun.head.size else adopted
        if b"\n" in behind[len(behind) - torn :]:
            # No crash leaves a whole line that is not ours.
            return self._left_damaged(connection, log, adopted, now_ms)
        ahead = adopted.head.sequence - head.sequence
        files.cut_back(adopted.head.segment, adopted.head.size)
        files.remove_before(head.first_segment)
        if not ahead and not torn:
            return None
        what = f"{log}: {ahead} entries were written of things not done, {torn} bytes were cut short"
        entry = Entry(now_ms, Kind.LOG, "log recovered", detail=what)
        self._moved[log] = adopted
        self.append(connection, log, [entry])
        return entry

    def _left_damaged(self, connection: Connection, log: str, chain: Chain, now_ms: int) -> Entry:
        what = f"segment {chain.head.segment} is not as it was left: see mesh audit verify"
        entry = Entry(now_ms, Kind.LOG, DAMAGED, alarm=True, detail=f"{log}: {what}")
        self._moved[log] = chain
        self._put(connection, log, self._next(log, chain, [entry]))
        return entry

    def _ends_as_left(self, log: str) -> bool:
        head = self._chains[log].head
        start = max(0, head.size - MAX_LINE - 1)
        tail = self.files[log].read(head.segment, start, head.size - start)
        return not head.size or tail[:-1].rpartition(b"\n")[2].startswith(head.mac.hex().encode())

    def _damaged(self, log: str, chain: Chain, what: str, entries: Sequence[Entry]) -> Chain:
        detail = f"{log}: {what}: see mesh audit verify"
        alarm = Entry(entries[0].at_ms, Kind.LOG, DAMAGED, alarm=True, detail=detail)
        return self._next(log, chain, [alarm, *entries])

    def _next(self, log: str, chain: Chain, entries: Sequence[Entry]) -> Chain:
        # What stands in the damaged segment is evidence, and so is what stands in the way of the next.
        chain = chain.rotated(self._limits, full=False)
        self.files[log].set_aside(chain.head.segment)
        pieces, after = chain.extend(entries, self._limits)
        try:
            self._write(log, pieces)
        except ChangedError as changed:
            raise AuditError(f"the audit log is changed while it is written: {changed}") from None
        return after

    def _write(self, log: str, pieces: Iterable[Piece]) -> None:
        self._behind.add(log)
        for piece in pieces:
            self.files[log].write(piece)

    def _put(self, connection: Connection, log: str, chain: Chain) -> None:
        rows.put_log(connection, _row(self._vault, self._domain, chain))
        self._moved[log] = chain
        self._behind.discard(log)

    def _take_back(self) -> None:
        for log in self._moved:
            self._behind.add(log)
            with suppress(AuditError):
                self._cut(log)
        self._moved = {}

    def _cut(self, log: str) -> None:
        # Back to the end that the database has. A segment that was begun behind it is gone as a whole.
        head = self._chains[log].head
        self.files[log].cut_back(head.segment, head.size)
        self._behind.discard(log)


def _row(vault: Vault, domain: TrustDomain, chain: Chain) -> LogRow:
    return LogRow(chain.head, vault.seal(chain.secret, log_place(domain, chain.head)))


def _chain(vault: Vault, domain: TrustDomain, row: LogRow) -> Chain:
    return Chain.restore(row.head, vault.open(row.sealed, log_place(domain, row.head)))
