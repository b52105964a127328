"""Auth's rows: one method, one transaction.

Whether a change is allowed is decided by pure rules before it gets here; what must hold against another
writer is a condition in the statement itself, and its outcome is what counts.
"""

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    String,
    bindparam,
    cast,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from mesh.core.names import InstanceId, TrustDomain
from services.auth import rows
from services.auth.database import Database
from services.auth.records import AuditEntry, Instance, Kind, PolicyNote, PolicyRow, RootRow, Secret, Token
from services.auth.schema import AUDIT, DOMAIN, EPOCH, INSTANCE, POLICY, REQUEST, SECRET, TOKEN

#: How many policies are kept, and how many bytes of them beside the one of record.
KEPT_POLICIES: Final = 100
KEPT_BYTES: Final = 64 * 1024 * 1024
POLICY_APPLIED: Final = "policy applied"
#: An instance is remembered a while after its certificate ended, for a clock that lags.
INSTANCE_KEEP_MS: Final = 600_000

_UNUSED: Final = or_(TOKEN.c.used_ms.is_(None), TOKEN.c.kind == Kind.OPERATOR.value)
_OPEN: Final = _UNUSED & TOKEN.c.revoked_ms.is_(None) & (TOKEN.c.expires_ms > bindparam("now_ms"))

# What every join runs: built once, for building costs more than running.
_TOKEN_BY_ID: Final = select(TOKEN).where(TOKEN.c.id == bindparam("token_id"))
_USE_TOKEN: Final = (
    update(TOKEN)
    .where((TOKEN.c.id == bindparam("token_id")) & _OPEN)
    .values(used_ms=bindparam("now_ms"), instance=bindparam("became"))
)


