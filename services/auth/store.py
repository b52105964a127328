"""Auth's rows: one method, one transaction.

Whether a change is allowed is decided by pure rules before it gets here; what must hold against another
writer is a condition in the statement itself, and its outcome is what counts.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from mesh.core.audit import Entry
from mesh.core.names import InstanceId, TrustDomain
from services.auth import rows
from services.auth.database import Database, Generation
from services.auth.failpoints import reach
from services.auth.key_store import KeyStore
from services.auth.log_store import LogStore
from services.auth.records import Instance, Kind, LogRow, PolicyNote, PolicyRow, Secret, Token
from services.auth.revocation_store import RevocationStore
from services.auth.schema import ALARM, APPLIED, BAN, CLOCK, DOMAIN, INSTANCE, POLICY, REQUEST, TOKEN
from services.auth.sequences import Sequences

#: How many policies are kept, and how many bytes of them beside the one of record.
KEPT_POLICIES: Final = 100
KEPT_BYTES: Final = 64 * 1024 * 1024
#: An instance is remembered a while after its certificate ended, for a clock that lags.
INSTANCE_KEEP_MS: Final = 600_000

_UNUSED: Final = or_(TOKEN.c.used_ms.is_(None), TOKEN.c.kind == Kind.OPERATOR.value)
_OPEN: Final = _UNUSED & TOKEN.c.revoked_ms.is_(None) & (TOKEN.c.expires_ms > bindparam("now_ms"))
_NOT_BANNED: Final = TOKEN.c.service.not_in(select(BAN.c.service))

# What every join runs: built once, for building costs more than running.
_TOKEN_BY_ID: Final = select(TOKEN).where(TOKEN.c.id == bindparam("token_id"))
_USE_TOKEN: Final = (
    update(TOKEN)
    .where((TOKEN.c.id == bindparam("token_id")) & _OPEN & _NOT_BANNED)
    .values(used_ms=bindparam("now_ms"), instance=bindparam("became"))
)


class Store:
    """What auth remembers."""

    def __init__(self, database: Database, replica: str = "") -> None:
        """Take an open database, and which of its auths this is."""
        self._database = database
        self.shared, self.wall = database.shared, database.wall
        self.listen = database.listen
        self.logs = LogStore(database, replica)
        self.keys = KeyStore(database, self.logs)
        self.revocations = RevocationStore(database, self.logs)
        self.sequences = Sequences(database)

    def close(self) -> None:
        """Close the database, and the logs."""
        self.logs.close()
        self._database.close()

    def checkpoint(self) -> bool:
        """Empty the write-ahead log, which holds what was replaced; whether that was possible now."""
        return self._database.checkpoint()

    def news(self) -> Generation | None:
        """Give what other auths have changed of what is kept in memory, ``None`` for nothing."""
        found = self._database.look()
        return found if found != self._database.known else None

    def taken_up(self, news: Generation) -> None:
        """Note that it was read again, since ``news`` was given."""
        self._database.known = news

    def snapshot(self) -> bytes:
        """Give the whole database as it is now, as the bytes of a file."""
        return self._database.snapshot(self.logs.replica)

    def found(
        self, domain: TrustDomain, secrets: Iterable[Secret], policy: PolicyRow, logs: Iterable[LogRow]
    ) -> None:
        """Write what a trust domain starts with."""

        def work(connection: Connection) -> None:
            connection.execute(insert(DOMAIN).values(name=domain.text, created_ms=policy.applied_ms))
            for secret in secrets:
                rows.put_secret(connection, secret)
            rows.put_policy(connection, policy)
            for log in logs:
                rows.put_log(connection, log, self.logs.replica)

        self._database.transact(work)

    def domain(self) -> TrustDomain:
        """Give the trust domain; raise ``ValueError`` if there is none."""
        row = self._first(select(DOMAIN))
        return TrustDomain(row.name if row else "")

    def add_token(self, token: Token, entry: Entry) -> None:
        """Add a token."""

        def work(connection: Connection) -> bool:
            rows.put_token(connection, token)
            return True

        self.logs.logged(work, entry)

    def token(self, token_id: str) -> Token | None:
        """Give a token."""
        row = self._first(_TOKEN_BY_ID, token_id=token_id)
        return rows.token_of(row) if row else None

    def tokens(self) -> list[Token]:
        """Give all tokens, newest first."""
        newest_first = select(TOKEN).order_by(TOKEN.c.created_ms.desc(), TOKEN.c.id)
        return [rows.token_of(row) for row in self._all(newest_first)]

    def revoke_token(self, token_id: str, now_ms: int, entry: Entry) -> bool:
        """Revoke a token, and the instances of an operator's credential; False if it was used or revoked."""
        which = (TOKEN.c.id == token_id) & TOKEN.c.revoked_ms.is_(None) & _UNUSED

        def work(connection: Connection) -> bool:
            if not connection.execute(update(TOKEN).where(which).values(revoked_ms=now_ms)).rowcount:
                return False
            its = INSTANCE.c.token_id == token_id
            connection.execute(update(INSTANCE).where(its).values(revoked_ms=now_ms))
            return True

        return self.logs.logged(work, entry)

    def consume(self, joining: Sequence[tuple[Instance, Entry | None]]) -> list[bool]:
        """Use each instance's token up and write the instance, both or neither; say which were written.

        An instance is not written if its token is not open at ``joined_ms``, whoever was faster, one before
        it here included. All that are written are so in one transaction, for the disk is what costs.
        """
        written: list[bool] = []

        def work(connection: Connection) -> list[Entry]:
            written.extend(_consume(connection, instance) for instance, _ in joining)
            return [
                entry for (_, entry), is_written in zip(joining, written, strict=True) if is_written and entry
            ]

        self.logs.logged_all(work)
        return written

    def is_used_by(self, token_id: str, request_digest: bytes) -> bool:
        """Whether a request has used a token already, also if the instance that it got is forgotten."""
        which = (REQUEST.c.token_id == token_id) & (REQUEST.c.digest == request_digest)
        return self._exists(which)

    def joined_by(self, token_id: str, request_digest: bytes) -> Instance | None:
        """Give the instance that a request got, if it is not forgotten."""
        which = (INSTANCE.c.token_id == token_id) & (INSTANCE.c.request_digest == request_digest)
        row = self._first(select(INSTANCE).where(which))
        return rows.instance_of(row) if row else None

    def instance(self, instance: InstanceId) -> Instance | None:
        """Give an instance."""
        row = self._first(select(INSTANCE).where(INSTANCE.c.id == instance.raw))
        return rows.instance_of(row) if row else None

    def prolong(self, instance: InstanceId, expires_ms: int) -> bool:
        """Note that an instance got a newer certificate; False if it is revoked or not there."""
        which = (INSTANCE.c.id == instance.raw) & INSTANCE.c.revoked_ms.is_(None)
        statement = update(INSTANCE).where(which).values(expires_ms=expires_ms)
        return self._database.transact(lambda connection: connection.execute(statement).rowcount == 1)

    def sweep(self, tokens_before_ms: int, now_ms: int) -> None:
        """Forget tokens that expired before a time with their requests, and instances that have ended."""

        def work(connection: Connection) -> None:
            old = TOKEN.c.expires_ms < tokens_before_ms
            for table in (REQUEST, ALARM):
                its = table.c.token_id.in_(select(TOKEN.c.id).where(old))
                connection.execute(delete(table).where(its))
            connection.execute(delete(TOKEN).where(old))
            connection.execute(delete(INSTANCE).where(INSTANCE.c.expires_ms < now_ms - INSTANCE_KEEP_MS))

        self._database.transact(work)

    def marked_ms(self) -> int:
        """Give the mark of the clock; 0 if there is none."""
        row = self._first(select(CLOCK.c.at_ms))
        return int(row[0]) if row else 0

    def mark(self, now_ms: int) -> None:
        """Write the mark of the clock."""
        self._database.transact(lambda connection: rows.put_mark(connection, now_ms))

    def policy(self, version: int | None = None) -> PolicyRow | None:
        """Give the policy of record, or another version that is kept."""
        chosen = select(POLICY) if version is None else select(POLICY).where(POLICY.c.version == version)
        row = self._first(chosen.order_by(POLICY.c.version.desc()).limit(1))
        return rows.policy_of(row) if row else None

    def policies(self) -> list[PolicyNote]:
        """Give what is known of the policies that are kept, newest first."""
        size = func.length(POLICY.c.document).label("size")
        applied = APPLIED.c.instance, APPLIED.c.restores
        listed = select(POLICY.c.version, POLICY.c.applied_ms, size, *applied).select_from(
            POLICY.outerjoin(APPLIED, POLICY.c.version == APPLIED.c.version)
        )
        return [
            PolicyNote(row.version, row.applied_ms, row.size, row.instance or "", row.restores)
            for row in self._all(listed.order_by(POLICY.c.version.desc()))
        ]

    def last_applied(self) -> int:
        """Give the newest version that was ever put on record; 0 for none."""
        row = self._first(select(func.max(APPLIED.c.version)))
        return int(row[0] or 0) if row else 0

    def replace_policy(
        self, policy: PolicyRow, replaced: int, by: InstanceId, entry: Entry, restores: int | None = None
    ) -> bool:
        """Put a newer policy on record; False if the one of record is not the one it was to replace.

        Earlier ones are kept, up to ``KEPT_POLICIES`` of them and ``KEPT_BYTES`` in all.
        """

        def work(connection: Connection) -> bool:
            in_force = connection.scalar(select(func.max(POLICY.c.version)))
            if in_force != replaced or in_force >= policy.version:
                return False
            rows.put_policy(connection, policy)
            rows.put_applied(connection, policy.version, by, restores)
            self._database.changed(connection, anew=True)
            kept = connection.execute(
                select(POLICY.c.version, func.length(POLICY.c.document)).order_by(POLICY.c.version.desc())
            )
            oldest = _oldest_kept(kept)
            for table in (POLICY, APPLIED):
                connection.execute(delete(table).where(table.c.version < oldest))
            return True

        return self.logs.logged(work, entry)

    def alarm(self, entry: Entry) -> None:
        """Raise an alarm about a token, once: nothing is written if it was raised before."""

        def work(connection: Connection) -> bool:
            rows.put_alarm(connection, entry.token_id, entry.event)
            return True

        if not self.is_raised(entry.event, entry.token_id):
            self.logs.logged(work, entry)

    def is_raised(self, event: str, token_id: str) -> bool:
        """Whether an alarm of a token was raised already."""
        return self._exists((ALARM.c.token_id == token_id) & (ALARM.c.event == event))

    def _exists(self, which: ColumnElement[bool]) -> bool:
        found = self._first(select(exists().where(which)))
        return bool(found and found[0])

    def _first(self, statement: Select[Any], **values: object) -> Row[Any] | None:
        return self._database.read(lambda connection: connection.execute(statement, values).first())

    def _all(self, statement: Select[Any]) -> list[Row[Any]]:
        return self._database.read(lambda connection: list(connection.execute(statement)))


def _consume(connection: Connection, instance: Instance) -> bool:
    use = {"token_id": instance.token_id, "now_ms": instance.joined_ms, "became": instance.id.raw}
    if not connection.execute(_USE_TOKEN, use).rowcount:
        return False
    rows.put_instance(connection, instance)
    reach("used")
    return True


def _oldest_kept(newest_first: Iterable[Any]) -> int:
    oldest, total = 0, 0
    for count, (version, size) in enumerate(newest_first):
        total += size if count else 0
        if count and (count >= KEPT_POLICIES or total > KEPT_BYTES):
            break
        oldest = version
    return oldest