class Store:
    """What auth remembers."""

    def __init__(self, database: Database) -> None:
        """Take an open database."""
        self._database = database

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def found(self, domain: TrustDomain, secrets: Iterable[Secret], policy: PolicyRow) -> None:
        """Write what a trust domain starts with."""

        def work(connection: Connection) -> None:
            connection.execute(insert(DOMAIN).values(name=domain.text, created_ms=policy.applied_ms))
            for secret in secrets:
                rows.put_secret(connection, secret)
            rows.put_policy(connection, policy)

        self._database.transact(work)

    def domain(self) -> TrustDomain:
        """Give the trust domain; raise ``ValueError`` if there is none."""
        row = self._first(select(DOMAIN))
        return TrustDomain(row.name if row else "")

    def secret(self, name: str) -> Secret | None:
        """Give one of the trust domain's own secrets, sealed."""
        row = self._first(select(SECRET).where(SECRET.c.name == name))
        return rows.secret_of(row) if row else None

    def roots(self) -> list[RootRow]:
        """Give every epoch that is kept, oldest first."""
        return [rows.root_of(row) for row in self._all(select(EPOCH).order_by(EPOCH.c.number))]

    def turn_epochs(self, made: Iterable[RootRow], now_ms: int) -> None:
        """Add epochs, and forget those that nobody accepts any more."""

        def work(connection: Connection) -> None:
            for root in made:
                rows.put_root(connection, root)
                number = str(root.epoch.number.number)
                rows.put_entry(connection, AuditEntry(now_ms, "epoch made", detail=number))
            connection.execute(delete(EPOCH).where(EPOCH.c.accepted_until_ms <= now_ms))

        self._database.transact(work)

    def add_token(self, token: Token, entry: AuditEntry) -> None:
        """Add a token."""

        def work(connection: Connection) -> None:
            rows.put_token(connection, token)
            rows.put_entry(connection, entry)

        self._database.transact(work)

    def token(self, token_id: str) -> Token | None:
        """Give a token."""
        row = self._first(_TOKEN_BY_ID, token_id=token_id)
        return rows.token_of(row) if row else None

    def tokens(self) -> list[Token]:
        """Give all tokens, newest first."""
        newest_first = select(TOKEN).order_by(TOKEN.c.created_ms.desc(), TOKEN.c.id)
        return [rows.token_of(row) for row in self._all(newest_first)]

    def revoke_token(self, token_id: str, now_ms: int, entry: AuditEntry) -> bool:
        """Revoke a token, and the instances of an operator's credential; False if it was used or revoked."""
        which = (TOKEN.c.id == token_id) & TOKEN.c.revoked_ms.is_(None) & _UNUSED

        def work(connection: Connection) -> bool:
            if not connection.execute(update(TOKEN).where(which).values(revoked_ms=now_ms)).rowcount:
                return False
            its = INSTANCE.c.token_id == token_id
            connection.execute(update(INSTANCE).where(its).values(revoked_ms=now_ms))
            rows.put_entry(connection, entry)
            return True

        return self._database.transact(work)

    def consume(self, instance: Instance, entry: AuditEntry) -> bool:
        """Use an instance's token up and write the instance, both or neither.

        False, and nothing written, if the token is not open at ``joined_ms``, whoever was faster.
        """
        use = {"token_id": instance.token_id, "now_ms": instance.joined_ms, "became": instance.id.raw}

        def work(connection: Connection) -> bool:
            if not connection.execute(_USE_TOKEN, use).rowcount:
                return False
            rows.put_instance(connection, instance)
            rows.put_entry(connection, entry)
            return True

        return self._database.transact(work)

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
            connection.execute(delete(REQUEST).where(REQUEST.c.token_id.in_(select(TOKEN.c.id).where(old))))
            connection.execute(delete(TOKEN).where(old))
            connection.execute(delete(INSTANCE).where(INSTANCE.c.expires_ms < now_ms - INSTANCE_KEEP_MS))

        self._database.transact(work)

    def policy(self, version: int | None = None) -> PolicyRow | None:
        """Give the policy of record, or another version that is kept."""
        chosen = select(POLICY) if version is None else select(POLICY).where(POLICY.c.version == version)
        row = self._first(chosen.order_by(POLICY.c.version.desc()).limit(1))
        return rows.policy_of(row) if row else None

    def policies(self) -> list[PolicyNote]:
        """Give what is known of the policies that are kept, newest first."""
        by = (
            select(AUDIT.c.instance)
            .where(
                (AUDIT.c.token_id == "")
                & (AUDIT.c.event == POLICY_APPLIED)
                & (AUDIT.c.detail == cast(POLICY.c.version, String))
            )
            .limit(1)
            .scalar_subquery()
            .label("instance")
        )
        size = func.length(POLICY.c.document).label("size")
        listed = select(POLICY.c.version, POLICY.c.applied_ms, size, by)
        return [
            PolicyNote(row.version, row.applied_ms, row.size, row.instance or "")
            for row in self._all(listed.order_by(POLICY.c.version.desc()))
        ]

    def last_applied(self) -> int:
        """Give the newest version that was ever put on record, by the audit log; 0 for none."""
        newest = select(func.max(cast(AUDIT.c.detail, BigInteger))).where(
            (AUDIT.c.token_id == "") & (AUDIT.c.event == POLICY_APPLIED)
        )
        row = self._first(newest)
        return int(row[0] or 0) if row else 0

    def replace_policy(self, policy: PolicyRow, replaced: int, entry: AuditEntry) -> bool:
        """Put a newer policy on record; False if the one of record is not the one it was to replace.

        Earlier ones are kept, up to ``KEPT_POLICIES`` of them and ``KEPT_BYTES`` in all.
        """

        def work(connection: Connection) -> bool:
            in_force = connection.scalar(select(func.max(POLICY.c.version)))
            if in_force != replaced or in_force >= policy.version:
                return False
            rows.put_policy(connection, policy)
            kept = connection.execute(
                select(POLICY.c.version, func.length(POLICY.c.document)).order_by(POLICY.c.version.desc())
            )
            connection.execute(delete(POLICY).where(POLICY.c.version < _oldest_kept(kept)))
            rows.put_entry(connection, entry)
            return True

        return self._database.transact(work)

    def log(self, entry: AuditEntry) -> None:
        """Write an entry of the audit log."""
        self._database.transact(lambda connection: rows.put_entry(connection, entry))

    def is_logged(self, event: str, token_id: str) -> bool:
        """Whether such an event of a token is in the audit log already."""
        return self._exists((AUDIT.c.token_id == token_id) & (AUDIT.c.event == event))

    def last_logged_ms(self) -> int:
        """When the newest entry of the audit log was written; 0 without any."""
        newest = self._first(select(AUDIT.c.at_ms).order_by(AUDIT.c.id.desc()).limit(1))
        return int(newest.at_ms) if newest else 0

    def _exists(self, which: ColumnElement[bool]) -> bool:
        found = self._first(select(exists().where(which)))
        return bool(found and found[0])

    def _first(self, statement: Select[Any], **values: object) -> Row[Any] | None:
        return self._database.transact(lambda connection: connection.execute(statement, values).first())

    def _all(self, statement: Select[Any]) -> list[Row[Any]]:
        return self._database.transact(lambda connection: list(connection.execute(statement)))


def _oldest_kept(newest_first: Iterable[Any]) -> int:
    oldest, total = 0, 0
    for count, (version, size) in enumerate(newest_first):
        total += size if count else 0
        if count and (count >= KEPT_POLICIES or total > KEPT_BYTES):
            break
        oldest = version
    return oldest
